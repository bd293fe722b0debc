//! Requests that may be sent again, as they were sent: kept until they are answered, and sent once more where
//! their upstream ends before that. Nothing is done here: who may be kept, and when all go out again, is for
//! the gate (`gate/again.rs`) and for the shard (`upstream/again.rs`). Here wait, too, what was answered and is
//! *withheld* until somebody has looked whether another endpoint can be asked (`gate/elsewhere.rs`).
//!
//! Nothing is done when an answer comes: an open exchange has the number of its room, and whoever keeps the
//! next request looks which rooms nobody has any more.

use crate::sys::Nanos;
use netra_codecs::codec::{Answer, ErrorText};
use std::collections::VecDeque;

/// A longer request is not kept: it is sent once. A longer answer is not withheld.
pub(crate) const BYTES_MAX: usize = 8 * 1024;
/// So many requests are kept at a time.
pub(crate) const ROOMS_MAX: usize = 64;
/// Rooms that are kept for later requests where none waits.
const ROOMS_KEPT: usize = 4;

/// How a connection goes on whose upstream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onward {
    /// Nothing is asked: the next request goes to another one.
    Between,
    /// All that is asked is asked again, so often at most.
    Again(u8),
}

/// How a request may be sent again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    /// How often.
    pub(crate) attempts: u8,
    /// How long one try may take, 0 is for ever.
    pub(crate) per_try_ns: Nanos,
    /// An answer that says that its server cannot serve it now is one more reason.
    pub(crate) withholds: bool,
}

/// An answer that its client has nothing of: another endpoint may be asked. Its exchange is open again.
#[derive(Debug)]
pub(crate) struct Withheld {
    /// What it says, and what is wrong.
    pub(crate) answer: Answer,
    pub(crate) error: ErrorText,
    /// As its client would get it.
    pub(crate) bytes: Vec<u8>,
    /// The upstream that said it.
    pub(crate) place: u8,
    /// Whose answer it is: its room, and when it came.
    pub(crate) number: u8,
    pub(crate) opened_ns: Nanos,
}

/// The requests of one connection that may be sent again.
#[derive(Debug, Default)]
pub(crate) struct Again {
    rooms: Vec<Room>,
    /// A bit for each room that an open exchange has; whose request is whole; whose was sent again.
    used: u64,
    whole: u64,
    repeated: u64,
    /// The room of the request that is under way.
    under: Option<usize>,
    /// Where the input continues it.
    from: usize,
    /// Bytes of storage.
    storage: usize,
    /// Something else went out by the same upstream since all of it was taken.
    has_others: bool,
    /// Memory is short: nothing more is kept.
    is_tight: bool,
    /// They wait for a further upstream.
    is_repeating: bool,
    /// A try may take too long, of one that is kept or was.
    is_timed: bool,
    /// Answers about which nobody has decided yet, oldest first.
    withheld: VecDeque<Withheld>,
}

#[derive(Debug, Default)]
struct Room {
    bytes: Vec<u8>,
    tries: Tries,
    /// So often it was sent again for what was answered.
    asked_again: u8,
    /// Since when the last try has.
    since: Nanos,
}

impl Again {
    /// Bytes that it takes.
    pub(crate) fn kept(&self) -> usize {
        self.storage + self.withheld.iter().map(|it| it.bytes.len()).sum::<usize>()
    }

    /// Rooms are in use, as far as anybody has looked.
    pub(crate) fn is_used(&self) -> bool {
        self.used != 0
    }

    /// Open exchanges have these rooms, and no others; 0 is none. True where a request was sent again, and
    /// none that was is open any more.
    pub(crate) fn sweep(&mut self, open: impl Iterator<Item = u8>) -> bool {
        self.used = open.fold(0, |used, number| used | bit(number));
        if let Some(under) = self.under {
            self.used |= 1 << under;
        }
        self.whole &= self.used;
        if self.used == 0 && self.rooms.len() > ROOMS_KEPT {
            self.rooms.truncate(ROOMS_KEPT);
            self.storage = self.rooms.iter().map(|room| room.bytes.capacity()).sum();
        }
        let was_repeated = self.repeated != 0;
        self.repeated &= self.used;
        was_repeated && self.repeated == 0
    }

