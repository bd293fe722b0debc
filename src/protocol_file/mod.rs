//! Private protocols as YAML: read strictly, with the place of what is wrong.

mod node;

use netra_codecs::{
    codec::{Key, Kind, Why},
    private::{
        Counts, Description, Field, Kinds, Length, LengthPart, Number, Operations, Order,
        PRIVATE_MAX, Place, Private, Reply, Status, TextPlace,
    },
    tap::Protocol,
};
use node::{Mark, Node, Wrong};
use std::{fs, io::Read, path::Path};

/// The longest description, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The longest name of a protocol or an operation.
const NAME_MAX: usize = 40;
/// The longest message where nothing else is said.
const MESSAGE_MAX: u64 = 16 << 20;
/// What may be at a fixed place lies within so many bytes.
const PLACE_MAX: u64 = 1024;

/// The protocols of these files, with commas between, behind those that there are; what is wrong has
/// file, line and column.
pub(crate) fn load(paths: &str, codecs: &[Protocol]) -> Result<Vec<Protocol>, String> {
    let mut protocols = codecs.to_vec();
    for path in paths.split(',').map(str::trim).filter(|path| !path.is_empty()) {
        let protocol = Protocol::Private(Box::leak(Box::new(read(path)?)));
        let is_taken = |known: &Protocol| known.name() == protocol.name();
        if Protocol::ALL.iter().chain(&protocols).any(is_taken) {
            return Err(format!("{path}: there is a protocol {:?} already", protocol.name()));
        }
        protocols.push(protocol);
        if protocols.len() > PRIVATE_MAX {
            return Err(format!("{path}: there may be {PRIVATE_MAX} private protocols"));
        }
    }
    Ok(protocols)
}

/// The protocol of one file.
pub(crate) fn read(path: &str) -> Result<Private, String> {
    let mut text = String::new();
    let file = fs::File::open(Path::new(path)).map_err(|error| format!("{path}: {error}"))?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| format!("{path}: {error}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{path}: longer than {FILE_BYTES_MAX} bytes"));
    }
    parse(&text).map_err(|Wrong { at: Mark { line, column }, what }| {
        format!("{path}:{line}:{column}: {what}")
    })
}

fn parse(text: &str) -> Result<Private, Wrong> {
    let root = node::parse(text)?;
    root.keys(&[
        "name",
        "magic",
        "byte-order",
        "header",
        "length",
        "id",
        "kind",
        "status",
        "fields",
        "operations",
        "reply",
    ])?;
    let fields = root.get("fields").map(fields).transpose()?.unwrap_or_default();
    let has_method = fields.iter().any(|field| field.key == Key::Method);
    let description = Description {
        name: name(root.need("name")?)?,
        magic: root.get("magic").map(magic).transpose()?,
        order: root.get("byte-order").map_or(Ok(Order::Big), order)?,
        header: small(root.need("header")?, 1, PLACE_MAX)?,
        length: length(root.need("length")?)?,
        id: root.get("id").map(number).transpose()?,
        kinds: root.get("kind").map(kinds).transpose()?,
        status: root.get("status").map(status).transpose()?,
        fields,
        operations: match root.get("operations") {
            Some(node) => operations(node, has_method)?,
            None => Operations::Named(Vec::new()),
        },
        reply: root.get("reply").map(reply).transpose()?,
    };
    Private::described(description).map_err(|unfit| {
        // What contradicts itself begins with the part that is to blame.
        let part = unfit.0.split(' ').next().and_then(|word| root.get(word));
        part.unwrap_or(&root).wrong(unfit.0)
    })
}

/// A word that may stand in settings, labels and tags. It lives as long as the process.
fn name(node: &Node) -> Result<&'static str, Wrong> {
    let text = node.text()?;
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    let is_name = !text.is_empty() && text.len() <= NAME_MAX && text.bytes().all(is_part);
    match is_name {
        true => Ok(text.to_owned().leak()),
        false => {
            Err(node.wrong(format!("has to be 1 to {NAME_MAX} letters, digits, _, -, . or /")))
        }
    }
}

fn small(node: &Node, least: u64, most: u64) -> Result<u32, Wrong> {
    let number = node.number(least, most)?;
    u32::try_from(number).map_err(|_| node.wrong("is too great"))
}

fn width(node: &Node, allowed: &[u64]) -> Result<u8, Wrong> {
    let number = node.number(1, 8)?;
    let is_allowed = allowed.contains(&number);
    let width = u8::try_from(number).ok().filter(|_| is_allowed);
    width.ok_or_else(|| node.wrong(format!("has to be one of {allowed:?}")))
}

