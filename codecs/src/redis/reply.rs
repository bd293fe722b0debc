//! The way of the replies.

use super::commands;
use super::request::DOUBTED;
use super::walk::{Walk, Walked};
use crate::codec::{Asked, Event, Head, Kind, Outcome, Reason, Said, Spot};
use crate::limits::Limits;

/// Bytes of a reply that are looked at: a line with a length, and a word behind it.
const PEEKED_MAX: usize = 64;
/// The longest word by which a reply is known.
const WORD_MAX: usize = 32;

/// Where in the stream of replies.
#[derive(Debug)]
pub(super) struct ReplySide {
    pub(super) walk: Walk,
    /// The beginning of a reply that came in pieces.
    peeked: [u8; PEEKED_MAX],
    peeked_len: u8,
    /// What was peeked at has been told.
    spent: bool,
    /// It is the attribute before a reply that is being walked through.
    is_attribute: bool,
    /// Channels are subscribed to, in RESP2.
    is_subscribed: bool,
    is_monitoring: bool,
    /// What becomes of the connection when the reply under way is whole.
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    Subscribed,
    /// Unless channels are left.
    Unsubscribed,
    Monitoring,
    Reset,
}

/// What the beginning of a reply says.
struct Peek {
    /// How many bytes it takes to know.
    len: usize,
    kind: Kind,
    outcome: Outcome,
    said: Said,
    more: bool,
    /// It may answer `SUBSCRIBE` and its kin.
    is_confirmation: bool,
    then: Then,
}

impl Peek {
    const PLAIN: Self = Self {
        len: 1,
        kind: Kind::Response,
        outcome: Outcome::Ok,
        said: Said::Nothing,
        more: false,
        is_confirmation: false,
        then: Then::Nothing,
    };
}

enum Peeked {
    Partial,
    Attribute,
    Reply(Peek),
    Bad(Reason),
}

impl Default for ReplySide {
    fn default() -> Self {
        Self {
            walk: Walk::default(),
            peeked: [0; PEEKED_MAX],
            peeked_len: 0,
            spent: false,
            is_attribute: false,
            is_subscribed: false,
            is_monitoring: false,
            then: Then::Nothing,
        }
    }
}

impl ReplySide {
    /// The bytes that were peeked at.
    pub(super) fn peeked(&self) -> &[u8] {
        &self.peeked[..usize::from(self.peeked_len)]
    }