    /// A room for a request that may be sent again like this. Its number, which is never 0.
    pub(crate) fn take(&mut self, tries: Tries, now: Nanos) -> Option<u8> {
        let index = (!self.used).trailing_zeros() as usize;
        if index >= ROOMS_MAX || self.is_tight {
            return None;
        }
        if index >= self.rooms.len() {
            self.rooms.resize_with(index + 1, Room::default);
        }
        let room = &mut self.rooms[index];
        (room.tries, room.asked_again, room.since) = (tries, 0, now);
        self.is_timed |= tries.per_try_ns > 0;
        self.used |= 1 << index;
        u8::try_from(index + 1).ok()
    }

    /// The request of this room as it was sent, and how often it may be sent again; None where it is not
    /// whole, or was too long.
    pub(crate) fn get(&self, number: u8) -> Option<(&[u8], u8)> {
        let room = self.room(number)?;
        (self.whole & bit(number) != 0).then_some((&room.bytes, room.tries.attempts))
    }

    fn room(&self, number: u8) -> Option<&Room> {
        self.rooms.get(usize::from(number.checked_sub(1)?))
    }

    /// A try may take too long, of one that is kept or was.
    pub(crate) fn is_timed(&self) -> bool {
        self.is_timed
    }

    /// How long one try of this may take, and since when the last one has; None where that is for ever, or it is not
    /// whole.
    pub(crate) fn try_of(&self, number: u8) -> Option<(Nanos, Nanos)> {
        let room = self.room(number)?;
        let limit = room.tries.per_try_ns;
        let is_timed = limit > 0 && self.whole & bit(number) != 0;
        is_timed.then_some((limit, room.since))
    }

    /// A try begins only now.
    pub(crate) fn begin_try(&mut self, number: u8, now: Nanos) {
        let index = number.checked_sub(1).map(usize::from);
        if let Some(room) = index.and_then(|index| self.rooms.get_mut(index)) {
            room.since = now;
        }
    }

    /// This one goes out again, by a further upstream.
    pub(crate) fn note_repeated(&mut self, number: u8) {
        self.repeated |= bit(number);
    }

    /// They go out again, once there is an upstream.
    pub(crate) fn begin_repeating(&mut self) {
        (self.is_repeating, self.repeated) = (true, self.used);
    }

    /// They have gone out. Whether they had to.
    pub(crate) fn end_repeating(&mut self) -> bool {
        std::mem::take(&mut self.is_repeating)
    }

    pub(crate) fn is_repeating(&self) -> bool {
        self.is_repeating
    }

    /// A message goes out that is not kept.
    pub(crate) fn note_other(&mut self) {
        self.has_others = true;
    }

    /// Whether one has that a full socket may not have taken.
    pub(crate) fn has_others(&self) -> bool {
        self.has_others
    }
}

/// What was answered, and is not passed on yet.
impl Again {
    /// An answer to this request that says that its server cannot serve it now, of so many bytes, may be withheld.
    pub(crate) fn may_withhold(&self, number: u8, len: usize) -> bool {
        let is_left = |it: &Room| it.tries.withholds && it.asked_again < it.tries.attempts;
        let is_whole = self.whole & bit(number) != 0;
        let has_room = len <= BYTES_MAX && self.withheld.len() < ROOMS_MAX && !self.is_tight;
        is_whole && has_room && self.room(number).is_some_and(is_left)
    }

    /// It is.
    pub(crate) fn withhold(&mut self, it: Withheld) {
        self.withheld.push_back(it);
    }

    /// Somebody has to decide about one.
    #[inline]
    pub(crate) fn withholds_any(&self) -> bool {
        !self.withheld.is_empty()
    }

