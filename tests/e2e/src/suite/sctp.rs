//! SCTP without a kernel that speaks it: packets made by hand, and whoever hears them.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use lab::netns;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Suite, World, until};

/// How long a packet may take before it counts as dropped.
const SILENCE: Duration = Duration::from_millis(300);
const SCTP: i32 = 132;

impl Suite {
    /// Waits until the first packet of an association arrives, or does not, in both families. `from` and `to` are lists
    /// of places, as in a [`Row`](super::Row).
    #[track_caller]
    pub fn expect_sctp(&self, world: World<'_>, from: &str, to: &str, port: u16, allowed: bool) {
        for from in from.split_whitespace().map(|short| world.place(short)) {
            for to in to.split_whitespace().map(|short| world.place(short)) {
                for address in self.addresses(&to) {
                    let what = format!("SCTP {from} → {to} ({address}) port {port}: {allowed}");
                    until(&what, || {
                        let target = address.parse().map_err(|e| format!("{address}: {e}"))?;
                        match self.heard(&from, &to, target, port) {
                            Ok(heard) if heard == allowed => Ok(()),
                            Ok(heard) => Err(format!("heard: {heard}")),
                            Err(error) => Err(error.to_string()),
                        }
                    });
                }
            }
        }
    }

    fn heard(&self, from: &str, to: &str, target: IpAddr, port: u16) -> io::Result<bool> {
        let netns_of = |place: &str| self.netns(place).map_err(io::Error::other);
        let raw = move || {
            let domain = Domain::for_address(SocketAddr::new(target, 0));
            Socket::new(domain, Type::RAW, Some(Protocol::from(SCTP)))
        };
        let mut ear = netns::run_in(&netns_of(to)?, raw)?;
        ear.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mouth = netns::run_in(&netns_of(from)?, raw)?;
        // Each its own association: from a port that nobody had before.
        static PORTS: AtomicU16 = AtomicU16::new(1024);
        let source = PORTS.fetch_add(1, Ordering::Relaxed);
        let tag = std::process::id().rotate_left(8) | 1;
        let packet = init(source, port, tag);
        mouth.send_to(&packet, &SocketAddr::new(target, 0).into())?;
        let deadline = Instant::now() + SILENCE;
        let mut buffer = [0; 256];
        while Instant::now() < deadline {
            match ear.read(&mut buffer) {
                // IPv4 comes with its header.
                Ok(length) if buffer[..length].ends_with(&packet) => return Ok(true),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }
}

/// INIT (RFC 9260 §3.3.2): tag, window, one stream each way, first sequence number.
fn init(source: u16, port: u16, tag: u32) -> Vec<u8> {
    let mut packet = Vec::with_capacity(32);
    packet.extend(source.to_be_bytes());
    packet.extend(port.to_be_bytes());
    // No tag yet; the checksum is made over zeros.
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20]);
    packet.extend(tag.to_be_bytes());
    packet.extend(65_536_u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(tag.to_be_bytes());
    let checksum = crc32c(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}

/// CRC32c (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(init(1, 2, 3).len(), 32);
    }
}
