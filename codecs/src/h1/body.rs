//! Where in the stream a body is, and how much of it may pass without being looked at.

use memchr::memchr3;

use crate::h1::framing::Framing;
use crate::h1::reason::Reason;
use crate::h1::scan::is_token_byte;
use crate::limits::Limits;

/// A place in a body.
///
/// Bytes either are shown to it ([`advance`](Self::advance)) or pass unseen
/// ([`pass`](Self::pass)), as many as [`passable`](Self::passable) allows: all of a body of known
/// length, the rest of a chunk, everything until the server closes. 24 bytes, no heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyCursor {
    state: State,
    /// Bytes of chunk extensions that may still come.
    extension_left: u32,
    /// Bytes of trailers that may still come.
    trailer_left: u32,
}

/// What came of the bytes that were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// All of them belong to the body, and more are to come.
    More,
    /// The body ends after this many bytes; what follows is not part of it.
    End(usize),
    /// The byte at this offset cannot stand there.
    Bad(usize, Reason),
}

/// RFC 9112 §7.1, byte by byte; only chunk data is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    End,
    UntilClose,
    Length(u64),
    /// In a chunk size, after this many digits.
    Size {
        value: u64,
        digits: u8,
    },
    /// In the extensions of the chunk.
    Extension {
        value: u64,
        quoted: Quoted,
    },
    /// After the CR of the size line.
    SizeCr(u64),
    /// In chunk data.
    Data(u64),
    /// After the data of a chunk.
    DataEnd,
    /// After the CR behind the data.
    DataCr,
    /// At the beginning of a trailer line.
    TrailerLine,
    TrailerName,
    TrailerValue,
    /// After the CR of a trailer line.
    TrailerCr,
    /// After the CR of the empty line that ends the body.
    LastCr,
}

/// Where in a quoted-string (RFC 9110 §5.6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quoted {
    No,
    Yes,
    Escaped,
}

impl BodyCursor {
    /// The beginning of a body.
    pub fn new(framing: Framing, limits: &Limits) -> Self {
        let state = match framing {
            Framing::Length(0) => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            extension_left: limits.chunk_extension_bytes_max,
            trailer_left: limits.trailer_bytes_max,
        }
    }

