//! The tap itself: a codec and the books of its exchanges.

use crate::codec::{Answer, ErrorText, Event, Exchange, Head, Kind, Open, Outcome, Reason, Way};
use crate::limits::Limits;
use crate::tap::books::{Booked, Books};
use crate::tap::last_error::LastError;
use crate::tap::message::Message;
use crate::tap::protocol::{AnyCodec, Protocol};

/// What the next bytes of a way were.
#[derive(Debug)]
#[must_use]
pub enum Step<'b, T> {
    /// The whole input has been read, come back with more bytes.
    Need,
    /// This many bytes of the input were body, or mean nothing; go on behind them.
    Body(usize),
    /// A request; go on behind `consumed`.
    Opened {
        /// Bytes of the input that belong to it.
        consumed: usize,
        /// The request.
        message: Message<'b>,
        /// The exchange that it opened.
        exchange: &'b mut Open<T>,
    },
    /// The head of an answer whose rest is still to come; go on behind `consumed`.
    Answered {
        /// Bytes of the input that belong to it.
        consumed: usize,
        /// The answer.
        message: Message<'b>,
        /// The exchange that it answers.
        exchange: &'b mut Open<T>,
    },
    /// An exchange is over; go on behind `consumed`.
    Finished {
        /// Bytes of the input that belong to the end of it, perhaps none.
        consumed: usize,
        /// The answer, unless it was told before and nothing more is known of it.
        message: Option<Message<'b>>,
        /// The exchange, no longer open.
        exchange: Exchange<T>,
        /// What its answer says is wrong, for `error.type`; empty where nothing is.
        error: &'b [u8],
    },
    /// A message that is part of no exchange; go on behind `consumed`.
    Aside {
        /// Bytes of the input that belong to it.
        consumed: usize,
        /// The message.
        message: Message<'b>,
    },
    /// This many bytes of the input are of an answer to a request that was [taken
    /// out](Tap::take_out): its client is not to get them. Go on behind them.
    Late(usize),
    /// From here on bytes are bytes, both ways.
    Tunnel(Reason),
}

/// Both ways of one connection, read along; `T` is the caller's own for each exchange.
#[derive(Debug)]
pub struct Tap<T> {
    codec: AnyCodec,
    books: Books<T>,
    /// What the answer that was told last says is wrong.
    error: LastError,
    tunnel: Option<Reason>,
}

impl<T: Default> Tap<T> {
    /// The beginning of a connection.
    pub fn new(protocol: Protocol) -> Self {
        let correlation = protocol.about().correlation;
        Self {
            codec: AnyCodec::new(protocol),
            books: Books::new(correlation),
            error: LastError::default(),
            tunnel: None,
        }
    }

    /// The protocol that it reads.
    pub fn protocol(&self) -> Protocol {
        self.codec.protocol()
    }