    #[inline]
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        asked: Option<Asked>,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        if self.spent {
            (self.spent, self.peeked_len) = (false, 0);
        }
        if self.walk.is_under_way() {
            return match self.walk.run(input, limits.message_bytes_max) {
                Walked::More => Event::Body(input.len()),
                Walked::End(count) if std::mem::take(&mut self.is_attribute) => Event::Body(count),
                Walked::End(count) => {
                    self.end();
                    Event::End(count)
                }
                Walked::Bad(reason, _) => Event::Not(reason),
            };
        }
        if self.peeked_len > 0 {
            return self.gather(input, asked, limits, head);
        }
        if let Some(consumed) = plain(input, !self.is_monitoring && !self.is_subscribed)
            && asked.is_some_and(|asked| asked.kind != Kind::Subscribe)
        {
            *head = Head { kind: Kind::Response, ..Head::default() };
            let len = consumed.min(PEEKED_MAX);
            return Event::Head { consumed, len, held: false, whole: true };
        }
        match self.peek(&input[..input.len().min(PEEKED_MAX)], asked) {
            Peeked::Reply(peek) => {
                self.walk.begin_reply();
                self.tell(peek, asked, (input, 0), false, limits, head)
            }
            Peeked::Attribute => self.walk_attribute(input, limits),
            Peeked::Partial => self.gather(input, asked, limits, head),
            Peeked::Bad(reason) => Event::Not(reason),
        }
    }

    /// A reply whose beginning came in pieces. What was peeked at is walked through first.
    #[cold]
    fn gather(
        &mut self,
        input: &[u8],
        asked: Option<Asked>,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        for (taken, byte) in (1..).zip(input) {
            let len = usize::from(self.peeked_len);
            if len == PEEKED_MAX {
                return Event::Not(Reason::Malformed);
            }
            self.peeked[len] = *byte;
            self.peeked_len += 1;
            let bytes = self.peeked;
            match self.peek(&bytes[..=len], asked) {
                Peeked::Partial => {}
                Peeked::Bad(reason) => return Event::Not(reason),
                // Its first byte says that it is one.
                Peeked::Attribute => return self.walk_attribute(input, limits),
                Peeked::Reply(peek) => {
                    self.spent = true;
                    self.walk.begin_reply();
                    return match self.walk.run(&bytes[..=len], limits.message_bytes_max) {
                        Walked::More => self.tell(peek, asked, (input, taken), true, limits, head),
                        Walked::End(_) => {
                            self.then = peek.then;
                            self.end();
                            self.head(&peek, asked, (taken, true), true, head)
                        }
                        Walked::Bad(reason, _) => Event::Not(reason),
                    };
                }
            }
        }
        Event::Need
    }

    #[cold]
    fn walk_attribute(&mut self, input: &[u8], limits: &Limits) -> Event {
        self.peeked_len = 0;
        self.walk.begin_attribute();
        match self.walk.run(input, limits.message_bytes_max) {
            Walked::More => {
                self.is_attribute = true;
                Event::Body(input.len())
            }
            Walked::End(count) => Event::Body(count),
            Walked::Bad(reason, _) => Event::Not(reason),
        }
    }

    /// Walks through the input behind its first `taken` bytes, and tells what it is.
    #[inline]
    fn tell(
        &mut self,
        peek: Peek,
        asked: Option<Asked>,
        (input, taken): (&[u8], usize),
        held: bool,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        self.then = peek.then;
        let (consumed, whole) = match self.walk.run(&input[taken..], limits.message_bytes_max) {
            Walked::More => (input.len(), false),
            Walked::End(count) => (taken + count, true),
            Walked::Bad(reason, at) if !held && at < peek.len => return Event::Not(reason),
            Walked::Bad(_, at) => (taken + at, false),
        };
        if whole {
            self.end();
        }
        self.head(&peek, asked, (consumed, whole), held, head)
    }

    fn head(
        &self,
        peek: &Peek,
        asked: Option<Asked>,
        (consumed, whole): (usize, bool),
        held: bool,
        head: &mut Head,
    ) -> Event {
        let is_error = peek.outcome != Outcome::Ok;
        if let Some(asked) = asked
            && peek.kind == Kind::Response
        {
            let is_subscribe = asked.kind == Kind::Subscribe;
            if is_error && !is_subscribe && asked.note == DOUBTED {
                return Event::Not(Reason::RepliesUnclear);
            }
            // A channel is confirmed, refused, queued; anything else answers another request.
            if is_subscribe && !is_error && !peek.is_confirmation {
                return Event::Not(Reason::AnswerWithoutRequest);
            }
        }
        *head = Head {
            kind: peek.kind,
            outcome: peek.outcome,
            more: peek.more,
            said: peek.said,
            ..Head::default()
        };
        let len = if held { self.peeked().len() } else { consumed.min(PEEKED_MAX) };
        Event::Head { consumed, len, held, whole }
    }

    /// A reply is whole.
    #[inline]
    fn end(&mut self) {
        match self.then {
            Then::Nothing => return,
            Then::Subscribed => self.is_subscribed = true,
            Then::Unsubscribed => self.is_subscribed = self.walk.last_number() != Some(0),
            Then::Monitoring => self.is_monitoring = true,
            Then::Reset => (self.is_subscribed, self.is_monitoring) = (false, false),
        }
        self.then = Then::Nothing;
    }

    #[inline]
    fn peek(&self, bytes: &[u8], asked: Option<Asked>) -> Peeked {
        match bytes.first() {
            Some(b'$' | b':' | b'_' | b'#' | b',' | b'(' | b'=' | b'%' | b'~') => {
                Peeked::Reply(Peek::PLAIN)
            }
            Some(b'+') => self.peek_line(bytes, asked),
            Some(b'*') => {
                let is_plain = asked.is_some_and(|asked| asked.kind != Kind::Subscribe);
                if is_plain && !self.is_subscribed {
                    Peeked::Reply(Peek::PLAIN)
                } else {
                    self.peek_publication(bytes, asked)
                }
            }
            Some(b'>') => self.peek_publication(bytes, asked),
            Some(b'-') => peek_error(bytes, 1),
            Some(b'!') => match line_end(bytes) {
                // There is no error that is none.
                Some(_) if bytes[1] == b'-' => Peeked::Bad(Reason::Malformed),
                Some(end) => peek_error(bytes, end),
                None => Peeked::Partial,
            },
            Some(b'|') => Peeked::Attribute,
            Some(0x15 | 0x16) => Peeked::Bad(Reason::Tls),
            Some(_) => Peeked::Bad(Reason::NotThisProtocol),
            None => Peeked::Partial,
        }
    }

    #[inline]
    fn peek_line(&self, bytes: &[u8], asked: Option<Asked>) -> Peeked {
        let mut peek = Peek { is_confirmation: true, ..Peek::PLAIN };
        if self.is_monitoring {
            match bytes.get(1) {
                None => return Peeked::Partial,
                Some(byte) if byte.is_ascii_digit() => peek.kind = Kind::Push,
                Some(_) => {}
            }
            peek.len = 2;
        }
        if let (Kind::Response, Some(asked)) = (peek.kind, asked) {
            let flags = commands::flags(asked.operation);
            if flags & commands::MONITOR != 0 {
                peek.then = Then::Monitoring;
            } else if flags & commands::RESET != 0 {
                peek.then = Then::Reset;
            }
        }
        Peeked::Reply(peek)
    }

    /// An array or a push that may be about channels.
    #[cold]
    fn peek_publication(&self, bytes: &[u8], asked: Option<Asked>) -> Peeked {
        let is_push = bytes[0] == b'>';
        let kind = if is_push { Kind::Push } else { Kind::Response };
        let (word, len) = match first_word(bytes) {
            Word::Partial => return Peeked::Partial,
            Word::None(len) => return Peeked::Reply(Peek { len, kind, ..Peek::PLAIN }),
            Word::Is(word, len) => (word, len),
        };
        let plain = Peek { len, kind, ..Peek::PLAIN };
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        let is_unasked = is_push || self.is_subscribed;
        if is_unasked && (is(b"message") || is(b"pmessage") || is(b"smessage")) {
            return Peeked::Reply(Peek { kind: Kind::Push, ..plain });
        }
        let opens = is(b"subscribe") || is(b"psubscribe") || is(b"ssubscribe");
        let closes = is(b"unsubscribe") || is(b"punsubscribe") || is(b"sunsubscribe");
        if !opens && !closes {
            return Peeked::Reply(plain);
        }
        let then = match (is_push, opens) {
            (true, _) => Then::Nothing,
            (false, true) => Then::Subscribed,
            (false, false) => Then::Unsubscribed,
        };
        let confirmed = asked.filter(|asked| {
            asked.kind == Kind::Subscribe && is(commands::name(asked.operation).as_bytes())
        });
        Peeked::Reply(match confirmed {
            Some(asked) => Peek {
                kind: Kind::Response,
                more: asked.note > 1,
                is_confirmation: true,
                then,
                ..plain
            },
            None if is_unasked => Peek { kind: Kind::Push, then, ..plain },
            None => plain,
        })
    }
}

