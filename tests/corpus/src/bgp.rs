//! What bgpd reads beside packets.

use api::v1::{BgpdMessage, FelixMessage};
use bgpd::config::Config;
use felix::agent::bgp::Bgp;
use prost::Message as _;

/// Any text is a configuration, or an error in one line that names its place.
pub(crate) fn config_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match bgpd::config::file::parse(text) {
        Ok(file) => {
            let json = serde_json::to_string(&file.config).unwrap_or_default();
            let read = serde_json::from_str::<Config>(&json).ok();
            assert_eq!(read, Some(file.config), "what is kept is read");
        }
        Err(error) => assert!(!error.brief(text).is_empty()),
    }
}

/// Any file is what the daemon kept in an earlier life, or nothing.
pub(crate) fn kept(bytes: &[u8]) {
    bgpd::driver::exercise::kept(bytes);
}

/// Any text is a recording that is replayed, or an error that says where it is none.
pub(crate) fn recording(bytes: &[u8]) {
    bgpd::driver::exercise::recording(bytes);
}

/// Any bytes as messages of both ends of the contract between felix and bgpd.
pub(crate) fn grpc(bytes: &[u8]) {
    let mut bgp = Bgp::new("felix".into(), "boot".into(), [true, true]);
    bgp.connect();
    // Each one behind its length.
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first() {
        let (message, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        if let Ok(message) = FelixMessage::decode(message) {
            bgpd::driver::exercise::felix(message);
        }
        if let Ok(message) = BgpdMessage::decode(message) {
            bgp.take(message);
            let known: Vec<_> = bgp.prefixes().copied().collect();
            assert_eq!(known.len(), bgp.routes());
            let legs = |it| bgp.legs(it).is_some_and(|legs| !legs.is_empty());
            assert!(known.iter().all(legs), "a best route has a way");
        }
    }
}
