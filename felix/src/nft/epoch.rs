//! The number of the current judgement of live connections, where it stands in their mark, and what happens to those
//! that are forbidden.

use super::model::Rate;
use super::terms::Rules;

/// How many packets each rule logs, unless the operator chose otherwise.
pub const LOG_RATE: Rate = Rate {
    second: 100,
    burst: 100,
};

/// What of the fixed rules an operator can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Where in the connection's mark the epoch is.
    pub mark: MarkByte,
    /// What becomes of a connection that was allowed and is forbidden now.
    pub revoked: Revoked,
    /// What becomes of what a pod opens to its own node, when its own policies allow it.
    pub to_host: ToHost,
    /// No rule logs. A kernel without `nfnetlink_log` refuses those that do, and all others with them.
    pub quiet: bool,
    /// How many packets each rule logs.
    pub log: Rate,
    /// Elements count the packets that are judged by them.
    pub counters: bool,
    /// What there is beside policy.
    pub terms: Rules,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mark: MarkByte::default(),
            revoked: Revoked::default(),
            to_host: ToHost::default(),
            quiet: false,
            log: LOG_RATE,
            counters: true,
            terms: Rules::default(),
        }
    }
}

/// What becomes of a connection that was allowed and is forbidden now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Revoked {
    /// TCP is answered with a reset, anything else is dropped.
    #[default]
    Reset,
    /// Packets are dropped, and nobody is told.
    Drop,
}

/// What becomes of what a pod opens to its own node, when its own policies allow it. Replies to what the node opens pass
/// in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToHost {
    /// It passes.
    #[default]
    Accept,
    /// Policies of the node's host endpoint of all interfaces are asked.
    Return,
    /// It does not pass.
    Drop,
}

impl ToHost {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Accept, Self::Return, Self::Drop];
}

/// The eight adjacent bits of the connection's mark that are ours. All others are kept as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkByte {
    shift: u32,
}

impl Default for MarkByte {
    fn default() -> Self {
        Self { shift: 24 }
    }
}

impl MarkByte {
    /// The byte that this mask covers; `None` unless it is eight adjacent bits.
    #[must_use]
    pub const fn new(mask: u32) -> Option<Self> {
        let shift = mask.trailing_zeros();
        if mask != 0 && shift <= 24 && mask >> shift == 0xff {
            Some(Self { shift })
        } else {
            None
        }
    }

    /// The bits as a mask.
    #[must_use]
    pub const fn mask(self) -> u32 {
        0xff << self.shift
    }

    /// The highest of the bits.
    #[must_use]
    pub const fn top(self) -> u32 {
        0x80 << self.shift
    }

    /// An epoch as it stands in the mark.
    #[must_use]
    pub const fn of(self, epoch: Epoch) -> u32 {
        (epoch.0 as u32) << self.shift
    }

    /// The epoch in a mark, unless there is none.
    #[must_use]
    pub const fn epoch(self, mark: u32) -> Option<Epoch> {
        Epoch::new((mark >> self.shift).to_le_bytes()[0])
    }

    /// Connections which carry an epoch of this half must forget it before this epoch begins: they were stamped in an
    /// earlier cycle, and would pass unjudged when its number comes round. `Some((value, mask))` of the mark.
    #[must_use]
    pub const fn stale_half(self, epoch: Epoch) -> Option<(u32, u32)> {
        match epoch.0 {
            1 => Some((0, self.top())),
            128 => Some((self.top(), self.top())),
            _ => None,
        }
    }
}

/// Number of the current judgement of live connections, 1 to 255; 0 marks a connection never judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u8);

impl Epoch {
    /// The first.
    pub const FIRST: Self = Self(1);

    /// The epoch with this number, unless it is 0.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number == 0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The one before; 1 is preceded by 255.
    #[must_use]
    pub const fn before(self) -> Self {
        if self.0 == 1 {
            Self(u8::MAX)
        } else {
            Self(self.0 - 1)
        }
    }

    /// The one that follows a bump; 255 is followed by 1.
    #[must_use]
    pub const fn next(self) -> Self {
        if self.0 == u8::MAX {
            Self(1)
        } else {
            Self(self.0 + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_s_byte_is_eight_adjacent_bits() {
        for mask in [0xff, 0x1fe, 0xff00, 0x00ff_0000, 0xff00_0000] {
            let byte = MarkByte::new(mask).expect("eight adjacent bits");
            assert_eq!(byte.mask(), mask);
            let epoch = Epoch::new(0xa5).expect("epoch");
            assert_eq!(byte.of(epoch) & !mask, 0);
            assert_eq!(byte.epoch(byte.of(epoch) | !mask), Some(epoch));
            assert_eq!(byte.epoch(!mask), None);
        }
        for mask in [0, 1, 0x7f, 0x1ff, 0xf0f0, 0xfe00_0000, u32::MAX] {
            assert_eq!(MarkByte::new(mask), None, "{mask:#x}");
        }
    }

    #[test]
    fn no_number_comes_round_before_those_of_the_last_cycle_are_forgotten() {
        let byte = MarkByte::new(0x0ff0).expect("eight adjacent bits");
        let mut stamped: Vec<u32> = Vec::new();
        let mut epoch = Epoch::FIRST;
        for _ in 0..3 * 255 {
            epoch = epoch.next();
            if let Some((value, mask)) = byte.stale_half(epoch) {
                stamped.retain(|mark| mark & mask != value);
            }
            assert!(!stamped.contains(&byte.of(epoch)), "{epoch:?}");
            stamped.push(byte.of(epoch));
        }
    }
}
