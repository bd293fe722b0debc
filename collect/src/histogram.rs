//! Durations by size: four classes to each power of two of microseconds, and only those that have any.

/// Classes that there are: up to 2^31 µs, which is more than half an hour.
pub(crate) const CLASSES: usize = 128;

/// The class of a duration.
pub(crate) fn class(duration_ns: u64) -> u8 {
    let quarters = (duration_ns / 250).max(4);
    let power = quarters.ilog2() - 2;
    let part = quarters >> power & 3;
    u8::try_from((u64::from(power) * 4 + part).min(CLASSES as u64 - 1)).unwrap_or(u8::MAX)
}

/// The upper end of a class, in nanoseconds.
pub(crate) fn upper_ns(class: u8) -> u64 {
    let (power, part) = (class / 4, u64::from(class % 4));
    ((5 + part) << power) * 250
}

/// Few durations, packed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sparse(Vec<(u8, u32)>);

impl Sparse {
    /// Adds one, and says by how many bytes that has grown.
    pub(crate) fn add(&mut self, class: u8) -> usize {
        match self.0.iter_mut().find(|(known, _)| *known == class) {
            Some((_, count)) => {
                *count = count.saturating_add(1);
                0
            }
            None => {
                let before = self.0.capacity();
                if before == self.0.len() {
                    self.0.reserve_exact(2);
                }
                self.0.push((class, 1));
                (self.0.capacity() - before) * size_of::<(u8, u32)>()
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(u8, u32)>()
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (class, more) in &other.0 {
            match self.0.iter_mut().find(|(known, _)| known == class) {
                Some((_, count)) => *count = count.saturating_add(*more),
                None => self.0.push((*class, *more)),
            }
        }
    }
}

/// All durations of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Histogram(pub(crate) [u64; CLASSES]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; CLASSES])
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, sparse: &Sparse) {
        for (class, count) in &sparse.0 {
            self.0[usize::from(*class)] += u64::from(*count);
        }
    }

    /// The classes that have any: upper end in nanoseconds, and how many.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (u64, u64)> {
        let all = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        all.map(|(class, count)| (upper_ns(u8::try_from(class).unwrap_or(u8::MAX)), *count))
    }

    /// The duration that `share` of all are no longer than; none where there are none.
    pub(crate) fn quantile_ns(&self, share: f64) -> Option<u64> {
        let all: u64 = self.0.iter().sum();
        #[allow(clippy::cast_possible_truncation, reason = "a share of what is whole")]
        let mut left = ((all as f64 * share).ceil() as u64).max(1);
        for (upper, count) in self.classes() {
            if count >= left {
                return Some(upper);
            }
            left -= count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_belongs_to_them() {
        let mut before = 0;
        for us in (1..5000).chain([1 << 20, 1 << 25, 1 << 30]) {
            let class = class(us * 1000);
            assert!(class >= before, "{us}");
            before = class;
            let upper = upper_ns(class);
            assert!(upper > us * 1000 && upper <= us * 1250 + 250, "{us} {upper}");
        }
        assert_eq!(class(0), 0);
        assert_eq!(usize::from(class(u64::MAX)), CLASSES - 1);
    }

    #[test]
    fn quantiles() {
        let mut sparse = Sparse::default();
        for us in 1..=1000 {
            sparse.add(class(us * 1000));
        }
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_ns(0.5), None);
        histogram.add(&sparse);
        let (half, most) = (histogram.quantile_ns(0.5), histogram.quantile_ns(0.99));
        assert!((450_000..=640_000).contains(&half.unwrap()), "{half:?}");
        assert!((990_000..=1_300_000).contains(&most.unwrap()), "{most:?}");
        let mut twice = sparse.clone();
        twice.merge(&sparse);
        let mut doubled = Histogram::default();
        doubled.add(&twice);
        assert_eq!(doubled.quantile_ns(0.5), half);
        assert!(sparse.bytes() < 600);
    }
}
