//! One line, and what is behind it.

use crate::codec::{Outcome, Reason, Spot, Way};

/// What a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Info,
    Connect,
    Publish,
    Sub,
    Unsub,
    Message,
    Ping,
    Pong,
    Ok,
    Error,
}

impl Verb {
    /// Whether a server says it before a client has said anything.
    pub(super) fn may_greet(self) -> bool {
        matches!(self, Self::Info | Self::Error)
    }
}

/// What each way says: the word, what it is, whether headers come with it.
const ASKED: &[(&[u8], Verb, bool)] = &[
    (b"PUB", Verb::Publish, false),
    (b"HPUB", Verb::Publish, true),
    (b"SUB", Verb::Sub, false),
    (b"UNSUB", Verb::Unsub, false),
    (b"PING", Verb::Ping, false),
    (b"PONG", Verb::Pong, false),
    (b"CONNECT", Verb::Connect, false),
];
const SAID: &[(&[u8], Verb, bool)] = &[
    (b"MSG", Verb::Message, false),
    (b"HMSG", Verb::Message, true),
    (b"PING", Verb::Ping, false),
    (b"PONG", Verb::Pong, false),
    (b"+OK", Verb::Ok, false),
    (b"-ERR", Verb::Error, false),
    (b"INFO", Verb::Info, false),
];

/// Words of a line: the most that one has.
const WORDS_MAX: usize = 5;

/// A line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) verb: Verb,
    /// Its bytes, with what ends it.
    pub(super) len: usize,
    pub(super) subject: Spot,
    /// Where an answer is to go, or who shares a subscription.
    pub(super) second: Spot,
    /// Bytes of the headers.
    headers: u64,
    /// Bytes of headers and payload; None where neither follows.
    payload: Option<u64>,
}

impl Line {
    /// The line that `bytes` begin with; None while it has no end.
    #[inline]
    pub(super) fn read(bytes: &[u8], way: Way) -> Result<Option<Self>, Reason> {
        let verb = verb(bytes, way)?;
        let Some(end) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
        let Some((verb, has_headers, begin)) = verb else { return Err(Reason::NotThisProtocol) };
        let text = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        let mut line = Self::of(verb, end + 1);
        match verb {
            Verb::Publish | Verb::Message => line.measure(text, begin, has_headers)?,
            Verb::Sub => {
                let mut spots = spots(text, begin);
                let (first, second, third) = (spots.next(), spots.next(), spots.next());
                line.subject = first.ok_or(Reason::Malformed)?;
                // With three of them the one in the middle is the group.
                line.second = second.filter(|_| third.is_some()).unwrap_or_default();
                second.ok_or(Reason::Malformed)?;
            }
            _ => {}
        }
        Ok(Some(line))
    }

    /// The line, of which the end is not there.
    pub(super) fn cut(bytes: &[u8], way: Way) -> Result<Self, Reason> {
        match verb(bytes, way)? {
            Some((verb @ (Verb::Connect | Verb::Info | Verb::Error), ..)) => {
                Ok(Self::of(verb, bytes.len()))
            }
            _ => Err(Reason::TooLarge),
        }
    }

    fn of(verb: Verb, len: usize) -> Self {
        let (subject, second) = (Spot::default(), Spot::default());
        Self { verb, len, subject, second, headers: 0, payload: None }
    }

    /// `subject [sid] [reply] [headers] all`: what is in the middle may be left out.
    #[inline]
    fn measure(&mut self, text: &[u8], begin: usize, has_headers: bool) -> Result<(), Reason> {
        let mut found = [Spot::default(); WORDS_MAX + 1];
        let mut count = 0;
        for spot in spots(text, begin).take(WORDS_MAX + 1) {
            found[count] = spot;
            count += 1;
        }
        let sizes = 1 + usize::from(has_headers);
        let names = 1 + usize::from(self.verb == Verb::Message);
        let has_second = count == names + sizes + 1;
        if count != names + sizes && !has_second {
            return Err(Reason::Malformed);
        }
        let size = |at: usize| found[at].of(text).and_then(number).ok_or(Reason::Malformed);
        self.subject = found[0];
        if has_second {
            self.second = found[names];
        }
        let payload = size(count - 1)?;
        if has_headers {
            self.headers = size(count - 2)?;
        }
        self.payload = Some(payload);
        if self.headers > payload { Err(Reason::Malformed) } else { Ok(()) }
    }

