//! Whether a connection speaks HTTP/1, by its first request line and the line that answers it.
//! Nothing is read beyond that, and nothing is kept but where in the lines it is.

use crate::codec::Way;

/// The longest request line that is looked at.
const LINE_MAX: u32 = 4096;
/// The longest method.
const METHOD_MAX: u32 = 20;

const VERSION: &[u8] = b"HTTP/1.";

/// Where in the two lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Http1 {
    request: Line,
    response: Line,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// So many letters of the method.
    Method(u32),
    /// So many bytes of the line, in its target.
    Target(u32),
    /// So many bytes of the version, and whether it is the first thing of the line.
    Version(usize, bool),
    /// So many digits of the status.
    Status(u8),
    /// It is as it has to be.
    Good,
    /// It is another protocol's.
    Bad,
}

/// What is known by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// More bytes, please.
    More,
    /// Both lines are those of HTTP/1.
    Is,
    /// It is something else.
    IsNot,
}

impl Http1 {
    pub(super) fn new() -> Self {
        Self { request: Line::Method(0), response: Line::Version(0, true) }
    }

    /// The next bytes of a way.
    pub(super) fn look(&mut self, way: Way, input: &[u8]) -> Look {
        if input.is_empty() {
            return Look::More;
        }
        if way == Way::Response && self.request != Line::Good {
            // Nobody answers half a line but to say that it makes no sense.
            return Look::IsNot;
        }
        let line = match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        };
        for byte in input {
            if matches!(line, Line::Good | Line::Bad) {
                break;
            }
            *line = line.after(*byte);
        }
        match (self.request, self.response) {
            (Line::Bad, _) | (_, Line::Bad) => Look::IsNot,
            (Line::Good, Line::Good) => Look::Is,
            _ => Look::More,
        }
    }

    /// Whether bytes of the way are still looked at.
    pub(super) fn wants(&self, way: Way) -> bool {
        let line = if way == Way::Request { self.request } else { self.response };
        !matches!(line, Line::Good | Line::Bad)
    }
}

impl Line {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Method(len), b'A'..=b'Z' | b'-' | b'_') if len < METHOD_MAX => {
                Self::Method(len + 1)
            }
            (Self::Method(len), b' ') if len > 0 => Self::Target(len),
            (Self::Target(_), b' ') => Self::Version(0, false),
            (Self::Target(len), 0x21..=0x7e | 0x80..) if len < LINE_MAX => Self::Target(len + 1),
            (Self::Version(at, is_first), _) if at < VERSION.len() => match VERSION[at] == byte {
                true => Self::Version(at + 1, is_first),
                false => Self::Bad,
            },
            (Self::Version(7, is_first), b'0' | b'1') => Self::Version(8, is_first),
            (Self::Version(8, true), b' ') => Self::Status(0),
            (Self::Version(8, false), b'\r' | b'\n') | (Self::Status(2), b'0'..=b'9') => Self::Good,
            (Self::Status(digits), b'0'..=b'9') => Self::Status(digits + 1),
            _ => Self::Bad,
        }
    }
}
