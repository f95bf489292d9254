//! Which addresses of a block are in use.

use std::collections::VecDeque;
use std::net::IpAddr;

use crds::net::Cidr;

/// Most addresses a block may have.
pub const MAX_ADDRESSES: u16 = 4096;

/// The addresses of a block. Every address can be used, also the first and the last: pods have host routes, not a subnet.
///
/// Addresses never given out come first, from the start; then the one that was freed longest ago, so that an address rests as
/// long as possible before it means another pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    cidr: Cidr,
    size: u16,
    used: Bits,
    /// Never given out since the block is known.
    fresh: Bits,
    /// Free again, the longest first.
    freed: VecDeque<u16>,
}

/// A prefix with too many addresses for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} has more than {MAX_ADDRESSES} addresses")]
pub struct TooLarge(pub Cidr);

impl Block {
    /// A block with nothing in use.
    pub fn new(cidr: Cidr) -> Result<Self, TooLarge> {
        let size = u16::try_from(cidr.size())
            .ok()
            .filter(|size| *size <= MAX_ADDRESSES);
        let size = size.ok_or(TooLarge(cidr))?;
        Ok(Self {
            cidr,
            size,
            used: Bits::zeros(size),
            fresh: Bits::ones(size),
            freed: VecDeque::new(),
        })
    }

    /// Marks an address as in use; false if it was already, or is not of this block.
    pub fn take(&mut self, address: IpAddr) -> bool {
        let Some(ordinal) = self.ordinal(address).filter(|o| !self.used.has(*o)) else {
            return false;
        };
        self.used.set(ordinal);
        if self.fresh.has(ordinal) {
            self.fresh.clear(ordinal);
        } else {
            self.freed.retain(|o| *o != ordinal);
        }
        true
    }

    /// Marks an address as free; false if it was already, or is not of this block.
    pub fn free(&mut self, address: IpAddr) -> bool {
        let Some(ordinal) = self.ordinal(address).filter(|o| self.used.has(*o)) else {
            return false;
        };
        self.used.clear(ordinal);
        self.freed.push_back(ordinal);
        true
    }

    /// The address to give out next; `take` it.
    pub fn next(&self) -> Option<IpAddr> {
        let ordinal = self.fresh.first().or_else(|| self.freed.front().copied())?;
        self.cidr.nth(u128::from(ordinal))
    }

    /// The prefix.
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// Number of addresses.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Number of addresses in use.
    pub fn used(&self) -> u16 {
        self.used.count
    }

    /// Number of addresses not in use.
    pub fn available(&self) -> u16 {
        self.size - self.used.count
    }

    /// Whether the address is in use.
    pub fn is_used(&self, address: IpAddr) -> bool {
        self.ordinal(address).is_some_and(|o| self.used.has(o))
    }

    fn ordinal(&self, address: IpAddr) -> Option<u16> {
        self.cidr
            .ordinal(address)
            .and_then(|o| u16::try_from(o).ok())
    }
}

/// A set of ordinals that knows its size.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bits {
    words: Vec<u64>,
    count: u16,
}

impl Bits {
    fn zeros(size: u16) -> Self {
        Self {
            words: vec![0; usize::from(size.div_ceil(64))],
            count: 0,
        }
    }

    fn ones(size: u16) -> Self {
        let mut bits = Self::zeros(size);
        (0..size).for_each(|ordinal| bits.set(ordinal));
        bits
    }

    fn has(&self, ordinal: u16) -> bool {
        self.words[usize::from(ordinal / 64)] & (1 << (ordinal % 64)) != 0
    }

    fn set(&mut self, ordinal: u16) {
        if !self.has(ordinal) {
            self.words[usize::from(ordinal / 64)] |= 1 << (ordinal % 64);
            self.count += 1;
        }
    }

    fn clear(&mut self, ordinal: u16) {
        if self.has(ordinal) {
            self.words[usize::from(ordinal / 64)] &= !(1 << (ordinal % 64));
            self.count -= 1;
        }
    }

    fn first(&self) -> Option<u16> {
        let (index, word) = self
            .words
            .iter()
            .enumerate()
            .find(|(_, word)| **word != 0)?;
        let bit = u16::try_from(word.trailing_zeros()).ok()?;
        Some(u16::try_from(index).ok()? * 64 + bit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn block(cidr: &str) -> Block {
        Block::new(cidr.parse().unwrap()).unwrap()
    }

    fn take_next(block: &mut Block) -> String {
        let address = block.next().unwrap();
        assert!(block.take(address));
        address.to_string()
    }

    #[test]
    fn every_address_is_given_out_once_in_order() {
        for (cidr, size) in [
            ("10.0.0.64/26", 64),
            ("fd00::40/122", 64),
            ("10.0.0.1/32", 1),
            ("fd00::1000/116", 4096),
            ("10.0.16.0/20", 4096),
        ] {
            let mut block = block(cidr);
            let given: BTreeSet<IpAddr> = std::iter::from_fn(|| {
                let next = block.next()?;
                block.take(next).then_some(next)
            })
            .collect();
            assert_eq!(given.len(), size, "{cidr}");
            assert_eq!(given.first().copied(), Some(block.cidr().first()));
            assert_eq!(given.last().copied(), Some(block.cidr().last()));
            assert_eq!(
                (usize::from(block.used()), block.available(), block.next()),
                (size, 0, None)
            );
        }
    }

    #[test]
    fn fresh_addresses_come_before_freed_ones_and_the_longest_free_first() {
        let mut block = block("10.0.0.0/30");
        assert_eq!(take_next(&mut block), "10.0.0.0");
        assert_eq!(take_next(&mut block), "10.0.0.1");
        assert!(block.free("10.0.0.1".parse().unwrap()));
        assert!(block.free("10.0.0.0".parse().unwrap()));
        let order: Vec<String> = (0..4).map(|_| take_next(&mut block)).collect();
        assert_eq!(order, ["10.0.0.2", "10.0.0.3", "10.0.0.1", "10.0.0.0"]);
    }

    #[test]
    fn a_taken_address_is_skipped_wherever_it_was() {
        let mut block = block("10.0.0.0/30");
        assert!(block.take("10.0.0.1".parse().unwrap()));
        assert!(!block.take("10.0.0.1".parse().unwrap()));
        assert_eq!(take_next(&mut block), "10.0.0.0");
        assert!(block.free("10.0.0.0".parse().unwrap()));
        assert!(block.free("10.0.0.1".parse().unwrap()));
        assert!(
            block.take("10.0.0.0".parse().unwrap()),
            "taken out of the freed ones"
        );
        let order: Vec<String> = (0..3).map(|_| take_next(&mut block)).collect();
        assert_eq!(order, ["10.0.0.2", "10.0.0.3", "10.0.0.1"]);
    }

    #[test]
    fn strangers_and_free_addresses_are_not_freed() {
        let mut block = block("10.0.0.0/30");
        assert!(!block.free("10.0.0.0".parse().unwrap()));
        assert!(!block.free("10.9.0.0".parse().unwrap()));
        assert!(!block.take("fd00::1".parse().unwrap()));
        assert!(!block.is_used("10.0.0.0".parse().unwrap()));
    }

    #[test]
    fn more_than_4096_addresses_are_refused() {
        let cidr: Cidr = "10.0.0.0/19".parse().unwrap();
        assert_eq!(Block::new(cidr), Err(TooLarge(cidr)));
        assert!(Block::new("::/0".parse().unwrap()).is_err());
    }
}
