//! Packets that rules of the table hand to netlink log (`linux/netfilter/nfnetlink_log.h`): which, and what they say of
//! their flow. Pure; the socket is the driver's.

use std::net::IpAddr;

use crate::nla::{self, Message};
use crate::policy::model::protocol::{ICMP, ICMP6, SCTP, TCP, UDP, UDP_LITE};

/// `NFNL_SUBSYS_ULOG` and `NFULNL_MSG_PACKET`.
pub const PACKET: u16 = 4 << 8;
/// `NFNL_SUBSYS_ULOG` and `NFULNL_MSG_CONFIG`.
const CONFIG: u16 = 4 << 8 | 1;
/// `NLM_F_REQUEST` and `NLM_F_ACK`.
const REQUEST: u16 = 1 | 4;
/// Bytes of a packet that are copied: headers with some options.
const COPIED: u32 = 128;
/// Hundredths of a second that the kernel may collect packets for.
const PATIENCE: u32 = 10;

/// Asks for the packets of a group, and, when `connections`, for what connection tracking says of them.
#[must_use]
pub fn bind(group: u16, connections: bool, sequence: u32) -> Vec<u8> {
    const COMMAND: u16 = 1;
    const MODE: u16 = 2;
    const TIMEOUT: u16 = 4;
    const FLAGS: u16 = 6;
    const BIND: u8 = 1;
    const COPY_PACKET: u8 = 2;
    const WITH_CONNTRACK: u16 = 4;
    let [high, low] = group.to_be_bytes();
    let mut message = Message::new(CONFIG, REQUEST, sequence, &[0, 0, high, low]);
    message.bytes(COMMAND, &[BIND]);
    let mut mode = COPIED.to_be_bytes().to_vec();
    mode.extend([COPY_PACKET, 0]);
    message.bytes(MODE, &mode);
    message.be32(TIMEOUT, PATIENCE);
    if connections {
        message.bytes(FLAGS, &WITH_CONNTRACK.to_be_bytes());
    }
    message.finish()
}

/// A packet that a rule handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The rule's prefix.
    pub prefix: String,
    /// Index of the interface it came in by; `None`: it is the node's own.
    pub input: Option<u32>,
    /// Index of the interface it was to leave by; `None`: it is for the node.
    pub output: Option<u32>,
    /// Its flow, seen from the one who opened it.
    pub flow: Flow,
    /// It goes to the one who opened the flow.
    pub reply: bool,
}

/// Addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Who opened it.
    pub source: IpAddr,
    /// Who it was opened to.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the source; 0 where there is none.
    pub source_port: u16,
    /// Port of the destination; of ICMP `type << 8 | code`; 0 where there is none.
    pub port: u16,
}

impl Flow {
    const fn reversed(self) -> Self {
        match self.protocol {
            // Type and code are the packet's; the evaluator knows which answers which.
            ICMP | ICMP6 => Self {
                source: self.destination,
                destination: self.source,
                ..self
            },
            _ => Self {
                source: self.destination,
                destination: self.source,
                source_port: self.port,
                port: self.source_port,
                ..self
            },
        }
    }
}

/// Reads one message's payload; `None` when it is no IP packet.
#[must_use]
pub fn read(payload: &[u8]) -> Option<Logged> {
    const INPUT: u16 = 4;
    const OUTPUT: u16 = 5;
    const BYTES: u16 = 9;
    const PREFIX: u16 = 10;
    const CONNECTION: u16 = 19;
    /// `IP_CT_IS_REPLY`: this and what is above it goes to the opener.
    const REPLY: u32 = 3;
    let attributes = payload.get(4..)?;
    let index = |kind| nla::find(attributes, kind).and_then(nla::be32);
    let (flow, answers) = packet(nla::find(attributes, BYTES)?)?;
    let reply = index(CONNECTION).map_or(answers, |it| (REPLY..=REPLY + 2).contains(&it));
    Some(Logged {
        prefix: nla::find(attributes, PREFIX)
            .map(nla::text)
            .unwrap_or_default(),
        input: index(INPUT),
        output: index(OUTPUT),
        flow: if reply { flow.reversed() } else { flow },
        reply,
    })
}

/// The flow a packet belongs to, by its headers.
#[must_use]
pub fn flow(bytes: &[u8]) -> Option<Flow> {
    Some(packet(bytes)?.0)
}

/// Its flow, and whether it surely answers one, by its headers.
fn packet(packet: &[u8]) -> Option<(Flow, bool)> {
    match packet.first()? >> 4 {
        4 => {
            let length = usize::from(packet[0] & 0xf) * 4;
            let source: [u8; 4] = *packet.get(12..)?.first_chunk()?;
            let destination: [u8; 4] = *packet.get(16..)?.first_chunk()?;
            let fragment = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x1fff;
            let above = packet.get(length..).filter(|_| fragment == 0);
            Some(ports(
                source.into(),
                destination.into(),
                *packet.get(9)?,
                above.unwrap_or_default(),
            ))
        }
        6 => {
            let source: [u8; 16] = *packet.get(8..)?.first_chunk()?;
            let destination: [u8; 16] = *packet.get(24..)?.first_chunk()?;
            let (protocol, above) = above6(*packet.get(6)?, packet.get(40..)?);
            Some(ports(source.into(), destination.into(), protocol, above))
        }
        _ => None,
    }
}