const WIDTHS: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// `{at: 4, width: 2}`, among other keys of the same mapping.
fn number_in(node: &Node) -> Result<Number, Wrong> {
    let at = small(node.need("at")?, 0, PLACE_MAX)?;
    Ok(Number { at, width: width(node.need("width")?, &WIDTHS)? })
}

fn number(node: &Node) -> Result<Number, Wrong> {
    node.keys(&["at", "width"])?;
    number_in(node)
}

fn magic(node: &Node) -> Result<(u32, Box<[u8]>), Wrong> {
    node.keys(&["at", "bytes"])?;
    let at = node.get("at").map_or(Ok(0), |at| small(at, 0, PLACE_MAX))?;
    Ok((at, hex(node.need("bytes")?)?))
}

/// Bytes as hexadecimal digits, with blanks as one likes.
fn hex(node: &Node) -> Result<Box<[u8]>, Wrong> {
    let text = node.text()?.replace([' ', '\n'], "");
    let digits = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let read: Option<Box<[u8]>> = digits.collect();
    let read =
        read.filter(|read| !read.is_empty() && text.bytes().all(|it| it.is_ascii_hexdigit()));
    read.ok_or_else(|| node.wrong("has to be bytes in hexadecimal, such as \"4f 52\""))
}

/// What a refused client is told.
fn reply(node: &Node) -> Result<Reply, Wrong> {
    node.keys(&["bytes", "status", "copy", "text"])?;
    let bytes = hex(node.need("bytes")?)?;
    // No file is longer.
    let whole = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut status = Vec::new();
    if let Some(by_reason) = node.get("status") {
        by_reason.keys(&Why::ALL.iter().map(|why| why.name()).collect::<Vec<_>>())?;
        for why in Why::ALL {
            let value = by_reason.get(why.name()).map(|it| it.number(0, u64::MAX)).transpose()?;
            status.extend(value.map(|value| (*why, value)));
        }
    }
    let copied = |part: &Node| -> Result<(u32, u32), Wrong> {
        part.keys(&["at", "length"])?;
        let at = small(part.need("at")?, 0, PLACE_MAX)?;
        Ok((at, small(part.need("length")?, 1, PLACE_MAX)?))
    };
    let copy = node.get("copy").map(Node::list).transpose()?.unwrap_or_default();
    let text = |text: &Node| -> Result<TextPlace, Wrong> {
        text.keys(&["at", "prefix"])?;
        Ok(TextPlace {
            at: text.get("at").map_or(Ok(whole), |it| small(it, 0, PLACE_MAX))?,
            prefix: text.get("prefix").map_or(Ok(0), |it| width(it, &[1, 2, 4]))?,
        })
    };
    Ok(Reply {
        status,
        copy: copy.iter().map(copied).collect::<Result<_, _>>()?,
        text: node.get("text").map(text).transpose()?,
        bytes,
    })
}

fn order(node: &Node) -> Result<Order, Wrong> {
    match node.text()? {
        "big" => Ok(Order::Big),
        "little" => Ok(Order::Little),
        _ => Err(node.wrong("has to be big or little")),
    }
}

/// One number, or the sum of several.
fn length(node: &Node) -> Result<Length, Wrong> {
    node.keys(&["at", "width", "parts", "counts", "trailer", "max"])?;
    let parts = match node.get("parts") {
        None => vec![LengthPart { number: number_in(node)?, times: 1 }],
        Some(_) if node.get("at").is_some() => {
            return Err(node.wrong("has parts, or a place of its own, and not both"));
        }
        Some(parts) => parts.list()?.iter().map(part).collect::<Result<_, _>>()?,
    };
    let counts = node.need("counts")?;
    Ok(Length {
        parts,
        counts: match counts.text()? {
            "message" => Counts::Message,
            "rest" => Counts::Rest,
            "body" => Counts::Body,
            _ => return Err(counts.wrong("has to be message, rest or body")),
        },
        trailer: node.get("trailer").map_or(Ok(0), |it| small(it, 0, PLACE_MAX))?,
        max: node.get("max").map_or(Ok(MESSAGE_MAX), |it| it.number(1, 1 << 32))?,
    })
}

fn part(node: &Node) -> Result<LengthPart, Wrong> {
    node.keys(&["at", "width", "times"])?;
    let times = node.get("times").map_or(Ok(1), |it| small(it, 1, u64::from(u32::MAX)))?;
    Ok(LengthPart { number: number_in(node)?, times })
}

/// The words for kinds of messages.
const KINDS: [(&str, Kind); 5] = [
    ("request", Kind::Request),
    ("response", Kind::Response),
    ("oneway", Kind::Oneway),
    ("heartbeat", Kind::Heartbeat),
    ("push", Kind::Push),
];

