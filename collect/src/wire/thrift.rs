//! Thrift's compact and binary protocols, as far as they are walked through: fields of structs, lists,
//! and what is between skipped.

use super::Malformed;

/// How deep values may lie in one another; Jaeger's lie five deep.
const DEPTH_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Compact,
    Binary,
}

/// What a value is; whole numbers of all sizes are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    True,
    False,
    /// A bool whose value follows.
    Bool,
    Byte,
    I16,
    I32,
    I64,
    Double,
    Text,
    List,
    Map,
    Struct,
}

/// Where the reading is in some bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'b> {
    pub(super) form: Form,
    bytes: &'b [u8],
    pub(super) at: usize,
}

impl<'b> Reader<'b> {
    pub(super) fn new(form: Form, bytes: &'b [u8]) -> Self {
        Self { form, bytes, at: 0 }
    }

    fn take(&mut self, len: usize) -> Result<&'b [u8], Malformed> {
        let piece = self.bytes.get(self.at..).and_then(|rest| rest.get(..len)).ok_or(Malformed)?;
        self.at += len;
        Ok(piece)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn zigzag(&mut self) -> Result<i64, Malformed> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The name of the call whose message begins here.
    pub(super) fn call(&mut self) -> Result<&'b [u8], Malformed> {
        let (at, len) = match self.form {
            Form::Compact => {
                if self.byte()? != 0x82 || self.byte()? & 0x1f != 1 {
                    return Err(Malformed);
                }
                self.varint()?;
                self.text()?
            }
            Form::Binary => {
                let begin = u32::from_be_bytes(self.chunk()?);
                if begin >> 16 == 0x8001 {
                    let name = self.text()?;
                    self.take(4)?;
                    name
                } else {
                    // As it was before there were versions: a name, a type, a number.
                    self.at -= 4;
                    let name = self.text()?;
                    self.take(5)?;
                    name
                }
            }
        };
        Ok(&self.bytes[at..at + len])
    }

    /// The next field of a struct whose last one was `last`; none at its end.
    pub(super) fn field(&mut self, last: &mut i64) -> Result<Option<(i64, Type)>, Malformed> {
        let begin = self.byte()?;
        if begin == 0 {
            return Ok(None);
        }
        match self.form {
            Form::Compact => {
                let delta = i64::from(begin >> 4);
                *last = if delta == 0 { self.zigzag()? } else { last.saturating_add(delta) };
                Ok(Some((*last, compact(begin & 0x0f)?)))
            }
            Form::Binary => {
                *last = i16::from_be_bytes(self.chunk()?).into();
                Ok(Some((*last, binary(begin)?)))
            }
        }
    }

    pub(super) fn int(&mut self, kind: Type) -> Result<i64, Malformed> {
        match (kind, self.form) {
            (Type::Byte, _) => Ok(self.byte()?.cast_signed().into()),
            (Type::I16 | Type::I32 | Type::I64, Form::Compact) => self.zigzag(),
            (Type::I16, Form::Binary) => Ok(i16::from_be_bytes(self.chunk()?).into()),
            (Type::I32, Form::Binary) => Ok(i32::from_be_bytes(self.chunk()?).into()),
            (Type::I64, Form::Binary) => Ok(i64::from_be_bytes(self.chunk()?)),
            _ => Err(Malformed),
        }
    }

    pub(super) fn boolean(&mut self, kind: Type) -> Result<bool, Malformed> {
        match kind {
            Type::True => Ok(true),
            Type::False => Ok(false),
            Type::Bool => Ok(self.byte()? == 1),
            _ => Err(Malformed),
        }
    }

    pub(super) fn double(&mut self) -> Result<f64, Malformed> {
        Ok(match self.form {
            Form::Compact => f64::from_le_bytes(self.chunk()?),
            Form::Binary => f64::from_be_bytes(self.chunk()?),
        })
    }

    /// Where a text stands, and how long it is.
    pub(super) fn text(&mut self) -> Result<(usize, usize), Malformed> {
        let len = match self.form {
            Form::Compact => usize::try_from(self.varint()?),
            Form::Binary => usize::try_from(i32::from_be_bytes(self.chunk()?)),
        };
        let len = len.map_err(|_| Malformed)?;
        let at = self.at;
        self.take(len)?;
        Ok((at, len))
    }

    /// How many a list has, and what.
    pub(super) fn list(&mut self) -> Result<(usize, Type), Malformed> {
        let begin = self.byte()?;
        let (len, kind) = match self.form {
            Form::Compact => {
                let len = u64::from(begin >> 4);
                let len = if len == 15 { self.varint()? } else { len };
                let kind = compact(begin & 0x0f)?;
                let kind = if matches!(kind, Type::True | Type::False) { Type::Bool } else { kind };
                (usize::try_from(len), kind)
            }
            Form::Binary => (usize::try_from(i32::from_be_bytes(self.chunk()?)), binary(begin)?),
        };
        let len = len.map_err(|_| Malformed)?;
        // Every item takes a byte at least.
        if len > self.bytes.len() - self.at { Err(Malformed) } else { Ok((len, kind)) }
    }

    pub(super) fn skip(&mut self, kind: Type) -> Result<(), Malformed> {
        self.skip_within(kind, DEPTH_MAX)
    }

    fn skip_within(&mut self, kind: Type, depth: usize) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        match kind {
            Type::True | Type::False => {}
            Type::Bool | Type::Byte => drop(self.byte()?),
            Type::I16 | Type::I32 | Type::I64 => drop(self.int(kind)?),
            Type::Double => drop(self.double()?),
            Type::Text => drop(self.text()?),
            Type::List => {
                let (len, kind) = self.list()?;
                for _ in 0..len {
                    self.skip_within(kind, depth)?;
                }
            }
            Type::Struct => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip_within(kind, depth)?;
                }
            }
            // Jaeger has none.
            Type::Map => return Err(Malformed),
        }
        Ok(())
    }
}

fn compact(kind: u8) -> Result<Type, Malformed> {
    Ok(match kind {
        1 => Type::True,
        2 => Type::False,
        3 => Type::Byte,
        4 => Type::I16,
        5 => Type::I32,
        6 => Type::I64,
        7 => Type::Double,
        8 => Type::Text,
        9 | 10 => Type::List,
        11 => Type::Map,
        12 => Type::Struct,
        _ => return Err(Malformed),
    })
}

fn binary(kind: u8) -> Result<Type, Malformed> {
    Ok(match kind {
        2 => Type::Bool,
        3 => Type::Byte,
        4 => Type::Double,
        6 => Type::I16,
        8 => Type::I32,
        10 => Type::I64,
        11 => Type::Text,
        12 => Type::Struct,
        13 => Type::Map,
        14 | 15 => Type::List,
        _ => return Err(Malformed),
    })
}
