//! What a protocol looks like whose messages have a header of fixed size: which of its bytes say
//! how long a message is, what it is for, which answer belongs to it, and what it is called.

use super::reply::Reply;
use crate::codec::{About, Convention, Correlation, Head, Key, Kind, Speaks};
use std::error;
use std::fmt;

/// The longest header, and the furthest place of a field that is at a fixed one.
pub(super) const PLACE_MAX: u32 = 1024;
/// Operations that metrics tell apart, `other` among them.
pub(super) const OPERATIONS_MAX: usize = 64;
/// What is told of operations beyond the list.
const OTHER: &str = "other";

/// The order of the bytes of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The highest first.
    #[default]
    Big,
    /// The lowest first.
    Little,
}

/// A number in the header: where, and of how many bytes (1 to 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// Where it begins.
    pub at: u32,
    /// Bytes of it.
    pub width: u8,
}

/// A part of the length: a number, and how often it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthPart {
    /// The number.
    pub number: Number,
    /// What one of it is, in bytes.
    pub times: u32,
}

/// What a length counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// All of the message.
    Message,
    /// What lies behind the length itself.
    Rest,
    /// What lies behind the header.
    Body,
}

/// How long a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Length {
    /// The numbers whose sum it is.
    pub parts: Vec<LengthPart>,
    /// What they count.
    pub counts: Counts,
    /// Bytes behind all that: a checksum that is not counted.
    pub trailer: u32,
    /// The longest message, in bytes.
    pub max: u64,
}

/// How messages say what they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Where.
    pub number: Number,
    /// Which of its bits.
    pub mask: u64,
    /// What each value means. One that is not among them is none of the protocol. Where none is an
    /// answer's, answers look like requests, and go the other way.
    pub values: Vec<(u64, Kind)>,
}

/// How answers say how it came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where.
    pub number: Number,
    /// The values that are no errors.
    pub ok: Vec<u64>,
}

/// Where the value of a field is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// So many bytes at a place; zeroes and blanks at the end are none of it.
    Fixed {
        /// Where.
        at: u32,
        /// How many.
        len: u32,
    },
    /// Behind its length, which is a number of 1, 2 or 4 bytes.
    Prefixed {
        /// Where the length is.
        at: u32,
        /// Its bytes.
        width: u8,
    },
    /// The same, behind the field of this index.
    Behind {
        /// The field, which is one of those before.
        field: usize,
        /// Bytes of the length.
        width: u8,
    },
    /// In a list of tag, length and value to the end of the message.
    Tagged {
        /// Where the list begins.
        at: u32,
        /// Bytes of a tag.
        tag_width: u8,
        /// Bytes of a length.
        length_width: u8,
        /// The tag.
        tag: u64,
    },
    /// In a message of Protocol Buffers, by field numbers. It begins at a place and goes to the end,
    /// or is as long as a number says.
    Protobuf {
        /// Where it begins.
        at: u32,
        /// How long it is.
        len: Option<Number>,
        /// The numbers.
        path: Vec<u32>,
    },
}

/// A field that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub key: Key,
    /// Where it is.
    pub place: Place,
}

