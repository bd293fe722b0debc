//! The trace context that a comment of the text carries:
//! `/*action='buy',traceparent='00-...-01'*/`.
//!
//! <https://google.github.io/sqlcommenter/spec/>: pairs of key and value with commas between them, the
//! values in quotes. Only `traceparent` is kept, whose value needs none of the spec's escapes. What
//! stands in a literal is in no comment, and never gets here.

const NAME: &[u8] = b"traceparent='";
/// Bytes of a `traceparent` of version 00.
const LEN: usize = 55;

/// The name of the pair that holds a trace context.
pub const TRACEPARENT: &[u8] = b"traceparent";

/// Looks for it, byte by byte, in the comments of one text.
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    bytes: [u8; LEN],
    place: Place,
}

/// Where in a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// So much of the name has come.
    Name(u8),
    /// Nothing begins here.
    Within,
    /// So much of the value has come.
    Value(u8),
    /// It is whole; the first one stays.
    Found,
}

impl Carrier {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; LEN], place: Place::Within }
    }

    /// Another text begins.
    pub(super) fn clear(&mut self) {
        self.place = Place::Within;
    }

    /// A comment begins.
    pub(super) fn begin(&mut self) {
        if self.place != Place::Found {
            self.place = Place::Name(0);
        }
    }

    /// The next byte of the comment.
    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        self.place = match self.place {
            Place::Found => return,
            Place::Name(at) if NAME.get(usize::from(at)) == Some(&byte) => {
                let is_whole = usize::from(at) + 1 == NAME.len();
                if is_whole { Place::Value(0) } else { Place::Name(at + 1) }
            }
            Place::Value(LEN_BYTE) if byte == b'\'' => Place::Found,
            Place::Value(at) => match self.bytes.get_mut(usize::from(at)) {
                Some(place) if byte.is_ascii_hexdigit() || byte == b'-' => {
                    *place = byte;
                    Place::Value(at + 1)
                }
                _ => Place::Within,
            },
            _ if byte == b',' || byte.is_ascii_whitespace() => Place::Name(0),
            _ => Place::Within,
        };
    }

    /// The value, if there is one.
    pub(super) fn value(&self) -> Option<&[u8]> {
        (self.place == Place::Found).then_some(&self.bytes[..])
    }
}

/// The context in a comment that is kept apart from what it is about, as that of MongoDB's commands:
/// alone, or as one of such pairs.
pub fn context_of(comment: &[u8]) -> Option<&[u8]> {
    if comment.len() == LEN {
        return Some(comment);
    }
    let mut carrier = Carrier::new();
    carrier.begin();
    for (at, byte) in comment.iter().enumerate() {
        carrier.push(*byte);
        if carrier.place == Place::Found {
            return comment.get(at - LEN..at);
        }
    }
    None
}

#[allow(clippy::cast_possible_truncation)]
const LEN_BYTE: u8 = LEN as u8;
