//! `ExportTraceServiceRequest` of OTLP 1.x as protobuf. Texts stay where they came.

use super::Malformed;
use super::protobuf::{Field, Fields, Piece};
use crate::batch::{Batch, Head, Item, Kind, NAME_MAX, TEXT_MAX, Text, Value};

/// How deep values may lie in one another.
const DEPTH_MAX: usize = 8;
const ERROR: u64 = 2;

/// Reads a request.
pub(crate) fn read(body: Vec<u8>) -> Result<Batch, Malformed> {
    // Places are numbers of 32 bits.
    u32::try_from(body.len()).map_err(|_| Malformed)?;
    let whole = Piece { at: 0, len: body.len() };
    let mut batch = Batch::of(body);
    let mut fields = Fields::of(whole);
    while let Some((number, field)) = fields.next(batch.body())? {
        if number == 1 {
            read_resource_spans(&mut batch, field.piece()?)?;
        }
    }
    Ok(batch)
}

fn read_resource_spans(batch: &mut Batch, piece: Piece) -> Result<(), Malformed> {
    batch.begin();
    let mut service = Text::default();
    let mut fields = Fields::of(piece);
    while let Some((number, field)) = fields.next(batch.body())? {
        if number == 1 {
            let mut attributes = Fields::of(field.piece()?);
            while let Some((number, field)) = attributes.next(batch.body())? {
                if number != 1 {
                    continue;
                }
                let Some((key, value)) = attribute(batch, field.piece()?)? else { continue };
                match value {
                    Value::Text(name) if batch.text(key) == "service.name" => service = name,
                    value => batch.tag(key, value),
                }
            }
        }
    }
    let process = batch.end_process(service);
    let mut fields = Fields::of(piece);
    while let Some((number, field)) = fields.next(batch.body())? {
        if number == 2 {
            read_scope_spans(batch, field.piece()?, process)?;
        }
    }
    Ok(())
}

fn read_scope_spans(batch: &mut Batch, piece: Piece, process: u32) -> Result<(), Malformed> {
    let mut scope = None;
    let mut fields = Fields::of(piece);
    while let Some((number, field)) = fields.next(batch.body())? {
        match number {
            1 => {
                let mut fields = Fields::of(field.piece()?);
                while let Some((number, field)) = fields.next(batch.body())? {
                    if let (1, Field::Piece(piece)) = (number, field)
                        && piece.len > 0
                    {
                        let name = batch.place(piece.at, piece.len, NAME_MAX);
                        scope = Some((batch.add("otel.scope.name", NAME_MAX), name));
                    }
                }
            }
            2 => read_span(batch, field.piece()?, process, scope)?,
            _ => {}
        }
    }
    Ok(())
}

fn read_span(
    batch: &mut Batch,
    piece: Piece,
    process: u32,
    scope: Option<(Text, Text)>,
) -> Result<(), Malformed> {
    batch.begin();
    let mut head = Head { process, ..Head::default() };
    let mut end_ns = 0;
    let mut has_more = false;
    let mut fields = Fields::of(piece);
    while let Some((number, field)) = fields.next(batch.body())? {
        match number {
            1 => head.trace = id_16(batch.body(), field.piece()?),
            2 => head.id = id_8(batch.body(), field.piece()?),
            4 => head.parent = id_8(batch.body(), field.piece()?),
            5 => {
                let piece = field.piece()?;
                head.name = batch.place(piece.at, piece.len, NAME_MAX);
            }
            6 => head.kind = Kind::of_number(field.number()?),
            7 => head.start_ns = field.number()?,
            8 => end_ns = field.number()?,
            9 => put_attribute(batch, field.piece()?)?,
            11 | 13 => has_more = true,
            15 => head.is_error |= read_status(batch, field.piece()?)?,
            _ => {}
        }
    }
    if let Some((key, name)) = scope {
        batch.tag(key, Value::Text(name));
    }
    if has_more {
        read_more(batch, piece)?;
    }
    head.duration_ns = end_ns.saturating_sub(head.start_ns);
    batch.end_span(head);
    Ok(())
}

