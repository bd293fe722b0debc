//! YAML with the place of each value in its text, so that a manifest is edited where it must be and
//! stays as it was everywhere else; and the printing of what is put in.

use super::text::{Lines, is_blank};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use std::{collections::BTreeSet, fmt::Write as _, ops::Range};

/// Nesting beyond this is refused; Kubernetes' own objects stay far below.
const DEPTH_MAX: usize = 100;

/// A value and where it is written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    /// Bytes of the text; of a collection without its anchor and its tag.
    pub(super) span: Range<usize>,
    /// Where it begins with them.
    pub(super) start: usize,
    /// Of the value of a key: where it could begin at the earliest, behind the colon.
    pub(super) floor: usize,
    /// Number of the anchor; 0 for none.
    pub(super) anchor: usize,
    /// Whether a list or a mapping stands in brackets.
    pub(super) is_flow: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(String, ScalarStyle),
    Sequence(Vec<Node>),
    /// In the order of the file.
    Mapping(Vec<(Node, Node)>),
    /// The value of this anchor.
    Alias(usize),
}

/// One document of a stream.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Node,
    /// Anchors that something else in the document repeats.
    pub(super) repeated: BTreeSet<usize>,
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self { value, span: 0..0, start: 0, floor: 0, anchor: 0, is_flow: false }
    }
}

impl Node {
    /// A string that stays one, whatever it looks like.
    pub(super) fn text(text: &str) -> Self {
        Value::Scalar(text.to_owned(), ScalarStyle::DoubleQuoted).into()
    }

    /// A string without quotes, if it stays one.
    pub(super) fn word(text: &str) -> Self {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        match text.chars().all(is_part) && !is_typed(text) {
            true => Self::plain(text),
            false => Self::text(text),
        }
    }

    /// A string that is full of double quotes.
    pub(super) fn quoted(text: &str) -> Self {
        Value::Scalar(text.to_owned(), ScalarStyle::SingleQuoted).into()
    }

    /// A scalar as it would be written by hand.
    pub(super) fn plain(text: &str) -> Self {
        Value::Scalar(text.to_owned(), ScalarStyle::Plain).into()
    }