    /// Whether the body is whole.
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Whether only the closing of the connection ends the body.
    pub fn is_until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// How many bytes may pass from here without being shown; `u64::MAX` until the server closes.
    pub fn passable(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Data(left) => left,
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// Takes note of bytes that passed without being shown: at most [`passable`](Self::passable).
    pub fn pass(&mut self, count: u64) {
        debug_assert!(count <= self.passable());
        self.state = match self.state {
            State::Length(left) if left <= count => State::End,
            State::Length(left) => State::Length(left - count),
            State::Data(left) if left <= count => State::DataEnd,
            State::Data(left) => State::Data(left - count),
            other => other,
        };
    }

    /// Takes the next bytes of the stream. After [`Advance::Bad`] the cursor is of no more use.
    pub fn advance(&mut self, input: &[u8]) -> Advance {
        let mut at = 0;
        loop {
            if self.state == State::End {
                return Advance::End(at);
            }
            let rest = &input[at..];
            if rest.is_empty() {
                return Advance::More;
            }
            let taken = match self.passable() {
                0 => self.take(rest),
                passable => {
                    let count = usize::try_from(passable).map_or(rest.len(), |n| n.min(rest.len()));
                    self.pass(count as u64);
                    Ok(count)
                }
            };
            match taken {
                Ok(count) => at += count,
                Err(reason) => return Advance::Bad(at, reason),
            }
        }
    }

    /// Takes a byte of chunk framing, or a run of bytes of a trailer value. `rest` is not empty.
    fn take(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        let byte = rest[0];
        self.state = match self.state {
            State::Size { value, digits } => size(value, digits, byte)?,
            State::Extension { value, quoted } => {
                self.extension_left =
                    self.extension_left.checked_sub(1).ok_or(Reason::ChunkExtensionsTooLong)?;
                extension(value, quoted, byte)?
            }
            State::SizeCr(value) => match (byte, value) {
                (b'\n', 0) => State::TrailerLine,
                (b'\n', _) => State::Data(value),
                _ => return Err(Reason::BareCr),
            },
            State::DataEnd if byte == b'\r' => State::DataCr,
            State::DataCr if byte == b'\n' => State::Size { value: 0, digits: 0 },
            State::DataEnd | State::DataCr => return Err(Reason::BadChunkEnd),
            State::LastCr if byte == b'\n' => State::End,
            State::LastCr => return Err(Reason::BareCr),
            State::TrailerLine | State::TrailerName | State::TrailerValue | State::TrailerCr => {
                return self.take_trailer(rest);
            }
            State::End | State::UntilClose | State::Length(_) | State::Data(_) => self.state,
        };
        Ok(1)
    }

    /// RFC 9112 §7.1.2. The empty line is not counted against the limit.
    fn take_trailer(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        let byte = rest[0];
        if self.state == State::TrailerLine && byte == b'\r' {
            self.state = State::LastCr;
            return Ok(1);
        }
        // A value is passed over up to the next byte that means something, within the limit.
        if self.state == State::TrailerValue && self.trailer_left > 0 {
            let run = memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
            let run = u32::try_from(run).unwrap_or(u32::MAX).min(self.trailer_left);
            if run > 0 {
                self.trailer_left -= run;
                return Ok(run as usize);
            }
        }
        self.trailer_left = self.trailer_left.checked_sub(1).ok_or(Reason::TrailersTooLong)?;
        self.state = match (self.state, byte) {
            (State::TrailerLine, b' ' | b'\t') => return Err(Reason::ObsFold),
            (_, b'\0') => return Err(Reason::Nul),
            (State::TrailerLine | State::TrailerName, _) if is_token_byte(byte) => {
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerCr,
            (State::TrailerCr, b'\n') => State::TrailerLine,
            (State::TrailerCr, _) => return Err(Reason::BareCr),
            (_, b'\n') => return Err(Reason::BareLf),
            _ => return Err(Reason::BadTrailer),
        };
        Ok(1)
    }
}

/// `chunk-size = 1*HEXDIG`. No sign, no `0x`, no blank: each is read by some parser and not by
/// another.
fn size(value: u64, digits: u8, byte: u8) -> Result<State, Reason> {
    if let Some(digit) = (byte as char).to_digit(16) {
        // 16 digits hold what 64 bits hold; the top bit is left to signed parsers.
        if digits == 16 || value >> 59 != 0 {
            return Err(Reason::HugeChunk);
        }
        return Ok(State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 });
    }
    match byte {
        b'\r' if digits > 0 => Ok(State::SizeCr(value)),
        b';' if digits > 0 => Ok(State::Extension { value, quoted: Quoted::No }),
        b'\n' => Err(Reason::BareLf),
        _ => Err(Reason::BadChunkSize),
    }
}

/// RFC 9112 §7.1.1. What the extensions say does not matter, only where they end: a CR in an open
/// quotation ends the line for one parser and not for another.
fn extension(value: u64, quoted: Quoted, byte: u8) -> Result<State, Reason> {
    let quoted = match (quoted, byte) {
        (Quoted::No, b'\r') => return Ok(State::SizeCr(value)),
        (_, b'\n') => return Err(Reason::BareLf),
        (_, 0..=8 | 10..=31 | 127) => return Err(Reason::BadChunkExtension),
        (Quoted::No, b'"') => Quoted::Yes,
        (Quoted::Yes, b'"') => Quoted::No,
        (Quoted::Yes, b'\\') => Quoted::Escaped,
        (Quoted::Escaped, _) => Quoted::Yes,
        (quoted, _) => quoted,
    };
    Ok(State::Extension { value, quoted })
}

#[cfg(test)]
mod tests {
    use super::*;

    const _: () = assert!(size_of::<BodyCursor>() <= 32);

    fn cursor(framing: Framing) -> BodyCursor {
        BodyCursor::new(framing, &Limits::DEFAULT)
    }

    #[test]
    fn a_length_passes_unseen() {
        let mut body = cursor(Framing::Length(1 << 40));
        assert_eq!(body.passable(), 1 << 40);
        body.pass((1 << 40) - 3);
        assert_eq!(body.advance(b"ab"), Advance::More);
        assert_eq!((body.passable(), body.is_end()), (1, false));
        assert_eq!(body.advance(b"cNEXT"), Advance::End(1));
        assert_eq!((body.passable(), body.is_end()), (0, true));
        assert_eq!(body.advance(b"NEXT"), Advance::End(0));
        assert!(cursor(Framing::Length(0)).is_end());
    }

    #[test]
    fn until_close_never_ends() {
        let mut body = cursor(Framing::UntilClose);
        assert_eq!(body.advance(b"any\r\n\0thing"), Advance::More);
        body.pass(u64::MAX);
        assert_eq!((body.passable(), body.is_until_close()), (u64::MAX, true));
    }

    #[test]
    fn chunk_data_passes_unseen() {
        let mut body = cursor(Framing::Chunked);
        assert_eq!(body.advance(b"100000\r\n"), Advance::More);
        assert_eq!(body.passable(), 0x10_0000);
        body.pass(0xf_ffff);
        assert_eq!((body.advance(b"x"), body.passable()), (Advance::More, 0));
        assert_eq!(body.advance(b"\r\n0\r\n\r\nGET"), Advance::End(7));
    }
}
