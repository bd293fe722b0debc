//! HTTP/1.1 messages as a load generator needs them: where one ends, its status, and whether the
//! connection can be used again. Bodies are counted, not kept.

use std::fmt;

/// Longest head that is accepted.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Why bytes are not an HTTP message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Malformed {
    Start,
    Header,
    Length,
    Chunk,
    TooLong,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "not an HTTP/1 message",
            Self::Header => "a header line without a colon",
            Self::Length => "a bad Content-Length or Transfer-Encoding",
            Self::Chunk => "a bad chunk",
            Self::TooLong => "a head of more than 64 KiB",
        })
    }
}

/// Which side wrote the message; without a length they end differently.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Request,
    Response,
    /// A response to HEAD has no body, whatever its headers say (RFC 9112 section 6.3).
    ResponseToHead,
}

/// Finds the end of messages, fed in pieces of any size.
#[derive(Clone, Debug)]
pub(crate) struct MessageParser {
    role: Role,
    state: State,
    /// A head that came in pieces.
    partial: Vec<u8>,
    /// The head before this one, and what it says: a peer repeats itself, message after message.
    known: (Vec<u8>, Head),
    status: u16,
    is_keep_alive: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Head,
    Fixed(u64),
    Chunked(Chunked),
    UntilClose,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chunked {
    Size { value: u64, digit_count: u8 },
    Extension { value: u64 },
    SizeEnd { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer { is_empty: bool },
    TrailerLf { is_empty: bool },
}

#[derive(Clone, Copy, Debug)]
struct Head {
    status: u16,
    is_keep_alive: bool,
    state: State,
}

/// Longer heads are read anew each time instead of being kept.
const KNOWN_BYTES_MAX: usize = 1024;

impl MessageParser {
    pub(crate) fn new(role: Role) -> Self {
        let known = (Vec::new(), Head { status: 0, is_keep_alive: true, state: State::Head });
        let (state, partial) = (State::Head, Vec::new());
        Self { role, state, partial, known, status: 0, is_keep_alive: true }
    }

    /// Forgets the message at hand.
    pub(crate) fn reset(&mut self) {
        self.state = State::Head;
        self.partial.clear();
        self.status = 0;
        self.is_keep_alive = true;
    }

    /// Status of the response; zero before its head has come.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Whether another message may follow on this connection.
    pub(crate) fn is_keep_alive(&self) -> bool {
        self.is_keep_alive
    }

    /// Whether nothing of a message has come yet.
    #[cfg(test)]
    pub(crate) fn is_between(&self) -> bool {
        self.state == State::Head && self.partial.is_empty()
    }

    /// Whether the end of the connection is the end of the message.
    pub(crate) fn is_ended_by_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Takes bytes; `Some(used)` when the message ends within them, and is ready for the next.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut used = 0;
        loop {
            if self.state == State::Head {
                match self.feed_head(&input[used..])? {
                    Some(taken) => used += taken,
                    None => return Ok(None),
                }
            }
            let (taken, is_done) = self.feed_body(&input[used..])?;
            used += taken;
            if !is_done {
                return Ok(None);
            }
            self.state = State::Head;
            // An interim response (RFC 9110 section 15.2) announces another one; 101 does not.
            if self.role == Role::Request || self.status >= 200 || self.status == 101 {
                return Ok(Some(used));
            }
            if used == input.len() {
                return Ok(None);
            }
        }
    }

    fn feed_head(&mut self, input: &[u8]) -> Result<Option<usize>, Malformed> {
        let head;
        let used;
        let (known, meaning) = &self.known;
        if self.partial.is_empty() && !known.is_empty() && input.starts_with(known) {
            (head, used) = (*meaning, known.len());
        } else if self.partial.is_empty() {
            let Some(end) = find_end(input) else {
                self.keep(input)?;
                return Ok(None);
            };
            head = parse_head(self.role, &input[..end])?;
            used = end;
            self.known.0.clear();
            if end <= KNOWN_BYTES_MAX {
                self.known.0.extend_from_slice(&input[..end]);
                self.known.1 = head;
            }
        } else {
            let before = self.partial.len();
            let from = before.saturating_sub(3);
            self.keep(input)?;
            let Some(end) = find_end(&self.partial[from..]).map(|end| end + from) else {
                return Ok(None);
            };
            head = parse_head(self.role, &self.partial[..end])?;
            used = end - before;
            self.partial.clear();
        }
        (self.status, self.is_keep_alive, self.state) =
            (head.status, head.is_keep_alive, head.state);
        Ok(Some(used))
    }

    fn keep(&mut self, input: &[u8]) -> Result<(), Malformed> {
        // Judged before adding, as what follows the head may come in the same piece; so the limit
        // can be passed by one read, no further.
        if self.partial.len() > HEAD_BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        self.partial.extend_from_slice(input);
        Ok(())
    }

    fn feed_body(&mut self, input: &[u8]) -> Result<(usize, bool), Malformed> {
        match &mut self.state {
            State::Head => Ok((0, true)),
            State::UntilClose => Ok((input.len(), false)),
            State::Fixed(left) => {
                let taken = clamp(*left, input.len());
                *left -= taken as u64;
                Ok((taken, *left == 0))
            }
            State::Chunked(chunked) => feed_chunks(chunked, input),
        }
    }
}

fn clamp(left: u64, available: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(available)
}

/// Index after the empty line that ends a head.
fn find_end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&byte| byte == b'\n') {
        let end = from + at + 1;
        if bytes[..end].ends_with(b"\r\n\r\n") {
            return Some(end);
        }
        from = end;
    }
    None
}