    pub(super) fn mapping(entries: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (Self::plain(key), value));
        Value::Mapping(entries.collect()).into()
    }

    pub(super) fn sequence(items: impl IntoIterator<Item = Self>) -> Self {
        Value::Sequence(items.into_iter().collect()).into()
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping; none of anything else.
    pub(super) fn entries(&self) -> &[(Self, Self)] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a sequence; none of anything else.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The items of a sequence that is not of the input.
    pub(super) fn items_mut(&mut self) -> Option<&mut Vec<Self>> {
        match &mut self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// Which entry of a mapping has this key.
    pub(super) fn position(&self, key: &str) -> Option<usize> {
        self.entries().iter().position(|(name, _)| name.as_str() == Some(key))
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.position(key).map(|index| &self.entries()[index].1)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Value::Mapping(entries) = &mut self.value else { return None };
        entries.iter_mut().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// The value of keys, one in the other.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Gives a mapping this entry, at its end if it has none of this key.
    pub(super) fn set(&mut self, key: &str, value: Self) {
        if let Some(found) = self.get_mut(key) {
            *found = value;
        } else if let Value::Mapping(entries) = &mut self.value {
            entries.push((Self::plain(key), value));
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Value::Mapping(entries) = &mut self.value {
            entries.retain(|(name, _)| name.as_str() != Some(key));
        }
    }

    /// Nothing, `null`, `[]` or `{}`.
    pub(super) fn is_empty(&self) -> bool {
        match &self.value {
            Value::Sequence(items) => items.is_empty(),
            Value::Mapping(entries) => entries.is_empty(),
            Value::Scalar(text, style) => *style == ScalarStyle::Plain && is_null(text),
            Value::Alias(_) => false,
        }
    }

    /// Whether an alias is somewhere in it.
    pub(super) fn has_alias(&self) -> bool {
        match &self.value {
            Value::Alias(_) => true,
            Value::Scalar(..) => false,
            Value::Sequence(items) => items.iter().any(Self::has_alias),
            Value::Mapping(entries) => entries.iter().any(|(_, value)| value.has_alias()),
        }
    }

    /// Whether both say the same to Kubernetes, however they are written.
    pub(super) fn says_what(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Scalar(one, one_style), Value::Scalar(two, two_style)) => {
                let is_string = |style: &ScalarStyle| *style != ScalarStyle::Plain;
                one == two && (is_string(one_style) == is_string(two_style) || !is_typed(one))
            }
            (Value::Sequence(one), Value::Sequence(two)) => {
                one.len() == two.len() && one.iter().zip(two).all(|(a, b)| a.says_what(b))
            }
            (Value::Mapping(one), Value::Mapping(_)) => {
                one.len() == other.entries().len()
                    && one.iter().all(|(key, value)| {
                        let found = key.as_str().and_then(|key| other.get(key));
                        found.is_some_and(|found| value.says_what(found))
                    })
            }
            (Value::Alias(one), Value::Alias(two)) => one == two,
            _ => false,
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Whether a plain scalar could be something else than a string.
fn is_typed(text: &str) -> bool {
    let of_number =
        |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | '+' | '-' | 'x' | 'o' | ':' | '_');
    let is_number = text.starts_with(|c: char| of_number(c) && !c.is_ascii_alphabetic())
        && text.chars().all(of_number);
    let word = text.to_ascii_lowercase();
    is_null(text)
        || is_number
        || ["true", "false", "yes", "no", "on", "off", "y", "n", ".inf", "-.inf", ".nan"]
            .contains(&word.as_str())
}

/// Reads every document of a stream.
pub(super) fn read(text: &str) -> Result<Vec<Document>, String> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        text,
        lines: Lines(text),
        at: (0, 0),
        repeated: BTreeSet::new(),
    };
    let mut documents = Vec::new();
    loop {
        match reader.next()?.0 {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(_) => {
                let first = reader.next()?;
                let root = reader.node(first, 0)?;
                let repeated = std::mem::take(&mut reader.repeated);
                documents.push(Document { root, repeated });
            }
            _ => {}
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    text: &'a str,
    lines: Lines<'a>,
    /// Where the last marker was, in characters and in bytes: the parser counts the former.
    at: (usize, usize),
    repeated: BTreeSet<usize>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), String> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = error.marker();
                Err(format!("line {}, column {}: {}", at.line(), at.col() + 1, error.info()))
            }
            None => Err("it ends too early".to_owned()),
        }
    }

    /// Markers go forth and a little back, never far.
    fn byte(&mut self, marker: Marker) -> usize {
        let (chars, bytes) = &mut self.at;
        while *chars < marker.index() {
            let Some(c) = self.text[*bytes..].chars().next() else { break };
            *bytes += c.len_utf8();
            *chars += 1;
        }
        while *chars > marker.index() {
            let Some(c) = self.text[..*bytes].chars().next_back() else { break };
            *bytes -= c.len_utf8();
            *chars -= 1;
        }
        *bytes
    }

    fn node(&mut self, first: (Event<'a>, Span), depth: usize) -> Result<Node, String> {
        if depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} levels"));
        }
        let (event, span) = first;
        let (start, end) = (self.byte(span.start), self.byte(span.end));
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let span = self.scalar_span(start..end, style);
                let value = Value::Scalar(text.into_owned(), style);
                Ok(Node { span, start, floor: start, anchor, ..value.into() })
            }
            Event::Alias(anchor) => {
                self.repeated.insert(anchor);
                Ok(Node { span: start..end, start, floor: start, ..Value::Alias(anchor).into() })
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                let after = loop {
                    match self.next()? {
                        (Event::SequenceEnd, span) => break self.byte(span.start),
                        first => items.push(self.node(first, depth + 1)?),
                    }
                };
                let ends = items.first().zip(items.last());
                let inner = ends.map(|(first, last)| first.start..last.span.end);
                let (span, is_flow) = self.collection_span(start..end, after, inner);
                Ok(Node {
                    value: Value::Sequence(items),
                    span,
                    start,
                    floor: start,
                    anchor,
                    is_flow,
                })
            }
            Event::MappingStart(anchor, _) => {
                let mut entries = Vec::new();
                let after = loop {
                    let key = match self.next()? {
                        (Event::MappingEnd, span) => break self.byte(span.start),
                        first => self.node(first, depth + 1)?,
                    };
                    if !matches!(key.value, Value::Scalar(..) | Value::Alias(_)) {
                        return Err("a key is a list or a mapping".to_owned());
                    }
                    let first = self.next()?;
                    let mut value = self.node(first, depth + 1)?;
                    let colon = self.text[key.span.end..].find(':').map_or(0, |at| at + 1);
                    value.floor = key.span.end + colon;
                    if value.span.is_empty() {
                        value.span = value.floor..value.floor;
                    }
                    entries.push((key, value));
                };
                let ends = entries.first().zip(entries.last());
                let inner = ends.map(|(first, last)| first.0.start..last.1.span.end);
                let (span, is_flow) = self.collection_span(start..end, after, inner);
                Ok(Node {
                    value: Value::Mapping(entries),
                    span,
                    start,
                    floor: start,
                    anchor,
                    is_flow,
                })
            }
            event => Err(format!("{event:?} where a value should be")),
        }
    }

    /// The parser's end of a scalar is where the next thing begins; comments lie between.
    fn scalar_span(&self, span: Range<usize>, style: ScalarStyle) -> Range<usize> {
        let end = match style {
            ScalarStyle::Plain => span.end,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                let text = &self.text[span.clone()];
                let quote = text.find(['"', '\'']).unwrap_or(0);
                quoted_end(&text[quote..], style).map_or(span.end, |end| span.start + quote + end)
            }
            ScalarStyle::Literal | ScalarStyle::Folded => {
                let line = self.lines.start(span.end);
                if is_blank(&self.text[line..span.end]) { line } else { span.end }
            }
        };
        span.start..end
    }

    fn collection_span(
        &self,
        start: Range<usize>,
        after: usize,
        inner: Option<Range<usize>>,
    ) -> (Range<usize>, bool) {
        let opening = &self.text[start.clone()];
        if opening.trim_end().ends_with(['[', '{']) {
            let bracket = opening.rfind(['[', '{']).unwrap_or(0);
            return (start.start + bracket..after + 1, true);
        }
        (inner.unwrap_or(start), false)
    }
}