/// What requests ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operations {
    /// A number, and the names of its values.
    Numbered(Number, Vec<(u64, &'static str)>),
    /// The method, of which metrics tell these apart.
    Named(Vec<&'static str>),
}

/// A protocol. All that it names lives as long as the process.
#[derive(Clone, Debug)]
pub struct Description {
    /// What it is called in settings, series and spans.
    pub name: &'static str,
    /// Bytes that are the same in every message, and where.
    pub magic: Option<(u32, Box<[u8]>)>,
    /// Of all numbers.
    pub order: Order,
    /// Bytes of the header.
    pub header: u32,
    /// How long a message is.
    pub length: Length,
    /// Which request and answer belong together; None where answers come in order.
    pub id: Option<Number>,
    /// What a message is for; None where requests go one way and answers the other.
    pub kinds: Option<Kinds>,
    /// How it came out.
    pub status: Option<Status>,
    /// Fields.
    pub fields: Vec<Field>,
    /// What is asked for.
    pub operations: Operations,
    /// What the client of a refused request is told; None where both sides are closed.
    pub reply: Option<Reply>,
}

/// What of a description contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit(pub String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Unfit {}

impl Number {
    fn end(self) -> u32 {
        self.at.saturating_add(self.width.into())
    }

    /// Its value in these bytes.
    pub(super) fn of(self, bytes: &[u8], order: Order) -> Option<u64> {
        let at = self.at as usize;
        let bytes = bytes.get(at..at + usize::from(self.width))?;
        Some(number(bytes, order))
    }
}

/// Of 8 bytes at most.
pub(super) fn number(bytes: &[u8], order: Order) -> u64 {
    let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    match order {
        Order::Big => bytes.iter().fold(0, add),
        Order::Little => bytes.iter().rev().fold(0, add),
    }
}

impl Description {
    /// The header's numbers, each with what it is for.
    fn numbers(&self) -> impl Iterator<Item = (&'static str, Number)> {
        let parts = self.length.parts.iter().map(|part| ("length", part.number));
        let operation = match &self.operations {
            Operations::Numbered(number, _) => Some(("operation", *number)),
            Operations::Named(_) => None,
        };
        let others = [
            self.id.map(|it| ("id", it)),
            self.kinds.as_ref().map(|it| ("kind", it.number)),
            operation,
        ];
        parts.chain(others.into_iter().flatten())
    }

    /// Whether it can be read by.
    pub(super) fn check(&self) -> Result<(), Unfit> {
        let unfit = |what: String| Err(Unfit(what));
        if self.length.parts.is_empty() {
            return unfit("length has no parts".into());
        }
        if self.header == 0 || self.header > PLACE_MAX {
            return unfit(format!("header has to be from 1 to {PLACE_MAX} bytes"));
        }
        for (what, number) in self.numbers() {
            if number.width == 0 || number.width > 8 {
                return unfit(format!("{what} has to have 1 to 8 bytes"));
            }
            if number.end() > self.header {
                let (end, header) = (number.end(), self.header);
                return unfit(format!("{what} ends at {end}, behind the header's {header} bytes"));
            }
        }
        if let Some((at, bytes)) = &self.magic
            && (bytes.is_empty() || *at as usize + bytes.len() > self.header as usize)
        {
            return unfit("magic lies behind the header".into());
        }
        let count = self.operation_names().count();
        if count > OPERATIONS_MAX {
            return unfit(format!("{count} operations, of {OPERATIONS_MAX} at most"));
        }
        self.check_reply()
    }

    fn operation_names(&self) -> impl Iterator<Item = &'static str> {
        let (numbered, named) = match &self.operations {
            Operations::Numbered(_, names) => (names.as_slice(), [].as_slice()),
            Operations::Named(names) => ([].as_slice(), names.as_slice()),
        };
        let numbered = numbered.iter().map(|(_, name)| *name);
        numbered.chain(named.iter().copied()).chain([OTHER])
    }

    /// What it says about itself. Its lists live as long as the process.
    pub(super) fn about(&self) -> About {
        let keys: Vec<Key> = self.fields.iter().map(|field| field.key).collect();
        About {
            name: self.name,
            operations: self.operation_names().collect::<Vec<_>>().leak(),
            port: 0,
            speaks: Speaks::ClientFirst,
            correlation: if self.id.is_some() { Correlation::Unique } else { Correlation::Fifo },
            keys: keys.leak(),
            carries_context: false,
            convention: Convention::Rpc(self.name),
        }
    }

    /// The index of an operation among those of [`about`](Self::about).
    pub(super) fn operation(&self, bytes: &[u8], method: Option<&[u8]>) -> u8 {
        let (found, count) = match &self.operations {
            Operations::Numbered(at, names) => {
                let number = at.of(bytes, self.order);
                (names.iter().position(|(value, _)| Some(*value) == number), names.len())
            }
            Operations::Named(names) => {
                (names.iter().position(|name| Some(name.as_bytes()) == method), names.len())
            }
        };
        // No more than there may be.
        u8::try_from(found.unwrap_or(count)).unwrap_or(0)
    }

    /// The parts of an operation's name: what the fields say, else what the list does.
    pub(super) fn name_of<'b>(&self, head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        if !head.kind.opens() {
            return [b"", b"", b""];
        }
        match (head.service.of(bytes), head.method.of(bytes)) {
            (Some(service), Some(method)) => [service, b"/", method],
            (None, Some(method)) => [method, b"", b""],
            (service, None) => {
                let listed = self.operation_names().nth(head.operation.into()).unwrap_or(OTHER);
                match service {
                    Some(service) => [service, b"/", listed.as_bytes()],
                    None => [listed.as_bytes(), b"", b""],
                }
            }
        }
    }
}
