//! What is left to chance in a simulation, all of it drawn from one seed.

/// xorshift64*: small, seeded, good enough to choose unkindnesses.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`, which must not be zero.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    /// True with a chance of `percent`.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn len(&mut self, most: usize) -> usize {
        usize::try_from(self.below(most.max(1) as u64)).unwrap_or(0) + 1
    }
}

/// How likely each unkindness is, in percent; drawn from the seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) short: u64,
    pub(crate) would_block: u64,
    pub(crate) late: u64,
    pub(crate) spurious: u64,
    pub(crate) no_pipe: u64,
    pub(crate) no_buffer: u64,
    pub(crate) accept_fails: u64,
}

impl Faults {
    /// A kernel without unkindness.
    pub(crate) const NONE: Self = Self {
        short: 0,
        would_block: 0,
        late: 0,
        spurious: 0,
        no_pipe: 0,
        no_buffer: 0,
        accept_fails: 0,
    };

    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut percent = |most: u64| if rng.chance(50) { rng.below(most) } else { 0 };
        Self {
            short: percent(60),
            would_block: percent(30),
            late: percent(80),
            spurious: percent(10),
            no_pipe: percent(50),
            no_buffer: percent(20),
            accept_fails: percent(30),
        }
    }
}
