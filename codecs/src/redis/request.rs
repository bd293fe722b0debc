//! The way of the commands.

use super::commands;
use super::walk::{Walk, Walked};
use crate::codec::{Event, Head, Held, Kind, Reason, Spot, size};
use crate::limits::Limits;

/// Strings that a command may say it has.
const STRINGS_MAX: u32 = 1 << 30;
/// A name longer than this is none that is listed.
const NAME_MAX: u64 = 64;

/// Commands that are more than a question and its answer.
const UNUSUAL: u16 = commands::SUBSCRIBE
    | commands::HANDSHAKE
    | commands::CLIENT
    | commands::MULTI
    | commands::END
    | commands::RESET
    | commands::MONITOR
    | commands::REPLICATION;

/// What a request leaves behind for its answer when an error would mean that netra has mistaken
/// which requests are answered.
pub(super) const DOUBTED: u32 = 1;

/// Where in the stream of commands.
#[derive(Debug, Default)]
pub(super) struct RequestSide {
    pub(super) held: Held,
    /// The rest of the command whose head was told.
    pub(super) walk: Walk,
    replies: Replies,
    /// The next answer tells whether the one before was really left out.
    doubted: bool,
    /// Between `MULTI` and `EXEC`.
    queueing: bool,
}

/// What `CLIENT REPLY` was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Replies {
    #[default]
    On,
    Off,
    SkipNext,
}

/// The beginning of a command.
#[derive(Clone, Copy, Debug)]
struct Command {
    /// Where its head ends.
    end: usize,
    /// Strings of it, its name among them.
    count: u32,
    /// Strings that are still to come, behind the one that began.
    strings_left: u32,
    /// Bytes of a string whose beginning is the end of the head.
    bulk: Option<u64>,
    operation: u8,
    name: Spot,
    argument: Spot,
    /// What `CLIENT REPLY` asks for.
    replies: Option<Replies>,
}

enum Read {
    Partial,
    /// So many bytes mean nothing.
    Nothing(usize),
    Command(Command),
    Bad(Reason),
}

impl RequestSide {
    #[inline]
    pub(super) fn advance(&mut self, input: &[u8], limits: &Limits, head: &mut Head) -> Event {
        self.held.begin(limits);
        if self.walk.is_under_way() {
            return match self.walk.run(input, limits.message_bytes_max) {
                Walked::More => Event::Body(input.len()),
                Walked::End(count) => Event::End(count),
                Walked::Bad(reason, _) => Event::Not(reason),
            };
        }
        if !self.held.is_empty() {
            return self.gather(input, limits, head);
        }
        if let Some((command, consumed)) = plain(input, limits)
            && let Some(kind) = self.usual(command.operation)
        {
            let Plain { operation, name, argument, len } = command;
            let status = i32::from(self.queueing);
            *head =
                Head { kind, operation, status, method: name, extra: argument, ..Head::default() };
            return Event::Head { consumed, len, held: false, whole: true };
        }
        match read(input, limits) {
            Read::Command(command) => self.tell(command, input, command.end, false, limits, head),
            Read::Partial => self.gather(input, limits, head),
            Read::Nothing(count) => Event::Skip(count),
            Read::Bad(reason) => Event::Not(reason),
        }
    }

    /// A command whose head came in pieces.
    #[cold]
    fn gather(&mut self, input: &[u8], limits: &Limits, head: &mut Head) -> Event {
        let before = self.held.bytes().len();
        self.held.fill(input, limits.message_head_bytes_max as usize);
        match read(self.held.bytes(), limits) {
            Read::Partial => Event::Need,
            Read::Bad(reason) => Event::Not(reason),
            Read::Nothing(end) => {
                self.held.spend(0);
                Event::Skip(end - before)
            }
            Read::Command(command) => {
                self.held.spend(command.end);
                self.tell(command, input, command.end - before, true, limits, head)
            }
        }
    }

    /// `taken` bytes of the input belong to the head.
    fn tell(
        &mut self,
        command: Command,
        input: &[u8],
        taken: usize,
        held: bool,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        let (kind, note) = match self.what_it_is(&command) {
            Ok(known) => known,
            Err(reason) => return Event::Not(reason),
        };
        let (mut consumed, mut whole) = (taken, true);
        let mut command = command;
        if command.bulk.is_none() {
            // Strings that lie in the input, as nearly all do.
            while command.strings_left > 0
                && let Ok((begin, len)) = string(input, consumed)
                && len <= limits.message_bytes_max
                && let Ok(end) = string_end(input, begin, size(len))
            {
                consumed = end;
                command.strings_left -= 1;
            }
        }
        if command.bulk.is_some() || command.strings_left > 0 {
            self.walk.begin_strings(command.strings_left, command.bulk);
            match self.walk.run(&input[consumed..], limits.message_bytes_max) {
                Walked::More => (consumed, whole) = (input.len(), false),
                Walked::End(count) => consumed += count,
                Walked::Bad(_, at) => (consumed, whole) = (consumed + at, false),
            }
        }
        *head = Head {
            kind,
            operation: command.operation,
            note,
            // Of a request nobody else has a use for it: its refusal is to know.
            status: i32::from(self.queueing),
            method: command.name,
            extra: command.argument,
            ..Head::default()
        };
        Event::Head { consumed, len: command.end, held, whole }
    }

