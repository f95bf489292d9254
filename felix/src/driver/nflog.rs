//! Reads the packets that rules of the table hand over. A kernel that cannot do it costs the events, nothing else.

use std::io;
use std::time::Duration;

use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::mpsc;

use super::socket::{NETFILTER, refusal};
use crate::agent::input::Input;
use crate::nft::build::LOG_GROUP;
use crate::nft::log::{self, Logged};
use crate::nla;

/// What the kernel collects before it tells is at most this long.
const DATAGRAM: usize = 128 * 1024;

/// Between two tries: who reads the group instead may have gone.
const PAUSE: Duration = Duration::from_secs(5);

/// Reads the group until nobody takes its packets, and says when that fails, and when it does not any more.
pub async fn keep(to: mpsc::Sender<Logged>, told: mpsc::Sender<Input>) {
    loop {
        let problem = match Reader::open().await {
            Ok(reader) => {
                if told.send(Input::EventsRead(None)).await.is_err() {
                    return;
                }
                match reader.run(to.clone()).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let problem = Input::EventsRead(Some(problem.to_string()));
        if told.send(problem).await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The group's reader.
pub struct Reader {
    socket: TokioSocket,
}

impl Reader {
    /// Of the network namespace of this thread, in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel has no `nfnetlink_log`, or somebody else reads the group.
    pub async fn open() -> io::Result<Self> {
        match Self::bind(true).await {
            // A kernel may have netlink log and not say what connection tracking knows (`NETFILTER_NETLINK_GLUE_CT`).
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Self::bind(false).await,
            bound => bound,
        }
    }

    async fn bind(connections: bool) -> io::Result<Self> {
        const RECEIVE_BUFFER: usize = 1024 * 1024;
        const SEQUENCE: u32 = 1;
        let mut socket = TokioSocket::new(NETFILTER)?;
        let raw = socket.socket_mut();
        raw.bind_auto()?;
        setsockopt(raw, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        let kernel = netlink_sys::SocketAddr::new(0, 0);
        socket
            .send_to(&log::bind(LOG_GROUP, connections, SEQUENCE), &kernel)
            .await?;
        let mut reader = Self { socket };
        loop {
            let datagram = reader.receive().await?;
            for message in nla::messages(&datagram) {
                // Packets may come before the acknowledgement.
                if message.sequence == SEQUENCE && message.kind != log::PACKET {
                    return match refusal(&message) {
                        Some(refused) => Err(io::Error::from_raw_os_error(refused.errno)),
                        None => Ok(reader),
                    };
                }
            }
        }
    }

    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        self.socket.recv(&mut datagram).await?;
        Ok(datagram)
    }

    /// Hands packets on until nobody takes them. One too many is dropped: the kernel's limit makes that rare.
    pub async fn run(mut self, to: mpsc::Sender<Logged>) -> io::Result<()> {
        while !to.is_closed() {
            let datagram = match self.receive().await {
                Ok(datagram) => datagram,
                // Packets were lost; there will be others.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(error) => return Err(error),
            };
            for message in nla::messages(&datagram).filter(|it| it.kind == log::PACKET) {
                if let Some(logged) = log::read(message.payload) {
                    let _ = to.try_send(logged);
                }
            }
        }
        Ok(())
    }
}