/// Steps over the extension headers of RFC 8200 section 4.
fn above6(first: u8, mut rest: &[u8]) -> (u8, &[u8]) {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    let mut protocol = first;
    loop {
        let [next, length, high, low, ..] = *rest else {
            return (protocol, rest);
        };
        let header = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => usize::from(length) * 8 + 8,
            AUTHENTICATION => usize::from(length) * 4 + 8,
            FRAGMENT if u16::from_be_bytes([high, low]) & 0xfff8 != 0 => return (next, &[]),
            FRAGMENT => 8,
            _ => return (protocol, rest),
        };
        protocol = next;
        rest = rest.get(header..).unwrap_or_default();
    }
}

fn ports(source: IpAddr, destination: IpAddr, protocol: u8, above: &[u8]) -> (Flow, bool) {
    let (source_port, port) = match (protocol, above) {
        (TCP | UDP | SCTP | UDP_LITE, [a, b, c, d, ..]) => {
            (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        }
        (ICMP | ICMP6, [kind, code, ..]) => (0, u16::from_be_bytes([*kind, *code])),
        _ => (0, 0),
    };
    let flow = Flow {
        source,
        destination,
        protocol,
        source_port,
        port,
    };
    (flow, answers(protocol, above))
}

/// The second packet of a TCP handshake, and answers to an echo.
fn answers(protocol: u8, above: &[u8]) -> bool {
    const SYN_ACK: u8 = 0x12;
    const ECHO_REPLY: u8 = 0;
    const ECHO_REPLY6: u8 = 129;
    match (protocol, above.first()) {
        (TCP, _) => above.get(13).is_some_and(|it| it & SYN_ACK == SYN_ACK),
        (ICMP, Some(kind)) => *kind == ECHO_REPLY,
        (ICMP6, Some(kind)) => *kind == ECHO_REPLY6,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel does not say what connection tracking knows.
    const UNSAID: u32 = u32::MAX;

    fn ip4(protocol: u8, above: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(above);
        packet
    }

    fn ip6(next: u8, above: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        for last in [1, 2] {
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        packet.extend(above);
        packet
    }

    fn message(prefix: &str, packet: &[u8], connection: u32) -> Vec<u8> {
        let mut message = Message::new(PACKET, 0, 0, &[2, 0, 0, 77]);
        message.be32(4, 7);
        message.bytes(9, packet);
        message.string(10, prefix);
        if connection != UNSAID {
            message.be32(19, connection);
        }
        message.finish().split_off(nla::HEADER)
    }

    #[test]
    fn a_packet_says_its_flow() {
        let packet = ip4(6, &[0x9c, 0x40, 0, 80, 0, 0, 0, 0]);
        let logged = read(&message("margay deny", &packet, 2)).unwrap();
        assert_eq!(logged.prefix, "margay deny");
        assert_eq!((logged.input, logged.output), (Some(7), None));
        assert!(!logged.reply);
        let flow = logged.flow;
        assert_eq!(flow.source.to_string(), "10.0.0.1");
        assert_eq!((flow.protocol, flow.source_port, flow.port), (6, 40000, 80));
    }

    #[test]
    fn a_reply_is_of_the_flow_that_it_answers() {
        let packet = ip4(6, &[0, 80, 0x9c, 0x40]);
        let logged = read(&message("margay deny", &packet, 3)).unwrap();
        assert!(logged.reply);
        assert_eq!(logged.flow.source.to_string(), "10.0.0.2");
        assert_eq!((logged.flow.source_port, logged.flow.port), (40000, 80));
        let echo = read(&message("", &ip4(1, &[0, 0]), 3)).unwrap();
        assert_eq!((echo.flow.port, echo.flow.source_port), (0, 0));
    }

    #[test]
    fn without_connection_tracking_the_handshake_tells_who_opened_a_flow() {
        let segment = |flags| {
            let mut segment = vec![0; 14];
            segment[..4].copy_from_slice(&[0, 80, 0x9c, 0x40]);
            segment[13] = flags;
            read(&message("margay deny", &ip4(6, &segment), UNSAID)).unwrap()
        };
        let (answer, opener) = (segment(0x12), segment(2));
        assert!(answer.reply && !opener.reply);
        assert_eq!((answer.flow.port, opener.flow.port), (80, 40000));
        let echo = |kind| {
            read(&message("", &ip6(58, &[kind, 0]), UNSAID))
                .unwrap()
                .reply
        };
        assert!(echo(129) && !echo(128));
    }

    #[test]
    fn ports_are_behind_extension_headers_and_only_in_the_first_fragment() {
        let udp = [0x30, 0x39, 0, 53];
        let mut options = vec![17, 0, 0, 0, 0, 0, 0, 0];
        options.extend(udp);
        assert_eq!(flow(&ip6(60, &options)).unwrap().port, 53);
        let mut fragment = vec![17, 0, 0, 1, 0, 0, 0, 0];
        fragment.extend(udp);
        assert_eq!(flow(&ip6(44, &fragment)).unwrap().port, 53);
        fragment[3] = 8;
        let later = flow(&ip6(44, &fragment)).unwrap();
        assert_eq!((later.protocol, later.port), (17, 0));
        let mut later = ip4(17, &udp);
        later[7] = 1;
        assert_eq!(flow(&later).unwrap().port, 0);
    }

    #[test]
    fn what_is_cut_short_is_no_panic() {
        let whole = message("margay log", &ip6(0, &[0; 16]), 0);
        for length in 0..whole.len() {
            let _ = read(&whole[..length]);
        }
        let packet = ip6(60, &[60, 0, 0, 0, 0, 0, 0, 0, 6, 255, 0, 0]);
        for length in 0..packet.len() {
            let _ = flow(&packet[..length]);
        }
        assert_eq!(flow(&[]), None);
        assert_eq!(flow(&[0x10; 60]), None);
    }
}