    /// Reads `input`, bytes of the way that have been sent on; `now_ns` is when they came. `head` is
    /// room for what a message says, and any will do.
    // In place where it is called, so that what it says is not moved: that would be a third of it.
    #[inline(always)]
    #[allow(clippy::inline_always)]
    pub fn step<'b>(
        &'b mut self,
        way: Way,
        input: &'b [u8],
        limits: &Limits,
        now_ns: u64,
        head: &'b mut Head,
    ) -> Step<'b, T> {
        if let Some(reason) = self.tunnel {
            return Step::Tunnel(reason);
        }
        if let Some(exchange) = self.books.pending(way, !input.is_empty(), limits, now_ns) {
            return over(exchange, way, &self.error);
        }
        if input.is_empty() {
            return Step::Need;
        }
        self.books.begin(way, now_ns);
        match self.codec.advance(way, input, self.books.asked(way), limits, head) {
            Event::Need => {
                self.books.count(way, input.len());
                if self.books.is_late(way) { Step::Late(input.len()) } else { Step::Need }
            }
            Event::Skip(count) => Step::Body(self.books.skip(way, count)),
            Event::Body(count) => self.pass(way, count),
            Event::Late { count, whole } => Step::Body(self.books.count_late(way, count, whole)),
            Event::End(count) => {
                self.books.count(way, count);
                let is_late = self.books.is_late(way);
                match self.books.finish_message(way, now_ns) {
                    None if is_late => Step::Late(count),
                    Some(exchange) => ended(count, exchange, said_by(way, &self.error)),
                    None => Step::Body(count),
                }
            }
            Event::Head { consumed, len, held, whole } => {
                self.books.count(way, consumed);
                let bytes = if held {
                    self.books.leave(way, head.behind);
                    self.codec.held_head(way)
                } else {
                    &input[..len]
                };
                let booked = match way {
                    Way::Request => self.books.request(head, whole, limits),
                    Way::Response => self.books.answer(head, bytes, whole, &mut self.error),
                };
                if matches!(booked, Booked::Aside) {
                    head.kind = aside(head.kind);
                }
                let message = Message::new(self.codec.protocol(), head, bytes);
                match booked {
                    Booked::Opened(exchange) => Step::Opened { consumed, message, exchange },
                    Booked::Answered(exchange) => Step::Answered { consumed, message, exchange },
                    Booked::Finished(exchange) => {
                        let error = said_by(way, &self.error);
                        Step::Finished { consumed, message: Some(message), exchange, error }
                    }
                    Booked::Aside => Step::Aside { consumed, message },
                    Booked::Part => Step::Body(consumed),
                    Booked::Late => Step::Late(consumed),
                    Booked::Unfit(reason) => give_up(&mut self.tunnel, reason),
                }
            }
            Event::Not(reason) => {
                self.codec = AnyCodec::new(self.codec.protocol());
                give_up(&mut self.tunnel, reason)
            }
        }
    }

    /// So many bytes of a body, or of an answer that nobody waits for any more.
    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn pass(&mut self, way: Way, count: usize) -> Step<'_, T> {
        self.books.count(way, count);
        if self.books.is_late(way) { Step::Late(count) } else { Step::Body(count) }
    }

    /// How many bytes of the way may pass from here without being shown; `u64::MAX` once it is a
    /// tunnel.
    pub fn passable(&self, way: Way) -> u64 {
        match self.tunnel {
            Some(_) => u64::MAX,
            // What is to be thrown away has to be shown.
            None if self.books.is_late(way) => 0,
            None => self.codec.passable(way),
        }
    }

    /// Takes note of bytes that passed without being shown, at most [`passable`](Self::passable).
    /// Take a step with an empty input after it.
    pub fn passed(&mut self, way: Way, count: u64) {
        if self.tunnel.is_none() && count > 0 {
            let ended = self.codec.passed(way, count);
            self.books.passed(way, count, ended);
        }
    }

    /// Whether bytes are bytes from here on.
    #[inline]
    pub fn is_tunnel(&self) -> bool {
        self.tunnel.is_some()
    }

    /// Why they are, if they are.
    pub fn reason(&self) -> Option<Reason> {
        self.tunnel
    }

    /// Makes it a tunnel, for a reason of the caller's.
    pub fn give_up(&mut self, reason: Reason) {
        self.tunnel.get_or_insert(reason);
    }

    /// Whether a step with an empty input has something to hand out: a message of the way has ended
    /// with bytes that passed, or with its head.
    #[inline]
    pub fn has_ended(&self, way: Way) -> bool {
        self.books.has_ended(way)
    }

    /// Whether a message of the way is under way: a stream that ends now was cut short.
    pub fn is_within_message(&self, way: Way) -> bool {
        self.tunnel.is_none() && self.books.is_within_message(way)
    }

    /// The number of exchanges that are open.
    pub fn open_count(&self) -> usize {
        self.books.open_count()
    }

    /// Takes an exchange whose request was [refused](Open::refuse), oldest first, when its client is
    /// to be told: where answers come in order, when all before it have been answered; never within
    /// an answer.
    pub fn take_refused(&mut self) -> Option<Exchange<T>> {
        self.books.take_refused()
    }

    /// Whether [`take_refused`](Self::take_refused) has one.
    pub fn may_take_refused(&self) -> bool {
        self.books.refused().is_some()
    }

    /// The newest of the open exchanges, so many of them.
    pub fn newest(&mut self, count: usize) -> impl Iterator<Item = &mut Open<T>> {
        self.books.newest(count)
    }

    /// Answers that are shown from here on come from this one of several servers, and answer only what
    /// went there: see [`Open::lane`]. Between two answers.
    pub fn hear(&mut self, lane: u8) {
        self.books.hear(lane);
    }

    /// The oldest of the open exchanges.
    pub fn oldest(&mut self) -> Option<&mut Open<T>> {
        self.books.oldest()
    }

    /// The exchange whose answer comes next, in protocols where answers come in order.
    pub fn next_answered(&mut self) -> Option<&mut Open<T>> {
        self.books.next_answered()
    }

    /// The exchange whose answer is under way.
    pub fn answering(&mut self) -> Option<&mut Open<T>> {
        self.books.answering()
    }

    /// Takes an exchange out whose answer has not begun, and is no longer waited for. Where ids tell,
    /// what answers it all the same is a [`Step::Late`]; elsewhere it would be taken for the answer to
    /// another, and the connection has to end. None where there is no such exchange, and where so
    /// many were taken out that no further one can be remembered.
    pub fn take_out(&mut self, is_it: impl Fn(&T) -> bool) -> Option<Exchange<T>> {
        self.books.take_out(is_it)
    }

    /// An exchange is open again that the last step [finished](Step::Finished), for its answer is withheld: as the
    /// oldest of all.
    pub fn reopen(&mut self, done: Exchange<T>) {
        self.books.reopen(done);
    }

    /// Takes an exchange that was [opened again](Self::reopen), to which its client gets this answer after all;
    /// between two answers.
    pub fn finish_again(
        &mut self,
        is_it: impl Fn(&T) -> bool,
        answer: Answer,
    ) -> Option<Exchange<T>> {
        self.books.finish_again(is_it, answer)
    }

    /// An exchange that was opened again is asked again, behind all that are open; between two messages, both ways.
    pub fn renew(&mut self, is_it: impl Fn(&T) -> bool) {
        self.books.renew(is_it);
    }

    /// Whether answers may come to what was taken out.
    pub fn awaits_late(&self) -> bool {
        self.books.awaits_late()
    }

    /// Whether the answer under way is such a one.
    pub fn is_within_late(&self) -> bool {
        self.books.is_late(Way::Response)
    }

    /// Whether a request has the id of one that was taken out and has not been answered: nobody can
    /// tell their answers apart.
    pub fn is_confused(&self) -> bool {
        self.books.is_confused()
    }

    /// Takes the exchanges that will not be finished, oldest first: for the end of a connection,
    /// or of the tap. With each comes what the beginning of its answer says is wrong.
    pub fn drain(&mut self) -> impl Iterator<Item = (Exchange<T>, ErrorText)> {
        self.books.drain(self.tunnel.is_some(), self.error.text())
    }

    /// Bytes that are held on the heap: heads that came in pieces, and open exchanges.
    pub fn held(&self) -> usize {
        self.codec.held() + self.books.held()
    }

    /// Gives storage back where nothing is kept in it; for connections that idle.
    pub fn release_memory(&mut self) {
        self.codec.release_memory();
        self.books.release_memory();
        if !self.books.is_answering() {
            self.error = LastError::default();
        }
    }
}