    fn what_it_is(&mut self, command: &Command) -> Result<(Kind, u32), Reason> {
        match self.usual(command.operation) {
            Some(kind) => Ok((kind, 0)),
            None => self.what_unusual_is(command, commands::flags(command.operation)),
        }
    }

    /// What a command is for that is no more than a question and its answer.
    #[inline]
    fn usual(&self, operation: u8) -> Option<Kind> {
        let flags = commands::flags(operation);
        if flags & UNUSUAL != 0 || self.doubted || self.replies != Replies::On {
            return None;
        }
        Some(if flags & commands::BLOCKING != 0 { Kind::Blocking } else { Kind::Request })
    }

    #[cold]
    fn what_unusual_is(&mut self, command: &Command, flags: u16) -> Result<(Kind, u32), Reason> {
        if flags & commands::REPLICATION != 0 {
            return Err(Reason::Replication);
        }
        if flags & (commands::END | commands::RESET) != 0 {
            self.queueing = false;
        }
        if flags & commands::MULTI != 0 {
            self.queueing = true;
        }
        if flags & commands::RESET != 0 {
            (self.replies, self.doubted) = (Replies::On, false);
        }
        if let Some(wanted) = command.replies {
            return self.client_reply(wanted);
        }
        let subscribes = flags & (commands::SUBSCRIBE | commands::MONITOR) != 0;
        if self.replies != Replies::On {
            if subscribes {
                // Its confirmations come all the same, errors do not.
                return Err(Reason::RepliesUnclear);
            }
            if self.replies == Replies::SkipNext {
                (self.replies, self.doubted) = (Replies::On, true);
            }
            return Ok((Kind::Oneway, 0));
        }
        if subscribes {
            let channels = if flags & commands::MONITOR != 0 { 1 } else { command.count - 1 };
            return Ok((Kind::Subscribe, channels.max(1)));
        }
        let note = if std::mem::take(&mut self.doubted) { DOUBTED } else { 0 };
        Ok(match flags {
            _ if flags & commands::HANDSHAKE != 0 => (Kind::Handshake, note),
            _ if flags & commands::BLOCKING != 0 => (Kind::Blocking, note),
            _ => (Kind::Request, note),
        })
    }

    /// <https://redis.io/docs/latest/commands/client-reply/>: only `ON` is answered.
    fn client_reply(&mut self, wanted: Replies) -> Result<(Kind, u32), Reason> {
        if self.queueing {
            return Err(Reason::RepliesUnclear);
        }
        if wanted == Replies::On {
            (self.replies, self.doubted) = (Replies::On, false);
            return Ok((Kind::Request, DOUBTED));
        }
        if self.replies != Replies::Off {
            self.replies = wanted;
        }
        Ok((Kind::Oneway, 0))
    }
}

/// A command that lies in the input whole and has nothing odd about it.
#[derive(Clone, Copy)]
struct Plain {
    operation: u8,
    name: Spot,
    argument: Spot,
    /// Bytes of its head.
    len: usize,
}

/// Reads a command as nearly all of them are: fewer than ten strings, all of them short. Says
/// nothing that [`read`] would not say; where it says nothing, that has to be asked. Returns how
/// many bytes the command has as well.
#[inline]
fn plain(input: &[u8], limits: &Limits) -> Option<(Plain, usize)> {
    let [b'*', count @ b'1'..=b'9', b'\r', b'\n', ..] = input else { return None };
    if limits.message_bytes_max < 100 {
        return None;
    }
    let (begin, len) = short_string(input, 4)?;
    let operation = commands::operation(&input[begin..], len);
    let mut command = Plain {
        operation,
        name: Spot::new(begin, len),
        argument: Spot::default(),
        len: begin + len + 2,
    };
    let mut end = command.len;
    if *count > b'1' {
        let (begin, len) = short_string(input, end)?;
        end = begin + len + 2;
        (command.argument, command.len) = (Spot::new(begin, len), end);
    }
    if command.len > limits.message_head_bytes_max as usize {
        return None;
    }
    for _ in b'2'..*count {
        let (begin, len) = short_string(input, end)?;
        end = begin + len + 2;
    }
    Some((command, end))
}

