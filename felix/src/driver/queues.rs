//! Queues of host interfaces (`linux/pkt_sched.h`): a token bucket on the host's end of a pod's link limits what the pod gets.
//! Only those with our handle are ever changed or removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::socket::{self, ROUTE, Socket};
use crate::nla::{self, Message};
use crate::terms::annotations::Shape;

const NEW: u16 = 36;
const DELETE: u16 = 37;
const GET: u16 = 38;
/// `NLM_F_REQUEST`, that with `NLM_F_ACK`, and `NLM_F_CREATE | NLM_F_REPLACE`.
const REQUEST: u16 = 1;
const ACK: u16 = REQUEST | 4;
const CREATE: u16 = 0x400 | 0x100;
/// Handle of our queues: nobody else's tool picks it by itself.
const HANDLE: u32 = 0x6d67_0000;
/// `TC_H_ROOT`.
const ROOT: u32 = u32::MAX;
/// Part of a second that packets may wait.
const LATENCY: u64 = 40;

/// Bytes in a second, and bytes that may wait, as the kernel has them.
type Held = (u64, u32);

/// The queues of one network namespace.
#[derive(Debug)]
pub(super) struct Queues {
    socket: Socket,
    /// What was set; `None`: the kernel is to be asked.
    held: Option<BTreeMap<String, Held>>,
}

impl Queues {
    /// Of the network namespace of this thread.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: Socket::open(ROUTE)?,
            held: None,
        })
    }

    /// Asks the kernel before the next change.
    pub(super) fn look_again(&mut self) {
        self.held = None;
    }

    /// Makes the queues as wanted.
    pub(super) fn set(&mut self, wanted: &BTreeMap<String, Shape>) -> Result<(), socket::Error> {
        let mut held = match self.held.take() {
            Some(held) => held,
            None => self.read()?,
        };
        let gone: BTreeSet<String> = held
            .keys()
            .filter(|name| !wanted.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            held.remove(&name);
            self.change(&name, None)?;
        }
        for (name, shape) in wanted {
            if held.get(name) != Some(&wants(*shape)) && self.change(name, Some(*shape))? {
                held.insert(name.clone(), wants(*shape));
            }
        }
        self.held = Some(held);
        Ok(())
    }

    /// Are the kernel's queues others than these?
    pub(super) fn strayed(
        &mut self,
        wanted: &BTreeMap<String, Shape>,
    ) -> Result<bool, socket::Error> {
        let wanted = wanted.iter().filter(|(name, _)| index(name).is_some());
        let wanted: BTreeMap<String, Held> = wanted
            .map(|(name, shape)| (name.clone(), wants(*shape)))
            .collect();
        Ok(self.read()? != wanted)
    }

    fn read(&mut self) -> Result<BTreeMap<String, Held>, socket::Error> {
        let send =
            |flags, sequence| Message::new(GET, REQUEST | flags, sequence, &fixed(0, 0)).finish();
        let by_index = self.socket.dump(send, BTreeMap::new, |held, message| {
            held.extend(ours(message.payload));
        })?;
        let named = by_index.into_iter().filter_map(|(index, held)| {
            let name = nix::net::if_::if_indextoname(index).ok()?;
            Some((name.into_string().ok()?, held))
        });
        Ok(named.collect())
    }

    /// Sets or removes a queue; `false` when there is no such interface.
    fn change(&mut self, name: &str, shape: Option<Shape>) -> Result<bool, socket::Error> {
        let Some(index) = index(name) else {
            return Ok(false);
        };
        let send = |sequence| match shape {
            Some(shape) => bucket(index, shape, sequence),
            None => Message::new(DELETE, ACK, sequence, &fixed(index, HANDLE)).finish(),
        };
        match self.socket.request(send, |_| {}) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::ENOENT)) => Ok(false),
            // A queue that is gone, whoever removed it.
            Err(error) if shape.is_none() && error.errno() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

fn wants(shape: Shape) -> Held {
    let waiting = u32::try_from(shape.rate / LATENCY).unwrap_or(u32::MAX);
    (shape.rate, shape.burst.saturating_add(waiting))
}

/// `struct tcmsg`.
fn fixed(index: u32, handle: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&handle.to_ne_bytes());
    bytes[12..16].copy_from_slice(&ROOT.to_ne_bytes());
    bytes
}

fn bucket(index: u32, shape: Shape, sequence: u32) -> Vec<u8> {
    const ETHERNET: u8 = 1;
    let (rate, waiting) = wants(shape);
    // `struct tc_tbf_qopt`: two rates of 12 bytes each, bytes that wait, the bucket (told as bytes below), its MTU.
    let mut parameters = [0; 36];
    parameters[1] = ETHERNET;
    let small = u32::try_from(rate).unwrap_or(u32::MAX);
    parameters[8..12].copy_from_slice(&small.to_ne_bytes());
    parameters[24..28].copy_from_slice(&waiting.to_ne_bytes());
    let mut message = Message::new(NEW, ACK | CREATE, sequence, &fixed(index, HANDLE));
    message.string(1, "tbf");
    message.nest(2, |options| {
        options.bytes(1, &parameters);
        if rate > u64::from(u32::MAX) - 1 {
            options.bytes(4, &rate.to_ne_bytes());
        }
        options.ne32(6, shape.burst);
    });
    message.finish()
}

/// The interface and what is held, if the queue is one of ours.
fn ours(payload: &[u8]) -> Option<(u32, Held)> {
    let word = |at: usize| payload.get(at..at + 4).and_then(nla::ne32);
    let (index, handle) = (word(4)?, word(8)?);
    let attributes = payload.get(20..)?;
    let kind = nla::find(attributes, 1).map(nla::text)?;
    if handle != HANDLE || kind != "tbf" {
        return None;
    }
    let options = nla::find(attributes, 2)?;
    let parameters = nla::find(options, 1)?;
    let number = |at: usize| parameters.get(at..at + 4).and_then(nla::ne32);
    let large = nla::find(options, 4).and_then(|it| it.first_chunk().copied());
    let rate = large.map_or_else(
        || number(8).map(u64::from),
        |it| Some(u64::from_ne_bytes(it)),
    );
    Some((index, (rate?, number(24)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_recognised() {
        for shape in [
            Shape {
                rate: 125_000,
                burst: 262_144,
            },
            Shape {
                rate: 125_000_000_000_000,
                burst: u32::MAX,
            },
        ] {
            let bytes = bucket(7, shape, 1);
            assert_eq!(ours(&bytes[nla::HEADER..]), Some((7, wants(shape))));
        }
        assert_eq!(ours(&[0; 40]), None);
        assert_eq!(ours(&[]), None);
    }
}
