//! Random choices, all from one seed.

/// A small generator (SplitMix64): good enough to spread timers, and the same for the same seed.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator that always gives the same numbers for that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The interval shortened by up to a quarter (RFC 4271 section 10).
    pub fn shorten(&mut self, interval: u64) -> u64 {
        interval - self.next_u64() % (interval / 4 + 1)
    }
}
