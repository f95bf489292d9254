//! Where the server listens: an address, in this or another network namespace.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;

use nix::sched::{CloneFlags, setns};

/// `ADDR:PORT` or `ADDR:PORT@/run/netns/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// The network namespace's file; `None` is our own.
    pub namespace: Option<PathBuf>,
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            namespace: None,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, namespace) = match text.split_once('@') {
            Some((address, namespace)) => (address, Some(PathBuf::from(namespace))),
            None => (text, None),
        };
        let address = address.parse().map_err(|_| {
            format!("{address:?} is not ADDRESS:PORT (such as 127.0.0.1:6443 or [::1]:6443)")
        })?;
        Ok(Self { address, namespace })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}@{}", self.address, namespace.display()),
            None => write!(f, "{}", self.address),
        }
    }
}

impl Listen {
    /// Opens the socket. Another namespace is entered by a thread that ends with that; sockets stay where they
    /// were made, whoever uses them.
    pub(crate) fn bind(&self) -> io::Result<TcpListener> {
        let listener = match &self.namespace {
            None => TcpListener::bind(self.address)?,
            Some(namespace) => thread::scope(|scope| {
                let bound = scope.spawn(|| {
                    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
                    TcpListener::bind(self.address)
                });
                bound
                    .join()
                    .map_err(|_| io::Error::other("the thread that binds has panicked"))?
            })?,
        };
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for text in ["127.0.0.1:6443", "[::1]:0", "127.0.0.1:6443@/run/netns/n1"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        assert!(
            "6443"
                .parse::<Listen>()
                .unwrap_err()
                .contains("ADDRESS:PORT")
        );
    }
}