/// A string of fewer than 100 bytes that lies in the input with the CRLF behind it.
#[inline]
fn short_string(input: &[u8], at: usize) -> Option<(usize, usize)> {
    let digit = |byte: u8| Some(usize::from(byte.wrapping_sub(b'0'))).filter(|digit| *digit < 10);
    let (begin, len) = match input.get(at..at + 5)? {
        [b'$', one, b'\r', b'\n', _] => (at + 4, digit(*one)?),
        [b'$', ten, one, b'\r', b'\n'] => (at + 5, digit(*ten)? * 10 + digit(*one)?),
        _ => return None,
    };
    let is_whole = input.get(begin + len..begin + len + 2)? == b"\r\n";
    is_whole.then_some((begin, len))
}

/// Reads the beginning of a command, as far as the limit allows.
fn read(bytes: &[u8], limits: &Limits) -> Read {
    let max = limits.message_head_bytes_max as usize;
    let is_cut = bytes.len() >= max;
    let bytes = if is_cut { &bytes[..max] } else { bytes };
    let read = match bytes.first() {
        Some(b'*') => read_array(bytes, max),
        _ => read_inline(bytes),
    };
    match read {
        Read::Partial if is_cut => Read::Bad(Reason::TooLarge),
        Read::Command(Command { bulk: Some(len), .. }) if len > limits.message_bytes_max => {
            Read::Bad(Reason::TooLarge)
        }
        read => read,
    }
}

/// The number behind the byte at `at`, and where its line ends.
enum Number {
    Partial,
    Is(u64, usize),
    Negative(usize),
    Bad,
}

fn number(bytes: &[u8], at: usize) -> Number {
    let is_digit = |byte: u8| byte.wrapping_sub(b'0') < 10;
    match bytes.get(at + 1..) {
        Some([one, b'\r', b'\n', ..]) if is_digit(*one) => Number::Is((one - b'0').into(), at + 4),
        Some([ten, one, b'\r', b'\n', ..]) if is_digit(*ten) && is_digit(*one) => {
            Number::Is(u64::from(ten - b'0') * 10 + u64::from(one - b'0'), at + 5)
        }
        _ => long_number(bytes, at),
    }
}

fn long_number(bytes: &[u8], at: usize) -> Number {
    let mut value = 0_u64;
    let mut place = at + 1;
    let is_negative = bytes.get(place) == Some(&b'-');
    place += usize::from(is_negative);
    let first = place;
    loop {
        match bytes.get(place) {
            Some(digit @ b'0'..=b'9') if place - first < 19 => {
                value = value * 10 + u64::from(digit - b'0');
            }
            Some(b'\r') if place > first => break,
            Some(_) => return Number::Bad,
            None => return Number::Partial,
        }
        place += 1;
    }
    match bytes.get(place + 1) {
        Some(b'\n') if is_negative => Number::Negative(place + 2),
        Some(b'\n') => Number::Is(value, place + 2),
        Some(_) => Number::Bad,
        None => Number::Partial,
    }
}

/// A string: where its bytes begin and how many they are.
fn string(bytes: &[u8], at: usize) -> Result<(usize, u64), Read> {
    match bytes.get(at) {
        Some(b'$') => {}
        Some(_) => return Err(Read::Bad(Reason::Malformed)),
        None => return Err(Read::Partial),
    }
    match number(bytes, at) {
        Number::Is(len, begin) => Ok((begin, len)),
        Number::Partial => Err(Read::Partial),
        Number::Negative(_) | Number::Bad => Err(Read::Bad(Reason::Malformed)),
    }
}

/// A string that lies in the bytes: where it ends, its CRLF behind it.
fn string_end(bytes: &[u8], begin: usize, len: usize) -> Result<usize, Read> {
    let end = begin.saturating_add(len);
    match bytes.get(end..) {
        Some([b'\r', b'\n', ..]) => Ok(end + 2),
        Some([_, _, ..]) => Err(Read::Bad(Reason::Malformed)),
        _ => Err(Read::Partial),
    }
}

