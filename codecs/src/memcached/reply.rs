//! The way of the answers, as text.

use super::commands::{self, Shape};
use super::request::{DOUBTED, Silent};
use super::tail::{Line, Tail, Walked, number, token, words};
use crate::codec::{Asked, Event, Head, Held, Kind, Outcome, Reason, Said};
use crate::limits::Limits;

/// Where in the stream of answers.
#[derive(Debug, Default)]
pub(super) struct ReplySide {
    pub(super) held: Held,
    /// The rest of the line or of the value that was read.
    pub(super) tail: Tail,
    /// What comes behind that.
    then: Then,
    /// An answer is under way.
    is_within: bool,
}

/// What comes behind a line of an answer, and its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Then {
    /// Nothing of this answer.
    #[default]
    End,
    /// Values, then `END`.
    Values,
    /// Lines, then `END`.
    Lines,
}

/// The first line of an answer.
struct Reply {
    kind: Kind,
    outcome: Outcome,
    said: Said,
    tail: Tail,
    then: Then,
    /// The token, of an answer to a quiet command.
    token: u32,
}

impl ReplySide {
    #[inline]
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        asked: Option<Asked>,
        silent: Silent,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        if self.is_within {
            return match self.run(input, limits) {
                Ok(Walked::More) => Event::Body(input.len()),
                Ok(Walked::End(count)) => Event::End(count),
                Ok(Walked::Bad(_)) => Event::Not(Reason::Malformed),
                Err((reason, _)) => Event::Not(reason),
            };
        }
        let Some(line) = Line::read(&mut self.held, input, limits) else {
            return match self.held.bytes() {
                [first, ..] if is_foreign(*first) => Event::Not(foreign(*first)),
                _ => Event::Need,
            };
        };
        let text = line.text(&self.held, input);
        let reply = match read(text, line.is_cut, asked, silent, limits) {
            Ok(reply) => reply,
            Err(reason) => return Event::Not(reason),
        };
        let len = if line.held { self.held.bytes().len() } else { line.taken };
        (self.tail, self.then, self.is_within) = (reply.tail, reply.then, true);
        let (consumed, whole) = if line.held {
            // What is held is in use until the next event, so that no further line can be.
            self.held.spend(len);
            let is_over = self.tail.is_done() && self.then == Then::End;
            self.is_within = !is_over;
            (line.taken, is_over)
        } else {
            match self.run(&input[line.taken..], limits) {
                Ok(Walked::More) => (input.len(), false),
                Ok(Walked::End(count)) => (line.taken + count, true),
                Ok(Walked::Bad(at)) | Err((_, at)) => (line.taken + at, false),
            }
        };
        let Reply { kind, outcome, said, token: note, .. } = reply;
        *head = Head { kind, outcome, said, note, ..Head::default() };
        Event::Head { consumed, len, held: line.held, whole }
    }

    /// Goes on with the answer under way. What is wrong at a place is so again when it is shown
    /// again.
    #[inline]
    fn run(&mut self, input: &[u8], limits: &Limits) -> Result<Walked, (Reason, usize)> {
        let mut at = 0;
        loop {
            match self.tail.run(&input[at..]) {
                Walked::More => return Ok(Walked::More),
                Walked::End(count) => at += count,
                Walked::Bad(place) => return Ok(Walked::Bad(at + place)),
            }
            if self.then == Then::End {
                self.is_within = false;
                return Ok(Walked::End(at));
            }
            if at == input.len() {
                return Ok(Walked::More);
            }
            let Some(line) = Line::read(&mut self.held, &input[at..], limits) else {
                return Ok(Walked::More);
            };
            let text = line.text(&self.held, &input[at..]);
            let next = next_line(text, line.is_cut, self.then, limits);
            let (tail, then) = next.map_err(|reason| (reason, at))?;
            if line.held {
                self.held.spend(0);
                self.held.begin(limits);
            }
            (self.tail, self.then) = (tail, then);
            at += line.taken;
        }
    }
}

