//! Answers that may not take for ever: since when each is waited for, how long it may take, and what
//! its client is told after that. One of these for a connection that has such requests.
//!
//! Nothing is done when an answer comes: the alarm goes off once for many requests, and only then
//! somebody looks which of them still wait. Where a request waits its room is used again by later ones.

use crate::{again::Again, sys::Nanos};
use netra_codecs::codec::Replied;

/// How much later somebody looks again where nobody can be told now.
pub(crate) const LATER_NS: Nanos = 20_000_000;

/// Rooms that are kept for later requests where none waits.
const ROOMS_KEPT: usize = 4;

/// How long an answer may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed<'t> {
    /// Until its first byte; 0 is for ever.
    pub(crate) first_byte_ns: Nanos,
    /// How long it may stand still once it has begun; 0 is for ever.
    pub(crate) idle_ns: Nanos,
    /// What the client is told.
    pub(crate) text: &'t str,
}

impl Allowed<'_> {
    /// Somebody asks for a limit.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.first_byte_ns > 0 || self.idle_ns > 0
    }
}

/// What has become of an answer's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// It is over at this time, if nothing happens.
    Left(Nanos),
    /// The first byte has not come.
    NotBegun,
    /// It has begun and stands still.
    StoodStill,
    /// Nobody asked for a limit.
    Free,
}

/// How an answer stands, for those who look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The request is not yet sent: part of it is to come, or netra has it.
    pub(crate) is_unsent: bool,
    /// When bytes of requests, and of answers, last moved.
    pub(crate) moved: [Nanos; 2],
    /// Its first byte has come.
    pub(crate) has_begun: bool,
    /// Others are answered before it: its own time begins when they are.
    pub(crate) is_in_order: bool,
}

/// What is to be done for a connection of which answers were due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Nothing, or a client is to be told in its turn.
    GoOn,
    /// Its upstream is to be left, and then the client is told the last.
    Leave,
    /// Another upstream was chosen for what was asked, and this one is to be left.
    Elsewhere,
    /// One try of what the upstream at this place owes has taken too long.
    Try(u8),
    /// Nobody can be told: it ends.
    Cut,
}

/// Requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    rooms: Vec<Waiting>,
    free: Vec<u32>,
    /// What clients are to be told now.
    told: Vec<u8>,
    /// When somebody is to look.
    wanted: Option<Nanos>,
    /// When somebody will.
    set: Option<Nanos>,
    /// Those that may be sent again; of gates alone.
    pub(crate) again: Option<Box<Again>>,
}

#[derive(Debug, Default)]
struct Waiting {
    is_open: bool,
    since: Nanos,
    first_byte_ns: Nanos,
    idle_ns: Nanos,
    /// The request was not whole when somebody last looked.
    is_unsent: bool,
    /// There are no words.
    must_close: bool,
    words: Vec<u8>,
}