fn read_array(bytes: &[u8], max: usize) -> Read {
    match number(bytes, 0) {
        Number::Partial => Read::Partial,
        Number::Bad => Read::Bad(Reason::NotThisProtocol),
        // Servers take no notice of these.
        Number::Negative(end) | Number::Is(0, end) => Read::Nothing(end),
        Number::Is(count, end) => match u32::try_from(count) {
            Ok(count) if count <= STRINGS_MAX => match read_strings(bytes, end, count, max) {
                Ok(command) => Read::Command(command),
                Err(read) => read,
            },
            _ => Read::Bad(Reason::TooLarge),
        },
    }
}

/// The name, and the first argument if it lies within the limit.
fn read_strings(bytes: &[u8], at: usize, count: u32, max: usize) -> Result<Command, Read> {
    let (begin, len) = string(bytes, at)?;
    let mut command = Command {
        end: begin,
        count,
        strings_left: count - 1,
        bulk: Some(len),
        operation: commands::OTHER,
        name: Spot::default(),
        argument: Spot::default(),
        replies: None,
    };
    if len > NAME_MAX {
        return Ok(command);
    }
    let len = size(len);
    command.end = string_end(bytes, begin, len)?;
    command.bulk = None;
    command.operation = commands::operation(&bytes[begin..], len);
    command.name = Spot::new(begin, len);
    if count == 1 {
        return Ok(command);
    }
    let (begin, len) = string(bytes, command.end)?;
    command.strings_left = count - 2;
    if begin.saturating_add(size(len)).saturating_add(2) > max {
        (command.end, command.bulk) = (begin, Some(len));
        return Ok(command);
    }
    command.end = string_end(bytes, begin, size(len))?;
    command.argument = Spot::new(begin, size(len));
    if count == 3 && commands::flags(command.operation) & commands::CLIENT != 0 {
        read_client_reply(bytes, &mut command)?;
    }
    Ok(command)
}

#[cold]
fn read_client_reply(bytes: &[u8], command: &mut Command) -> Result<(), Read> {
    let argument = command.argument.of(bytes).unwrap_or_default();
    if !argument.eq_ignore_ascii_case(b"reply") {
        return Ok(());
    }
    let (begin, len) = string(bytes, command.end)?;
    if len > 4 {
        // Its beginning is of the head: it may have come, and be held, without what is behind it.
        (command.end, command.bulk, command.strings_left) = (begin, Some(len), 0);
        return Ok(());
    }
    let end = string_end(bytes, begin, size(len))?;
    command.replies = replies(&bytes[begin..begin + size(len)]);
    (command.end, command.strings_left) = (end, 0);
    Ok(())
}

fn replies(word: &[u8]) -> Option<Replies> {
    let words = [("on", Replies::On), ("off", Replies::Off), ("skip", Replies::SkipNext)];
    words.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes())).map(|(_, it)| *it)
}

/// A command as people type it: words on a line. Only those of the list are believed to be one.
#[cold]
fn read_inline(bytes: &[u8]) -> Read {
    match bytes {
        [] | [b'\r'] => return Read::Partial,
        [b'\n', ..] => return Read::Nothing(1),
        [b'\r', b'\n', ..] => return Read::Nothing(2),
        [0x16, 0x03, ..] => return Read::Bad(Reason::Tls),
        [0x16] => return Read::Partial,
        [first, ..] if first.is_ascii_alphabetic() => {}
        _ => return Read::Bad(Reason::NotThisProtocol),
    }
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        let is_text = bytes.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\r');
        return if is_text { Read::Partial } else { Read::Bad(Reason::NotThisProtocol) };
    };
    // As it would be seen if the line came byte by byte.
    if bytes[..end].iter().any(|byte| byte.is_ascii_control() && *byte != b'\r') {
        return Read::Bad(Reason::NotThisProtocol);
    }
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let name = words.next().unwrap_or_default();
    let operation = commands::operation(name, name.len());
    let is_http = line.windows(7).any(|part| part == b"HTTP/1.");
    if operation == commands::OTHER || is_http {
        return Read::Bad(Reason::NotThisProtocol);
    }
    let (argument, second) = (words.next(), words.next());
    let place =
        |word: &[u8]| Spot::new(word.as_ptr() as usize - bytes.as_ptr() as usize, word.len());
    let is_client_reply = commands::flags(operation) & commands::CLIENT != 0
        && argument.is_some_and(|word| word.eq_ignore_ascii_case(b"reply"));
    Read::Command(Command {
        end: end + 1,
        count: 1
            + u32::from(argument.is_some())
            + u32::from(second.is_some())
            + u32::try_from(words.count()).unwrap_or(0),
        strings_left: 0,
        bulk: None,
        operation,
        name: place(name),
        argument: argument.filter(|word| !word.contains(&b'"')).map_or(Spot::default(), place),
        replies: second.filter(|_| is_client_reply).and_then(replies),
    })
}
