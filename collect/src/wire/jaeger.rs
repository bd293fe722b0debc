//! Jaeger's thrift: `emitBatch` in a datagram, compact or binary, and a `Batch` as a request's body.

use super::Malformed;
use super::thrift::{Form, Reader, Type};
use crate::batch::{Batch, Head, Item, Kind, NAME_MAX, TEXT_MAX, Text, Value};

/// Reads a datagram to an agent; its first byte says which form it has.
pub(crate) fn read_datagram(bytes: &[u8]) -> Result<Batch, Malformed> {
    let form = if bytes.first() == Some(&0x82) { Form::Compact } else { Form::Binary };
    let mut reader = Reader::new(form, bytes);
    if reader.call()? != b"emitBatch" {
        return Err(Malformed);
    }
    let mut batch = Batch::of(bytes.to_vec());
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        match (id, kind) {
            (1, Type::Struct) => read_batch(&mut reader, &mut batch)?,
            _ => reader.skip(kind)?,
        }
    }
    Ok(batch)
}

/// Reads the body of a request to a collector.
pub(crate) fn read_body(bytes: &[u8]) -> Result<Batch, Malformed> {
    u32::try_from(bytes.len()).map_err(|_| Malformed)?;
    let mut reader = Reader::new(Form::Binary, bytes);
    let mut batch = Batch::of(bytes.to_vec());
    read_batch(&mut reader, &mut batch)?;
    Ok(batch)
}

fn read_batch(reader: &mut Reader<'_>, batch: &mut Batch) -> Result<(), Malformed> {
    let mut process = None;
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        match (id, kind) {
            (1, Type::Struct) => process = Some(read_process(reader, batch)?),
            (2, Type::List) => {
                let (len, kind) = reader.list()?;
                let process = match process {
                    Some(process) => process,
                    // It comes behind the spans: read ahead.
                    None => read_process_behind(*reader, (len, kind), batch)?,
                };
                for _ in 0..len {
                    if kind != Type::Struct {
                        return Err(Malformed);
                    }
                    read_span(reader, batch, process)?;
                }
            }
            _ => reader.skip(kind)?,
        }
    }
    Ok(())
}

fn read_process_behind(
    mut reader: Reader<'_>,
    (len, kind): (usize, Type),
    batch: &mut Batch,
) -> Result<u32, Malformed> {
    for _ in 0..len {
        reader.skip(kind)?;
    }
    let mut last = 2;
    while let Some((id, kind)) = reader.field(&mut last)? {
        if (id, kind) == (1, Type::Struct) {
            return read_process(&mut reader, batch);
        }
        reader.skip(kind)?;
    }
    Err(Malformed)
}

fn read_process(reader: &mut Reader<'_>, batch: &mut Batch) -> Result<u32, Malformed> {
    batch.begin();
    let mut service = Text::default();
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        match (id, kind) {
            (1, Type::Text) => {
                let (at, len) = reader.text()?;
                service = batch.place(at, len, NAME_MAX);
            }
            (2, Type::List) => read_tags(reader, batch, &mut |_, _, _| false)?,
            _ => reader.skip(kind)?,
        }
    }
    Ok(batch.end_process(service))
}

