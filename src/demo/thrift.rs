//! Thrift's compact protocol, read: enough for what a Jaeger agent is sent.

/// How deep values may lie in one another; Jaeger's lie five deep.
const DEPTH_MAX: usize = 16;

/// A value; maps, which Jaeger does not use, are not understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    List(Vec<Self>),
    Struct(Vec<(i64, Self)>),
}

impl Value {
    /// A field of a struct.
    pub(super) fn field(&self, id: i64) -> Option<&Self> {
        let Self::Struct(fields) = self else { return None };
        fields.iter().find(|(found, _)| *found == id).map(|(_, value)| value)
    }

    pub(super) fn int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn list(&self) -> Option<&[Self]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }
}

/// The name and the arguments of a message; none when it is cut, or no message.
pub(super) fn message(packet: &[u8]) -> Option<(String, Value)> {
    let mut reader = Reader { rest: packet };
    let is_compact = reader.byte()? == 0x82 && reader.byte()? & 0x1f == 1;
    let _sequence = is_compact.then(|| reader.varint())??;
    let name = reader.text()?;
    Some((name, reader.fields(DEPTH_MAX)?))
}

struct Reader<'p> {
    rest: &'p [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.varint()?).ok()?;
        String::from_utf8(self.take(len)?.to_vec()).ok()
    }

    fn fields(&mut self, depth: usize) -> Option<Value> {
        let mut fields = Vec::new();
        let mut last = 0;
        loop {
            let head = self.byte()?;
            let (delta, kind) = (head >> 4, head & 0x0f);
            if kind == 0 {
                return Some(Value::Struct(fields));
            }
            last = if delta == 0 { self.zigzag()? } else { last + i64::from(delta) };
            let value = match kind {
                // The kind of a field is the value of a bool.
                1 | 2 => Value::Bool(kind == 1),
                _ => self.value(kind, depth.checked_sub(1)?)?,
            };
            fields.push((last, value));
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Option<Value> {
        Some(match kind {
            1 | 2 => Value::Bool(self.byte()? == 1),
            3 => Value::Int(self.byte()?.cast_signed().into()),
            4..=6 => Value::Int(self.zigzag()?),
            7 => Value::Double(f64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            8 => Value::Text(self.text()?),
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { (head >> 4).into() };
                let each = depth.checked_sub(1)?;
                // Every item takes a byte at least, so that a packet bounds them.
                Value::List(
                    (0..count).map(|_| self.value(head & 0x0f, each)).collect::<Option<_>>()?,
                )
            }
            12 => self.fields(depth)?,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the specification of the protocol has it, by hand.
    const PACKET: [u8; 39] = [
        0x82, 0x81, 0x01, 4, b'e', b'm', b'i', b't', // oneway, version 1, sequence 1, "emit"
        0x15, 0xf1, 0xc0, 0x01, // 1: i32 -12345 as zigzag 24689
        0x11, 0x12, // 2: true, 3: false
        0x28, 2, 0xc3, 0xa4, // 5: "ä"
        0x17, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, // 6: 1.5
        0x06, 40, 2, // 20, by its full number: i64 1
        0x19, 0x2c, 0x13, 0xff, 0, 0, // 21: a list of two structs: {1: byte -1}, {}
        0, 0, 0, // the end, and what nobody reads
    ];

    #[test]
    fn a_message_is_read() {
        let (name, args) = message(&PACKET).unwrap();
        assert_eq!(name, "emit");
        let wanted = [
            (1, Value::Int(-12_345)),
            (2, Value::Bool(true)),
            (3, Value::Bool(false)),
            (5, Value::Text("ä".into())),
            (6, Value::Double(1.5)),
            (20, Value::Int(1)),
            (
                21,
                Value::List(vec![Value::Struct(vec![(1, Value::Int(-1))]), Value::Struct(vec![])]),
            ),
        ];
        assert_eq!(args, Value::Struct(wanted.to_vec()));
    }

    #[test]
    fn what_is_cut_or_broken_is_no_message() {
        for len in 0..PACKET.len() - 2 {
            assert_eq!(message(&PACKET[..len]), None, "{len} bytes");
        }
        for at in 0..PACKET.len() {
            for byte in 0..=255 {
                let mut packet = PACKET;
                packet[at] = byte;
                // Whatever it is, reading it ends.
                drop(message(&packet));
            }
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = [&PACKET[..8], &[0x1c; 1 << 16], &[0; 1 << 16]].concat();
        assert_eq!(message(&deep), None);
        let lists = [&PACKET[..8], &[0x19], &[0x19; 1 << 16]].concat();
        assert_eq!(message(&lists), None);
    }
}
