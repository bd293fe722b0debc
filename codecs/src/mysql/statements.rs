//! What was prepared on a connection: the summary of each statement by the id that it got.

/// Bytes of a summary that are kept.
const TEXT_MAX: usize = 59;
/// The id of a place that is free; servers count from 1.
const FREE: u32 = 0;
/// The id of a statement whose answer has not come; clients mean the last one by it.
const ASKED: u32 = u32::MAX;

/// The statements of one connection. Where there are too many, the oldest are forgotten.
#[derive(Debug, Default)]
pub(super) struct Statements {
    ids: Vec<u32>,
    texts: Vec<Text>,
    count: u16,
    /// Where the statement was found that was asked for last, or prepared last.
    last: u16,
    prepared_last: u16,
    /// The place that is given up next.
    oldest: u16,
}

#[derive(Clone, Copy, Debug)]
struct Text {
    len: u8,
    bytes: [u8; TEXT_MAX],
}

impl Text {
    /// The words of a summary that there is room for.
    fn new(summary: &[u8]) -> Self {
        let mut len = summary.len();
        if len > TEXT_MAX {
            len = memchr::memrchr(b' ', &summary[..=TEXT_MAX]).unwrap_or(0);
        }
        let mut bytes = [0; TEXT_MAX];
        bytes[..len].copy_from_slice(&summary[..len]);
        // No more than TEXT_MAX.
        Self { len: u8::try_from(len).unwrap_or(0), bytes }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Statements {
    /// A statement is to be prepared. Returns a number for [`Self::prepared`] and
    /// [`Self::refused`], 0 when there is no room for it.
    pub(super) fn ask(&mut self, summary: &[u8], max: u16) -> u16 {
        let Some(place) = self.room(max) else { return 0 };
        self.ids[usize::from(place)] = ASKED;
        self.texts[usize::from(place)] = Text::new(summary);
        self.prepared_last = place;
        place + 1
    }

    fn room(&mut self, max: u16) -> Option<u16> {
        if usize::from(self.count) < self.ids.len() {
            self.count += 1;
            let free = self.ids.iter().position(|id| *id == FREE);
            return free.and_then(|place| u16::try_from(place).ok());
        }
        if self.count < max {
            self.ids.push(FREE);
            self.texts.push(Text::new(b""));
            self.count += 1;
            return Some(self.count - 1);
        }
        for _ in 0..self.count {
            let place = self.oldest;
            self.oldest = (place + 1) % self.count;
            if self.ids[usize::from(place)] != ASKED {
                return Some(place);
            }
        }
        None
    }

    /// The server has prepared it, as `id`.
    pub(super) fn prepared(&mut self, number: u16, id: u32) {
        if let Some(place) = self.asked(number) {
            if id == FREE || id == ASKED {
                self.free(place);
            } else {
                self.ids[place] = id;
            }
        }
    }

    /// The server has not.
    pub(super) fn refused(&mut self, number: u16) {
        if let Some(place) = self.asked(number) {
            self.free(place);
        }
    }

    fn asked(&self, number: u16) -> Option<usize> {
        let place = usize::from(number.checked_sub(1)?);
        (self.ids.get(place) == Some(&ASKED)).then_some(place)
    }

    fn free(&mut self, place: usize) {
        self.ids[place] = FREE;
        self.count -= 1;
    }

    /// The place of a statement. The last id that there is stands for what was prepared last, as
    /// clients of MariaDB say it that do not wait for the answer.
    #[inline]
    pub(super) fn find(&mut self, id: u32) -> Option<u16> {
        if id == FREE {
            return None;
        }
        if id == ASKED {
            let place = self.prepared_last;
            return self.ids.get(usize::from(place)).filter(|id| **id != FREE).map(|_| place);
        }
        if self.ids.get(usize::from(self.last)) != Some(&id) {
            let place = self.ids.iter().position(|known| *known == id)?;
            self.last = u16::try_from(place).ok()?;
        }
        Some(self.last)
    }

    /// The summary at a place.
    pub(super) fn text(&self, place: u16) -> &[u8] {
        self.texts.get(usize::from(place)).map_or(&[], Text::as_bytes)
    }

    /// The client has closed it.
    pub(super) fn close(&mut self, id: u32) {
        if id != ASKED
            && let Some(place) = self.find(id)
        {
            self.free(usize::from(place));
        }
    }

    /// All are gone.
    pub(super) fn clear(&mut self) {
        self.ids.fill(FREE);
        (self.count, self.oldest) = (0, 0);
    }

    /// Bytes that are held for them.
    pub(super) fn held(&self) -> usize {
        usize::from(self.count) * (size_of::<u32>() + size_of::<Text>())
    }

    /// Gives the storage back when none is left.
    pub(super) fn release_memory(&mut self) {
        if self.count == 0 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(statements: &mut Statements, id: u32) -> Option<String> {
        let place = statements.find(id)?;
        Some(String::from_utf8(statements.text(place).to_vec()).unwrap())
    }

    #[test]
    fn statements_are_found_until_they_are_closed() {
        let mut all = Statements::default();
        let (a, b) = (all.ask(b"SELECT a", 8), all.ask(b"SELECT b", 8));
        assert_eq!(text(&mut all, ASKED).unwrap(), "SELECT b");
        all.prepared(a, 7);
        all.prepared(b, 9);
        // An answer that came twice changes nothing.
        all.prepared(a, 12);
        assert_eq!(text(&mut all, 7).unwrap(), "SELECT a");
        assert_eq!(text(&mut all, 9).unwrap(), "SELECT b");
        assert_eq!((text(&mut all, 12), text(&mut all, FREE)), (None, None));
        all.close(7);
        assert_eq!(text(&mut all, 7), None);
        let c = all.ask(b"SELECT c", 8);
        assert_eq!((a, b, c), (1, 2, 1));
        all.refused(c);
        assert_eq!(text(&mut all, ASKED), None);
        assert_eq!(all.held(), 64);
        all.clear();
        assert_eq!((all.held(), text(&mut all, 9)), (0, None));
        all.release_memory();
        assert_eq!(all.ids.capacity(), 0);
    }

    #[test]
    fn too_many_are_forgotten_oldest_first() {
        let mut all = Statements::default();
        for id in 1..=5 {
            let number = all.ask(format!("SELECT t{id}").as_bytes(), 3);
            all.prepared(number, id);
        }
        assert_eq!((text(&mut all, 1), text(&mut all, 2)), (None, None));
        for id in 3..=5 {
            assert_eq!(text(&mut all, id).unwrap(), format!("SELECT t{id}"));
        }
        // Those that nobody knows the answer to are not forgotten.
        let numbers = [1, 2, 3, 4].map(|_| all.ask(b"CALL p", 3));
        assert_eq!(numbers, [3, 1, 2, 0]);
        all.prepared(0, 8);
        assert_eq!(text(&mut all, 8), None);
    }

    #[test]
    fn long_summaries_end_with_a_word() {
        let long = [&b"SELECT "[..], &[b'a'; 45], b" bbbbbb ccc"].concat();
        assert_eq!(Text::new(&long).as_bytes(), &long[..59]);
        assert_eq!(Text::new(&[b'a'; 80]).as_bytes(), b"");
        assert_eq!(size_of::<Text>(), 60);
    }
}