fn read_span(reader: &mut Reader<'_>, batch: &mut Batch, process: u32) -> Result<(), Malformed> {
    batch.begin();
    let mut head = Head { process, ..Head::default() };
    let (mut low, mut high) = (0, 0);
    let mut logs = None;
    let mut last = 0;
    while let Some((id, kind)) = reader.field(&mut last)? {
        match (id, kind) {
            (1, _) => low = reader.int(kind)?.cast_unsigned(),
            (2, _) => high = reader.int(kind)?.cast_unsigned(),
            (3, _) => head.id = reader.int(kind)?.cast_unsigned(),
            (4, _) => head.parent = reader.int(kind)?.cast_unsigned(),
            (5, Type::Text) => {
                let (at, len) = reader.text()?;
                head.name = batch.place(at, len, NAME_MAX);
            }
            (6, Type::List) => read_references(reader, batch, &mut head)?,
            (8, _) => head.start_ns = nanos(reader.int(kind)?),
            (9, _) => head.duration_ns = nanos(reader.int(kind)?),
            (10, Type::List) => {
                let head = &mut head;
                read_tags(reader, batch, &mut |batch, key, value| {
                    intrinsic(head, batch.text(key), value, batch)
                })?;
            }
            (11, Type::List) => {
                // Behind the tags, wherever it stands.
                logs = Some(*reader);
                reader.skip(kind)?;
            }
            _ => reader.skip(kind)?,
        }
    }
    if let Some(mut reader) = logs {
        read_logs(&mut reader, batch)?;
    }
    head.trace = u128::from(high) << 64 | u128::from(low);
    batch.end_span(head);
    Ok(())
}

fn nanos(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or(0).saturating_mul(1000)
}

/// Kind and error are tags here, and have places of their own in a span.
fn intrinsic(head: &mut Head, key: &str, value: &Value<Text>, batch: &Batch) -> bool {
    match (key, value) {
        ("span.kind", Value::Text(name)) => {
            head.kind = Kind::of_name(batch.text(*name));
            true
        }
        ("error", Value::Bool(is)) => {
            head.is_error = *is;
            true
        }
        ("error", Value::Text(text)) => {
            head.is_error = batch.text(*text) == "true";
            head.is_error
        }
        _ => false,
    }
}

/// The tags of a list; those that `is_own` takes for itself are not put down.
fn read_tags(
    reader: &mut Reader<'_>,
    batch: &mut Batch,
    is_own: &mut impl FnMut(&Batch, Text, &Value<Text>) -> bool,
) -> Result<(), Malformed> {
    let (len, kind) = reader.list()?;
    for _ in 0..len {
        if kind != Type::Struct {
            return Err(Malformed);
        }
        let (mut key, mut value) = (Text::default(), None);
        let mut last = 0;
        while let Some((id, kind)) = reader.field(&mut last)? {
            match (id, kind) {
                (1, Type::Text) => {
                    let (at, len) = reader.text()?;
                    key = batch.place(at, len, NAME_MAX);
                }
                (3, Type::Text) => {
                    let (at, len) = reader.text()?;
                    value = Some(Value::Text(batch.place(at, len, TEXT_MAX)));
                }
                (4, Type::Double) => value = Some(Value::Float(reader.double()?)),
                (5, _) => value = Some(Value::Bool(reader.boolean(kind)?)),
                (6, _) => value = Some(Value::Int(reader.int(kind)?)),
                (7, Type::Text) => {
                    let (_, len) = reader.text()?;
                    let text = batch.add(&format!("({len} bytes)"), TEXT_MAX);
                    value = Some(Value::Text(text));
                }
                _ => reader.skip(kind)?,
            }
        }
        if let Some(value) = value
            && !is_own(batch, key, &value)
        {
            batch.tag(key, value);
        }
    }
    Ok(())
}

/// The first one within the trace is the parent, where the span names none; others are links.
fn read_references(
    reader: &mut Reader<'_>,
    batch: &mut Batch,
    head: &mut Head,
) -> Result<(), Malformed> {
    let (len, kind) = reader.list()?;
    for _ in 0..len {
        if kind != Type::Struct {
            return Err(Malformed);
        }
        let (mut low, mut high, mut span) = (0, 0, 0);
        let mut last = 0;
        while let Some((id, kind)) = reader.field(&mut last)? {
            match id {
                2 => low = reader.int(kind)?.cast_unsigned(),
                3 => high = reader.int(kind)?.cast_unsigned(),
                4 => span = reader.int(kind)?.cast_unsigned(),
                _ => reader.skip(kind)?,
            }
        }
        if head.parent == 0 {
            head.parent = span;
        } else if span != head.parent {
            batch.put(Item::Link(u128::from(high) << 64 | u128::from(low), span));
        }
    }
    Ok(())
}