    /// About this one.
    pub(crate) fn withholds(&self, number: u8) -> bool {
        self.withheld.iter().any(|it| it.number == number)
    }

    /// The oldest of them.
    pub(crate) fn take_withheld(&mut self) -> Option<Withheld> {
        self.withheld.pop_front()
    }

    /// This one is asked again for another reason: nobody is to decide about an answer to it any more.
    pub(crate) fn forget_withheld(&mut self, number: u8) {
        self.withheld.retain(|it| it.number != number);
    }

    /// This one is sent again, for what was answered: as it was sent.
    pub(crate) fn ask_again(&mut self, number: u8, now: Nanos) -> &[u8] {
        self.note_repeated(number);
        let room = number.checked_sub(1).and_then(|it| self.rooms.get_mut(usize::from(it)));
        room.map_or(&[], |room| {
            (room.asked_again, room.since) = (room.asked_again.saturating_add(1), now);
            &room.bytes
        })
    }

    /// It was sent before.
    pub(crate) fn is_repeated(&self, number: u8) -> bool {
        self.repeated & bit(number) != 0
    }
}

/// Which bytes of an input it is.
impl Again {
    /// An input begins, and all before it has been taken by the socket.
    pub(crate) fn begin_input(&mut self, is_tight: bool) {
        (self.from, self.has_others, self.is_tight) = (0, false, is_tight);
    }

    /// A request is under way that is kept.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.under.is_some()
    }

    /// A request begins, and goes on at this place of the input.
    pub(crate) fn begin(&mut self, number: u8, from: usize) {
        let index = usize::from(number.saturating_sub(1));
        self.whole &= !bit(number);
        self.rooms[index].bytes.clear();
        (self.under, self.from) = (Some(index), from);
    }

    /// Further bytes of it. False where it has become too long, and is given up.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> bool {
        let Some(index) = self.under else { return true };
        let room = &mut self.rooms[index].bytes;
        if room.len() + bytes.len() > BYTES_MAX {
            self.under = None;
            return false;
        }
        let before = room.capacity();
        room.extend_from_slice(bytes);
        self.storage = self.storage - before + room.capacity();
        true
    }

    /// The input has been read up to there, with which the request is whole or not. False as of
    /// [`add`](Self::add).
    pub(crate) fn read(&mut self, input: &[u8], at: usize, is_whole: bool) -> bool {
        let is_kept = self.add(input.get(self.from..at).unwrap_or_default());
        self.from = at;
        if is_whole && let Some(index) = self.under.take() {
            self.whole |= 1 << index;
        }
        is_kept
    }

    /// So much of the request is still to come. False where that is too much.
    pub(crate) fn expect(&mut self, rest: u64) -> bool {
        let Some(index) = self.under else { return true };
        let room = (BYTES_MAX - self.rooms[index].bytes.len()) as u64;
        if rest != u64::MAX && rest > room {
            self.under = None;
        }
        self.under.is_some()
    }
}

