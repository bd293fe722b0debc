//! The way of the commands, as text.

use super::commands::{self, Shape};
use super::tail::{Line, Tail, Walked, number, token, words};
use crate::codec::{Event, Head, Held, Kind, Reason};
use crate::limits::Limits;

/// Keys are no longer than this.
const KEY_MAX: usize = 250;

/// In what a request leaves behind for its answer: an error may be that of a request before it,
/// which was told not to be answered. The other bits are its token.
pub(super) const DOUBTED: u32 = 1 << 31;

/// Where in the stream of commands.
#[derive(Debug, Default)]
pub(super) struct RequestSide {
    pub(super) held: Held,
    /// The rest of the command whose head was told.
    pub(super) tail: Tail,
    /// Something was asked whose answer may be left out, and nothing since.
    doubted: bool,
    /// What of that there ever was.
    pub(super) silent: Silent,
}

/// What was asked so far whose answer may be left out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silent {
    /// Quiet meta commands.
    pub(super) quiet: bool,
    /// Commands with `noreply`: of a few errors servers tell all the same.
    pub(super) noreply: bool,
}

impl Silent {
    pub(super) fn is_any(self) -> bool {
        self.quiet || self.noreply
    }
}

/// A command.
struct Command {
    operation: u8,
    kind: Kind,
    /// What follows its line.
    tail: Tail,
    token: u32,
}

impl RequestSide {
    #[inline]
    pub(super) fn advance(&mut self, input: &[u8], limits: &Limits, head: &mut Head) -> Event {
        let Some(line) = Line::read(&mut self.held, input, limits) else {
            return match verb(self.held.bytes()) {
                Verb::Bad(reason) => Event::Not(reason),
                Verb::Partial | Verb::Is(..) => Event::Need,
            };
        };
        let bytes = if line.held { self.held.bytes() } else { &input[..line.taken] };
        let command = match verb(bytes) {
            Verb::Is(operation, len) => {
                let text = line.text(&self.held, input);
                read(operation, &text[len.min(text.len())..], line.is_cut, limits)
            }
            Verb::Partial => Err(Reason::NotThisProtocol),
            Verb::Bad(reason) => Err(reason),
        };
        match command {
            Ok(command) => self.tell(&command, &line, input, head),
            Err(reason) => Event::Not(reason),
        }
    }

    #[inline]
    fn tell(&mut self, command: &Command, line: &Line, input: &[u8], head: &mut Head) -> Event {
        let mut note = command.token;
        if command.kind.is_silent() {
            self.doubted = true;
            self.silent.quiet |= command.kind == Kind::Quiet;
            self.silent.noreply |= command.kind == Kind::Oneway;
        } else if std::mem::take(&mut self.doubted) {
            note |= DOUBTED;
        }
        let len = if line.held { self.held.bytes().len() } else { line.taken };
        if line.held {
            self.held.spend(len);
        }
        self.tail = command.tail;
        let (consumed, whole) = match self.tail.run(&input[line.taken..]) {
            Walked::More => (input.len(), false),
            Walked::End(count) => (line.taken + count, true),
            Walked::Bad(at) => (line.taken + at, false),
        };
        *head = Head { kind: command.kind, operation: command.operation, note, ..Head::default() };
        Event::Head { consumed, len, held: line.held, whole }
    }
}

enum Verb {
    Partial,
    Is(u8, usize),
    Bad(Reason),
}

/// The command that a line begins with. Only those of the list are believed to be one.
#[inline]
fn verb(bytes: &[u8]) -> Verb {
    match bytes {
        [0x16, 0x03, ..] => return Verb::Bad(Reason::Tls),
        [0x16] => return Verb::Partial,
        _ => {}
    }
    let window = &bytes[..bytes.len().min(commands::NAME_MAX + 1)];
    let end = window.iter().position(|byte| !byte.is_ascii_lowercase() && *byte != b'_');
    let known = match end {
        None if window.len() <= commands::NAME_MAX => return Verb::Partial,
        None => None,
        Some(end) => commands::of_text(&bytes[..end])
            .filter(|_| matches!(bytes[end], b' ' | b'\r' | b'\n'))
            .map(|operation| Verb::Is(operation, end)),
    };
    known.unwrap_or(Verb::Bad(Reason::NotThisProtocol))
}