/// No answer begins so.
fn is_foreign(first: u8) -> bool {
    !first.is_ascii_alphanumeric()
}

#[cold]
fn foreign(first: u8) -> Reason {
    if matches!(first, 0x15 | 0x16) { Reason::Tls } else { Reason::NotThisProtocol }
}

const ERRORS: [&str; 3] = ["ERROR", "CLIENT_ERROR", "SERVER_ERROR"];

fn error(word: &[u8]) -> Option<&'static str> {
    ERRORS.iter().copied().find(|error| error.as_bytes() == word)
}

/// A line behind the first of an answer. An error between values ends it, told too late to matter.
#[inline]
fn next_line(
    text: &[u8],
    is_cut: bool,
    then: Then,
    limits: &Limits,
) -> Result<(Tail, Then), Reason> {
    let mut line = words(text);
    let word = line.next().unwrap_or_default();
    let rest = if is_cut { Tail::line() } else { Tail::default() };
    match word {
        b"VALUE" if then == Then::Values && !is_cut => {
            Ok((value(line.nth(2), limits)?, Then::Values))
        }
        b"END" | b"EN" => Ok((rest, Then::End)),
        _ if error(word).is_some() => Ok((rest, Then::End)),
        _ if then == Then::Lines && is_listed(word) => Ok((rest, Then::Lines)),
        _ => Err(Reason::Malformed),
    }
}

/// A line of `stats` or of the crawler.
fn is_listed(word: &[u8]) -> bool {
    matches!(word, b"STAT" | b"ITEM" | b"PREFIX" | b"mg") || word.starts_with(b"key=")
}

#[inline]
fn value(len: Option<&[u8]>, limits: &Limits) -> Result<Tail, Reason> {
    match len.and_then(number) {
        Some(len) if len <= limits.message_bytes_max => Ok(Tail::value(len)),
        Some(_) => Err(Reason::TooLarge),
        None => Err(Reason::Malformed),
    }
}

/// The first line of an answer.
fn read(
    text: &[u8],
    is_cut: bool,
    asked: Option<Asked>,
    silent: Silent,
    limits: &Limits,
) -> Result<Reply, Reason> {
    let first = text.first().copied().unwrap_or(b' ');
    if is_foreign(first) {
        return Err(foreign(first));
    }
    let mut line = words(text);
    let word = line.next().unwrap_or_default();
    let mut reply = Reply {
        kind: Kind::Response,
        outcome: Outcome::Ok,
        said: Said::Nothing,
        tail: if is_cut { Tail::line() } else { Tail::default() },
        then: Then::End,
        token: 0,
    };
    match word {
        b"VALUE" | b"VA" if is_cut => return Err(Reason::TooLarge),
        b"VALUE" => (reply.tail, reply.then) = (value(line.nth(2), limits)?, Then::Values),
        b"VA" => reply.tail = value(line.next(), limits)?,
        _ if is_listed(word) => reply.then = Then::Lines,
        _ => {}
    }
    if let Some(error) = error(word) {
        reply.said = Said::Word(error);
        reply.outcome = if error == "ERROR" { Outcome::ProtocolError } else { Outcome::AppError };
    }
    let is_error = reply.said != Said::Nothing;
    let Some(asked) = asked else {
        // Of what was told not to be answered, since nothing else waits.
        if silent.is_any() && (is_error || is_meta(word)) {
            reply.is_to_quiet(line, silent);
        }
        return Ok(reply);
    };
    let is_doubted = asked.note & DOUBTED != 0;
    let fits = is_error || fits(word, commands::shape(asked.operation));
    if is_doubted && (is_error || is_meta(word)) {
        if !is_loud(word, &reply, line.clone(), asked, fits)? {
            reply.is_to_quiet(line, silent);
        }
    } else if !fits || is_meta(word) && is_other(line, asked) {
        return Err(Reason::AnswerWithoutRequest);
    }
    Ok(reply)
}

