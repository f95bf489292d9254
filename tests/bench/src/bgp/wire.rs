//! Just enough BGP to be the other end: OPEN with three capabilities, KEEPALIVE, packed UPDATEs, and counting what comes.

use std::net::Ipv4Addr;
use std::ops::Range;

/// Longest message (RFC 4271 section 4).
pub(crate) const MESSAGE_MAX: usize = 4096;
/// Of every message.
pub(crate) const HEADER: usize = 19;
/// Of an UPDATE: the header and the two lengths.
pub(crate) const UPDATE_FIXED: usize = HEADER + 4;

pub(crate) const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;

/// Stands for an AS number that needs four octets (RFC 6793).
const AS_TRANS: u16 = 23456;

/// A message with its header.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + body.len());
    put(&mut out, kind, &[body]);
    out
}

/// Appends a message whose body is these pieces.
fn put(out: &mut Vec<u8>, kind: u8, body: &[&[u8]]) {
    let length = HEADER + body.iter().map(|piece| piece.len()).sum::<usize>();
    out.extend([0xff; 16]);
    out.extend(short(length));
    out.push(kind);
    body.iter().for_each(|piece| out.extend(*piece));
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length)
        .expect("a message has at most 4096 bytes")
        .to_be_bytes()
}

fn octet(length: usize) -> u8 {
    u8::try_from(length).expect("a short value")
}

/// An OPEN for IPv4 unicast with route refresh and four-octet AS numbers. `restart`: graceful restart too.
pub(crate) fn open(asn: u32, hold: u16, id: Ipv4Addr, restart: bool) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 2, 0, 65, 4];
    capabilities.extend(asn.to_be_bytes());
    if restart {
        // Restart time 120 s; IPv4 unicast with the forwarding state kept (RFC 4724 section 3).
        capabilities.extend([64, 6, 0, 120, 0, 1, 1, 0x80]);
    }
    let mut body = vec![4];
    body.extend(u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes());
    body.extend(hold.to_be_bytes());
    body.extend(id.octets());
    body.extend([octet(capabilities.len() + 2), 2, octet(capabilities.len())]);
    body.extend(capabilities);
    message(OPEN, &body)
}

/// The marker of the end of a table (RFC 4724 section 2).
pub(crate) fn end_of_rib() -> Vec<u8> {
    message(UPDATE, &[0; 4])
}

/// A prefix: network and length.
pub(crate) type Prefix = (u32, u8);

/// Bytes of a prefix in a message.
pub(crate) const fn encoded_len(length: u8) -> usize {
    1 + (length as usize).div_ceil(8)
}

fn put_prefix(out: &mut Vec<u8>, (network, length): Prefix) {
    out.push(length);
    let bytes = network.to_be_bytes();
    out.extend(&bytes[..encoded_len(length) - 1]);
}

/// Appends the fewest UPDATEs that announce these prefixes with these attributes; how many those are.
pub(crate) fn announce(out: &mut Vec<u8>, attributes: &[u8], prefixes: &[Prefix]) -> usize {
    packed(
        prefixes,
        MESSAGE_MAX - UPDATE_FIXED - attributes.len(),
        |nlri| {
            put(
                out,
                UPDATE,
                &[&[0, 0], &short(attributes.len()), attributes, nlri],
            );
        },
    )
}

/// Appends the fewest UPDATEs that withdraw these prefixes; how many those are.
pub(crate) fn withdraw(out: &mut Vec<u8>, prefixes: &[Prefix]) -> usize {
    packed(prefixes, MESSAGE_MAX - UPDATE_FIXED, |nlri| {
        put(out, UPDATE, &[&short(nlri.len()), nlri, &[0, 0]]);
    })
}

fn packed(prefixes: &[Prefix], room: usize, mut emit: impl FnMut(&[u8])) -> usize {
    let mut nlri = Vec::with_capacity(room);
    let mut count = 0;
    for prefix in prefixes {
        if nlri.len() + encoded_len(prefix.1) > room {
            emit(&nlri);
            nlri.clear();
            count += 1;
        }
        put_prefix(&mut nlri, *prefix);
    }
    if !nlri.is_empty() {
        emit(&nlri);
        count += 1;
    }
    count
}

