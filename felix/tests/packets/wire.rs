//! Packets made by hand: the first one of a flow of each protocol, with a number to know it by, and what is heard of them.

use std::net::IpAddr;

/// A flow, before any packet of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// 0 where there are no ports.
    pub(crate) source_port: u16,
    /// Of ICMP type and code.
    pub(crate) port: u16,
}

/// What comes after the IP header. The number is last.
pub(crate) fn first_packet(flow: &Flow, number: u32) -> Vec<u8> {
    let mut packet = Vec::with_capacity(32);
    packet.extend(flow.source_port.to_be_bytes());
    packet.extend(flow.port.to_be_bytes());
    let checksum = match flow.protocol {
        6 => {
            // Sequence number, no acknowledgement, 20 bytes of header, SYN, window, checksum, not urgent.
            packet.extend([0, 0, 0x10, 0, 0, 0, 0, 0]);
            packet.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
            Some(16)
        }
        17 => {
            packet.extend([0, 12, 0, 0]);
            Some(6)
        }
        // UDP-Lite: the checksum covers all.
        136 => {
            packet.extend([0, 0, 0, 0]);
            Some(6)
        }
        // INIT (RFC 9260 §3.3.2): no tag yet, the chunk's length, the sender's tag, window, one stream each way.
        132 => {
            packet.extend([0; 8]);
            packet.extend([1, 0, 0, 20]);
            packet.extend((number | 1).to_be_bytes());
            packet.extend([0, 1, 0, 0, 0, 1, 0, 1]);
            packet.extend(number.to_be_bytes());
            let checksum = crc32c(&packet);
            packet[8..12].copy_from_slice(&checksum.to_le_bytes());
            return packet;
        }
        // Type, code, checksum, identifier, sequence number.
        1 | 58 => {
            packet.clear();
            packet.extend(flow.port.to_be_bytes());
            packet.extend([0, 0, 0, 7, 0, 1]);
            Some(2)
        }
        // GRE (RFC 2784) that carries an Ethernet type for experiments.
        _ => {
            packet.clear();
            packet.extend([0, 0, 0x88, 0xb5]);
            None
        }
    };
    packet.extend(number.to_be_bytes());
    if let Some(at) = checksum {
        let sum = internet_checksum(flow, &packet);
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// RFC 1071, over the pseudo header where the protocol has one.
fn internet_checksum(flow: &Flow, packet: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(80);
    if flow.protocol != 1 {
        for address in [flow.source, flow.destination] {
            match address {
                IpAddr::V4(ip) => bytes.extend(ip.octets()),
                IpAddr::V6(ip) => bytes.extend(ip.octets()),
            }
        }
        let length = u16::try_from(packet.len()).expect("short");
        bytes.extend(length.to_be_bytes());
        // Linux' connection tracking sums UDP-Lite as if it were UDP.
        bytes.extend([
            0,
            if flow.protocol == 136 {
                17
            } else {
                flow.protocol
            },
        ]);
    }
    bytes.extend(packet);
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        rest => u32::from(rest[0]) << 8,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !u16::try_from(sum).expect("two bytes") {
        // To UDP, 0 would be none.
        0 => 0xffff,
        sum => sum,
    }
}

/// CRC32c (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

/// Destination and number of an IP packet, when it may be one of these.
pub(crate) fn heard(packet: &[u8]) -> Option<(IpAddr, u32)> {
    let version = packet.first()? >> 4;
    let destination: IpAddr = match version {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok()?.into(),
        _ => <[u8; 16]>::try_from(packet.get(24..40)?).ok()?.into(),
    };
    // Neighbours look for each other.
    if version == 6 && packet.get(6) == Some(&58) && packet.get(40) != Some(&128) {
        return None;
    }
    let number = packet.last_chunk::<4>()?;
    Some((destination, u32::from_be_bytes(*number)))
}

#[test]
fn checksums_are_those_of_the_standards() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let flow = Flow {
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
        protocol: 17,
        source_port: 1,
        port: 2,
    };
    let packet = first_packet(&flow, 3);
    // Over a packet with its checksum in place the sum is nothing.
    assert_eq!(internet_checksum(&flow, &packet), 0xffff);
}