/// The bit of a room; none of number 0.
fn bit(number: u8) -> u64 {
    number.checked_sub(1).map_or(0, |index| 1 << index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(attempts: u8, per_try_ns: Nanos) -> Tries {
        Tries { attempts, per_try_ns, withholds: true }
    }

    fn keep(again: &mut Again, bytes: &[u8]) -> u8 {
        let number = again.take(tries(2, 0), 0).expect("room");
        again.begin(number, 0);
        again.read(bytes, bytes.len(), true);
        number
    }

    #[test]
    fn rooms_are_used_again_by_whom_nobody_has_any_more() {
        let mut again = Again::default();
        let numbers = [b"one", b"two"].map(|it| keep(&mut again, it));
        assert_eq!((numbers, again.get(1)), ([1, 2], Some((&b"one"[..], 2))));
        assert!(!again.sweep([0, 2].into_iter()));
        assert_eq!((again.get(1), again.get(2)), (None, Some((&b"two"[..], 2))));
        assert_eq!(keep(&mut again, b"three"), 1);
        again.begin_repeating();
        assert!(!again.sweep([2].into_iter()), "one that was sent again is open");
        assert!(again.sweep([0].into_iter()) && !again.is_used());
        assert!(!again.sweep([].into_iter()), "it is told once");
        assert!(again.is_repeating() && again.end_repeating() && !again.end_repeating());
    }

    #[test]
    fn what_comes_in_pieces_is_whole_at_its_end() {
        let mut again = Again::default();
        let number = again.take(tries(1, 50), 100).unwrap();
        again.begin(number, 2);
        assert_eq!((again.is_timed(), again.try_of(number)), (true, None));
        assert!(again.read(b"..he", 4, false) && again.is_open());
        assert_eq!(again.get(number), None);
        again.sweep([].into_iter());
        again.begin_input(false);
        assert!(again.read(b"ad!", 2, true) && !again.is_open());
        assert_eq!(again.get(number), Some((&b"head"[..], 1)));
        assert_eq!((again.try_of(number), again.try_of(0)), (Some((50, 100)), None));
        again.begin_try(number, 130);
        assert_eq!(again.try_of(number), Some((50, 130)));
    }

    #[test]
    fn answers_wait_until_somebody_decides() {
        let mut again = Again::default();
        let number = keep(&mut again, b"one");
        let answer = |len| Withheld {
            answer: Answer::default(),
            error: ErrorText::NONE,
            bytes: vec![0; len],
            place: 0,
            number,
            opened_ns: 7,
        };
        assert!(
            again.may_withhold(number, BYTES_MAX) && !again.may_withhold(number, BYTES_MAX + 1)
        );
        assert!(!again.may_withhold(0, 1) && !again.withholds_any() && !again.is_repeated(number));
        let before = again.kept();
        again.withhold(answer(5));
        assert!(again.withholds(number) && !again.withholds(number + 1));
        assert_eq!(again.kept(), before + 5);
        assert_eq!(again.take_withheld().map(|it| it.opened_ns), Some(7));
        assert_eq!(again.ask_again(number, 9), b"one");
        assert_eq!(again.kept(), before);
        assert!(again.is_repeated(number) && again.may_withhold(number, 1));
        again.ask_again(number, 9);
        assert!(!again.may_withhold(number, 1), "it was sent again twice");
        (0..ROOMS_MAX).for_each(|_| again.withhold(answer(0)));
        let other = keep(&mut again, b"two");
        assert!(!again.may_withhold(other, 1), "so many wait");
        again.forget_withheld(number);
        assert!(!again.withholds_any() && again.may_withhold(other, 1));
        again.begin_input(true);
        assert!(!again.may_withhold(other, 1), "memory is short");
    }

    #[test]
    fn no_more_is_kept_than_there_may_be() {
        let mut again = Again::default();
        for len in [BYTES_MAX, BYTES_MAX + 1] {
            let (number, long) = (again.take(tries(1, 0), 0).unwrap(), vec![1; len]);
            again.begin(number, 0);
            let is_kept = again.read(&long, len, true);
            assert_eq!((is_kept, again.get(number).is_some()), (len <= BYTES_MAX, is_kept));
        }
        let number = again.take(tries(1, 0), 0).unwrap();
        again.begin(number, 0);
        assert!(!again.is_timed());
        assert!(again.expect(BYTES_MAX as u64) && again.expect(u64::MAX));
        assert!(!again.expect(BYTES_MAX as u64 + 1) && !again.is_open());
        (3..ROOMS_MAX).for_each(|_| assert!(again.take(tries(1, 0), 0).is_some()));
        assert_eq!(again.take(tries(1, 0), 0), None);
        assert!(again.kept() >= BYTES_MAX);
        again.sweep([].into_iter());
        again.begin_input(true);
        assert_eq!((again.take(tries(1, 0), 0), again.rooms.len()), (None, ROOMS_KEPT));
        again.begin_input(false);
        assert_eq!(again.take(tries(1, 0), 0), Some(1));
    }
}
