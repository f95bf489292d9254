//! Sessions that outlive the program, in a file between two lives.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::bfd::Parked;

/// Version of the file's format.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// Until then their peers wait.
    until: SystemTime,
    sessions: Vec<Parked>,
}

/// Where they are kept.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("bgpd-bfd.json")
}

/// Keeps sessions whose peers wait for so long.
pub(super) fn save(path: &Path, sessions: Vec<Parked>, wait: Duration) -> anyhow::Result<()> {
    let kept = Kept {
        version: VERSION,
        until: SystemTime::now() + wait,
        sessions,
    };
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let new = path.with_extension("json.new");
    std::fs::write(&new, serde_json::to_vec(&kept)?)?;
    std::fs::rename(&new, path)?;
    Ok(())
}

/// The sessions that an earlier life has kept and whose peers still wait. They are given once.
pub(super) fn take(path: &Path) -> anyhow::Result<Vec<Parked>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    std::fs::remove_file(path)?;
    let kept: Kept = serde_json::from_slice(&text)?;
    if kept.version != VERSION || kept.until < SystemTime::now() {
        return Ok(Vec::new());
    }
    Ok(kept.sessions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_given_once_and_not_too_late() {
        let tmp = tempfile::tempdir().unwrap();
        let path = path(tmp.path());
        assert_eq!(take(&path).unwrap(), []);
        let settings = crate::bfd::Settings {
            remote: [192, 0, 2, 1].into(),
            local: None,
            path: crate::bfd::Path::Multihop { least_ttl: 0 },
            transmit: 1,
            receive: 2,
            multiplier: 3,
        };
        let session = Parked {
            peer: crate::config::PeerKey::Address([192, 0, 2, 1].into()),
            settings,
            discriminator: 4,
            remote_discriminator: 5,
            interval: 6,
            remote: (7, 8, 9),
        };
        save(&path, vec![session.clone()], Duration::from_secs(60)).unwrap();
        assert_eq!(take(&path).unwrap(), std::slice::from_ref(&session));
        assert_eq!(take(&path).unwrap(), []);
        save(&path, vec![session], Duration::ZERO).unwrap();
        assert_eq!(take(&path).unwrap(), []);
    }
}