impl Patience {
    /// A request waits from `now` on; `write` writes what its client is told when that was too long.
    /// Returns its number, which is never 0.
    pub(crate) fn add(
        &mut self,
        now: Nanos,
        allowed: Allowed<'_>,
        write: impl FnOnce(&mut Vec<u8>) -> Replied,
    ) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.rooms.push(Waiting::default());
            u32::try_from(self.rooms.len() - 1).unwrap_or(0)
        });
        let room = &mut self.rooms[index as usize];
        (room.is_open, room.since, room.is_unsent) = (true, now, false);
        (room.first_byte_ns, room.idle_ns) = (allowed.first_byte_ns, allowed.idle_ns);
        room.words.clear();
        room.must_close = write(&mut room.words) == Replied::MustClose;
        let first = room.limit();
        self.want(now.saturating_add(first));
        index + 1
    }

    /// The answer to a request is whole, or nobody waits for it any more.
    pub(crate) fn over(&mut self, number: u32) {
        if let Some(index) = number.checked_sub(1) {
            self.free.push(index);
            self.rooms[index as usize].is_open = false;
        }
        if self.is_empty() && self.rooms.len() > ROOMS_KEPT {
            (self.rooms, self.free) = (Vec::new(), Vec::new());
        }
    }

    /// No request waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.len() == self.free.len()
    }

    /// The client is to be told, of a request whose time is over; false where there are no words.
    pub(crate) fn tell(&mut self, number: u32) -> bool {
        let Self { rooms, told, .. } = self;
        let room = number.checked_sub(1).and_then(|index| rooms.get(index as usize));
        let Some(room) = room.filter(|room| !room.must_close) else { return false };
        told.extend_from_slice(&room.words);
        true
    }

    /// There is something that clients are to be told.
    pub(crate) fn has_words(&self) -> bool {
        !self.told.is_empty()
    }

    /// They are told.
    pub(crate) fn take_words(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.told)
    }

    /// Bytes that are kept.
    pub(crate) fn kept(&self) -> usize {
        let others = self.told.len() + self.again.as_deref().map_or(0, Again::kept);
        if self.is_empty() {
            return others;
        }
        // What clients are told is about as long for each.
        let words = self.rooms.first().map_or(0, |room| room.words.capacity());
        self.rooms.len() * (size_of::<Waiting>() + words) + others
    }

    fn room(&mut self, number: u32) -> Option<&mut Waiting> {
        self.rooms.get_mut(number.checked_sub(1)? as usize)
    }

    /// The request is sent from now on: until then it waited for something of netra's own.
    pub(crate) fn begin_again(&mut self, number: u32, now: Nanos) {
        if let Some(room) = self.room(number) {
            room.since = now;
        }
    }

    /// A part of the request is still to come.
    pub(crate) fn is_unsent(&mut self, number: u32) {
        if let Some(room) = self.room(number) {
            room.is_unsent = true;
        }
    }

    /// What is left of a request's time.
    pub(crate) fn time(&mut self, number: u32, standing: &Standing, now: Nanos) -> Time {
        let Some(room) = self.room(number) else { return Time::Free };
        let [asked, answered] = standing.moved;
        if standing.is_unsent {
            (room.is_unsent, room.since) = (true, now);
        } else if std::mem::take(&mut room.is_unsent) {
            room.since = room.since.max(asked);
        }
        let (limit, over) = match standing.has_begun {
            true => (room.idle_ns, Time::StoodStill),
            false => (room.first_byte_ns, Time::NotBegun),
        };
        if limit == 0 {
            // It may be another's time next.
            return if room.idle_ns > 0 && !standing.has_begun {
                Time::Left(now.saturating_add(room.idle_ns))
            } else {
                Time::Free
            };
        }
        let counts_answers = standing.has_begun || standing.is_in_order;
        let since = if counts_answers { room.since.max(answered) } else { room.since };
        match since.saturating_add(limit) {
            at if at <= now => over,
            at => Time::Left(at),
        }
    }

    /// The least that any request that may wait is allowed.
    pub(crate) fn limit(&self, number: u32) -> Option<Nanos> {
        Some(self.rooms.get(number.checked_sub(1)? as usize)?.limit())
    }

    /// The least that any of them is allowed.
    pub(crate) fn shortest(&self) -> Option<Nanos> {
        self.rooms.iter().filter(|room| room.is_open).map(Waiting::limit).min()
    }

    /// What a client is told whose time is over; None where there are no words.
    pub(crate) fn words(&self, number: u32) -> Option<&[u8]> {
        let room = self.rooms.get(number.checked_sub(1)? as usize)?;
        (!room.must_close).then_some(&room.words[..])
    }
}

impl Waiting {
    fn limit(&self) -> Nanos {
        match (self.first_byte_ns, self.idle_ns) {
            (0, idle) => idle,
            (first, 0) => first,
            (first, idle) => first.min(idle),
        }
    }
}

/// When somebody looks.
impl Patience {
    /// Somebody is to look then, or sooner.
    pub(crate) fn want(&mut self, at: Nanos) {
        self.wanted = Some(self.wanted.map_or(at, |wanted| wanted.min(at)));
    }