/// Path attributes, each with its flags, in the order of their types.
#[derive(Debug, Default, Clone)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// Appends one.
    pub(crate) fn add(&mut self, flags: u8, kind: u8, value: &[u8]) {
        /// The length takes two bytes (RFC 4271 section 4.3).
        const EXTENDED: u8 = 0x10;
        if let Ok(length) = u8::try_from(value.len()) {
            self.0.extend([flags, kind, length]);
        } else {
            self.0.extend([flags | EXTENDED, kind]);
            self.0.extend(short(value.len()));
        }
        self.0.extend(value);
    }

    /// An AS_PATH of one sequence; empty without numbers.
    pub(crate) fn as_path(&mut self, path: &[u32]) {
        let mut value = Vec::new();
        if !path.is_empty() {
            value.extend([2, octet(path.len())]);
            path.iter().for_each(|asn| value.extend(asn.to_be_bytes()));
        }
        self.add(0x40, 2, &value);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The length and type of the first message in these bytes, once its header is there. `Err`: this is no BGP.
pub(crate) fn frame(bytes: &[u8]) -> Result<Option<(usize, u8)>, BadMessage> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    if header[..16] != [0xff; 16] || !(HEADER..=MESSAGE_MAX).contains(&length) {
        return Err(BadMessage);
    }
    Ok(Some((length, header[18])))
}

/// Bytes that are no message, or an UPDATE whose lengths do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadMessage;

/// Where the prefixes of a table are: each has a bit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) base: u32,
    /// Bits to the right of a prefix's number.
    pub(crate) shift: u8,
    /// Prefixes at most.
    pub(crate) slots: usize,
}

impl Space {
    fn slot(self, network: u32) -> Option<usize> {
        let slot = usize::try_from(network.checked_sub(self.base)? >> self.shift).ok()?;
        (slot < self.slots).then_some(slot)
    }
}

/// What a peer has been told, prefix by prefix.
#[derive(Debug)]
pub(crate) struct Count {
    space: Space,
    /// Slots of what it announces itself: some send that back to where it came from.
    own: Range<usize>,
    held: Vec<u64>,
    /// Prefixes of the space that are announced now.
    pub(crate) present: usize,
    /// Prefixes outside of it: how often announced, how often withdrawn.
    pub(crate) others: (usize, usize),
    /// UPDATEs that announced or withdrew something.
    pub(crate) updates: usize,
    /// End-of-RIB markers.
    pub(crate) ends: usize,
}

impl Count {
    pub(crate) fn new(space: Space) -> Self {
        Self {
            space,
            own: 0..0,
            held: vec![0; space.slots.div_ceil(64)],
            present: 0,
            others: (0, 0),
            updates: 0,
            ends: 0,
        }
    }

    /// Leaves out what the peer announces itself, by the numbers of its prefixes.
    pub(crate) fn leave_out(&mut self, own: Range<usize>) {
        self.own = own;
    }

    /// Nothing has been told, as after the end of a session.
    pub(crate) fn clear(&mut self) {
        let own = self.own.clone();
        *self = Self::new(self.space);
        self.own = own;
    }

    /// Reads the body of an UPDATE.
    pub(crate) fn update(&mut self, body: &[u8]) -> Result<(), BadMessage> {
        if body == [0; 4] {
            self.ends += 1;
            return Ok(());
        }
        let (withdrawn, rest) = sized(body)?;
        let (_, announced) = sized(rest)?;
        self.each(withdrawn, false)?;
        self.each(announced, true)?;
        self.updates += 1;
        Ok(())
    }

    fn each(&mut self, mut nlri: &[u8], announced: bool) -> Result<(), BadMessage> {
        while let Some((&length, rest)) = nlri.split_first() {
            let octets = encoded_len(length) - 1;
            let Some((bytes, rest)) = rest.split_at_checked(octets) else {
                return Err(BadMessage);
            };
            let mut network = [0; 4];
            network
                .get_mut(..octets)
                .ok_or(BadMessage)?
                .copy_from_slice(bytes);
            nlri = rest;
            self.one(u32::from_be_bytes(network), announced);
        }
        Ok(())
    }

    fn one(&mut self, network: u32, announced: bool) {
        let Some(slot) = self.space.slot(network) else {
            let (more, less) = &mut self.others;
            *(if announced { more } else { less }) += 1;
            return;
        };
        if self.own.contains(&slot) {
            return;
        }
        let (word, bit) = (&mut self.held[slot / 64], 1_u64 << (slot % 64));
        match (*word & bit != 0, announced) {
            (false, true) => self.present += 1,
            (true, false) => self.present -= 1,
            _ => return,
        }
        *word ^= bit;
    }
}

