//! AS_PATH and AS4_PATH (RFC 4271 section 4.3, RFC 5065, RFC 6793).

use std::fmt;

use super::cursor::Cursor;
use super::open::AS_TRANS;

/// Kind of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    /// AS_SET: unordered.
    Set = 1,
    /// AS_SEQUENCE: the nearest AS first.
    Sequence = 2,
    /// AS_CONFED_SEQUENCE.
    ConfedSequence = 3,
    /// AS_CONFED_SET.
    ConfedSet = 4,
}

/// A run of AS numbers, 1 to 255 of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// Its kind.
    pub kind: SegmentKind,
    /// Its AS numbers.
    pub asns: Vec<u32>,
}

/// The ASes a route has come through, the nearest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AsPath {
    /// Its segments.
    pub segments: Vec<Segment>,
}

/// Most AS numbers in a segment.
const SEGMENT_MAX: usize = 255;

impl AsPath {
    /// A path that is one sequence; empty when there is no AS.
    pub fn sequence(asns: impl IntoIterator<Item = u32>) -> Self {
        let asns: Vec<u32> = asns.into_iter().collect();
        let segments = asns
            .chunks(SEGMENT_MAX)
            .map(|asns| Segment {
                kind: SegmentKind::Sequence,
                asns: asns.to_vec(),
            })
            .collect();
        Self { segments }
    }

    /// Length as RFC 4271 section 9.1.2.2 a counts it: a set is one, a confederation's parts are none (RFC 5065).
    pub fn length(&self) -> usize {
        self.segments.iter().map(Segment::length).sum()
    }

    /// All AS numbers, sets included, in their order.
    pub fn asns(&self) -> impl Iterator<Item = u32> {
        self.segments
            .iter()
            .flat_map(|segment| segment.asns.iter().copied())
    }

    /// The AS the route was received from: the first one, unless a set comes first.
    pub fn first(&self) -> Option<u32> {
        self.segments
            .first()
            .filter(|segment| segment.kind == SegmentKind::Sequence)?
            .asns
            .first()
            .copied()
    }

    /// Whether the AS is anywhere in the path.
    pub fn contains(&self, asn: u32) -> bool {
        self.asns().any(|it| it == asn)
    }

    /// The path with `asn` put before it (RFC 4271 section 5.1.2 b).
    pub fn prepended(&self, asn: u32) -> Self {
        let mut path = self.clone();
        path.prepend(asn);
        path
    }

    /// Puts `asn` before the path.
    pub fn prepend(&mut self, asn: u32) {
        match self.segments.first_mut() {
            Some(first)
                if first.kind == SegmentKind::Sequence && first.asns.len() < SEGMENT_MAX =>
            {
                first.asns.insert(0, asn);
            }
            _ => {
                let (kind, asns) = (SegmentKind::Sequence, vec![asn]);
                self.segments.insert(0, Segment { kind, asns });
            }
        }
    }

    /// Whether a confederation's segments are in it.
    pub fn has_confederation(&self) -> bool {
        self.segments.iter().any(|it| {
            matches!(
                it.kind,
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet
            )
        })
    }

    /// Reads the value of an attribute; None: malformed, which an empty segment and AS 0 (RFC 7607) are too.
    pub(super) fn decode(value: &[u8], four_octet: bool) -> Option<Self> {
        let mut cursor = Cursor::new(value);
        let mut segments = Vec::with_capacity(1);
        while !cursor.is_empty() {
            let kind = match cursor.u8()? {
                1 => SegmentKind::Set,
                2 => SegmentKind::Sequence,
                3 => SegmentKind::ConfedSequence,
                4 => SegmentKind::ConfedSet,
                _ => return None,
            };
            let count = usize::from(cursor.u8()?);
            // One more is put before them where the path is passed on.
            let mut asns = Vec::with_capacity(count + 1);
            for _ in 0..count {
                let asn = if four_octet {
                    cursor.u32()?
                } else {
                    u32::from(cursor.u16()?)
                };
                asns.push(asn);
            }
            if asns.is_empty() || asns.contains(&0) {
                return None;
            }
            segments.push(Segment { kind, asns });
        }
        Some(Self { segments })
    }

    /// Writes the value of an attribute; AS numbers that need four octets become AS_TRANS when there are two.
    pub(super) fn encode(&self, four_octet: bool, out: &mut Vec<u8>) {
        for segment in &self.segments {
            for asns in segment.asns.chunks(SEGMENT_MAX) {
                out.push(segment.kind as u8);
                out.push(u8::try_from(asns.len()).unwrap_or(u8::MAX));
                for asn in asns {
                    if four_octet {
                        out.extend_from_slice(&asn.to_be_bytes());
                    } else {
                        out.extend_from_slice(
                            &u16::try_from(*asn).unwrap_or(AS_TRANS).to_be_bytes(),
                        );
                    }
                }
            }
        }
    }

    /// Whether a 2-octet speaker loses something of it.
    pub(super) fn needs_four_octets(&self) -> bool {
        self.asns().any(|asn| u16::try_from(asn).is_err())
    }

    /// The path without the confederation's segments, as AS4_PATH has to be (RFC 6793 section 3).
    pub(super) fn without_confederation(&self) -> Self {
        let outside = |it: &&Segment| matches!(it.kind, SegmentKind::Set | SegmentKind::Sequence);
        Self {
            segments: self.segments.iter().filter(outside).cloned().collect(),
        }
    }

    /// The true path behind a 2-octet AS_PATH and the AS4_PATH beside it (RFC 6793 section 4.2.3): what the AS_PATH
    /// has more at its front, then the AS4_PATH. An AS4_PATH that is longer is ignored.
    pub(super) fn merged(self, four: Self) -> Self {
        let four = four.without_confederation();
        let Some(mut missing) = self.length().checked_sub(four.length()) else {
            return self;
        };
        let mut segments = Vec::new();
        for mut segment in self.segments {
            let length = segment.length();
            if missing == 0 && length > 0 {
                break;
            }
            if segment.kind == SegmentKind::Sequence && length > missing {
                segment.asns.truncate(missing);
            }
            missing = missing.saturating_sub(length);
            segments.push(segment);
        }
        let mut rest = four.segments.into_iter();
        if let Some(next) = rest.next() {
            match segments.last_mut() {
                Some(last)
                    if last.kind == SegmentKind::Sequence
                        && next.kind == SegmentKind::Sequence
                        && last.asns.len() + next.asns.len() <= SEGMENT_MAX =>
                {
                    last.asns.extend(next.asns);
                }
                _ => segments.push(next),
            }
        }
        segments.extend(rest);
        Self { segments }
    }
}

impl Segment {
    fn length(&self) -> usize {
        match self.kind {
            SegmentKind::Sequence => self.asns.len(),
            SegmentKind::Set => 1,
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
        }
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            let (open, close) = match segment.kind {
                SegmentKind::Sequence => ("", ""),
                SegmentKind::Set => ("{", "}"),
                SegmentKind::ConfedSequence => ("(", ")"),
                SegmentKind::ConfedSet => ("[", "]"),
            };
            let asns: Vec<String> = segment.asns.iter().map(u32::to_string).collect();
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{open}{}{close}", asns.join(" "))?;
        }
        Ok(())
    }
}
