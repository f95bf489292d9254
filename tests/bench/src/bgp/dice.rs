//! Numbers that look random and are the same in every run.

/// SplitMix64: small, fast, and good enough for the shape of a table.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The same seed throws the same numbers.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn throw(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let [a, b, c, d, ..] = (x ^ (x >> 31)).to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Any of 0 to `end` - 1.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        let product = u64::from(self.throw()) * u64::from(end);
        u32::try_from(product >> 32).expect("the upper half of 64 bits")
    }

    /// Any of `low` to `high`.
    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high - low + 1)
    }

    /// True in so many of a thousand cases.
    pub(crate) fn chance(&mut self, of_thousand: u32) -> bool {
        self.below(1000) < of_thousand
    }

    /// One of the values, each as often as its weight says.
    pub(crate) fn pick<T: Copy>(&mut self, weighted: &[(u32, T)]) -> T {
        let total = weighted.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(total);
        for (weight, value) in weighted {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *value,
            }
        }
        unreachable!("the weights sum up to more than what was thrown")
    }
}