    /// Bytes behind the line.
    pub(super) fn payload(&self) -> u64 {
        self.payload.map_or(0, |payload| payload + 2)
    }

    /// Where the headers are, perhaps further behind than is read.
    pub(super) fn headers(&self) -> Spot {
        Spot::new(self.len, usize::try_from(self.headers).unwrap_or(0))
    }
}

/// The word that a line begins with, and where the rest begins; None while it is not whole.
#[inline]
fn verb(bytes: &[u8], way: Way) -> Result<Option<(Verb, bool, usize)>, Reason> {
    let list = if way == Way::Request { ASKED } else { SAID };
    let window = &bytes[..bytes.len().min(8)];
    let end = window.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    let word = &window[..end.unwrap_or(window.len())];
    let begins =
        |known: &[u8]| known.len() >= word.len() && known[..word.len()].eq_ignore_ascii_case(word);
    match end {
        Some(end) => {
            let found = list.iter().find(|(known, ..)| known.eq_ignore_ascii_case(word));
            let (_, verb, has_headers) = found.ok_or(Reason::NotThisProtocol)?;
            Ok(Some((*verb, *has_headers, end)))
        }
        None if list.iter().any(|(known, ..)| begins(known)) => Ok(None),
        None => Err(Reason::NotThisProtocol),
    }
}

/// Where the words of a line are, from a place on.
fn spots(text: &[u8], begin: usize) -> impl Iterator<Item = Spot> {
    let mut at = begin;
    std::iter::from_fn(move || {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        at += text.get(at..)?.iter().position(|byte| !is_blank(byte))?;
        let len = text[at..].iter().position(is_blank).unwrap_or(text.len() - at);
        let spot = Spot::new(at, len);
        at += len;
        Some(spot)
    })
}

/// The words of a line.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// A number of ten digits or fewer.
fn number(word: &[u8]) -> Option<u64> {
    if word.len() > 10 {
        return None;
    }
    word.iter().try_fold(0, |value: u64, byte| {
        byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0'))
    })
}

/// Whether `CONNECT` asks for an answer to everything: `"verbose":true`.
pub(super) fn is_verbose(bytes: &[u8]) -> bool {
    const NAME: &[u8] = b"\"verbose\"";
    let Some(at) = memchr::memmem::find(bytes, NAME) else { return false };
    let mut rest = bytes[at + NAME.len()..].iter().filter(|byte| !byte.is_ascii_whitespace());
    rest.next() == Some(&b':') && rest.take(4).eq(b"true")
}

/// What an error says, by the words with which the server writes it.
pub(super) fn error(bytes: &[u8]) -> (Outcome, &'static str) {
    const KNOWN: &[(&[u8], Outcome, &str)] = &[
        (b"authorization violation", Outcome::AppError, "authorization_violation"),
        (b"authorization timeout", Outcome::AppError, "authorization_timeout"),
        (b"authentication timeout", Outcome::AppError, "authentication_timeout"),
        (b"authentication expired", Outcome::AppError, "authentication_expired"),
        (b"permissions violation", Outcome::AppError, "permissions_violation"),
        (b"maximum connections exceeded", Outcome::AppError, "maximum_connections_exceeded"),
        (b"maximum payload", Outcome::AppError, "maximum_payload_violation"),
        (b"stale connection", Outcome::AppError, "stale_connection"),
        (b"slow consumer", Outcome::AppError, "slow_consumer"),
        (b"invalid subject", Outcome::ProtocolError, "invalid_subject"),
        (b"unknown protocol operation", Outcome::ProtocolError, "unknown_protocol_operation"),
        (b"parser error", Outcome::ProtocolError, "parser_error"),
    ];
    let text = bytes.get(4..).unwrap_or_default().trim_ascii_start();
    let text = text.strip_prefix(b"'").unwrap_or(text);
    let begins = |known: &[u8]| {
        text.get(..known.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(known))
    };
    let known = KNOWN.iter().find(|(known, ..)| begins(known));
    known.map_or((Outcome::AppError, "error"), |(_, outcome, word)| (*outcome, *word))
}