fn sized(bytes: &[u8]) -> Result<(&[u8], &[u8]), BadMessage> {
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(BadMessage)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        .ok_or(BadMessage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space = Space {
        base: 0x0A00_0000,
        shift: 8,
        slots: 1000,
    };

    /// Reads all messages of these bytes, as a receiver does.
    fn read(count: &mut Count, mut bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let Some((length, kind)) = frame(bytes).unwrap() {
            assert_eq!(kind, UPDATE);
            count.update(&bytes[HEADER..length]).unwrap();
            lengths.push(length);
            bytes = &bytes[length..];
        }
        assert!(bytes.is_empty());
        lengths
    }

    #[test]
    fn an_open_says_who_we_are() {
        let bytes = open(4_200_000_001, 240, Ipv4Addr::new(198, 18, 1, 1), false);
        assert_eq!(frame(&bytes), Ok(Some((bytes.len(), OPEN))));
        let expected = [
            4, 0x5b, 0xa0, 0, 240, 198, 18, 1, 1, 16, 2, 14, 1, 4, 0, 1, 0, 1, 2, 0, 65, 4, 0xfa,
            0x56, 0xea, 1,
        ];
        assert_eq!(&bytes[HEADER..], expected);
    }

    #[test]
    fn an_update_is_what_the_rfc_draws() {
        let mut attributes = Attributes::default();
        attributes.add(0x40, 1, &[0]);
        attributes.as_path(&[65_001, 7]);
        let mut out = Vec::new();
        let count = announce(
            &mut out,
            attributes.bytes(),
            &[(0x0A01_0200, 24), (0x0A80_0000, 9)],
        );
        assert_eq!(count, 1);
        let expected = [
            0, 0, 0, 17, 0x40, 1, 1, 0, 0x40, 2, 10, 2, 2, 0, 0, 0xfd, 0xe9, 0, 0, 0, 7, 24, 10, 1,
            2, 9, 10, 128,
        ];
        assert_eq!(&out[HEADER..], expected);
    }

    #[test]
    fn long_attributes_have_long_lengths() {
        let mut attributes = Attributes::default();
        attributes.add(0xC0, 8, &[1; 300]);
        assert_eq!(attributes.bytes()[..4], [0xD0, 8, 1, 44]);
        assert_eq!(attributes.bytes().len(), 304);
    }

    #[test]
    fn messages_are_full_and_what_is_counted_is_what_was_sent() {
        let prefixes: Vec<Prefix> = (0..1000).map(|i| (0x0A00_0000 + (i << 8), 24)).collect();
        let mut count = Count::new(SPACE);
        let mut out = Vec::new();
        assert_eq!(announce(&mut out, &[0x40, 1, 1, 0], &prefixes), 1);
        assert_eq!(read(&mut count, &out), [UPDATE_FIXED + 4 + 4000]);
        assert_eq!((count.present, count.updates), (1000, 1));
        // The same again is no second route.
        read(&mut count, &out);
        assert_eq!((count.present, count.updates), (1000, 2));

        out.clear();
        let many: Vec<Prefix> = (0..1019).map(|i| (0x0A00_0000 + (i << 8), 24)).collect();
        assert_eq!(withdraw(&mut out, &many), 2);
        assert_eq!(read(&mut count, &out), [4095, UPDATE_FIXED + 4]);
        assert_eq!((count.present, count.others), (0, (0, 19)));
    }

    #[test]
    fn what_comes_back_to_its_sender_is_left_out() {
        let mut count = Count::new(SPACE);
        count.leave_out(2..4);
        let prefixes: Vec<Prefix> = (0..5).map(|i| (0x0A00_0000 + (i << 8), 24)).collect();
        let mut out = Vec::new();
        announce(&mut out, &[], &prefixes);
        read(&mut count, &out);
        assert_eq!((count.present, count.updates), (3, 1));
        count.clear();
        read(&mut count, &out);
        assert_eq!((count.present, count.updates), (3, 1));
    }

    #[test]
    fn the_end_of_a_table_is_no_update() {
        let mut count = Count::new(SPACE);
        read(&mut count, &end_of_rib());
        assert_eq!((count.ends, count.updates), (1, 0));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut count = Count::new(SPACE);
        for body in [
            &[][..],
            &[0, 9, 0, 0],
            &[0, 0, 0, 9],
            &[0, 0, 0, 0, 24, 10, 0],
            &[0, 0, 0, 0, 33, 10, 0, 0, 0, 0],
        ] {
            assert_eq!(count.update(body), Err(BadMessage), "{body:?}");
        }
        assert_eq!(frame(&[0; 19]), Err(BadMessage));
        assert_eq!(frame(&[0xff; 18]), Ok(None));
    }
}
