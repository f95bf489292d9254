//! Messages of the BGP monitoring protocol (RFC 7854): what a station is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;

const VERSION: u8 = 3;

/// Bytes of the common header (section 4.1).
const COMMON: usize = 6;

/// The peer's address is an IPv6 one (V flag).
const FLAG_V6: u8 = 0x80;

/// Kinds of messages (section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    RouteMonitoring,
    Statistics,
    PeerDown,
    PeerUp,
    Initiation,
    Termination,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::RouteMonitoring => 0,
            Self::Statistics => 1,
            Self::PeerDown => 2,
            Self::PeerUp => 3,
            Self::Initiation => 4,
            Self::Termination => 5,
        }
    }
}

/// The peer a message is about (section 4.2). Its time is left open: zero says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerHeader {
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
}

impl PeerHeader {
    fn write(&self, out: &mut Vec<u8>) {
        // Global instance; before policy, with 4-octet AS numbers.
        let flags = if self.address.is_ipv6() { FLAG_V6 } else { 0 };
        out.extend_from_slice(&[0, flags]);
        out.extend_from_slice(&[0; 8]);
        write_address(self.address, out);
        out.extend_from_slice(&self.asn.to_be_bytes());
        out.extend_from_slice(&self.router_id.octets());
        out.extend_from_slice(&[0; 8]);
    }
}

/// Why a session went down (section 4.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerDown {
    /// This side sent that NOTIFICATION, a whole message.
    Sent(Bytes),
    /// This side closed without one.
    Closed,
    /// The peer sent that NOTIFICATION, a whole message.
    Received(Bytes),
    /// The peer closed without one, or the connection broke.
    Lost,
    /// Nothing more is said of the peer, whatever becomes of its session.
    NoLonger,
}

/// A statistic (section 4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// Routes from the peer, before policy (type 7).
    AdjRibIn(u64),
    /// Routes from the peer that import policy took (type 8).
    LocRib(u64),
    /// The same as the first, of one family: AFI, SAFI (type 9).
    AdjRibInOf(u16, u8, u64),
    /// The same as the second, of one family (type 10).
    LocRibOf(u16, u8, u64),
}

/// The first message: who speaks (section 4.3).
pub fn initiation(description: &str, name: &str) -> Vec<u8> {
    message(Kind::Initiation, |out| {
        tlv(1, description.as_bytes(), out);
        tlv(2, name.as_bytes(), out);
    })
}

/// The last message: nothing follows because somebody wants it so (section 4.5).
pub fn termination() -> Vec<u8> {
    message(Kind::Termination, |out| tlv(1, &[0, 0], out))
}

/// A session came up between these ends, own one first, with these OPENs, whole messages, own one first (section 4.10).
pub fn peer_up(
    peer: &PeerHeader,
    (local, remote): (SocketAddr, SocketAddr),
    (sent, received): (&[u8], &[u8]),
) -> Vec<u8> {
    message(Kind::PeerUp, |out| {
        peer.write(out);
        write_address(local.ip().to_canonical(), out);
        out.extend_from_slice(&local.port().to_be_bytes());
        out.extend_from_slice(&remote.port().to_be_bytes());
        out.extend_from_slice(sent);
        out.extend_from_slice(received);
    })
}

/// A session went down (section 4.9).
pub fn peer_down(peer: &PeerHeader, reason: &PeerDown) -> Vec<u8> {
    message(Kind::PeerDown, |out| {
        peer.write(out);
        match reason {
            PeerDown::Sent(notification) => {
                out.push(1);
                out.extend_from_slice(notification);
            }
            // No event of the state machine says more.
            PeerDown::Closed => out.extend_from_slice(&[2, 0, 0]),
            PeerDown::Received(notification) => {
                out.push(3);
                out.extend_from_slice(notification);
            }
            PeerDown::Lost => out.push(4),
            PeerDown::NoLonger => out.push(5),
        }
    })
}

/// An UPDATE, a whole message, says what the peer's routes are, before policy (section 4.6).
pub fn route_monitoring(peer: &PeerHeader, update: &[u8]) -> Vec<u8> {
    message(Kind::RouteMonitoring, |out| {
        peer.write(out);
        out.extend_from_slice(update);
    })
}

/// Counts of a peer (section 4.8).
pub fn statistics(peer: &PeerHeader, statistics: &[Statistic]) -> Vec<u8> {
    message(Kind::Statistics, |out| {
        peer.write(out);
        let count = u32::try_from(statistics.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for statistic in statistics {
            let of = |afi: u16, safi: u8, count: u64| {
                let [high, low] = afi.to_be_bytes();
                [&[high, low, safi], &count.to_be_bytes()[..]].concat()
            };
            let (code, value) = match *statistic {
                Statistic::AdjRibIn(count) => (7, count.to_be_bytes().to_vec()),
                Statistic::LocRib(count) => (8, count.to_be_bytes().to_vec()),
                Statistic::AdjRibInOf(afi, safi, count) => (9, of(afi, safi, count)),
                Statistic::LocRibOf(afi, safi, count) => (10, of(afi, safi, count)),
            };
            tlv(code, &value, out);
        }
    })
}

fn message(kind: Kind, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![VERSION, 0, 0, 0, 0, kind.code()];
    debug_assert_eq!(out.len(), COMMON);
    body(&mut out);
    let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out
}

/// A field of variable length; what is too long for one is cut.
fn tlv(code: u16, value: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&value[..usize::from(length)]);
}

/// Sixteen bytes, an IPv4 address in the last four.
fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            out.extend_from_slice(&[0; 12]);
            out.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerHeader = PeerHeader {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        asn: 0x0102_0304,
        router_id: Ipv4Addr::new(10, 0, 0, 7),
    };

    #[test]
    fn messages_look_as_the_rfc_draws_them() {
        assert_eq!(
            initiation("d", "nm"),
            [3, 0, 0, 0, 17, 4, 0, 1, 0, 1, b'd', 0, 2, 0, 2, b'n', b'm']
        );
        assert_eq!(termination(), [3, 0, 0, 0, 12, 5, 0, 1, 0, 2, 0, 0]);
        let lost = peer_down(&PEER, &PeerDown::Lost);
        let mut expected = vec![3, 0, 0, 0, 49, 2, 0, 0];
        expected.extend([0; 8 + 12]);
        expected.extend([192, 0, 2, 7, 1, 2, 3, 4, 10, 0, 0, 7]);
        expected.extend([0; 8]);
        expected.push(4);
        assert_eq!(lost, expected);
        let six = PeerHeader {
            address: "2001:db8::1".parse().unwrap(),
            ..PEER
        };
        let message = route_monitoring(&six, &[0xff; 23]);
        assert_eq!((message[7], message.len()), (0x80, 6 + 42 + 23));
        let counts = [Statistic::AdjRibIn(9), Statistic::LocRibOf(2, 1, 5)];
        let message = statistics(&PEER, &counts);
        assert_eq!(
            message[48..],
            [
                0, 0, 0, 2, 0, 7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 10, 0, 11, 0, 2, 1, 0, 0, 0, 0,
                0, 0, 0, 5
            ]
        );
    }
}