/// Reads the line of a command behind its name.
#[inline]
fn read(operation: u8, line: &[u8], is_cut: bool, limits: &Limits) -> Result<Command, Reason> {
    let mut command = Command { operation, kind: Kind::Request, tail: Tail::default(), token: 0 };
    let shape = commands::shape(operation);
    if is_cut {
        // Many keys: what is behind does not matter.
        command.tail = Tail::line();
        return if shape == Shape::Get { Ok(command) } else { Err(Reason::TooLarge) };
    }
    match shape {
        Shape::Get | Shape::List | Shape::Version | Shape::Binary => {}
        Shape::Quit => command.kind = Kind::Oneway,
        Shape::Watch => return Err(Reason::Unsupported),
        Shape::Store => return read_store(command, line, limits),
        Shape::Delete | Shape::Count | Shape::Touch => read_noreply(&mut command, line, 2),
        Shape::Plain => read_noreply(&mut command, line, 1),
        Shape::MetaSet => {
            let mut arguments = words(line);
            let key = arguments.next().filter(|key| key.len() <= KEY_MAX);
            let len = arguments.next().and_then(number);
            let (Some(_), Some(len)) = (key, len) else { return Err(Reason::Malformed) };
            command.tail = value(len, limits)?;
            read_flags(&mut command, arguments);
        }
        Shape::MetaGet | Shape::MetaDelete | Shape::MetaCount => {
            read_flags(&mut command, words(line).skip(1));
        }
        Shape::MetaDebug | Shape::MetaNoop => {}
    }
    Ok(command)
}

fn value(len: u64, limits: &Limits) -> Result<Tail, Reason> {
    if len > limits.message_bytes_max { Err(Reason::TooLarge) } else { Ok(Tail::value(len)) }
}

/// `key flags exptime bytes [cas] [noreply]`. Of a line that is not so, a server takes the value
/// for commands.
#[inline]
fn read_store(mut command: Command, line: &[u8], limits: &Limits) -> Result<Command, Reason> {
    let mut arguments = words(line);
    let key = arguments.next().filter(|key| key.len() <= KEY_MAX);
    let flags = arguments.next().and_then(number);
    let exptime = arguments.next().and_then(|word| number(word.strip_prefix(b"-").unwrap_or(word)));
    let len = arguments.next().and_then(number);
    let is_cas = commands::name(command.operation) == "cas";
    let cas = if is_cas { arguments.next().and_then(digits) } else { Some(()) };
    let (Some(_), Some(_), Some(_), Some(len), Some(())) = (key, flags, exptime, len, cas) else {
        return Err(Reason::Malformed);
    };
    command.tail = value(len, limits)?;
    match (arguments.next(), arguments.next()) {
        (None, _) => {}
        (Some(b"noreply"), None) => command.kind = Kind::Oneway,
        _ => return Err(Reason::Malformed),
    }
    Ok(command)
}

/// Any number of 64 bits.
fn digits(word: &[u8]) -> Option<()> {
    (word.len() <= 20 && word.iter().all(u8::is_ascii_digit)).then_some(())
}

/// The last of at least so many words.
fn read_noreply(command: &mut Command, line: &[u8], least: usize) {
    let (mut count, mut last) = (0, &b""[..]);
    for word in words(line) {
        (count, last) = (count + 1, word);
    }
    if count >= least && last == b"noreply" {
        command.kind = Kind::Oneway;
    }
}

/// Flags of a meta command: quiet, and the token that its answer carries.
#[inline]
fn read_flags<'l>(command: &mut Command, flags: impl Iterator<Item = &'l [u8]>) {
    for flag in flags {
        match flag {
            [b'q', ..] => command.kind = Kind::Quiet,
            [b'O', text @ ..] => command.token = token(text),
            _ => {}
        }
    }
}