/// The length of a string, a number or `OK` that lies in the input, as most replies do.
#[inline]
fn plain(input: &[u8], is_usual: bool) -> Option<usize> {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    match input {
        [b'$', one, b'\r', b'\n', rest @ ..] if is_digit(one) => {
            let len = usize::from(one - b'0');
            matches!(rest.get(len..), Some([b'\r', b'\n', ..])).then_some(len + 6)
        }
        [b'$', ten, one, b'\r', b'\n', rest @ ..] if is_digit(ten) && is_digit(one) => {
            let len = usize::from(ten - b'0') * 10 + usize::from(one - b'0');
            matches!(rest.get(len..), Some([b'\r', b'\n', ..])).then_some(len + 7)
        }
        [b':', one, b'\r', b'\n', ..] if is_digit(one) => Some(4),
        [b'$', b'-', b'1', b'\r', b'\n', ..] => Some(5),
        [b'+', b'O', b'K', b'\r', b'\n', ..] if is_usual => Some(5),
        _ => None,
    }
}

/// By what errors begin that are of the server and not of what it was asked: it cannot work now, or not as the
/// one that it was.
pub(crate) const UNWELL: [&[u8]; 5] =
    [b"LOADING", b"MASTERDOWN", b"CLUSTERDOWN", b"BUSY", b"READONLY"];