fn parse_head(role: Role, head: &[u8]) -> Result<Head, Malformed> {
    let mut lines = head[..head.len() - 4].split(|&byte| byte == b'\n').map(trim_cr);
    let start = lines.next().ok_or(Malformed::Start)?;
    let (status, version) = parse_start(role, start)?;
    let mut length = None;
    let mut is_chunked = false;
    let mut is_keep_alive = version == b'1';
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':').ok_or(Malformed::Header)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = parse_length(value)?;
            if length.is_some_and(|earlier| earlier != value) {
                return Err(Malformed::Length);
            }
            length = Some(value);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|&byte| byte == b',').next().unwrap_or(value);
            is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
            if !is_chunked && role == Role::Request {
                return Err(Malformed::Length);
            }
        } else if name.eq_ignore_ascii_case(b"connection") {
            for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                if token.eq_ignore_ascii_case(b"close") {
                    is_keep_alive = false;
                } else if token.eq_ignore_ascii_case(b"keep-alive") {
                    is_keep_alive = true;
                }
            }
        }
    }
    let state = framing(role, status, is_chunked, length);
    Ok(Head { status, is_keep_alive: is_keep_alive && state != State::UntilClose, state })
}

/// RFC 9112 section 6.3: how long the body is.
fn framing(role: Role, status: u16, is_chunked: bool, length: Option<u64>) -> State {
    let is_bodiless = match role {
        Role::Request => false,
        Role::ResponseToHead => true,
        Role::Response => status < 200 || status == 204 || status == 304,
    };
    match (is_bodiless, is_chunked, length) {
        (true, _, _) => State::Fixed(0),
        (false, true, _) => State::Chunked(Chunked::Size { value: 0, digit_count: 0 }),
        (false, false, Some(length)) => State::Fixed(length),
        (false, false, None) if role == Role::Request => State::Fixed(0),
        (false, false, None) => State::UntilClose,
    }
}

fn parse_start(role: Role, line: &[u8]) -> Result<(u16, u8), Malformed> {
    if role == Role::Request {
        let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
        let minor = version.strip_prefix(b"HTTP/1.").ok_or(Malformed::Start)?;
        return match minor {
            [minor @ (b'0' | b'1')] => Ok((0, *minor)),
            _ => Err(Malformed::Start),
        };
    }
    match line.strip_prefix(b"HTTP/1.").ok_or(Malformed::Start)? {
        [minor @ (b'0' | b'1'), b' ', a, b, c, rest @ ..]
            if [a, b, c].iter().all(|digit| digit.is_ascii_digit())
                && rest.first().is_none_or(|&byte| byte == b' ') =>
        {
            let status = [a, b, c].iter().fold(0, |sum, &&d| sum * 10 + u16::from(d - b'0'));
            if status < 100 { Err(Malformed::Start) } else { Ok((status, *minor)) }
        }
        _ => Err(Malformed::Start),
    }
}

fn parse_length(value: &[u8]) -> Result<u64, Malformed> {
    // `u64::from_str` takes a plus sign, RFC 9110 section 8.6 does not.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Length);
    }
    let text = std::str::from_utf8(value).map_err(|_| Malformed::Length)?;
    text.parse().map_err(|_| Malformed::Length)
}

fn trim_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn feed_chunks(state: &mut Chunked, input: &[u8]) -> Result<(usize, bool), Malformed> {
    let mut at = 0;
    while at < input.len() {
        if let Chunked::Data { left } = state {
            let taken = clamp(*left, input.len() - at);
            at += taken;
            *left -= taken as u64;
            if *left == 0 {
                *state = Chunked::DataCr;
            }
            continue;
        }
        let byte = input[at];
        at += 1;
        if *state == (Chunked::TrailerLf { is_empty: true }) && byte == b'\n' {
            return Ok((at, true));
        }
        *state = step_chunk(*state, byte)?;
    }
    Ok((at, false))
}

fn step_chunk(state: Chunked, byte: u8) -> Result<Chunked, Malformed> {
    Ok(match (state, byte) {
        (Chunked::Size { value, digit_count }, byte) if byte.is_ascii_hexdigit() => {
            // Fifteen digits cannot overflow, and no chunk is that long.
            if digit_count == 15 {
                return Err(Malformed::Chunk);
            }
            let digit = char::from(byte).to_digit(16).unwrap_or(0);
            Chunked::Size { value: value * 16 + u64::from(digit), digit_count: digit_count + 1 }
        }
        (Chunked::Size { digit_count: 0, .. }, _) => return Err(Malformed::Chunk),
        (Chunked::Size { value, .. } | Chunked::Extension { value }, b'\r') => {
            Chunked::SizeEnd { value }
        }
        (Chunked::Size { value, .. }, b';' | b' ' | b'\t') => Chunked::Extension { value },
        (Chunked::Extension { value }, byte) if byte != b'\n' => Chunked::Extension { value },
        (Chunked::SizeEnd { value: 0 }, b'\n') => Chunked::Trailer { is_empty: true },
        (Chunked::SizeEnd { value }, b'\n') => Chunked::Data { left: value },
        (Chunked::DataCr, b'\r') => Chunked::DataLf,
        (Chunked::DataLf, b'\n') => Chunked::Size { value: 0, digit_count: 0 },
        (Chunked::Trailer { is_empty }, b'\r') => Chunked::TrailerLf { is_empty },
        (Chunked::Trailer { .. }, byte) if byte != b'\n' => Chunked::Trailer { is_empty: false },
        (Chunked::TrailerLf { is_empty: false }, b'\n') => Chunked::Trailer { is_empty: true },
        _ => return Err(Malformed::Chunk),
    })
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
