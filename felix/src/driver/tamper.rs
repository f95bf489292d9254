//! Notices when somebody else changes the table `inet margay`: without its rules pods have unpoliced network, so that
//! nobody should wait for the regular look.

use std::io;

use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};

use super::socket::NETFILTER;
use crate::nft::build::TABLE;
use crate::nla;

/// What the kernel reports at a time is at most 32 KiB.
const DATAGRAM: usize = 64 * 1024;

/// Reports changes of the table that are not ours.
pub struct Monitor {
    socket: TokioSocket,
    own: u32,
}

impl Monitor {
    /// Of the network namespace of this thread, in a tokio runtime. What is done over the socket with this port is not
    /// reported, see [`Nft::port`](super::nft::Nft::port).
    pub fn open(own: u32) -> io::Result<Self> {
        /// `NFNLGRP_NFTABLES`.
        const GROUP: u32 = 7;
        const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
        let mut socket = TokioSocket::new(NETFILTER)?;
        let raw = socket.socket_mut();
        raw.bind_auto()?;
        setsockopt(raw, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        raw.add_membership(GROUP)?;
        Ok(Self { socket, own })
    }

    /// Waits until somebody has changed the table, or may have. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut datagram = Vec::with_capacity(DATAGRAM);
            match self.socket.recv(&mut datagram).await {
                Ok(()) if nla::messages(&datagram).any(|message| self.concerns(&message)) => {
                    return Ok(());
                }
                Ok(()) => {}
                // Reports were lost, and that one may have been among them.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Every message but that of a new generation begins with the family, and has the table's name as attribute 1.
    fn concerns(&self, message: &nla::Received<'_>) -> bool {
        /// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_NEWGEN`.
        const NEW_GENERATION: u16 = 10 << 8 | 15;
        /// `NFPROTO_INET`.
        const INET: u8 = 1;
        if message.port == self.own || message.kind == NEW_GENERATION {
            return false;
        }
        let table = message.payload.get(4..).and_then(|rest| nla::find(rest, 1));
        message.payload.first() == Some(&INET) && table.is_some_and(|name| nla::text(name) == TABLE)
    }
}
