//! Forgetting what connections are stamped with (`linux/netfilter/nfnetlink_conntrack.h`).

use super::socket::{Error, NETFILTER, Socket};
use crate::nft::epoch::{Epoch, MarkByte};
use crate::nla::{self, Message};

const SUBSYSTEM: u8 = 1;
const NEW: u8 = 0;
const GET: u8 = 1;
const TUPLE_ORIGINAL: u16 = 1;
const MARK: u16 = 8;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
const REQUEST: u16 = 1;
/// Updates sent in one piece.
const CHUNK: usize = 256;

/// Connection tracking of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Of the network namespace of this thread.
    pub fn open() -> std::io::Result<Self> {
        Ok(Self {
            socket: Socket::open(NETFILTER)?,
        })
    }

    /// Takes the epoch from every connection, so that each is judged again. Returns how many had one.
    pub fn forget_all(&mut self, byte: MarkByte) -> Result<usize, Error> {
        let low = self.forget(byte, 0, byte.top())?;
        Ok(low + self.forget(byte, byte.top(), byte.top())?)
    }

    /// Takes the epoch from connections that were stamped in an earlier cycle with a number about to be used again.
    pub fn forget_before(&mut self, byte: MarkByte, epoch: Epoch) -> Result<usize, Error> {
        byte.stale_half(epoch)
            .map_or(Ok(0), |(value, mask)| self.forget(byte, value, mask))
    }

    /// Of connections whose mark under the mask is the value.
    fn forget(&mut self, byte: MarkByte, value: u32, mask: u32) -> Result<usize, Error> {
        let request = |flags, sequence| {
            let mut message = message(GET, 0, REQUEST | flags, sequence);
            message.be32(MARK, value);
            message.be32(MARK_MASK, mask);
            message.finish()
        };
        let stamped = self.socket.dump(request, Vec::new, |stamped, message| {
            stamped.extend(unstamp(message.payload, byte.mask()))
        })?;
        for chunk in stamped.chunks(CHUNK) {
            // A connection that ended meanwhile is refused, which is as good.
            self.socket.exchange(&chunk.concat(), |_| {})?;
        }
        Ok(stamped.len())
    }
}

/// The message which clears the epoch of the connection in this one, if it has an epoch.
fn unstamp(payload: &[u8], bits: u32) -> Option<Vec<u8>> {
    let family = *payload.first()?;
    let attributes = payload.get(4..)?;
    let mark = nla::find(attributes, MARK).and_then(nla::be32)?;
    if mark & bits == 0 {
        return None;
    }
    let mut message = message(NEW, family, REQUEST, 0);
    message.bytes(
        TUPLE_ORIGINAL | 0x8000,
        nla::find(attributes, TUPLE_ORIGINAL)?,
    );
    if let Some(zone) = nla::find(attributes, ZONE) {
        message.bytes(ZONE, zone);
    }
    message.be32(MARK, 0);
    message.be32(MARK_MASK, bits);
    Some(message.finish())
}

fn message(kind: u8, family: u8, flags: u16, sequence: u32) -> Message {
    Message::new(
        u16::from_be_bytes([SUBSYSTEM, kind]),
        flags,
        sequence,
        &[family, 0, 0, 0],
    )
}