/// The first word of an error that begins at `at`, such as `WRONGTYPE`.
#[cold]
fn peek_error(bytes: &[u8], at: usize) -> Peeked {
    let text = bytes.get(at..).unwrap_or_default();
    let window = &text[..text.len().min(WORD_MAX)];
    let end = window.iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
    let len = match end {
        Some(len) => len,
        None if window.len() == WORD_MAX => WORD_MAX,
        None => return Peeked::Partial,
    };
    let is_prefix = len > 0
        && window[..len]
            .iter()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_');
    // Modules and scripts have errors without a prefix, whose words are not for labels.
    let said = if is_prefix { Said::Spot(Spot::new(at, len)) } else { Said::Word("ERR") };
    let is_unwell = is_prefix && UNWELL.contains(&&window[..len]);
    let outcome = if is_unwell { Outcome::ProtocolError } else { Outcome::AppError };
    Peeked::Reply(Peek { len: (at + len + 1).min(at + WORD_MAX), outcome, said, ..Peek::PLAIN })
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', &bytes[..bytes.len().min(WORD_MAX)]).map(|at| at + 1)
}

/// The first element of an aggregate, and how many bytes it takes to know.
enum Word<'b> {
    Partial,
    /// It is no short string.
    None(usize),
    Is(&'b [u8], usize),
}

fn first_word(bytes: &[u8]) -> Word<'_> {
    let partial = if bytes.len() < PEEKED_MAX { Word::Partial } else { Word::None(PEEKED_MAX) };
    if let Some(b'0' | b'-') = bytes.get(1) {
        return Word::None(2);
    }
    let Some(at) = line_end(bytes) else { return partial };
    match bytes.get(at) {
        None => return partial,
        Some(b'$') => {}
        Some(b'+') => {
            let Some(end) = memchr::memchr(b'\r', &bytes[at..]) else { return partial };
            return Word::Is(&bytes[at + 1..at + end], at + end + 1);
        }
        Some(_) => return Word::None(at + 1),
    }
    let Some(begin) = line_end(&bytes[at..]).map(|end| at + end) else { return partial };
    let digits = bytes[at + 1..begin].strip_suffix(b"\r\n").unwrap_or_default();
    let len = match digits {
        [one @ b'0'..=b'9'] => usize::from(one - b'0'),
        [ten @ b'0'..=b'9', one @ b'0'..=b'9'] => usize::from((ten - b'0') * 10 + (one - b'0')),
        _ => return Word::None(begin),
    };
    if len > WORD_MAX {
        return Word::None(begin);
    }
    let end = begin + len;
    bytes.get(begin..end).map_or(partial, |word| Word::Is(word, end))
}
