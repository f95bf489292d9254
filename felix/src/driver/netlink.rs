//! Routes, nexthop objects and links in the kernel, over rtnetlink.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};

use super::socket::{Error, ROUTE, Refusal, Socket, refusal};
use crate::nft::diff::DOOMED;
use crate::nla;
use crate::policy::tables::Subject;
use crate::routes::diff::Op;
use crate::routes::model::{BGP_PROTOCOL, Entry, Kernel, Key, WORKLOAD_PROTOCOL};
use crate::routes::uplink::{Address, Link};
use crate::routes::want::Connected;
use crate::routes::wire::{self, kind};

/// What the kernel reports at a time is at most 32 KiB.
const DATAGRAM: usize = 64 * 1024;
/// Requests sent in one piece; the answers to those refused must fit the receive buffer.
const CHUNK: usize = 500;
/// `AF_UNSPEC`, `AF_INET`, `AF_INET6`.
const ANY: u8 = 0;
const IP4: u8 = 2;
const IP6: u8 = 10;

/// The interface by which packets for an address leave this network namespace, as far as the kernel says.
#[must_use]
pub fn towards(address: IpAddr) -> Option<String> {
    let asked = Netlink::open()
        .map_err(Error::from)
        .and_then(|mut netlink| netlink.route(address));
    asked
        .inspect_err(|error| tracing::warn!(%error, %address, "asking for a route"))
        .ok()
        .flatten()
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Applied {
    /// How many were done.
    pub done: usize,
    /// Routes which somebody else has at our key; they stay.
    pub conflicts: Vec<Key>,
    /// The others, with the kernel's reason. Read and make the difference again.
    pub failed: Vec<(Op, Refusal)>,
    /// Removals of nexthop objects left undone, as a route that failed might still refer to them.
    pub postponed: usize,
}

/// rtnetlink of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Of the network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: Socket::open(ROUTE)?,
        })
    }

    /// Port of the socket; events which our own requests cause carry it.
    pub fn port(&self) -> io::Result<u32> {
        self.socket.port()
    }

    /// Routes of the main table, and nexthop objects.
    pub fn read(&mut self) -> Result<Kernel, Error> {
        let mut kernel = Kernel::default();
        for family in [IP4, IP6] {
            let send = |flags, sequence| wire::dump(kind::GET_ROUTE, family, flags, sequence);
            let there = self.socket.dump(send, Kernel::default, |kernel, message| {
                wire::take_route(kernel, &message)
            });
            match there {
                Ok(there) => {
                    kernel.routes.extend(there.routes);
                    kernel.foreign.extend(there.foreign);
                }
                // A table that never had a route is none.
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        let send = |flags, sequence| wire::dump(kind::GET_NEXTHOP, ANY, flags, sequence);
        let there = self.socket.dump(send, Kernel::default, |kernel, message| {
            wire::take_nexthop(kernel, &message)
        })?;
        kernel.nexthops = there.nexthops;
        kernel.foreign_nexthops = there.foreign_nexthops;
        Ok(kernel)
    }

    /// Links by index.
    pub fn links(&mut self) -> Result<BTreeMap<u32, Link>, Error> {
        let send = |flags, sequence| wire::dump(kind::GET_LINK, ANY, flags, sequence);
        self.socket.dump(send, BTreeMap::new, |links, message| {
            wire::take_link(links, &message)
        })
    }

    /// The link of that name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut found = None;
        let asked = self.socket.request(
            |sequence| wire::link(name, sequence),
            |message| {
                if message.kind == kind::NEW_LINK {
                    found = wire::read_link(message.payload).map(|(_, link)| link);
                }
            },
        );
        match asked {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            asked => asked.map(|()| found),
        }
    }

    /// The interface by which packets for an address leave; `None` when none do.
    pub fn route(&mut self, address: IpAddr) -> Result<Option<String>, Error> {
        let mut found = None;
        let asked = self.socket.request(
            |sequence| wire::lookup(address, sequence),
            |message| {
                if message.kind == kind::NEW_ROUTE {
                    found = wire::read_output(message.payload);
                }
            },
        );
        match (asked, found) {
            (Ok(()), Some(ifindex)) => {
                Ok(self.links()?.get(&ifindex).map(|link| link.name.clone()))
            }
            (Ok(()), None) => Ok(None),
            (Err(error), _) => match error.errno() {
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => {
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }

    /// Own addresses.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let send = |flags, sequence| wire::dump(kind::GET_ADDRESS, ANY, flags, sequence);
        self.socket.dump(send, Vec::new, |addresses, message| {
            addresses.extend(wire::read_address(message.payload))
        })
    }

    /// What legs are resolved with.
    pub fn connected(&mut self) -> Result<Connected, Error> {
        let running: BTreeSet<_> = self
            .links()?
            .into_iter()
            .filter(|(_, link)| link.running)
            .map(|(ifindex, _)| ifindex)
            .collect();
        let own = self.addresses()?;
        let networks = own
            .iter()
            .map(|address| (address.network, address.ifindex))
            .collect();
        let addresses = own
            .iter()
            .filter(|address| address.usable)
            .map(|address| address.address)
            .collect();
        Ok(Connected {
            running,
            networks,
            addresses,
        })
    }

    /// Makes the requests, in order. One that fails does not stop the others, but nexthop objects then stay.
    pub fn apply(&mut self, ops: &[Op]) -> Result<Applied, Error> {
        let mut applied = Applied::default();
        let (removals, others): (Vec<_>, Vec<_>) = ops
            .iter()
            .partition(|op| matches!(op, Op::DeleteNexthop(_)));
        self.make(&others, &mut applied)?;
        if applied.failed.is_empty() {
            self.make(&removals, &mut applied)?;
        } else {
            applied.postponed = removals.len();
        }
        Ok(applied)
    }

    fn make(&mut self, ops: &[&Op], applied: &mut Applied) -> Result<(), Error> {
        for chunk in ops.chunks(CHUNK) {
            let refused = self.all(chunk, wire::op)?;
            applied.done += chunk.len() - refused.len();
            for (op, refusal) in refused {
                match (op, refusal.errno) {
                    (Op::AddRoute(key, _), libc::EEXIST) => applied.conflicts.push(*key),
                    // Gone is gone, whoever did it.
                    (Op::DeleteRoute(..), libc::ESRCH) | (Op::DeleteNexthop(_), libc::ENOENT) => {
                        applied.done += 1
                    }
                    _ => applied.failed.push((op.clone(), refusal)),
                }
            }
        }
        Ok(())
    }

    /// Sends one request per item in one piece, and returns those refused.
    fn all<'a, T>(
        &mut self,
        items: &[&'a T],
        encode: impl Fn(&'a T, u32) -> Vec<u8>,
    ) -> Result<Vec<(&'a T, Refusal)>, Error> {
        let first = self
            .socket
            .sequence(u32::try_from(items.len()).unwrap_or(u32::MAX));
        let bytes: Vec<u8> = items
            .iter()
            .zip(first..)
            .flat_map(|(item, sequence)| encode(item, sequence))
            .collect();
        let mut refused = Vec::new();
        self.socket.exchange(&bytes, |message| {
            let place = usize::try_from(message.sequence.wrapping_sub(first)).ok();
            if let (Some(refusal), Some(item)) =
                (refusal(&message), place.and_then(|place| items.get(place)))
            {
                refused.push((*item, refusal));
            }
        })?;
        Ok(refused)
    }

    /// Puts links into device groups. A link that is gone needs none.
    pub fn set_groups(&mut self, links: &[(String, Subject)]) -> Result<(), Error> {
        let items: Vec<_> = links.iter().collect();
        for chunk in items.chunks(CHUNK) {
            let refused = self.all(chunk, |(name, subject), sequence| {
                wire::set_group(name, subject.0, sequence)
            })?;
            if let Some((_, refusal)) = refused
                .into_iter()
                .find(|(_, refusal)| refusal.errno != libc::ENODEV)
            {
                return Err(Error::Kernel(refusal));
            }
        }
        Ok(())
    }

    /// Removes links: one that is gone already is no matter. The kernel waits out a grace period (tens of milliseconds) with
    /// its lock of all links held, once for each request, so that many links go in one.
    pub fn delete_links(&mut self, names: &[String]) -> Result<(), Error> {
        let mut outcome = match names {
            [] | [_] => Ok(()),
            many => self.delete_together(many),
        };
        for name in names {
            outcome = self.delete_link(name).map(drop).and(outcome);
        }
        outcome
    }

    fn delete_together(&mut self, names: &[String]) -> Result<(), Error> {
        let doomed: Vec<_> = names.iter().map(|name| (name.clone(), DOOMED)).collect();
        self.set_groups(&doomed)?;
        let links = self.links()?;
        let mut group = links.values().filter(|link| link.group == DOOMED.0);
        if !group.all(|link| names.contains(&link.name)) {
            // Somebody else's has that number. One by one, then.
            return Ok(());
        }
        let delete = |sequence| wire::delete_group(DOOMED.0, sequence);
        match self.socket.request(delete, |_| {}) {
            Err(error) if error.errno() != Some(libc::ENODEV) => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes a link; `false` when there was none.
    pub fn delete_link(&mut self, name: &str) -> Result<bool, Error> {
        match self
            .socket
            .request(|sequence| wire::delete_link(name, sequence), |_| {})
        {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Something that others, or the kernel by itself, did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link is there or has changed.
    Link(u32, Link),
    /// A link is gone, and its addresses, routes and nexthop objects with it.
    LinkGone(u32, Link),
    /// An address is there.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// Somebody made or changed a route of one of our protocols.
    RouteChanged(Key, Entry),
    /// A route is gone: of our protocols, or one that may have been in the way of ours.
    RouteGone(Key, Entry),
    /// A nexthop object has changed or is gone. The kernel says nothing of the routes it takes along.
    Nexthop,
    /// Events were lost: read everything again.
    Overrun,
}

/// Lets the kernel drop reports of what was done over the socket with this port before anybody is woken for them: ten
/// thousand routes of ours are as many reports.
fn all_but(port: u32) -> [SockFilter; 4] {
    /// Loads a word of the message, most significant byte first.
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Of the port in the header of a message.
    const PORT_AT: u32 = 12;
    [
        SockFilter::new(LOAD, 0, 0, PORT_AT),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from_be_bytes(port.to_ne_bytes())),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Reports what changes without our doing.
pub struct Monitor {
    socket: TokioSocket,
    own: u32,
}

impl Monitor {
    /// Of the network namespace of this thread, in a tokio runtime. What is done over the socket with this port is not
    /// reported, see [`Netlink::port`].
    pub fn open(own: u32) -> io::Result<Self> {
        // RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE, _NEXTHOP.
        const GROUPS: [u32; 6] = [1, 5, 7, 9, 11, 32];
        const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
        let mut socket = TokioSocket::new(ROUTE)?;
        let raw = socket.socket_mut();
        raw.bind_auto()?;
        setsockopt(raw, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        SockRef::from(&raw.as_fd()).attach_filter(&all_but(own))?;
        for group in GROUPS {
            raw.add_membership(group)?;
        }
        Ok(Self { socket, own })
    }

    /// Waits for the next events. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> io::Result<Vec<Event>> {
        loop {
            let mut datagram = Vec::with_capacity(DATAGRAM);
            let received = self.socket.recv(&mut datagram).await;
            let events: Vec<_> = match received {
                Ok(()) => nla::messages(&datagram)
                    .filter_map(|message| self.event(&message))
                    .collect(),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => vec![Event::Overrun],
                Err(error) => return Err(error),
            };
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    fn event(&self, message: &nla::Received<'_>) -> Option<Event> {
        if message.port == self.own {
            return None;
        }
        Some(match message.kind {
            kind::NEW_LINK => {
                wire::read_link(message.payload).map(|(index, link)| Event::Link(index, link))?
            }
            kind::DEL_LINK => wire::read_link(message.payload)
                .map(|(index, link)| Event::LinkGone(index, link))?,
            kind::NEW_ADDRESS => Event::Address(wire::read_address(message.payload)?),
            kind::DEL_ADDRESS => Event::AddressGone(wire::read_address(message.payload)?),
            kind::NEW_ROUTE => {
                let (key, entry) = wire::read_route(message.payload)?;
                if !matches!(entry.protocol, WORKLOAD_PROTOCOL | BGP_PROTOCOL) {
                    return None;
                }
                Event::RouteChanged(key, entry)
            }
            kind::DEL_ROUTE => wire::read_route(message.payload)
                .map(|(key, entry)| Event::RouteGone(key, entry))?,
            kind::NEW_NEXTHOP | kind::DEL_NEXTHOP => Event::Nexthop,
            _ => return None,
        })
    }
}