fn kinds(node: &Node) -> Result<Kinds, Wrong> {
    node.keys(&["at", "width", "mask", "request", "response", "oneway", "heartbeat", "push"])?;
    let mask = node.get("mask").map_or(Ok(u64::MAX), |it| it.number(1, u64::MAX))?;
    let mut values: Vec<(u64, Kind)> = Vec::new();
    for (word, kind) in KINDS {
        for value in node.get(word).map(Node::list).transpose()?.unwrap_or_default() {
            let number = value.number(0, u64::MAX)?;
            if number & mask != number || values.iter().any(|(known, _)| *known == number) {
                return Err(value.wrong("lies beyond the mask, or is another kind's, too"));
            }
            values.push((number, kind));
        }
    }
    if values.iter().all(|(_, kind)| !kind.opens()) {
        return Err(node.wrong("there is no request"));
    }
    Ok(Kinds { number: number_in(node)?, mask, values })
}

fn status(node: &Node) -> Result<Status, Wrong> {
    node.keys(&["at", "width", "ok"])?;
    let ok = node.need("ok")?.list()?.iter().map(|value| value.number(0, u64::MAX));
    Ok(Status { number: number_in(node)?, ok: ok.collect::<Result<_, _>>()? })
}

/// The fields that spans and rules know.
const FIELDS: [Key; 9] = [
    Key::Service,
    Key::Method,
    Key::ServiceVersion,
    Key::Group,
    Key::Database,
    Key::Topic,
    Key::ConsumerGroup,
    Key::ClientId,
    Key::ProtocolVersion,
];

fn fields(node: &Node) -> Result<Vec<Field>, Wrong> {
    let words = FIELDS.map(Key::name);
    node.keys(&words)?;
    let mut fields: Vec<Field> = Vec::new();
    for (key, place) in node.map()? {
        let found = FIELDS.iter().find(|field| Ok(field.name()) == key.text());
        let Some(key) = found else { return Err(key.wrong("is no field")) };
        let place = self::place(place, &fields)?;
        fields.push(Field { key: *key, place });
    }
    Ok(fields)
}

fn place(node: &Node, before: &[Field]) -> Result<Place, Wrong> {
    let at = || small(node.need("at")?, 0, PLACE_MAX);
    if node.get("length").is_some() {
        node.keys(&["at", "length"])?;
        return Ok(Place::Fixed { at: at()?, len: small(node.need("length")?, 1, PLACE_MAX)? });
    }
    if let Some(prefix) = node.get("prefix") {
        node.keys(&["at", "after", "prefix"])?;
        let width = width(prefix, &[1, 2, 4])?;
        let Some(after) = node.get("after") else {
            return Ok(Place::Prefixed { at: at()?, width });
        };
        let found = before.iter().position(|field| Ok(field.key.name()) == after.text());
        let field =
            found.ok_or_else(|| after.wrong("has to be a field that stands before this"))?;
        return match node.get("at") {
            Some(at) => Err(at.wrong("a field has a place, or is behind another, and not both")),
            None => Ok(Place::Behind { field, width }),
        };
    }
    if let Some(tag) = node.get("tag") {
        node.keys(&["at", "tag", "tag-width", "length-width"])?;
        return Ok(Place::Tagged {
            at: at()?,
            tag: tag.number(0, u64::MAX)?,
            tag_width: width(node.need("tag-width")?, &[1, 2, 4])?,
            length_width: width(node.need("length-width")?, &[1, 2, 4])?,
        });
    }
    if let Some(path) = node.get("protobuf") {
        node.keys(&["at", "protobuf", "size"])?;
        let numbers: Result<Vec<u32>, _> =
            path.list()?.iter().map(|number| small(number, 1, (1 << 29) - 1)).collect();
        let path = match numbers? {
            none if none.is_empty() => return Err(path.wrong("has to name fields")),
            numbers => numbers,
        };
        return Ok(Place::Protobuf {
            at: at()?,
            len: node.get("size").map(number).transpose()?,
            path,
        });
    }
    Err(node.wrong("has to have a length, a prefix, a tag or a protobuf path"))
}

/// A list of methods, or a number and the names of its values.
fn operations(node: &Node, has_method: bool) -> Result<Operations, Wrong> {
    if let Ok(names) = node.list() {
        if !has_method {
            return Err(node.wrong("a list of methods needs the field method"));
        }
        let names: Result<Vec<_>, _> = names.iter().map(name).collect();
        return Ok(Operations::Named(names?));
    }
    node.keys(&["at", "width", "names"])?;
    let names = node.need("names")?.map()?.iter();
    let names: Result<Vec<_>, Wrong> =
        names.map(|(value, word)| Ok((value.number(0, u64::MAX)?, name(word)?))).collect();
    Ok(Operations::Numbered(number_in(node)?, names?))
}

#[cfg(test)]
#[path = "protocol_file_tests.rs"]
mod tests;
