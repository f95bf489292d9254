//! Netlink messages as bytes: headers, attributes, nesting (`linux/netlink.h`). Pure, shared by nf_tables, conntrack and
//! nexthop objects, which the netlink crates in use do not (fully) know.

/// The attribute holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;
/// Mask of the type, without the flags `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE_MASK: u16 = 0x3fff;
/// Length of a netlink message header.
pub const HEADER: usize = 16;

/// Writes one netlink message.
#[derive(Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Starts a message of this type, flags and sequence number, followed by the family's own fixed header.
    #[must_use]
    pub fn new(kind: u16, flags: u16, sequence: u32, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(fixed);
        Self { bytes }
    }

    /// Appends an attribute.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length =
            u16::try_from(value.len() + 4).expect("invariant: no attribute is longer than 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Appends a string with its terminating zero.
    pub fn string(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// Appends a 32-bit number in network order, as nf_tables wants them.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Appends a 16-bit number in network order.
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Appends a 64-bit number in network order.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Appends a 32-bit number in host order, as rtnetlink wants them.
    pub fn ne32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Appends an attribute which holds what `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start)
            .expect("invariant: nests are filled in chunks below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Bytes written so far, the header included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Closes the message.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let length =
            u32::try_from(self.bytes.len()).expect("invariant: messages are far below 4 GiB");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// One netlink message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// Message type.
    pub kind: u16,
    /// Flags of the header.
    pub flags: u16,
    /// Sequence number of the request it answers.
    pub sequence: u32,
    /// Port of the socket whose request it is about; 0 when the kernel acted by itself.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages of one datagram; what is cut short ends the walk.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(ne32(datagram)?).ok()?;
        if length < HEADER || length > datagram.len() {
            return None;
        }
        let message = Received {
            kind: ne16(&datagram[4..])?,
            flags: ne16(&datagram[6..])?,
            sequence: ne32(&datagram[8..])?,
            port: ne32(&datagram[12..])?,
            payload: &datagram[HEADER..length],
        };
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
        Some(message)
    })
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Type, without the nesting flag.
    pub kind: u16,
    /// It says that it holds attributes. The kernel says so for some only.
    pub nested: bool,
    /// What it holds.
    pub value: &'a [u8],
}

/// The attributes in `bytes`; what is cut short ends the walk.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from(ne16(bytes)?);
        if length < 4 || length > bytes.len() {
            return None;
        }
        let attribute = Attribute {
            kind: ne16(&bytes[2..])? & TYPE_MASK,
            nested: ne16(&bytes[2..])? & NESTED != 0,
            value: &bytes[4..length],
        };
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some(attribute)
    })
}

/// The value of the first attribute of this type.
#[must_use]
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|attribute| attribute.kind == kind)
        .map(|attribute| attribute.value)
}

/// A string attribute, up to its terminating zero.
#[must_use]
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// A 32-bit number in network order.
#[must_use]
pub fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_be_bytes)
}

/// A 64-bit number in network order.
#[must_use]
pub fn be64(value: &[u8]) -> Option<u64> {
    value.first_chunk().copied().map(u64::from_be_bytes)
}

/// A 32-bit number in host order.
#[must_use]
pub fn ne32(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

/// A 16-bit number in host order.
#[must_use]
pub fn ne16(value: &[u8]) -> Option<u16> {
    value.first_chunk().copied().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut message = Message::new(0x0a06, 5, 7, &[1, 0, 0, 10]);
        message.string(1, "margay");
        message.nest(4, |nest| {
            nest.be32(2, 3);
            nest.bytes(3, &[9]);
        });
        let mut datagram = message.finish();
        datagram.extend(Message::new(3, 2, 8, &[]).finish());

        let read: Vec<_> = messages(&datagram).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(
            (read[0].kind, read[0].flags, read[0].sequence),
            (0x0a06, 5, 7)
        );
        let attrs = &read[0].payload[4..];
        assert_eq!(find(attrs, 1).map(text).as_deref(), Some("margay"));
        let nest = find(attrs, 4).expect("nest");
        assert_eq!(find(nest, 2).and_then(be32), Some(3));
        assert_eq!(find(nest, 3), Some(&[9u8][..]));
        assert_eq!(read[1].sequence, 8);
    }

    #[test]
    fn truncated_input_ends_the_walk() {
        let mut message = Message::new(1, 0, 0, &[]);
        message.string(1, "abcdef");
        let datagram = message.finish();
        for cut in 0..datagram.len() {
            assert_eq!(messages(&datagram[..cut]).count(), 0);
            assert!(
                cut >= HEADER + 11
                    || attributes(datagram.get(HEADER..cut).unwrap_or_default()).count() == 0
            );
        }
    }
}
