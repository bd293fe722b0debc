//! YAML with the place of each value, and bounds on all of it.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use std::collections::HashMap;

/// Nesting beyond this is refused; Kubernetes' own objects stay far below.
const DEPTH_MAX: usize = 64;
/// Values in one file, those that aliases repeat included: 10,000 routes have a quarter of it.
const NODES_MAX: usize = 1_000_000;

/// A place in a text; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and where it is written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) spot: Spot,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A scalar, and whether it is one without quotes.
    Scalar(Box<str>, bool),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) spot: Spot,
    pub(crate) text: Box<str>,
}

/// What is wrong with a text, and where.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) spot: Spot,
    pub(crate) what: String,
}

impl Node {
    /// The value of a key of a mapping.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        self.entries().iter().find(|(key, _)| &*key.text == name).map(|(_, value)| value)
    }

    /// The value of keys, one in the other.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    /// The entries of a mapping; none of anything else.
    pub(crate) fn entries(&self) -> &[(Key, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none of anything else.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The items of the list that a key has.
    pub(crate) fn list(&self, name: &str) -> &[Self] {
        self.get(name).map_or(&[], Self::items)
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// The text of the scalar that a key has.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Self::text)
    }

    /// The texts of the list that a key has.
    pub(crate) fn texts_of(&self, name: &str) -> impl Iterator<Item = (&str, Spot)> {
        self.list(name).iter().filter_map(|item| Some((item.text()?, item.spot)))
    }

    /// Whether nothing is written, or `null` is.
    pub(crate) fn is_null(&self) -> bool {
        let is_word = |text: &str| matches!(text, "" | "~" | "null" | "Null" | "NULL");
        matches!(&self.value, Value::Scalar(text, true) if is_word(text))
    }

    /// Whether it is a word without quotes that JSON has another type for than a string.
    pub(crate) fn is_typed(&self) -> bool {
        let Value::Scalar(text, true) = &self.value else { return false };
        let is_word = ["true", "false", "True", "False", "TRUE", "FALSE"].contains(&&**text);
        let digits = text.trim_start_matches(['+', '-']);
        let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && (text.parse::<f64>().is_ok()
                || digits.starts_with("0x")
                || digits.starts_with("0o"));
        is_word || is_number || self.is_null()
    }
}

/// Reads every document of a text.
pub(crate) fn read(text: &str) -> Result<Vec<Node>, Wrong> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
        last: Spot { line: 1, column: 1 },
    };
    let mut documents = Vec::new();
    loop {
        match reader.next()?.0 {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(_) => {
                let first = reader.next()?;
                documents.push(reader.node(first, 0)?);
                reader.anchors.clear();
            }
            _ => {}
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Values with a name, and how many values each of them is.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    last: Spot,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Wrong> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.last = spot(span.start.line(), span.start.col());
                Ok((event, span))
            }
            Some(Err(error)) => {
                let at = error.marker();
                Err(Wrong {
                    spot: spot(at.line(), at.col()),
                    what: format!("no YAML: {}", error.info()),
                })
            }
            None => Err(self.wrong("no YAML: it ends too early")),
        }
    }

    fn wrong(&self, what: impl Into<String>) -> Wrong {
        Wrong { spot: self.last, what: what.into() }
    }

    fn count(&mut self, nodes: usize) -> Result<(), Wrong> {
        self.nodes += nodes;
        match self.nodes > NODES_MAX {
            true => Err(self.wrong(format!("more than {NODES_MAX} values, aliases written out"))),
            false => Ok(()),
        }
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Node, Wrong> {
        if depth > DEPTH_MAX {
            return Err(self.wrong(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let spot = spot(span.start.line(), span.start.col());
        let before = self.nodes;
        self.count(1)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                (Value::Scalar(text.into(), style == ScalarStyle::Plain), anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(anchor) => {
                let Some((node, nodes)) = self.anchors.get(&anchor) else {
                    return Err(self.wrong("an alias of what is not there, or not whole yet"));
                };
                let (node, nodes) = (node.clone(), *nodes);
                self.count(nodes)?;
                // What is wrong with it is wrong where it is written.
                return Ok(node);
            }
            _ => return Err(self.wrong("no YAML: a value is missing")),
        };
        let node = Node { spot, value };
        if anchor != 0 {
            let nodes = self.nodes - before;
            self.count(nodes)?;
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Wrong> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                first => items.push(self.node(first, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Wrong> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => break,
                first => self.node(first, depth + 1)?,
            };
            let Value::Scalar(text, _) = key.value else {
                return Err(self.wrong("a list or a mapping where a name should be"));
            };
            let first = self.next()?;
            let value = self.node(first, depth + 1)?;
            entries.push((Key { spot: key.spot, text }, value));
        }
        let mut names: Vec<&Key> = entries.iter().map(|(key, _)| key).collect();
        names.sort_by(|one, two| (&one.text, one.spot).cmp(&(&two.text, two.spot)));
        match names.windows(2).find(|pair| pair[0].text == pair[1].text) {
            Some(pair) => {
                let what = format!("{:?} is there twice", pair[1].text);
                Err(Wrong { spot: pair[1].spot, what })
            }
            None => Ok(Value::Map(entries)),
        }
    }
}

/// The parser counts lines from 1 and columns from 0.
fn spot(line: usize, column: usize) -> Spot {
    let number = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
    Spot { line: number(line).max(1), column: number(column).saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn wrong(text: &str) -> String {
        let wrong = read(text).expect_err(text);
        format!("{}:{}: {}", wrong.spot.line, wrong.spot.column, wrong.what)
    }

    #[test]
    fn values_have_the_place_where_they_are_written() {
        let documents =
            read("a: 1\nb:\n  - x\n  - \"é\"\n---\n# nothing\n---\nc: {d: e}\n").unwrap();
        assert_eq!(documents.len(), 3);
        let item = &documents[0].list("b")[1];
        assert_eq!((item.text(), item.spot), (Some("é"), Spot { line: 4, column: 5 }));
        assert!(documents[1].is_null());
        let inner = documents[2].at(&["c", "d"]).unwrap();
        assert_eq!((inner.text(), inner.spot), (Some("e"), Spot { line: 8, column: 8 }));
    }

    #[test]
    fn aliases_are_written_out_within_bounds() {
        let documents = read("a: &x {b: [1, 2]}\nc: *x\n").unwrap();
        assert_eq!(documents[0].at(&["c"]).unwrap().list("b").len(), 2);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(9);
            writeln!(bomb, "a{level}: &a{level} [{before}*a{}]", level - 1).unwrap();
        }
        assert!(wrong(&bomb).contains("more than 1000000 values"));
        assert!(
            wrong("a: &x [*x]\n").starts_with("1:8: an alias of what"),
            "{}",
            wrong("a: &x [*x]")
        );
    }

    #[test]
    fn what_is_wrong_says_where() {
        assert_eq!(wrong("a: 1\nb: 2\na: 3\n"), "3:1: \"a\" is there twice");
        let deep = wrong(&format!("{}{}", "[".repeat(80), "]".repeat(80)));
        assert!(deep.contains("deeper than 64 levels"), "{deep}");
        let deeper = wrong(&"[".repeat(100_000));
        assert!(deeper.contains("levels") || deeper.contains("no YAML"), "{deeper}");
        assert!(wrong("a: [1\nb: 2").contains("no YAML"));
        assert!(wrong("? [a]\n: b\n").contains("where a name should be"));
        assert!(wrong("a: *nobody\n").contains("no YAML"), "{}", wrong("a: *nobody\n"));
    }

    #[test]
    fn what_json_has_a_type_for_is_told_from_words() {
        for typed in ["1", "1.5", "-3", "0x1f", "true", "False", "~", "", "1e3", ".5"] {
            assert!(
                read(&format!("a: {typed}\n")).unwrap()[0].get("a").unwrap().is_typed(),
                "{typed}"
            );
        }
        for word in ["'1'", "1.2.3", "10s", "yes", "abc", "v1", "\"true\"", "inf"] {
            assert!(
                !read(&format!("a: {word}\n")).unwrap()[0].get("a").unwrap().is_typed(),
                "{word}"
            );
        }
    }
}
