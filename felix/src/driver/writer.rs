//! The kernel's routes have one writer: whoever holds a lock in the run directory, felix or margay-fib.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Name of the lock in the run directory.
const LOCK: &str = "routes.lock";

/// The right to write routes, for as long as it lives.
#[derive(Debug)]
pub struct Writer {
    _lock: File,
}

impl Writer {
    /// Takes the right for `program`.
    ///
    /// # Errors
    ///
    /// When another process has it, which is named, or the run directory cannot be written.
    pub fn take(run_dir: &Path, program: &str) -> io::Result<Self> {
        let path = run_dir.join(LOCK);
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(run_dir)
            .map_err(named)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(named)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).map_err(named)?;
                let problem = format!(
                    "{}: {} writes this machine's routes; stop it first",
                    path.display(),
                    holder.trim()
                );
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, problem));
            }
            Err(TryLockError::Error(error)) => return Err(named(error)),
        }
        lock.set_len(0).map_err(named)?;
        lock.rewind().map_err(named)?;
        writeln!(lock, "{program} (process {})", std::process::id()).map_err(named)?;
        Ok(Self { _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_and_the_next_one_hears_who() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("run");
        let first = Writer::take(&dir, "margay-felix").unwrap();
        let refused = Writer::take(&dir, "margay-fib").unwrap_err().to_string();
        assert!(refused.contains("margay-felix (process"), "{refused}");
        drop(first);
        let _second = Writer::take(&dir, "margay-fib").unwrap();
        let refused = Writer::take(&dir, "margay-felix").unwrap_err().to_string();
        assert!(refused.contains("margay-fib (process"), "{refused}");
    }
}