/// Whether the token of the line is another than that of the request.
fn is_other<'l>(line: impl Iterator<Item = &'l [u8]>, asked: Asked) -> bool {
    let token = token_of(line);
    let wanted = asked.note & !DOUBTED;
    token != 0 && wanted != 0 && token != wanted
}

fn token_of<'l>(mut line: impl Iterator<Item = &'l [u8]>) -> u32 {
    let found = line.find_map(|flag| flag.strip_prefix(b"O"));
    found.map_or(0, token)
}

impl Reply {
    /// It is to a quiet command: to that with its token. An error has none, and where there are commands
    /// with `noreply` as well, it may be theirs.
    #[cold]
    fn is_to_quiet<'l>(&mut self, line: impl Iterator<Item = &'l [u8]>, silent: Silent) {
        let is_error = self.said != Said::Nothing;
        self.kind = if is_error && silent.noreply { Kind::Push } else { Kind::Quiet };
        self.token = if is_error { 0 } else { token_of(line) };
    }
}

/// Between the request and the one before are others whose answers may be left out: whether this
/// answers it, and not one of those.
#[cold]
fn is_loud<'l>(
    word: &[u8],
    reply: &Reply,
    line: impl Iterator<Item = &'l [u8]>,
    asked: Asked,
    fits: bool,
) -> Result<bool, Reason> {
    if reply.said != Said::Nothing {
        // This says nothing but that all before it is over, and never that something is wrong.
        let is_fence = commands::shape(asked.operation) == Shape::MetaNoop;
        return if is_fence { Ok(false) } else { Err(Reason::RepliesUnclear) };
    }
    let (token, wanted) = (token_of(line), asked.note & !DOUBTED);
    // These are never sent for a quiet request.
    let is_never_quiet = matches!(word, b"MN" | b"EN" | b"ME");
    match (fits, is_never_quiet) {
        (true, true) => Ok(true),
        (false, true) => Err(Reason::AnswerWithoutRequest),
        (false, false) => Ok(false),
        (true, false) if token == 0 && wanted == 0 => Err(Reason::RepliesUnclear),
        (true, false) => Ok(token == wanted),
    }
}

fn is_meta(word: &[u8]) -> bool {
    matches!(word, b"HD" | b"VA" | b"EN" | b"NS" | b"EX" | b"NF" | b"MN" | b"ME")
}

/// Whether a line that begins so may answer such a command; errors may answer any.
#[inline]
fn fits(word: &[u8], shape: Shape) -> bool {
    match shape {
        Shape::Get => matches!(word, b"VALUE" | b"END"),
        Shape::Store => matches!(word, b"STORED" | b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND"),
        Shape::Delete => matches!(word, b"DELETED" | b"NOT_FOUND"),
        Shape::Count => word == b"NOT_FOUND" || number_of_20(word),
        Shape::Touch => matches!(word, b"TOUCHED" | b"NOT_FOUND"),
        Shape::List => {
            is_listed(word)
                || matches!(word, b"END" | b"EN" | b"OK" | b"RESET" | b"BUSY" | b"BADCLASS")
        }
        Shape::Plain => !is_meta(word) && !matches!(word, b"VALUE" | b"END" | b"STORED"),
        Shape::Version => word == b"VERSION",
        Shape::MetaGet => matches!(word, b"VA" | b"HD" | b"EN"),
        Shape::MetaSet => matches!(word, b"HD" | b"NS" | b"EX" | b"NF"),
        Shape::MetaDelete => matches!(word, b"HD" | b"NF" | b"EX"),
        Shape::MetaCount => matches!(word, b"HD" | b"VA" | b"NS" | b"EX" | b"NF"),
        Shape::MetaDebug => matches!(word, b"ME" | b"EN"),
        Shape::MetaNoop => word == b"MN",
        Shape::Binary | Shape::Quit | Shape::Watch => false,
    }
}

/// A number of 64 bits.
fn number_of_20(word: &[u8]) -> bool {
    !word.is_empty() && word.len() <= 20 && word.iter().all(u8::is_ascii_digit)
}
