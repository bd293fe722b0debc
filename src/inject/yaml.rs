//! YAML as it was written, without its comments: scalars keep their text and their quotes, so that
//! `0644`, `yes` and `"1.10"` mean to the next reader what they meant to the last.

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use std::fmt::Write as _;

/// Nesting beyond this is refused; Kubernetes' own objects stay far below.
const DEPTH_MAX: usize = 100;

/// A value with its anchor and its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) value: Value,
    /// Number of the anchor; 0 for none.
    anchor: usize,
    tag: Option<Tag>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Scalar(String, ScalarStyle),
    Sequence(Vec<Node>),
    /// In the order of the file.
    Mapping(Vec<(Node, Node)>),
    /// The value of this anchor.
    Alias(usize),
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self { value, anchor: 0, tag: None }
    }
}

impl Node {
    /// A string that stays one, whatever it looks like.
    pub(super) fn text(text: &str) -> Self {
        Value::Scalar(text.to_owned(), ScalarStyle::DoubleQuoted).into()
    }

    /// A scalar as it would be written by hand.
    pub(super) fn plain(text: &str) -> Self {
        Value::Scalar(text.to_owned(), ScalarStyle::Plain).into()
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Mapping(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Value::Mapping(entries) = &mut self.value else { return None };
        entries.iter_mut().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// The value of keys, one in the other.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The items of a sequence; none of anything else.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The items of a sequence; what is empty (`key:`) becomes one. None of an alias or the like.
    pub(super) fn items_mut(&mut self) -> Option<&mut Vec<Self>> {
        if matches!(&self.value, Value::Scalar(text, ScalarStyle::Plain) if is_null(text)) {
            self.value = Value::Sequence(Vec::new());
        }
        match &mut self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The value of a key, made with `make` at this place if there is none. None if this is no
    /// mapping.
    pub(super) fn entry(
        &mut self,
        key: &str,
        at: usize,
        make: impl FnOnce() -> Value,
    ) -> Option<&mut Self> {
        if matches!(&self.value, Value::Scalar(text, ScalarStyle::Plain) if is_null(text)) {
            self.value = Value::Mapping(Vec::new());
        }
        let Value::Mapping(entries) = &mut self.value else { return None };
        if !entries.iter().any(|(name, _)| name.as_str() == Some(key)) {
            entries.insert(at.min(entries.len()), (Self::plain(key), make().into()));
        }
        self.get_mut(key)
    }

    /// Which entry of a mapping has this key.
    pub(super) fn position(&self, key: &str) -> Option<usize> {
        let Value::Mapping(entries) = &self.value else { return None };
        entries.iter().position(|(name, _)| name.as_str() == Some(key))
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Value::Mapping(entries) = &mut self.value {
            entries.retain(|(name, _)| name.as_str() != Some(key));
        }
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        match &self.value {
            Value::Sequence(items) => items.is_empty(),
            Value::Mapping(entries) => entries.is_empty(),
            Value::Scalar(text, style) => *style == ScalarStyle::Plain && is_null(text),
            Value::Alias(_) => false,
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Reads every document of a stream.
pub(super) fn read(text: &str) -> Result<Vec<Node>, String> {
    let mut parser = Parser::new_from_str(text);
    let mut documents = Vec::new();
    loop {
        match next(&mut parser)? {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(_) => {
                let first = next(&mut parser)?;
                documents.push(node(&mut parser, first, 0)?);
            }
            _ => {}
        }
    }
}

type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

fn next<'a>(parser: &mut Events<'a>) -> Result<Event<'a>, String> {
    match parser.next_event() {
        Some(Ok((event, _))) => Ok(event),
        Some(Err(error)) => {
            let at = error.marker();
            Err(format!("line {}, column {}: {}", at.line(), at.col() + 1, error.info()))
        }
        None => Err("it ends too early".to_owned()),
    }
}

fn node<'a>(parser: &mut Events<'a>, first: Event<'a>, depth: usize) -> Result<Node, String> {
    if depth > DEPTH_MAX {
        return Err(format!("more than {DEPTH_MAX} levels"));
    }
    let (value, anchor, tag) = match first {
        Event::Scalar(text, style, anchor, tag) => {
            (Value::Scalar(text.into_owned(), style), anchor, tag)
        }
        Event::Alias(anchor) => (Value::Alias(anchor), 0, None),
        Event::SequenceStart(anchor, tag) => {
            let mut items = Vec::new();
            loop {
                match next(parser)? {
                    Event::SequenceEnd => break (Value::Sequence(items), anchor, tag),
                    event => items.push(node(parser, event, depth + 1)?),
                }
            }
        }
        Event::MappingStart(anchor, tag) => {
            let mut entries = Vec::new();
            loop {
                let key = match next(parser)? {
                    Event::MappingEnd => break (Value::Mapping(entries), anchor, tag),
                    event => node(parser, event, depth + 1)?,
                };
                if !matches!(key.value, Value::Scalar(..) | Value::Alias(_)) {
                    return Err("a key is a list or a mapping".to_owned());
                }
                let event = next(parser)?;
                entries.push((key, node(parser, event, depth + 1)?));
            }
        }
        event => return Err(format!("{event:?} where a value should be")),
    };
    Ok(Node { value, anchor, tag: tag.map(std::borrow::Cow::into_owned) })
}

/// Writes documents, `---` between them.
pub(super) fn write(documents: &[Node]) -> String {
    let mut text = String::new();
    for (number, document) in documents.iter().enumerate() {
        if number > 0 {
            text.push_str("---\n");
        }
        block(&mut text, document, 0, "");
    }
    text
}

/// A value behind what is on the line already; `lead` is the space between the two.
fn block(out: &mut String, node: &Node, indent: usize, lead: &str) {
    let properties = properties(node);
    match &node.value {
        Value::Mapping(entries) if !entries.is_empty() => {
            // Behind a dash, the first key stays on the line.
            let on_line = open(out, &properties, lead, indent > 0 && lead == "- ");
            for (number, (key, value)) in entries.iter().enumerate() {
                if number > 0 || !on_line {
                    pad(out, indent);
                }
                let key_text = format!("{}{}", self::properties(key), scalar(key, indent));
                let _ = write!(out, "{key_text}:");
                block(out, value, indent + step(value), " ");
            }
        }
        Value::Sequence(items) if !items.is_empty() => {
            let on_line = open(out, &properties, lead, lead == "- ");
            for (number, item) in items.iter().enumerate() {
                if number > 0 || !on_line {
                    pad(out, indent);
                }
                out.push('-');
                block(out, item, indent + 2, "- ");
            }
        }
        _ => {
            let text = scalar(node, indent);
            let lead = if lead.is_empty() { "" } else { " " };
            let line = format!("{lead}{properties}{text}");
            out.push_str(line.trim_end_matches(' '));
            out.push('\n');
        }
    }
}

/// Sequences stand below their key without a step, as kubectl writes them.
fn step(value: &Node) -> usize {
    if matches!(value.value, Value::Sequence(_)) { 0 } else { 2 }
}

/// Begins a block; says whether its first entry goes on this line.
fn open(out: &mut String, properties: &str, lead: &str, is_inline: bool) -> bool {
    if !properties.is_empty() {
        let space = if lead.is_empty() { "" } else { " " };
        let _ = writeln!(out, "{space}{}", properties.trim_end());
        return false;
    }
    if lead.is_empty() {
        return false;
    }
    out.push(if is_inline { ' ' } else { '\n' });
    is_inline
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn properties(node: &Node) -> String {
    let anchor = if node.anchor > 0 { format!("&a{} ", node.anchor) } else { String::new() };
    let tag = node.tag.as_ref().map(|Tag { handle, suffix }| match handle.as_str() {
        "tag:yaml.org,2002:" => format!("!!{suffix} "),
        "!" | "" => format!("!{suffix} "),
        handle => format!("!<{handle}{suffix}> "),
    });
    anchor + &tag.unwrap_or_default()
}

/// A scalar, an alias or an empty collection.
fn scalar(node: &Node, indent: usize) -> String {
    match &node.value {
        Value::Mapping(_) => "{}".to_owned(),
        Value::Sequence(_) => "[]".to_owned(),
        Value::Alias(anchor) => format!("*a{anchor}"),
        Value::Scalar(text, style) => match style {
            ScalarStyle::Plain if !text.contains('\n') => text.clone(),
            ScalarStyle::SingleQuoted if !text.contains(|c: char| c.is_control()) => {
                format!("'{}'", text.replace('\'', "''"))
            }
            ScalarStyle::Literal | ScalarStyle::Folded if is_literal(text) => literal(text, indent),
            _ => double_quoted(text),
        },
    }
}

/// Whether a block can hold the text: it needs a first line that shows how far it is indented.
fn is_literal(text: &str) -> bool {
    let is_odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    !text.starts_with([' ', '\n', '\t']) && !text.trim().is_empty() && !text.contains(is_odd)
}

fn literal(text: &str, indent: usize) -> String {
    let body = text.trim_end_matches('\n');
    let chomping = match text.len() - body.len() {
        0 => "-",
        1 => "",
        _ => "+",
    };
    let mut out = format!("|{chomping}");
    // With "+" the line breaks behind the text count; the last is written by the caller.
    let lines = if chomping == "+" { &text[..text.len() - 1] } else { body };
    for line in lines.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(&mut out, indent.max(2));
            out.push_str(line);
        }
    }
    out
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "\
a: 0644
b: yes
c: \"1.10\"
d: 'it''s'
e: {}
f: []
g:
h: |
  two
   lines

  and a gap
i: |-
  no end
j: \"\\ttab \\\"quote\\\" \\\\\"
k: &a1
  x: 1
l:
  <<: *a1
m: !!str 5
n:
- 1
- - 2
  - 3
- p: q
  r:
  - s
  t: |+
    kept

- !local
  u: v
? plain key
: w
";

    #[test]
    fn text_survives_and_writing_is_stable() {
        let once = write(&read(ODD).unwrap());
        assert_eq!(write(&read(&once).unwrap()), once);
        assert_eq!(once.replace("plain key: w", "? plain key\n: w"), ODD);
    }

    #[test]
    fn flow_style_and_folds_become_blocks_of_the_same_meaning() {
        let json = "{\"a\": [1, {\"b\": \"x\"}], \"c\": null}";
        assert_eq!(write(&read(json).unwrap()), "\"a\":\n- 1\n- \"b\": \"x\"\n\"c\": null\n");
        let folded = "a: >-\n  one\n  two\n\n  three\nb: plain\n  goes on\n";
        assert_eq!(write(&read(folded).unwrap()), "a: |-\n  one two\n  three\nb: plain goes on\n");
    }

    #[test]
    fn documents_are_kept_apart() {
        let text = "a: 1\n---\nb: 2\n---\n# nothing\n---\n- c\n";
        assert_eq!(write(&read(text).unwrap()), "a: 1\n---\nb: 2\n---\n\n---\n- c\n");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let error = read("a: 1\n b: [\n").unwrap_err();
        assert!(error.starts_with("line "), "{error}");
        let deep = "[".repeat(300);
        assert!(read(&deep).is_err());
        assert!(read("? [a]\n: b\n").unwrap_err().contains("a key is"));
    }
}
