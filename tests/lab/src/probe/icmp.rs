//! An echo request and its reply over a raw socket (RFC 792, RFC 4443). Datagram "ping" sockets would need a
//! sysctl in the pod's namespace.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Makes probes of one process unlike each other.
static SEQUENCE: AtomicU16 = AtomicU16::new(1);

/// Sends echo requests until one is answered; the caller gives up in time.
pub(super) async fn echo(to: IpAddr, wait: Duration) -> io::Result<()> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    // tokio has no raw sockets; what its UDP socket does with a descriptor fits any datagram socket.
    let socket = UdpSocket::from_std(socket.into())?;
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
    let mut buffer = [0; 256];
    loop {
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        socket.send(&request(to.is_ipv4(), id, sequence)).await?;
        let answered = timeout(wait / 2, async {
            loop {
                let got = socket.recv(&mut buffer).await?;
                if is_reply(to.is_ipv4(), &buffer[..got], id, sequence) {
                    return Ok(());
                }
            }
        });
        if let Ok(result) = answered.await {
            return result;
        }
    }
}

fn request(v4: bool, id: u16, sequence: u16) -> Vec<u8> {
    let mut packet = vec![if v4 { 8 } else { 128 }, 0, 0, 0];
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(b"margay lab");
    if v4 {
        // The kernel fills in ICMPv6's checksum only.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let mut sum: u32 = packet
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// An IPv4 raw socket delivers the IP header, an IPv6 one does not; both deliver everything ICMP.
fn is_reply(v4: bool, packet: &[u8], id: u16, sequence: u16) -> bool {
    let header = match packet.first() {
        Some(first) if v4 => usize::from(first & 0x0f) * 4,
        _ => 0,
    };
    let Some(&[kind, code, _, _, i1, i2, s1, s2]) = packet.get(header..header + 8) else {
        return false;
    };
    kind == if v4 { 0 } else { 129 }
        && code == 0
        && u16::from_be_bytes([i1, i2]) == id
        && u16::from_be_bytes([s1, s2]) == sequence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksummed_packet_sums_to_zero() {
        assert_eq!(checksum(&request(true, 7, 9)), 0);
    }

    #[test]
    fn only_the_reply_to_this_request_counts() {
        let mut v4 = vec![0x45; 20];
        v4.extend_from_slice(&[0, 0, 0, 0, 0, 7, 0, 9]);
        assert!(is_reply(true, &v4, 7, 9));
        assert!(!is_reply(true, &v4, 7, 10));
        assert!(!is_reply(true, &v4[..24], 7, 9));
        assert!(
            !is_reply(false, &request(false, 7, 9), 7, 9),
            "our own request"
        );
        assert!(is_reply(false, &[129, 0, 0, 0, 0, 7, 0, 9], 7, 9));
    }
}
