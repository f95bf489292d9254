//! What outlives a restart: the last good configuration, for a start without the API, and what is drained.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::speaker::DrainRequest;

/// Name of the file in the state directory.
const NAME: &str = "bgpd.json";

/// Name of the file with what is drained.
const DRAIN_NAME: &str = "bgpd-drain.json";

/// Version of the files' formats; one up and one down are understood.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Kept<'a> {
    version: u32,
    config: &'a Config,
}

#[derive(Serialize, Deserialize)]
struct KeptDrain {
    version: u32,
    drain: DrainRequest,
}

#[derive(Deserialize)]
struct Found {
    version: u32,
    config: Config,
}

/// Where it is kept.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// Replaces the kept configuration, whole or not at all.
pub(crate) fn save(path: &Path, config: &Config) -> anyhow::Result<()> {
    replace(path, &text(config)?)
}

/// What a configuration is kept as.
pub(super) fn text(config: &Config) -> anyhow::Result<Vec<u8>> {
    serde_json::to_vec(&Kept {
        version: VERSION,
        config,
    })
    .context("cannot be written as JSON")
}

/// Where what is drained is kept.
pub(crate) fn drain_path(state_dir: &Path) -> PathBuf {
    state_dir.join(DRAIN_NAME)
}

/// Keeps what is drained on somebody's request.
pub(crate) fn save_drain(path: &Path, request: &DrainRequest) -> anyhow::Result<()> {
    if *request == DrainRequest::default() && !path.exists() {
        return Ok(());
    }
    replace(path, &drain_text(request)?)
}

/// What is drained, as it is kept.
pub(super) fn drain_text(request: &DrainRequest) -> anyhow::Result<Vec<u8>> {
    serde_json::to_vec(&KeptDrain {
        version: VERSION,
        drain: request.clone(),
    })
    .context("cannot be written as JSON")
}

/// What was drained on somebody's request.
pub(crate) fn load_drain(path: &Path) -> anyhow::Result<DrainRequest> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(DrainRequest::default()),
        Err(e) => return Err(e.into()),
    };
    read_drain(&text)
}

/// Reads what was drained.
pub(super) fn read_drain(text: &[u8]) -> anyhow::Result<DrainRequest> {
    let found: KeptDrain = serde_json::from_slice(text)?;
    understood(found.version)?;
    Ok(found.drain)
}

/// Replaces a file, whole or not at all.
fn replace(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    if std::fs::read(path).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    let dir = path.parent().context("it has no directory")?;
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let new = path.with_extension("json.new");
    // A left-over of a crash might have another mode.
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    // The name is in the directory, which is written on its own.
    File::open(dir)?.sync_all()?;
    Ok(())
}

/// The kept configuration; None: there is none.
pub(crate) fn load(path: &Path) -> anyhow::Result<Option<Config>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    read(&text).map(Some)
}

/// Reads a kept configuration.
pub(super) fn read(text: &[u8]) -> anyhow::Result<Config> {
    let found: Found = serde_json::from_slice(text)?;
    understood(found.version)?;
    Ok(found.config)
}

fn understood(version: u32) -> anyhow::Result<()> {
    anyhow::ensure!(
        version.abs_diff(VERSION) <= 1,
        "it has version {version} and this program writes {VERSION}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Peer;

    fn config() -> Config {
        let text =
            "{asNumber: 65001, routerID: 192.0.2.1, peers: [{peerIP: 192.0.2.2, asNumber: 65002}]}";
        crate::config::file::parse(text).unwrap().config
    }

    #[test]
    fn what_is_saved_is_loaded_and_private() {
        let tmp = tempfile::tempdir().unwrap();
        let path = path(&tmp.path().join("margay"));
        assert_eq!(load(&path).unwrap(), None);
        save(&path, &config()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(config()));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut other = config();
        other.hold_time = 30;
        save(&path, &other).unwrap();
        assert_eq!(load(&path).unwrap(), Some(other));
        assert_eq!(
            std::fs::read_dir(tmp.path().join("margay"))
                .unwrap()
                .count(),
            1
        );
    }

    #[test]
    fn what_is_drained_is_remembered() {
        let tmp = tempfile::tempdir().unwrap();
        let path = drain_path(tmp.path());
        let nothing = DrainRequest::default();
        assert_eq!(load_drain(&path).unwrap(), nothing);
        save_drain(&path, &nothing).unwrap();
        assert!(!path.exists(), "nothing to remember");
        let peer = crate::config::PeerKey::Address([192, 0, 2, 1].into());
        let request = DrainRequest {
            node: crate::config::Drain::Everything,
            force: true,
            peers: [peer].into(),
        };
        save_drain(&path, &request).unwrap();
        assert_eq!(load_drain(&path).unwrap(), request);
        save_drain(&path, &nothing).unwrap();
        assert_eq!(load_drain(&path).unwrap(), nothing);
    }

    #[test]
    fn half_a_file_is_an_error_and_not_a_configuration() {
        let tmp = tempfile::tempdir().unwrap();
        let path = path(tmp.path());
        save(&path, &config()).unwrap();
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(load(&path).is_err());
    }

    /// Written by the version that knew no options of a peer yet.
    const EARLIER: &str = r#"{"version":1,"config":{"router_id":"10.0.1.1","asn":4200000001,"listen_port":179,
        "hold_time":90,"peers":[{"name":"tor-a","key":{"Address":"10.0.1.254"},"port":179,"remote_asn":64601,
        "local_asn":null,"local_address":null,"families":["ipv4"],"passive":false,"hold_time":9,"export":"Origins",
        "import":"Pools","timers":{"connect":20000,"retry_min":500,"retry_max":15000,"keepalive":null}}],
        "pools":[{"cidr":"10.244.0.0/16","block_size":26}],"import_ranges":["192.0.2.0/24"],"origins":[],
        "multipath":16}}"#;

    #[test]
    fn what_an_earlier_version_kept_is_understood() {
        let tmp = tempfile::tempdir().unwrap();
        let path = path(tmp.path());
        std::fs::write(&path, EARLIER).unwrap();
        let config = load(&path).unwrap().unwrap();
        let mut peer = Peer::new("10.0.1.254".parse().unwrap(), 64601);
        peer.name = "tor-a".to_owned();
        peer.hold_time = Some(9);
        assert_eq!(config.peers, [peer]);
        let fresh = Config::new(4_200_000_001, "10.0.1.1".parse().unwrap());
        assert_eq!(config.selection_deferral, fresh.selection_deferral);
        assert_eq!((config.drain, config.filters), (fresh.drain, fresh.filters));
    }
}
