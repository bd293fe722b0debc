//! The exchanges of a tapped connection: which message opens, answers and finishes which.

use std::num::NonZeroU64;

use crate::codec::{
    Answer, Asked, Correlation, ErrorText, Exchange, Head, Kind, Ledger, Open, Outcome, Reason,
    Said, UPTO, Way,
};
use crate::limits::Limits;
use crate::tap::last_error::LastError;

/// Answers in a row that nobody waits for, of a protocol where they harm nobody, before the
/// connection is believed to be something else.
const STRAYS_MAX: u8 = 16;

/// Requests of one connection that were taken out before their answer came, at most.
const LATE_MAX: usize = 64;

/// Quiet requests of one connection that are kept until it is known that nothing is said of them: with
/// more than that open, a further one is over when it has been sent.
const QUIET_MAX: usize = 256;

/// For how long one of them is, if further requests come.
const QUIET_NS: u64 = 1_000_000_000;

/// Places of the ways.
const REQUEST: usize = Way::Request as usize;
const RESPONSE: usize = Way::Response as usize;

/// What a message is to the exchanges.
#[derive(Debug)]
pub(super) enum Booked<'b, T> {
    /// It opened this one.
    Opened(&'b mut Open<T>),
    /// It answers this one, and is not whole.
    Answered(&'b mut Open<T>),
    /// It finished this one.
    Finished(Exchange<T>),
    /// Nothing.
    Aside,
    /// One of several answers to one request, and not the last.
    Part,
    /// The answer to a request that nobody waits for any more, or a part of it.
    Late,
    /// It has no place among them.
    Unfit(Reason),
}

/// The books.
#[derive(Debug)]
pub(super) struct Books<T> {
    ledger: Ledger<T>,
    correlation: Correlation,
    strays: u8,
    opened_any: bool,
    /// Which of several servers says what is read of answers.
    lane: u8,
    /// There are, or were, quiet requests.
    has_quiet: bool,
    /// So many requests, the oldest, were quiet, and nothing was said of them.
    unsaid: u16,
    /// The messages under way, by way.
    under: [Under; 2],
    /// Bytes of the messages that come next, by way.
    behind: [u8; 2],
    /// The place of the exchange whose answer is under way, and what is known of that answer.
    answering: Option<u32>,
    answer: Answer,
    /// An answer is to more requests than one: the last id of those.
    together: Option<NonZeroU64>,
    /// What is known of answers that nobody waits for any more; none where there are none.
    late: Option<Box<Late>>,
}

/// Answers that nobody waits for any more.
#[derive(Debug, Default)]
struct Late {
    /// Ids of requests that were taken out before their answer came.
    ids: Vec<u64>,
    /// The answer under way is to one of them.
    is_under_way: bool,
    /// A further request has such an id: whose answer the next with it is, nobody can tell.
    is_confused: bool,
}

/// The message of a way that is under way.
#[derive(Clone, Copy, Debug, Default)]
struct Under {
    /// Bytes of it so far.
    bytes: u64,
    /// When its first byte came.
    began_ns: u64,
    /// It is a request, and the exchange that it opened is the last of the ledger.
    opened: bool,
    /// It ended, which has not been booked.
    ended: bool,
    /// It belongs to the last request of the ledger, which was whole.
    late: bool,
}

impl<T: Default> Books<T> {
    pub(super) fn new(correlation: Correlation) -> Self {
        Self {
            ledger: Ledger::new(),
            correlation,
            strays: 0,
            opened_any: false,
            lane: 0,
            has_quiet: false,
            unsaid: 0,
            under: [Under::default(); 2],
            behind: [0; 2],
            answering: None,
            answer: Answer::default(),
            together: None,
            late: None,
        }
    }

    #[inline]
    fn under(&mut self, way: Way) -> &mut Under {
        &mut self.under[way as usize]
    }

    /// An exchange that is over and has not been handed out; `is_more` says that bytes of the way
    /// have come.
    #[inline]
    pub(super) fn pending(
        &mut self,
        way: Way,
        is_more: bool,
        limits: &Limits,
        now_ns: u64,
    ) -> Option<Exchange<T>> {
        if self.under(way).ended
            && let Some(done) = self.finish_message(way, now_ns)
        {
            return Some(done);
        }
        if self.has_quiet
            && let Some(done) = self.unsaid(way, is_more, now_ns)
        {
            return Some(done);
        }
        if way == Way::Response
            && let Some(last) = self.together
        {
            return self.finish_together(last.get());
        }
        let is_full = is_more && self.ledger.len() >= limits.open_max as usize;
        if is_full && way == Way::Request { self.forget_oldest() } else { None }
    }

    /// The oldest quiet request, if nothing is said of it any more, as far as that can be known.
    #[cold]
    fn unsaid(&mut self, way: Way, is_more: bool, now_ns: u64) -> Option<Exchange<T>> {
        let is_known = self.unsaid > 0;
        let is_next = match way {
            Way::Response => is_known,
            Way::Request => {
                let is_old = self.ledger.is_quiet_before(now_ns.saturating_sub(QUIET_NS));
                is_more && !is_known && is_old && self.answering.is_none()
            }
        };
        if !is_next {
            return None;
        }
        self.unsaid = self.unsaid.saturating_sub(1);
        self.ledger.finish(0, Answer { outcome: Outcome::Sent, ..Answer::default() })
    }

    /// The next of the requests that were answered together.
    #[cold]
    fn finish_together(&mut self, last: u64) -> Option<Exchange<T>> {
        let answer = self.answer;
        let Some(place) = self.ledger.find_among(self.lane, last - last % UPTO..=last) else {
            self.together = None;
            return None;
        };
        let opened_ns = self.ledger.get_mut(place).map_or(0, |it| it.opened_ns);
        let first_ns = answer.first_ns.map(|first_ns| first_ns.max(opened_ns));
        self.finish(place, Answer { first_ns, ..answer })
    }

    /// Where nobody can be confused by it, requests that are never answered make room.
    #[cold]
    fn forget_oldest(&mut self) -> Option<Exchange<T>> {
        let is_opening = self.under[REQUEST].opened;
        let has_ids = matches!(self.correlation, Correlation::Unique | Correlation::Loose);
        let is_quiet = self.has_quiet && self.unsaid == 0 && self.ledger.is_quiet_before(u64::MAX);
        let is_safe = (has_ids || is_quiet) && !is_opening;
        if !is_safe || self.answering.is_some() {
            return None;
        }
        let outcome = if is_quiet { Outcome::Sent } else { Outcome::Unanswered };
        self.ledger.finish(0, Answer { outcome, ..Answer::default() })
    }

    /// Whether a message of the way has ended, which has not been booked.
    #[inline]
    pub(super) fn has_ended(&self, way: Way) -> bool {
        self.under[way as usize].ended
            || (way == Way::Response && (self.together.is_some() || self.unsaid > 0))
    }

    /// Bytes of the way have come at this time.
    #[inline]
    pub(super) fn begin(&mut self, way: Way, now_ns: u64) {
        let under = &mut self.under[way as usize];
        if under.bytes == 0 {
            under.began_ns = now_ns;
            under.bytes = std::mem::take(&mut self.behind[way as usize]).into();
        }
    }

    /// So many of them belong to the message under way.
    #[inline]
    pub(super) fn count(&mut self, way: Way, bytes: usize) {
        self.under(way).bytes += bytes as u64;
    }

    /// So many of those that were counted belong to the message that comes next.
    #[inline]
    pub(super) fn leave(&mut self, way: Way, behind: u8) {
        self.under(way).bytes -= u64::from(behind);
        self.behind[way as usize] = behind;
    }

    /// So many belong to no message; returns how many.
    pub(super) fn skip(&mut self, way: Way, bytes: usize) -> usize {
        *self.under(way) = Under::default();
        bytes
    }

    /// The same, of what belongs to the last request; returns how many.
    pub(super) fn count_late(&mut self, way: Way, bytes: usize, ended: bool) -> usize {
        let under = self.under(way);
        under.bytes += bytes as u64;
        under.late = true;
        if ended {
            // It was whole before, and belongs to an exchange that is open.
            self.finish_message(way, 0);
        }
        bytes
    }

    pub(super) fn passed(&mut self, way: Way, bytes: u64, ended: bool) {
        let under = self.under(way);
        under.bytes += bytes;
        under.ended |= ended;
    }

    /// The request whose answer comes next, for the codec that reads it.
    #[inline]
    pub(super) fn asked(&self, way: Way) -> Option<Asked> {
        let by_order = way == Way::Response && self.correlation == Correlation::Fifo;
        if by_order { self.ledger.asked(self.lane) } else { None }
    }

    /// Books the end of the message under way; returns the exchange that it finished.
    pub(super) fn finish_message(&mut self, way: Way, now_ns: u64) -> Option<Exchange<T>> {
        let under = std::mem::take(self.under(way));
        if way == Way::Response {
            self.end_late();
        }
        match way {
            Way::Request if under.opened => {
                let last = self.ledger.last_mut()?;
                last.request_bytes = under.bytes;
                match last.kind {
                    Kind::Oneway => {}
                    Kind::Quiet if !last.is_refused() => {
                        last.id = now_ns;
                        if self.ledger.len() <= QUIET_MAX {
                            self.has_quiet = true;
                            return None;
                        }
                    }
                    Kind::Quiet => {}
                    _ => return None,
                }
                let answer = Answer { outcome: Outcome::Sent, ..Answer::default() };
                self.ledger.finish(self.ledger.len() - 1, answer)
            }
            Way::Request => {
                if let Some(last) = self.ledger.last_mut().filter(|_| under.late) {
                    last.request_bytes += under.bytes;
                }
                None
            }
            Way::Response => {
                let place = self.answering.take()? as usize;
                self.pass_over(place);
                self.finish(place, Answer { bytes: under.bytes, ..self.answer })
            }
        }
    }

    /// Where answers come in order, nothing more is said of those before the one that was answered.
    #[inline]
    fn pass_over(&mut self, place: usize) {
        if self.has_quiet {
            self.unsaid = u16::try_from(place).unwrap_or(u16::MAX);
        }
    }

    #[inline]
    fn finish(&mut self, place: usize, answer: Answer) -> Option<Exchange<T>> {
        if self.under[REQUEST].opened && place + 1 == self.ledger.len() {
            // The server did not wait for the end of the request.
            self.under[REQUEST].opened = false;
        }
        self.ledger.finish(place, answer)
    }

    /// Books a message of the way to the server.
    #[inline]
    pub(super) fn request(&mut self, head: &Head, whole: bool, limits: &Limits) -> Booked<'_, T> {
        if !head.kind.opens() {
            if whole {
                self.under[REQUEST] = Under::default();
            }
            return Booked::Aside;
        }
        if self.ledger.len() >= limits.open_max as usize {
            return Booked::Unfit(Reason::TooManyOpen);
        }
        self.opened_any = true;
        if let Some(late) = &mut self.late {
            late.is_confused |= late.ids.contains(&head.id);
        }
        let under = &mut self.under[REQUEST];
        let open = self.ledger.open(head, under.began_ns);
        if whole && !head.kind.is_silent() {
            open.request_bytes = under.bytes;
            *under = Under::default();
        } else {
            under.opened = true;
            under.ended = whole;
        }
        Booked::Opened(open)
    }

    /// Books a message of the way to the client; `bytes` are those of its head. What it says is
    /// wrong goes into `error`.
    #[inline]
    pub(super) fn answer(
        &mut self,
        head: &Head,
        bytes: &[u8],
        whole: bool,
        error: &mut LastError,
    ) -> Booked<'_, T> {
        let under = self.under[RESPONSE];
        if whole {
            self.under[RESPONSE] = Under::default();
        }
        let is_to_quiet = head.kind == Kind::Quiet;
        if head.kind != Kind::Response && !is_to_quiet {
            return Booked::Aside;
        }
        let place = match self.correlation {
            _ if is_to_quiet => self.ledger.find_quiet(head.operation, head.note),
            Correlation::Fifo => self.ledger.turn(self.lane),
            _ if head.upto => self.ledger.find_among(self.lane, head.id - head.id % UPTO..=head.id),
            _ => self.ledger.find(self.lane, head.id, head.note),
        };
        let Some(place) = place else {
            if is_to_quiet {
                // Which of several it is to, or one that is over, nobody can tell.
                return Booked::Aside;
            }
            return if self.take_late(head, whole) { Booked::Late } else { self.stray() };
        };
        self.strays = 0;
        if head.more {
            if self.correlation == Correlation::Fifo {
                self.ledger.count_down();
            }
            return Booked::Part;
        }
        match head.said {
            Said::Nothing => error.clear(),
            Said::Word(word) => error.set(word.as_bytes()),
            Said::Spot(spot) => error.set(spot.of(bytes).unwrap_or_default()),
        }
        let answer = Answer {
            status: head.status,
            outcome: head.outcome,
            // Of an odd peer the beginning of an answer may be older than its request.
            first_ns: self.ledger.get_mut(place).map(|it| it.opened_ns.max(under.began_ns)),
            bytes: under.bytes,
        };
        if whole && head.upto {
            self.together = NonZeroU64::new(head.id);
            self.answer = Answer { bytes: 0, first_ns: Some(under.began_ns), ..answer };
        }
        if whole {
            // Of what was answered before, this is how it comes out after all.
            self.answering = None;
            self.pass_over(place);
            self.finish(place, answer).map_or(Booked::Aside, Booked::Finished)
        } else {
            self.answer = answer;
            self.answering = u32::try_from(place).ok();
            self.ledger.get_mut(place).map_or(Booked::Aside, Booked::Answered)
        }
    }

    /// Whether a message of the way is one that nobody waits for any more.
    #[inline]
    pub(super) fn is_late(&self, way: Way) -> bool {
        way == Way::Response && self.late.as_ref().is_some_and(|late| late.is_under_way)
    }

    /// Whether answers may come that nobody waits for any more.
    pub(super) fn awaits_late(&self) -> bool {
        self.late.is_some()
    }

    /// Whether a request has the id of one that was taken out.
    pub(super) fn is_confused(&self) -> bool {
        self.late.as_ref().is_some_and(|late| late.is_confused)
    }

    /// One of the answers that nobody waits for any more has come, perhaps.
    fn take_late(&mut self, head: &Head, whole: bool) -> bool {
        let Some(late) = &mut self.late else { return false };
        let Some(place) = late.ids.iter().position(|id| *id == head.id) else { return false };
        if !head.more {
            late.ids.swap_remove(place);
        }
        late.is_under_way = !whole;
        if whole {
            self.end_late();
        }
        true
    }

    /// It is whole.
    fn end_late(&mut self) {
        if let Some(late) = &mut self.late {
            late.is_under_way = false;
        }
        self.late.take_if(|late| late.ids.is_empty() && !late.is_confused);
    }

    /// What is read of answers from here on is said by this one of several servers.
    pub(super) fn hear(&mut self, lane: u8) {
        self.lane = lane;
    }

    /// The oldest that is open.
    pub(super) fn oldest(&mut self) -> Option<&mut Open<T>> {
        self.ledger.get_mut(0)
    }

    /// The exchange whose answer comes next, where answers come in order.
    pub(super) fn next_answered(&mut self) -> Option<&mut Open<T>> {
        let place = self.ledger.turn(self.lane)?;
        self.ledger.get_mut(place)
    }

    /// The exchange whose answer is under way.
    pub(super) fn answering(&mut self) -> Option<&mut Open<T>> {
        self.ledger.get_mut(self.answering? as usize)
    }

    /// Whether there is one.
    pub(super) fn is_answering(&self) -> bool {
        self.answering.is_some()
    }

    /// Takes out one that is open, which is not answered any more. What answers it later is known as
    /// late where its id says so; None where there is none, or nothing more can be remembered.
    pub(super) fn take_out(&mut self, is_it: impl Fn(&T) -> bool) -> Option<Exchange<T>> {
        let place = self.ledger.find_by(is_it)?;
        let has_ids = self.correlation == Correlation::Unique;
        let answered = self.answering.map(|answered| answered as usize);
        if answered == Some(place)
            || (has_ids && self.late.as_ref().is_some_and(|late| late.ids.len() >= LATE_MAX))
        {
            return None;
        }
        if answered.is_some_and(|answered| answered > place) {
            self.answering = self.answering.map(|answered| answered - 1);
        }
        let answer = Answer { outcome: Outcome::ProtocolError, ..Answer::default() };
        let done = self.finish(place, answer)?;
        if has_ids {
            self.late.get_or_insert_default().ids.push(done.id);
        }
        Some(done)
    }

    /// An exchange is open again that was just finished, as the oldest.
    #[cold]
    pub(super) fn reopen(&mut self, done: Exchange<T>) {
        debug_assert!(self.answering.is_none(), "it was finished just now");
        self.ledger.reopen(done);
    }

    /// Finishes one that was opened again, with what its answer says.
    #[cold]
    pub(super) fn finish_again(
        &mut self,
        is_it: impl Fn(&T) -> bool,
        answer: Answer,
    ) -> Option<Exchange<T>> {
        debug_assert!(self.answering.is_none(), "between two answers");
        let place = self.ledger.find_by(is_it)?;
        self.finish(place, answer)
    }

    /// One that was opened again is the newest from here on.
    #[cold]
    pub(super) fn renew(&mut self, is_it: impl Fn(&T) -> bool) {
        debug_assert!(self.answering.is_none() && !self.under[REQUEST].opened);
        if let Some(place) = self.ledger.find_by(is_it) {
            self.ledger.renew(place);
        }
    }

    /// Takes an exchange whose request was refused, if it is its turn and no answer is under way.
    pub(super) fn take_refused(&mut self) -> Option<Exchange<T>> {
        let place = self.refused()?;
        let answer = Answer { outcome: Outcome::ProtocolError, ..Answer::default() };
        self.finish(place, answer)
    }

    /// Its place.
    pub(super) fn refused(&self) -> Option<usize> {
        if self.under[RESPONSE].bytes > 0 || self.answering.is_some() {
            return None;
        }
        self.ledger.find_refused(self.correlation != Correlation::Unique)
    }

    /// The newest exchanges, so many of them.
    pub(super) fn newest(&mut self, count: usize) -> impl Iterator<Item = &mut Open<T>> {
        self.ledger.newest(count)
    }

    /// An answer that nobody waits for.
    #[cold]
    fn stray(&mut self) -> Booked<'_, T> {
        if !self.opened_any {
            return Booked::Unfit(Reason::ServerFirst);
        }
        if self.correlation == Correlation::Loose {
            return Booked::Aside;
        }
        if self.correlation != Correlation::Unique || self.strays >= STRAYS_MAX {
            return Booked::Unfit(Reason::AnswerWithoutRequest);
        }
        self.strays += 1;
        Booked::Aside
    }

    pub(super) fn is_within_message(&self, way: Way) -> bool {
        let under = &self.under[way as usize];
        under.bytes > 0 && !under.ended || self.behind[way as usize] > 0
    }

    pub(super) fn open_count(&self) -> usize {
        self.ledger.len()
    }

    pub(super) fn drain(
        &mut self,
        is_tunnel: bool,
        error: ErrorText,
    ) -> impl Iterator<Item = (Exchange<T>, ErrorText)> {
        let outcome = if is_tunnel { Outcome::Unseen } else { Outcome::Unanswered };
        let answer = Answer { bytes: self.under[RESPONSE].bytes, ..self.answer };
        let answering = self.answering.take().map(|place| (place as usize, answer));
        self.under[REQUEST].opened = false;
        let error_of = move |place| match answering {
            Some((answered, _)) if answered == place => error,
            _ => ErrorText::NONE,
        };
        let drained = self.ledger.drain(answering, outcome).enumerate();
        drained.map(move |(place, exchange)| (exchange, error_of(place)))
    }

    pub(super) fn held(&self) -> usize {
        self.ledger.held() + self.late.as_ref().map_or(0, |late| size_of_val(late.ids.as_slice()))
    }

    pub(super) fn release_memory(&mut self) {
        self.ledger.release_memory();
    }
}