/// Events and links, which stand behind all tags of the span itself.
fn read_more(batch: &mut Batch, piece: Piece) -> Result<(), Malformed> {
    for wanted in [13, 11] {
        let mut fields = Fields::of(piece);
        while let Some((number, field)) = fields.next(batch.body())? {
            match number {
                13 if wanted == 13 => read_link(batch, field.piece()?)?,
                11 if wanted == 11 => read_event(batch, field.piece()?)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn read_event(batch: &mut Batch, piece: Piece) -> Result<(), Malformed> {
    let (mut time_ns, mut name) = (0, Text::default());
    let mut fields = Fields::of(piece);
    while let Some((number, field)) = fields.next(batch.body())? {
        match number {
            1 => time_ns = field.number()?,
            2 => {
                let piece = field.piece()?;
                name = batch.place(piece.at, piece.len, NAME_MAX);
            }
            _ => {}
        }
    }
    batch.put(Item::Event(time_ns, name));
    let mut fields = Fields::of(piece);
    while let Some((number, field)) = fields.next(batch.body())? {
        if number == 3 {
            put_attribute(batch, field.piece()?)?;
        }
    }
    Ok(())
}

fn read_link(batch: &mut Batch, piece: Piece) -> Result<(), Malformed> {
    let (mut trace, mut span) = (0, 0);
    let mut fields = Fields::of(piece);
    while let Some((number, field)) = fields.next(batch.body())? {
        match number {
            1 => trace = id_16(batch.body(), field.piece()?),
            2 => span = id_8(batch.body(), field.piece()?),
            _ => {}
        }
    }
    batch.put(Item::Link(trace, span));
    Ok(())
}

/// Whether it says that the span has failed; what it says of it becomes a tag.
fn read_status(batch: &mut Batch, piece: Piece) -> Result<bool, Malformed> {
    let mut is_error = false;
    let mut fields = Fields::of(piece);
    while let Some((number, field)) = fields.next(batch.body())? {
        match number {
            2 => {
                let piece = field.piece()?;
                let message = batch.place(piece.at, piece.len, TEXT_MAX);
                let key = batch.add("otel.status_description", NAME_MAX);
                batch.tag(key, Value::Text(message));
            }
            3 => is_error = field.number()? == ERROR,
            _ => {}
        }
    }
    Ok(is_error)
}

fn put_attribute(batch: &mut Batch, piece: Piece) -> Result<(), Malformed> {
    if let Some((key, value)) = attribute(batch, piece)? {
        batch.tag(key, value);
    }
    Ok(())
}

fn attribute(batch: &mut Batch, piece: Piece) -> Result<Option<(Text, Value<Text>)>, Malformed> {
    let (mut key, mut value) = (Text::default(), None);
    let mut fields = Fields::of(piece);
    while let Some((number, field)) = fields.next(batch.body())? {
        match number {
            1 => {
                let piece = field.piece()?;
                key = batch.place(piece.at, piece.len, NAME_MAX);
            }
            2 => value = read_value(batch, field.piece()?)?,
            _ => {}
        }
    }
    Ok(value.map(|value| (key, value)))
}

fn read_value(batch: &mut Batch, piece: Piece) -> Result<Option<Value<Text>>, Malformed> {
    let Some((number, field)) = Fields::of(piece).next(batch.body())? else { return Ok(None) };
    Ok(Some(match number {
        1 => {
            let piece = field.piece()?;
            Value::Text(batch.place(piece.at, piece.len, TEXT_MAX))
        }
        2 => Value::Bool(field.number()? != 0),
        3 => Value::Int(field.number()?.cast_signed()),
        4 => Value::Float(f64::from_bits(field.number()?)),
        _ => {
            let mut text = String::new();
            write_value(batch.body(), piece, DEPTH_MAX, &mut text)?;
            Value::Text(batch.add(&text, TEXT_MAX))
        }
    }))
}

/// A list or a map as JSON, no longer than a text may be by much.
fn write_value(
    bytes: &[u8],
    piece: Piece,
    depth: usize,
    out: &mut String,
) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let text = |piece: Piece| String::from_utf8_lossy(&bytes[piece.at..piece.at + piece.len]);
    let quoted = |text: &str| serde_json::Value::from(&text[..text.floor_char_boundary(TEXT_MAX)]);
    let Some((number, field)) = Fields::of(piece).next(bytes)? else {
        out.push_str("null");
        return Ok(());
    };
    match number {
        1 => *out += &quoted(&text(field.piece()?)).to_string(),
        2 => *out += if field.number()? == 0 { "false" } else { "true" },
        3 => *out += &field.number()?.cast_signed().to_string(),
        4 => *out += &serde_json::Value::from(f64::from_bits(field.number()?)).to_string(),
        5 | 6 => {
            let mut items = Fields::of(field.piece()?);
            out.push(if number == 5 { '[' } else { '{' });
            let mut separator = "";
            while let Some((_, item)) = items.next(bytes)?
                && out.len() < TEXT_MAX
            {
                *out += separator;
                separator = ",";
                if number == 5 {
                    write_value(bytes, item.piece()?, depth, out)?;
                    continue;
                }
                let mut pair = Fields::of(item.piece()?);
                while let Some((number, field)) = pair.next(bytes)? {
                    match number {
                        1 => *out += &(quoted(&text(field.piece()?)).to_string() + ":"),
                        _ => write_value(bytes, field.piece()?, depth, out)?,
                    }
                }
            }
            out.push(if number == 5 { ']' } else { '}' });
        }
        7 => *out += &format!("\"({} bytes)\"", field.piece()?.len),
        _ => return Err(Malformed),
    }
    Ok(())
}

fn id_16(bytes: &[u8], piece: Piece) -> u128 {
    let bytes = bytes.get(piece.at..piece.at + piece.len).and_then(|id| id.try_into().ok());
    bytes.map_or(0, u128::from_be_bytes)
}

fn id_8(bytes: &[u8], piece: Piece) -> u64 {
    let bytes = bytes.get(piece.at..piece.at + piece.len).and_then(|id| id.try_into().ok());
    bytes.map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
#[path = "otlp_tests.rs"]
mod tests;
