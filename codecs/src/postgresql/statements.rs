//! What the prepared statements and portals of a connection do, by their names.

use crate::sql::OTHER;

/// As many as are remembered; the oldest makes room.
const COUNT_MAX: usize = 256;
/// Bytes of a summary that are remembered.
const TEXT_MAX: usize = 86;

/// Summaries by the mark of a name; no name and no text is kept.
#[derive(Debug, Default)]
pub(super) struct Statements {
    marks: Vec<u64>,
    summaries: Vec<Summed>,
    /// The place that is written next, once there are as many as may be.
    oldest: usize,
}

/// What one of them does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summed {
    pub(super) operation: u8,
    len: u8,
    text: [u8; TEXT_MAX],
}

impl Default for Summed {
    fn default() -> Self {
        Self { operation: OTHER, len: 0, text: [0; TEXT_MAX] }
    }
}

impl Summed {
    /// A longer summary is cut between two words.
    fn new(summary: &[u8], operation: u8) -> Self {
        let mut summed = Self { operation, ..Self::default() };
        let len = match summary.len() {
            len @ 0..=TEXT_MAX => len,
            _ => summary[..=TEXT_MAX].iter().rposition(|byte| *byte == b' ').unwrap_or(0),
        };
        summed.text[..len].copy_from_slice(&summary[..len]);
        summed.len = u8::try_from(len).unwrap_or(0);
        summed
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

impl Statements {
    pub(super) fn get(&self, mark: u64) -> Option<Summed> {
        let place = self.marks.iter().position(|known| *known == mark)?;
        self.summaries.get(place).copied()
    }

    pub(super) fn put(&mut self, mark: u64, summary: &[u8], operation: u8) {
        let summed = Summed::new(summary, operation);
        if let Some(place) = self.marks.iter().position(|known| *known == mark) {
            self.summaries[place] = summed;
        } else if self.marks.len() < COUNT_MAX {
            self.marks.push(mark);
            self.summaries.push(summed);
        } else {
            (self.marks[self.oldest], self.summaries[self.oldest]) = (mark, summed);
            self.oldest = (self.oldest + 1) % COUNT_MAX;
        }
    }

    pub(super) fn remove(&mut self, mark: u64) {
        if let Some(place) = self.marks.iter().position(|known| *known == mark) {
            self.marks.swap_remove(place);
            self.summaries.swap_remove(place);
            self.oldest = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        self.marks.clear();
        self.summaries.clear();
        self.oldest = 0;
    }

    pub(super) fn held(&self) -> usize {
        self.marks.len() * (size_of::<u64>() + size_of::<Summed>())
    }

    /// Gives back storage beyond what is in use.
    pub(super) fn release_memory(&mut self) {
        self.marks.shrink_to_fit();
        self.summaries.shrink_to_fit();
    }
}

const _: () = assert!(size_of::<Summed>() == 88);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let mut statements = Statements::default();
        for mark in 0..1000 {
            statements.put(mark, format!("SELECT t{mark}").as_bytes(), 1);
        }
        assert!(statements.get(743).is_none());
        for mark in 744..1000 {
            let summed = statements.get(mark).unwrap();
            assert_eq!(summed.text(), format!("SELECT t{mark}").as_bytes());
        }
        assert_eq!(statements.held(), COUNT_MAX * 96);
        statements.remove(800);
        assert!(statements.get(800).is_none() && statements.get(801).is_some());
        statements.clear();
        statements.release_memory();
        assert_eq!((statements.held(), statements.marks.capacity()), (0, 0));
    }

    #[test]
    fn a_long_summary_is_cut_between_words() {
        let text = format!("SELECT {} {}", "a".repeat(70), "b".repeat(20));
        let summed = Summed::new(text.as_bytes(), 1);
        assert_eq!(summed.text(), format!("SELECT {}", "a".repeat(70)).as_bytes());
        let fits = format!("SELECT {}", "a".repeat(79));
        assert_eq!(Summed::new(format!("{fits} b").as_bytes(), 1).text(), fits.as_bytes());
        assert_eq!(Summed::new(&[b'a'; 100], 1).text(), b"");
    }
}
