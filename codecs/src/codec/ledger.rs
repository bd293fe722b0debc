//! Requests that wait for their answer.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::codec::about::{Kind, Outcome};
use crate::codec::event::{Asked, Head};

/// A request whose answer is not whole.
#[derive(Clone, Debug)]
pub struct Open<T> {
    /// What the protocol calls it, 0 where it has no ids. Of one that is [quiet](Kind::Quiet), when it
    /// was whole.
    pub id: u64,
    /// When its first byte came.
    pub opened_ns: u64,
    /// Bytes of the request; 0 until it is whole.
    pub request_bytes: u64,
    note: u32,
    /// What it is for.
    pub kind: Kind,
    /// Index of its operation.
    pub operation: u8,
    /// It was not passed on.
    is_refused: bool,
    /// Which of several servers it went to: only what that one says answers it.
    pub lane: u8,
    /// The caller's own.
    pub data: T,
}

impl<T> Open<T> {
    /// It is not passed on: no answer is meant for it.
    pub fn refuse(&mut self) {
        self.is_refused = true;
    }

    /// Whether it is not passed on.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// It is passed on after all.
    pub fn pass_on(&mut self) {
        self.is_refused = false;
    }
}

/// What the answer under way says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    /// The protocol's number for how it came out.
    pub status: i32,
    /// How it came out.
    pub outcome: Outcome,
    /// When its first byte came.
    pub first_ns: Option<u64>,
    /// Its bytes.
    pub bytes: u64,
}

/// One request with its answer.
///
/// Times are nanoseconds of the caller's monotonic clock; sizes are bytes of the connection, heads
/// included.
#[derive(Clone, Debug)]
pub struct Exchange<T> {
    /// What the protocol calls it, 0 where it has no ids.
    pub id: u64,
    /// What the request was for.
    pub kind: Kind,
    /// Index of the operation in the codec's list.
    pub operation: u8,
    /// How it came out.
    pub outcome: Outcome,
    /// The protocol's number for that: a Dubbo status, the type of a Thrift exception; 0 where
    /// there is none.
    pub status: i32,
    /// When the first byte of the request came.
    pub opened_ns: u64,
    /// When the first byte of the answer came.
    pub response_first_ns: Option<u64>,
    /// Bytes of the request; 0 when it was not whole.
    pub request_bytes: u64,
    note: u32,
    /// Bytes of the answer so far.
    pub response_bytes: u64,
    /// Which of several servers it went to.
    pub lane: u8,
    /// The caller's own.
    pub data: T,
}

impl<T> Exchange<T> {
    /// When it was over, where that is not now: of a quiet request that nothing was said of, and that is
    /// known only behind the answer to another.
    #[inline]
    pub fn ended_ns(&self) -> Option<u64> {
        (self.kind == Kind::Quiet && self.outcome == Outcome::Sent && self.id > 0)
            .then_some(self.id)
    }

    /// What its answer says.
    pub fn answer(&self) -> Answer {
        Answer {
            status: self.status,
            outcome: self.outcome,
            first_ns: self.response_first_ns,
            bytes: self.response_bytes,
        }
    }

    fn new(open: Open<T>, answer: Answer) -> Self {
        Self {
            id: open.id,
            kind: open.kind,
            operation: open.operation,
            outcome: answer.outcome,
            status: answer.status,
            opened_ns: open.opened_ns,
            response_first_ns: answer.first_ns,
            request_bytes: open.request_bytes,
            note: open.note,
            response_bytes: answer.bytes,
            lane: open.lane,
            data: open.data,
        }
    }
}

impl<T> From<Exchange<T>> for Open<T> {
    /// It is open as it was before its answer came.
    fn from(done: Exchange<T>) -> Self {
        Self {
            id: done.id,
            opened_ns: done.opened_ns,
            request_bytes: done.request_bytes,
            note: done.note,
            kind: done.kind,
            operation: done.operation,
            is_refused: false,
            lane: done.lane,
            data: done.data,
        }
    }
}

/// The open requests of one connection, oldest first.
///
/// Entries are small and the number of them is bounded by the caller. Where answers name an id,
/// the oldest request with that id is meant; one that is never answered is never found.
#[derive(Debug)]
pub struct Ledger<T> {
    open: VecDeque<Open<T>>,
}

impl<T> Ledger<T> {
    /// None yet, and no storage either.
    pub const fn new() -> Self {
        Self { open: VecDeque::new() }
    }

    /// The number of open requests.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no request is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Bytes of storage in use, but for one request's: that much a connection keeps anyhow.
    #[inline]
    pub fn held(&self) -> usize {
        self.open.len().saturating_sub(1) * size_of::<Open<T>>()
    }

    /// What is known of the request whose answer comes next, where answers come in order: if
    /// it went to this one of several servers.
    #[inline]
    pub fn asked(&self, lane: u8) -> Option<Asked> {
        let mut front = self.open.front()?;
        if front.kind == Kind::Quiet {
            front = self.open.get(self.behind_quiet()?)?;
        }
        let Open { kind, operation, note, id, .. } = *front;
        let asked = Asked { kind, operation, note, id };
        let is_mine = front.lane == lane;
        (front.kind != Kind::Oneway && !front.is_refused && is_mine).then_some(asked)
    }

    /// The place of that request.
    #[inline]
    pub fn turn(&self, lane: u8) -> Option<usize> {
        self.asked(lane)?;
        if self.open.front()?.kind == Kind::Quiet { self.behind_quiet() } else { Some(0) }
    }

