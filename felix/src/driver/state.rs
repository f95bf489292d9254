//! What felix keeps in its state directory: its instance id and the attachment log.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The state directory, 0700.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    log: File,
    /// Locked for as long as this process lives: two would give out the same addresses.
    _lock: File,
}

/// What an earlier life left.
#[derive(Debug)]
pub struct Left {
    /// The instance id; made anew when there was none.
    pub instance: String,
    /// The state directory is new: an earlier one with its log may have been lost.
    pub fresh: bool,
    /// Bytes of the attachment log.
    pub log: Vec<u8>,
    /// The node's addresses, as the API last named them.
    pub addresses: Vec<IpAddr>,
}

const INSTANCE: &str = "instance";
const LOCK: &str = "lock";
const LOG: &str = "attachments.log";
const ADDRESSES: &str = "addresses.json";

impl StateDir {
    /// Opens the directory, makes what is missing, reads what is there.
    pub fn open(dir: &Path) -> io::Result<(Self, Left)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| named(&e, dir))?;
        let lock = lock(dir)?;
        let (instance, fresh) = instance(dir)?;
        let path = dir.join(LOG);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path);
        let file = file.as_mut().map_err(|e| named(e, &path))?;
        let mut log = Vec::new();
        file.read_to_end(&mut log).map_err(|e| named(&e, &path))?;
        Ok((
            Self {
                dir: dir.to_owned(),
                log: file.try_clone()?,
                _lock: lock,
            },
            Left {
                instance,
                fresh,
                log,
                addresses: kept_addresses(dir),
            },
        ))
    }

    /// Appends a record. Not synced: the log is worth nothing after a reboot, and a crash of felix does not lose it.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.log
            .write_all(record)
            .map_err(|e| named(&e, &self.dir.join(LOG)))
    }

    /// Keeps the node's addresses.
    pub fn keep_addresses(&self, addresses: &[IpAddr]) -> io::Result<()> {
        let path = self.dir.join(ADDRESSES);
        replace(&path, &serde_json::to_vec(addresses)?).map_err(|e| named(&e, &path))
    }

    /// Replaces the log by `bytes`; it is the old or the new one, never a part.
    pub fn rewrite(&mut self, bytes: &[u8]) -> io::Result<()> {
        let path = self.dir.join(LOG);
        replace(&path, bytes).map_err(|e| named(&e, &path))?;
        self.log = OpenOptions::new().append(true).open(&path)?;
        Ok(())
    }
}

/// The kernel's boot id, from the file that has it.
pub fn boot_id(file: &Path) -> io::Result<String> {
    let id = fs::read_to_string(file).map_err(|e| named(&e, file))?;
    Ok(id.trim().to_owned())
}

/// They save a wait, no more: a file that cannot be read is as good as none.
fn kept_addresses(dir: &Path) -> Vec<IpAddr> {
    let bytes = fs::read(dir.join(ADDRESSES)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// A new random id.
pub fn random_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/uuid").map(|id| id.trim().to_owned())
}

fn lock(dir: &Path) -> io::Result<File> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| named(&e, &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what = format!(
                "{}: another margay-felix runs with this state directory; stop it first, or give this one a --state-dir of its own",
                dir.display()
            );
            Err(io::Error::new(io::ErrorKind::ResourceBusy, what))
        }
        Err(TryLockError::Error(error)) => Err(named(&error, &path)),
    }
}

fn instance(dir: &Path) -> io::Result<(String, bool)> {
    let path = dir.join(INSTANCE);
    match fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok((id.trim().to_owned(), false)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&error, &path)),
        _ => {}
    }
    let id = random_id()?;
    replace(&path, id.as_bytes()).map_err(|e| named(&e, &path))?;
    Ok((id, true))
}

/// Writes a file whole, then puts it in place.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn named(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_stays_and_the_log_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("margay");
        let (mut state, left) = StateDir::open(&dir).unwrap();
        assert!(left.fresh && left.log.is_empty());
        state.append(b"one").unwrap();
        state.append(b"two").unwrap();
        let second = StateDir::open(&dir).unwrap_err();
        assert!(
            second.to_string().contains("another margay-felix"),
            "{second}"
        );
        drop(state);
        let (mut state, again) = StateDir::open(&dir).unwrap();
        assert_eq!(
            (again.instance.as_str(), again.fresh),
            (left.instance.as_str(), false)
        );
        assert_eq!(again.log, b"onetwo");
        state.rewrite(b"three").unwrap();
        state.append(b"four").unwrap();
        drop(state);
        assert_eq!(StateDir::open(&dir).unwrap().1.log, b"threefour");
    }
}