fn read_logs(reader: &mut Reader<'_>, batch: &mut Batch) -> Result<(), Malformed> {
    let (len, kind) = reader.list()?;
    for _ in 0..len {
        if kind != Type::Struct {
            return Err(Malformed);
        }
        let (mut time_ns, mut fields) = (0, None);
        let mut last = 0;
        while let Some((id, kind)) = reader.field(&mut last)? {
            match (id, kind) {
                (1, _) => time_ns = nanos(reader.int(kind)?),
                (2, Type::List) => {
                    fields = Some(*reader);
                    reader.skip(kind)?;
                }
                _ => reader.skip(kind)?,
            }
        }
        let name = batch.add("log", NAME_MAX);
        batch.put(Item::Event(time_ns, name));
        if let Some(mut fields) = fields {
            read_tags(&mut fields, batch, &mut |_, _, _| false)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch in the binary form: one process, one span with a tag of each type.
    fn binary() -> Vec<u8> {
        fn field(out: &mut Vec<u8>, kind: u8, id: i16) {
            out.push(kind);
            out.extend(id.to_be_bytes());
        }
        fn text(out: &mut Vec<u8>, id: i16, text: &str) {
            field(out, 11, id);
            out.extend(i32::try_from(text.len()).unwrap().to_be_bytes());
            out.extend(text.as_bytes());
        }
        fn long(out: &mut Vec<u8>, id: i16, number: i64) {
            field(out, 10, id);
            out.extend(number.to_be_bytes());
        }
        fn list(out: &mut Vec<u8>, id: i16, len: i32) {
            field(out, 15, id);
            out.push(12);
            out.extend(len.to_be_bytes());
        }
        let mut out = vec![];
        field(&mut out, 12, 1);
        text(&mut out, 1, "shop");
        out.push(0);
        list(&mut out, 2, 1);
        for (id, number) in [(1, 9), (2, 8), (3, 7), (4, 0), (8, 1000), (9, 50)] {
            long(&mut out, id, number);
        }
        text(&mut out, 5, "work");
        list(&mut out, 10, 3);
        text(&mut out, 1, "span.kind");
        text(&mut out, 3, "client");
        out.push(0);
        text(&mut out, 1, "error");
        field(&mut out, 2, 5);
        out.push(1);
        out.push(0);
        text(&mut out, 1, "n");
        long(&mut out, 6, -3);
        out.push(0);
        list(&mut out, 11, 1);
        long(&mut out, 1, 1010);
        list(&mut out, 2, 0);
        out.extend([0, 0, 0]);
        out
    }

    #[test]
    fn a_batch_in_the_binary_form() {
        let batch = read_body(&binary()).unwrap();
        let span = batch.spans[0];
        assert_eq!((span.trace, span.id, span.parent), (8 << 64 | 9, 7, 0));
        assert_eq!((span.start_ns, span.duration_ns), (1_000_000, 50_000));
        assert_eq!((span.kind, span.is_error), (Kind::Client, true));
        assert_eq!(batch.text(batch.processes[0].service), "shop");
        let [Item::Tag(key, Value::Int(-3)), Item::Event(1_010_000, _)] = batch.items(&span) else {
            panic!("{:?}", batch.items(&span));
        };
        assert_eq!(batch.text(*key), "n");
    }

    #[test]
    fn what_is_cut_or_damaged_does_no_harm() {
        let bytes = binary();
        for len in 0..bytes.len() {
            assert!(read_body(&bytes[..len]).is_err(), "{len}");
            let _ = read_datagram(&bytes[..len]);
        }
        for at in 0..bytes.len() {
            for bits in 0..=255 {
                let mut odd = bytes.clone();
                odd[at] ^= bits;
                let _ = read_body(&odd);
                odd.splice(0..0, *b"\x82\x21\x00\x09emitBatch\x1c");
                let _ = read_datagram(&odd);
            }
        }
        assert!(read_datagram(&[]).is_err());
    }
}