    /// The place of the first request that is always answered.
    #[cold]
    fn behind_quiet(&self) -> Option<usize> {
        self.open.iter().position(|open| open.kind != Kind::Quiet)
    }

    /// Whether the oldest request may be left without an answer, and whether it is older than that.
    #[inline]
    pub fn is_quiet_before(&self, ns: u64) -> bool {
        let front = self.open.front();
        front.is_some_and(|open| open.kind == Kind::Quiet && open.id > 0 && open.opened_ns < ns)
    }

    /// The place of the quiet request that an answer is to, of those whose turn it is: the only one
    /// whose operation and note are these. Without an operation its note alone says it, without both
    /// that there is no other.
    #[cold]
    pub fn find_quiet(&self, operation: u8, note: u32) -> Option<usize> {
        let quiet = self.open.iter().take_while(|open| open.kind == Kind::Quiet);
        let mut agree = quiet.enumerate().filter(|(_, open)| match (operation, note) {
            (0, 0) => true,
            (0, note) => open.note == note,
            asked => (open.operation, open.note) == asked,
        });
        let (place, _) = agree.next()?;
        agree.next().is_none().then_some(place)
    }

    /// Opens a request that began at `opened_ns`; the caller has looked that there is room.
    #[inline]
    pub fn open(&mut self, head: &Head, opened_ns: u64) -> &mut Open<T>
    where
        T: Default,
    {
        if self.open.capacity() == 0 {
            // Clients that pipeline are rare, and a connection keeps this storage while it idles.
            self.open.reserve_exact(1);
        }
        let place = self.open.len();
        self.open.push_back(Open {
            id: head.id,
            opened_ns,
            request_bytes: 0,
            note: head.note,
            kind: head.kind,
            operation: head.operation,
            is_refused: false,
            lane: 0,
            data: T::default(),
        });
        &mut self.open[place]
    }

    /// The request that was opened last.
    pub fn last_mut(&mut self) -> Option<&mut Open<T>> {
        self.open.back_mut()
    }

    /// The requests that were opened last, so many of them.
    pub fn newest(&mut self, count: usize) -> impl Iterator<Item = &mut Open<T>> {
        let older = self.open.len().saturating_sub(count);
        self.open.iter_mut().skip(older)
    }

    /// A request by its place in the order.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut Open<T>> {
        self.open.get_mut(place)
    }

    /// The place of the oldest request to this server with this id whose note agrees, unless one of them is 0.
    pub fn find(&self, lane: u8, id: u64, note: u32) -> Option<usize> {
        self.open.iter().position(|open| {
            open.id == id
                && open.kind != Kind::Oneway
                && !open.is_refused
                && open.lane == lane
                && (open.note == note || open.note == 0 || note == 0)
        })
    }

    /// The place of a request that is refused and waits for what its client is told: the oldest of
    /// all, where `by_order`, and otherwise of those.
    pub fn find_refused(&self, by_order: bool) -> Option<usize> {
        let is_meant = |open: &Open<T>| open.is_refused && !open.kind.is_silent();
        if !by_order {
            return self.open.iter().position(is_meant);
        }
        let first = self.open.iter().position(|open| open.kind != Kind::Quiet)?;
        is_meant(self.open.get(first)?).then_some(first)
    }

    /// The place of the request whose data is this.
    pub fn find_by(&self, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        self.open.iter().position(|open| is_it(&open.data))
    }

    /// The place of the oldest request to this server with one of these ids.
    pub fn find_among(&self, lane: u8, ids: RangeInclusive<u64>) -> Option<usize> {
        self.open.iter().position(|open| {
            let is_mine = open.lane == lane;
            ids.contains(&open.id) && open.kind != Kind::Oneway && !open.is_refused && is_mine
        })
    }

    /// One of the answers that the oldest request waits for has come.
    pub fn count_down(&mut self) {
        if let Some(front) = self.open.front_mut() {
            front.note = front.note.saturating_sub(1);
        }
    }

    /// Takes a request out: its answer is whole, or never comes.
    #[inline]
    pub fn finish(&mut self, place: usize, answer: Answer) -> Option<Exchange<T>> {
        let open = if place == 0 { self.open.pop_front() } else { self.open.remove(place) }?;
        Some(Exchange::new(open, answer))
    }

    /// A request is open again that was just finished, as the oldest.
    pub fn reopen(&mut self, done: Exchange<T>) {
        self.open.push_front(done.into());
    }

    /// A request is the newest from here on.
    pub fn renew(&mut self, place: usize) {
        if let Some(open) = self.open.remove(place) {
            self.open.push_back(open);
        }
    }

    /// Takes all that are open, oldest first, with what has come of the one that is being answered.
    pub fn drain(
        &mut self,
        answered: Option<(usize, Answer)>,
        outcome: Outcome,
    ) -> impl Iterator<Item = Exchange<T>> {
        self.open.drain(..).enumerate().map(move |(place, open)| {
            let is_sent = open.kind == Kind::Quiet && open.id > 0;
            let outcome = if is_sent { Outcome::Sent } else { outcome };
            let of_this = answered.filter(|(at, _)| *at == place).map(|(_, answer)| answer);
            Exchange::new(open, Answer { outcome, ..of_this.unwrap_or_default() })
        })
    }

    /// Gives the storage back when nothing is open; for connections that idle.
    pub fn release_memory(&mut self) {
        if self.open.is_empty() {
            self.open = VecDeque::new();
        }
    }
}

impl<T> Default for Ledger<T> {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(size_of::<Open<()>>() <= 32);
