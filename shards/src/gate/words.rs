//! What the clients of requests are told whose upstream ends before it has answered, of a connection that
//! goes on without it. Where no request waits its room is used again by later ones.

use netra_codecs::codec::Replied;

/// Rooms that are kept for later requests where none waits.
const ROOMS_KEPT: usize = 64;

/// Words, by number.
#[derive(Debug, Default)]
pub(super) struct Words {
    rooms: Vec<Room>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Room {
    text: Vec<u8>,
    is_told: bool,
}

impl Words {
    /// Keeps what `write` writes. Returns its number, which is never 0.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Replied) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.rooms.push(Room::default());
            u32::try_from(self.rooms.len() - 1).unwrap_or(0)
        });
        let room = &mut self.rooms[index as usize];
        room.text.clear();
        room.is_told = write(&mut room.text) != Replied::MustClose;
        index + 1
    }

    /// Those of this number; None where there are none.
    pub(super) fn get(&self, number: u32) -> Option<&[u8]> {
        let room = self.rooms.get(number.checked_sub(1)? as usize)?;
        room.is_told.then_some(&room.text)
    }

    /// They are not needed any more.
    #[inline]
    pub(super) fn over(&mut self, number: u32) {
        if let Some(index) = number.checked_sub(1) {
            self.free.push(index);
            if self.is_empty() && self.rooms.len() > ROOMS_KEPT {
                *self = Self::default();
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rooms.len() == self.free.len()
    }

    /// Bytes that are kept.
    pub(super) fn kept(&self) -> usize {
        // What clients are told is about as long for each.
        let one = self.rooms.first().map_or(0, |room| room.text.capacity());
        self.rooms.len() * (size_of::<Room>() + one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_used_again_and_given_back() {
        let mut words = Words::default();
        let mut add = |text: &[u8], replied| {
            words.add(|out| {
                out.extend_from_slice(text);
                replied
            })
        };
        let numbers = [add(b"one", Replied::Sent), add(b"half", Replied::MustClose)];
        assert_eq!(
            numbers.map(|it| words.get(it).map(<[u8]>::to_vec)),
            [Some(b"one".into()), None]
        );
        assert_eq!((words.get(0), words.is_empty()), (None, false));
        numbers.into_iter().for_each(|it| words.over(it));
        assert!(words.is_empty() && words.kept() > 0);
        let many: Vec<_> = (0..=ROOMS_KEPT).map(|_| words.add(|_| Replied::Sent)).collect();
        assert_eq!(many.len(), words.rooms.len());
        many.into_iter().for_each(|it| words.over(it));
        assert_eq!((words.kept(), words.is_empty()), (0, true));
    }
}
