//! Whether this program has run before in the same boot of the machine: only then has it restarted, for its peers.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tracing::warn;

/// Name of the file in the state directory; it holds the boot in which the program ran last.
const NAME: &str = "bgpd.boot";

/// What is known of an earlier life.
#[derive(Debug, Default)]
pub(crate) struct Life {
    path: PathBuf,
    /// The boot in which it ran.
    boot_id: Option<String>,
}

impl Life {
    /// Looks for the traces of an earlier life.
    pub(crate) fn find(state_dir: &Path) -> Self {
        let path = state_dir.join(NAME);
        let boot_id = std::fs::read_to_string(&path).ok();
        Self { path, boot_id }
    }

    /// Whether there was a life before this one in that boot; leaves a trace of this one.
    pub(crate) fn restarted(&self, boot_id: &str) -> bool {
        let restarted = self.boot_id.as_deref() == Some(boot_id);
        if !restarted && let Err(e) = self.leave(boot_id) {
            warn!(path = %self.path.display(), error = %e, "cannot be written: the next start will not be taken for a restart");
        }
        restarted
    }

    /// Where BFD sessions wait for the next life; None: nothing is kept.
    pub(crate) fn bfd(&self) -> Option<PathBuf> {
        let dir = self.path.parent()?;
        Some(super::bfd::parked::path(dir))
    }

    fn leave(&self, boot_id: &str) -> std::io::Result<()> {
        if let Some(dir) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        // A loss of power ends the boot as well, so nothing has to be on the disk.
        let new = self.path.with_extension("boot.new");
        std::fs::write(&new, boot_id)?;
        std::fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_a_restart_only_after_another_one_in_the_same_boot() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("margay");
        assert!(!Life::find(&dir).restarted("first"));
        assert!(Life::find(&dir).restarted("first"));
        assert!(
            !Life::find(&dir).restarted("second"),
            "the machine rebooted"
        );
        assert!(Life::find(&dir).restarted("second"));
    }
}
