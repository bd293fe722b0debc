//! Storage that is lent to gates: what a refused client is told, and a message that waits for another
//! upstream, ask the allocator for nothing once there have been such before.

/// So many are kept on a shard, each of so many bytes at most: what is longer goes back to the allocator.
const SCRAPS_MAX: usize = 16;
const SCRAP_BYTES_MAX: usize = 8192;

/// What nobody has need of just now.
#[derive(Debug, Default)]
pub(crate) struct Scraps(Vec<Vec<u8>>);

impl Scraps {
    /// Storage for whoever has none.
    pub(crate) fn lend(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// Its owner has no need of it any more.
    pub(crate) fn take_back(&mut self, from: &mut Vec<u8>) {
        let mut bytes = std::mem::take(from);
        let is_good = (1..=SCRAP_BYTES_MAX).contains(&bytes.capacity());
        if is_good && self.0.len() < SCRAPS_MAX {
            bytes.clear();
            self.0.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_is_empty_and_no_more_is_kept_than_so_much() {
        let mut scraps = Scraps::default();
        scraps.take_back(&mut Vec::new());
        scraps.take_back(&mut vec![1; SCRAP_BYTES_MAX + 1]);
        assert_eq!(scraps.lend().capacity(), 0, "neither is worth to be kept");
        for _ in 0..2 * SCRAPS_MAX {
            let mut bytes = vec![1; 100];
            scraps.take_back(&mut bytes);
            assert_eq!(bytes.capacity(), 0);
        }
        assert_eq!(scraps.0.len(), SCRAPS_MAX);
        let lent = scraps.lend();
        assert!(lent.is_empty() && lent.capacity() >= 100);
    }
}
