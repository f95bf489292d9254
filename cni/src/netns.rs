//! Work inside another network namespace.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// A network namespace, held open.
#[derive(Debug)]
pub struct NetNs(File);

impl NetNs {
    /// Opens the namespace at a path such as `/run/netns/x` or `/proc/1/ns/net`.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// Is it the namespace this process runs in?
    pub fn is_own(&self) -> io::Result<bool> {
        let (own, this) = (std::fs::metadata("/proc/self/ns/net")?, self.0.metadata()?);
        Ok((own.dev(), own.ino()) == (this.dev(), this.ino()))
    }

    /// The open file, to hand to the kernel in a message.
    pub const fn file(&self) -> &File {
        &self.0
    }

    /// Runs `work` inside the namespace, on a thread of its own: a namespace belongs to a thread, and one that has been
    /// elsewhere is never used again.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            inside
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the work inside the namespace panicked")))
        })
    }
}
