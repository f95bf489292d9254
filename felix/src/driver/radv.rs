//! Router advertisements (RFC 4861 section 6.2) on the interfaces that bgpd asks for: so that a peer on an interface learns
//! the address it can connect to. They offer no default route, no prefix and no parameter.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

use api::v1::{BgpdMessage, bgpd_message};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

/// All nodes on a link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// RFC 4861 section 6.1.2: what passed a router is not believed.
const HOP_LIMIT: u32 = 255;
const ADVERTISEMENT: u8 = 134;
const SOURCE_LINK_LAYER: u8 = 1;

/// An interface that has just come is told of itself several times, in case its link is not ready.
const FIRST: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// RFC 4861 section 6.2.1 has 3 seconds as the least.
const PAUSE: Duration = Duration::from_secs(5);

/// The interfaces that a message of bgpd's asks for; `None`: it says something else.
pub fn asked(message: &BgpdMessage) -> Option<&[String]> {
    match &message.body {
        Some(bgpd_message::Body::Advertise(advertise)) => Some(&advertise.interfaces),
        _ => None,
    }
}

/// Sends them for as long as it lives.
#[derive(Debug, Default)]
pub struct Advertiser {
    tasks: BTreeMap<String, JoinHandle<()>>,
}

impl Advertiser {
    /// Sends on these interfaces from now on.
    pub fn set(&mut self, interfaces: &[String]) {
        self.tasks.retain(|name, task| {
            let wanted = interfaces.contains(name);
            if !wanted {
                tracing::info!(name, "no more router advertisements");
                task.abort();
            }
            wanted
        });
        for name in interfaces {
            self.tasks.entry(name.clone()).or_insert_with(|| {
                tracing::info!(name, "sending router advertisements");
                tokio::spawn(advertise(name.clone()))
            });
        }
    }
}

impl Drop for Advertiser {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

async fn advertise(name: String) {
    let mut pauses = tokio::time::interval(FIRST_PAUSE);
    pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0;
    let mut failure = None;
    loop {
        pauses.tick().await;
        match send(&name) {
            Ok(()) => {
                failure = None;
                sent += 1;
                if sent == FIRST {
                    pauses = tokio::time::interval_at(Instant::now() + PAUSE, PAUSE);
                }
            }
            Err(error) => {
                let text = error.to_string();
                if failure.as_ref() != Some(&text) {
                    tracing::warn!(
                        name,
                        error = text,
                        "router advertisements cannot be sent; trying on"
                    );
                    failure = Some(text);
                }
                // When the link comes, whoever comes with it hears of it soon.
                if sent >= FIRST {
                    sent = 0;
                    pauses = tokio::time::interval_at(Instant::now() + FIRST_PAUSE, FIRST_PAUSE);
                }
            }
        }
    }
}

/// Sends one. The socket is opened anew, as it costs little and nothing has to be noticed of the interface.
fn send(name: &str) -> io::Result<()> {
    let ifindex = nix::net::if_::if_nametoindex(name)?;
    let address = std::fs::read_to_string(Path::new("/sys/class/net").join(name).join("address"))?;
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_hops_v6(HOP_LIMIT)?;
    // This machine is not its own router.
    socket.set_multicast_loop_v6(false)?;
    let to = SocketAddrV6::new(ALL_NODES, 0, 0, ifindex);
    socket.send_to(&message(link_layer(&address)), &to.into())?;
    Ok(())
}

/// An Ethernet address as the kernel writes it, `02:00:00:00:00:01`.
fn link_layer(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .trim()
        .split(':')
        .map(|it| u8::from_str_radix(it, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

/// RFC 4861 section 4.2: no hop limit, no flags, no lifetime, no times. The kernel adds the checksum.
fn message(link_layer: Option<[u8; 6]>) -> Vec<u8> {
    let mut message = vec![0; 16];
    message[0] = ADVERTISEMENT;
    if let Some(address) = link_layer {
        // In units of 8 bytes.
        message.extend([SOURCE_LINK_LAYER, 1]);
        message.extend(address);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_names_its_sender_and_offers_nothing() {
        let message = message(link_layer("02:00:5e:00:53:01\n"));
        assert_eq!(message.len(), 24);
        assert_eq!(message[..2], [134, 0]);
        assert_eq!(
            message[2..16],
            [0; 14],
            "above all no lifetime as a default router"
        );
        assert_eq!(message[16..], [1, 1, 0x02, 0x00, 0x5e, 0x00, 0x53, 0x01]);
        assert_eq!(link_layer("00:00:00:00"), None);
    }
}