/// The place behind the closing quote of the string that begins here.
fn quoted_end(text: &str, style: ScalarStyle) -> Option<usize> {
    let is_double = style == ScalarStyle::DoubleQuoted;
    let quote = if is_double { '"' } else { '\'' };
    let mut rest = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = rest.next() {
        let is_pair = !is_double && rest.peek().is_some_and(|(_, next)| *next == quote);
        match c {
            '\\' if is_double => drop(rest.next()),
            c if c == quote && is_pair => drop(rest.next()),
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The lines of a list or a mapping that begin at this column; lists stand `step` columns right of
/// their key.
pub(super) fn block(node: &Node, indent: usize, step: usize) -> String {
    let pad = " ".repeat(indent);
    let mut out = String::new();
    for item in node.items() {
        let inner = match item.value {
            Value::Scalar(..) | Value::Alias(_) => format!("{}\n", scalar(item)),
            _ => block(item, indent + 2, step).trim_start_matches(' ').to_owned(),
        };
        let _ = write!(out, "{pad}- {inner}");
    }
    for (key, value) in node.entries() {
        let _ = write!(out, "{pad}{}:", scalar(key));
        match &value.value {
            Value::Sequence(items) if !items.is_empty() => {
                let _ = write!(out, "\n{}", block(value, indent + step, step));
            }
            Value::Mapping(entries) if !entries.is_empty() => {
                let _ = write!(out, "\n{}", block(value, indent + 2, step));
            }
            _ => {
                let _ = writeln!(out, " {}", scalar(value));
            }
        }
    }
    out
}

/// A scalar or an empty collection.
fn scalar(node: &Node) -> String {
    match &node.value {
        Value::Scalar(text, ScalarStyle::Plain) => text.clone(),
        Value::Scalar(text, ScalarStyle::SingleQuoted)
            if !text.contains(|c: char| c.is_control()) =>
        {
            format!("'{}'", text.replace('\'', "''"))
        }
        _ => json(node),
    }
}

/// A value as JSON, which is YAML in brackets.
pub(super) fn json(node: &Node) -> String {
    match &node.value {
        Value::Sequence(_) => format!("[{}]", json_inside(node)),
        Value::Mapping(_) => format!("{{{}}}", json_inside(node)),
        Value::Scalar(text, ScalarStyle::Plain) if is_json_word(text) => text.clone(),
        Value::Scalar(text, _) => double_quoted(text),
        Value::Alias(_) => "null".to_owned(),
    }
}

/// What stands between the brackets.
pub(super) fn json_inside(node: &Node) -> String {
    let entry = |(key, value): &(Node, Node)| {
        format!("{}: {}", double_quoted(key.as_str().unwrap_or_default()), json(value))
    };
    let parts: Vec<String> =
        node.items().iter().map(json).chain(node.entries().iter().map(entry)).collect();
    parts.join(", ")
}

/// Numbers and words that JSON has without quotes.
fn is_json_word(text: &str) -> bool {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    matches!(text, "true" | "false" | "null" | "0") || (is_number && !text.starts_with('0'))
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
                let _ = write!(out, "\\u{:04x}", u32::from(c));
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

    fn root(text: &str) -> Node {
        read(text).unwrap().remove(0).root
    }

    #[test]
    fn each_value_is_where_its_text_is() {
        let text = "a: &x {p: q}   # c\r\nb:\r\n  - 'it''s' # d\r\n  - \"\\\"é\\\"\"  # e\r\nn:   # none\r\n\
                    l: |\r\n  one\r\n\r\n# more\r\nf: [ 1, {\"d\": 2} ] \r\ng: two\r\n words # h\r\n";
        let root = root(text);
        let at = |key: &str| &text[root.get(key).unwrap().span.clone()];
        assert_eq!(at("a"), "{p: q}");
        assert_eq!(at("b"), "'it''s' # d\r\n  - \"\\\"é\\\"\"");
        assert_eq!(at("n"), "");
        assert!(text[root.get("n").unwrap().span.start..].starts_with("   # none"));
        assert_eq!(at("l"), "one\r\n\r\n");
        assert_eq!(at("f"), "[ 1, {\"d\": 2} ]");
        assert_eq!(at("g"), "two\r\n words");
    }

    #[test]
    fn what_is_printed_reads_the_same_again() {
        let text = "a: 0644\nb: yes\nc: \"1.10\"\nd: 'it''s'\ne: {}\nf: []\ng:\n- 1\n- - 2\n  - 3\n- p: q\n  r:\n  - s\n";
        let node = root(text);
        assert_eq!(block(&node, 0, 0), text);
        assert!(root(&block(&node, 0, 2)).says_what(&node));
        let quoted = json(&root("a: 10m\nb: 14958\nc: true\nd: \"8\"\ne: 007\nf: 0\n"));
        let wanted =
            "{\"a\": \"10m\", \"b\": 14958, \"c\": true, \"d\": \"8\", \"e\": \"007\", \"f\": 0}";
        assert_eq!(quoted, wanted);
    }

    #[test]
    fn the_same_is_the_same_however_it_is_written() {
        let one = root("a: \"shop\"\nb: [1, 2]\n");
        assert!(one.says_what(&root("b:\n- 1\n- 2\na: shop\n")));
        assert!(!one.says_what(&root("a: shop\nb: [1, \"2\"]\n")));
        assert!(!one.says_what(&root("a: shop\n")));
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