/// An exchange is over whose answer was told before, or that has none.
#[inline]
fn ended<T>(consumed: usize, exchange: Exchange<T>, error: &[u8]) -> Step<'_, T> {
    Step::Finished { consumed, message: None, exchange, error }
}

/// What is wrong with an exchange that bytes of this way have finished.
#[inline]
fn said_by(way: Way, error: &LastError) -> &[u8] {
    if way == Way::Response { error.as_bytes() } else { &[] }
}

/// An exchange was over before these bytes: of what nothing is said, nothing is wrong.
#[inline]
fn over<T>(exchange: Exchange<T>, way: Way, error: &LastError) -> Step<'_, T> {
    let error = if exchange.outcome == Outcome::Sent { &[] } else { said_by(way, error) };
    ended(0, exchange, error)
}

/// What an answer is that belongs to no exchange.
#[inline]
fn aside(kind: Kind) -> Kind {
    match kind {
        Kind::Response => Kind::Stray,
        Kind::Quiet => Kind::Push,
        kind => kind,
    }
}

#[cold]
fn give_up<'b, T>(tunnel: &mut Option<Reason>, reason: Reason) -> Step<'b, T> {
    *tunnel = Some(reason);
    Step::Tunnel(reason)
}

const _: () = assert!(size_of::<Tap<Option<Box<u64>>>>() <= 456);