    /// Whether the alarm is to be set, or to be set to another time.
    #[inline]
    pub(crate) fn wants_alarm(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.set.is_none_or(|set| wanted < set))
    }

    /// Takes note that the alarm is set as it is wanted: what it was, and what it is.
    pub(crate) fn set_alarm(&mut self) -> (Option<Nanos>, Option<Nanos>) {
        let before = std::mem::replace(&mut self.set, self.wanted);
        (before, self.wanted)
    }

    /// When the alarm goes off, if it is set.
    pub(crate) fn alarm(&self) -> Option<Nanos> {
        self.set
    }

    /// The alarm has gone off.
    pub(crate) fn rang(&mut self) {
        (self.wanted, self.set) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Standing =
        Standing { is_unsent: false, moved: [0, 0], has_begun: false, is_in_order: false };

    fn allowed(first_byte_ns: Nanos, idle_ns: Nanos) -> Allowed<'static> {
        Allowed { first_byte_ns, idle_ns, text: "" }
    }

    fn said(text: &'static [u8]) -> impl FnOnce(&mut Vec<u8>) -> Replied {
        |out| {
            out.extend_from_slice(text);
            Replied::Sent
        }
    }

    #[test]
    fn time_is_counted_from_when_the_request_had_left() {
        let mut patience = Patience::default();
        let number = patience.add(100, allowed(50, 20), said(b"late"));
        assert_eq!(patience.time(number, &SENT, 120), Time::Left(150));
        assert_eq!(patience.time(number, &SENT, 150), Time::NotBegun);
        let begun = Standing { has_begun: true, moved: [0, 145], ..SENT };
        assert_eq!(patience.time(number, &begun, 150), Time::Left(165));
        assert_eq!(patience.time(number, &begun, 165), Time::StoodStill);
        // It is still coming, and then it has come.
        let coming = Standing { is_unsent: true, ..SENT };
        assert_eq!(patience.time(number, &coming, 160), Time::Left(210));
        let moved = Standing { moved: [190, 0], ..SENT };
        assert_eq!(patience.time(number, &moved, 200), Time::Left(240));
        // Further requests do not put it off.
        assert_eq!(
            patience.time(number, &Standing { moved: [230, 0], ..SENT }, 240),
            Time::NotBegun
        );
        // Others were answered before it.
        let in_order = Standing { is_in_order: true, moved: [0, 235], ..SENT };
        assert_eq!(patience.time(number, &in_order, 240), Time::Left(285));
        patience.begin_again(number, 1_000);
        assert_eq!(patience.time(number, &SENT, 1_000), Time::Left(1_050));
        assert_eq!(patience.words(number), Some(&b"late"[..]));
    }

    #[test]
    fn the_alarm_is_set_once_for_many() {
        let mut patience = Patience::default();
        let one = patience.add(100, allowed(50, 0), said(b"1"));
        assert!(patience.wants_alarm());
        assert_eq!(patience.set_alarm(), (None, Some(150)));
        patience.over(one);
        for at in 101..140 {
            let number = patience.add(at, allowed(50, 0), said(b"2"));
            assert_eq!(number, one);
            patience.over(number);
        }
        assert!(!patience.wants_alarm() && patience.is_empty());
        patience.add(140, allowed(5, 0), |_| Replied::MustClose);
        assert_eq!((patience.wants_alarm(), patience.set_alarm()), (true, (Some(150), Some(145))));
        assert_eq!((patience.words(1), patience.alarm()), (None, Some(145)));
        patience.rang();
        assert!(!patience.wants_alarm() && patience.alarm().is_none());
    }

    #[test]
    fn rooms_are_given_back() {
        let mut patience = Patience::default();
        let numbers: Vec<_> =
            (0..100).map(|_| patience.add(0, allowed(1, 1), said(b"words"))).collect();
        assert!(patience.kept() >= 500 && patience.tell(7));
        assert_eq!((patience.take_words(), patience.has_words()), (b"words".to_vec(), false));
        numbers.into_iter().for_each(|number| patience.over(number));
        assert_eq!((patience.is_empty(), patience.kept()), (true, 0));
    }
}
