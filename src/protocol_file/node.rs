//! YAML as far as descriptions need it, with the line and column of each value: one document,
//! without anchors and aliases.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Nesting beyond this is refused.
const DEPTH_MAX: usize = 16;

/// Where something is, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) at: Mark,
    pub(super) what: String,
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Mark,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Its text, and whether it stands in quotes.
    Scalar(String, bool),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(Node, Node)>),
}

impl Node {
    pub(super) fn wrong(&self, what: impl Into<String>) -> Wrong {
        Wrong { at: self.at, what: what.into() }
    }

    pub(super) fn text(&self) -> Result<&str, Wrong> {
        match &self.value {
            Value::Scalar(text, _) => Ok(text),
            _ => Err(self.wrong("has to be a word")),
        }
    }

    /// A whole number, in tens or, behind 0x, in sixteens.
    pub(super) fn number(&self, least: u64, most: u64) -> Result<u64, Wrong> {
        let read = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let number = match &self.value {
            Value::Scalar(text, false) => read(text).filter(|it| (least..=most).contains(it)),
            _ => None,
        };
        number.ok_or_else(|| self.wrong(format!("has to be a whole number from {least} to {most}")))
    }

    pub(super) fn list(&self) -> Result<&[Self], Wrong> {
        match &self.value {
            Value::List(items) => Ok(items),
            _ => Err(self.wrong("has to be a list")),
        }
    }

    pub(super) fn map(&self) -> Result<&[(Self, Self)], Wrong> {
        match &self.value {
            Value::Map(entries) => Ok(entries),
            _ => Err(self.wrong("has to be a mapping")),
        }
    }

    /// A mapping that has no other keys than these, and each once.
    pub(super) fn keys(&self, allowed: &[&str]) -> Result<(), Wrong> {
        let entries = self.map()?;
        for (index, (key, _)) in entries.iter().enumerate() {
            let name = key.text()?;
            if !allowed.contains(&name) {
                let allowed = allowed.join(", ");
                return Err(key.wrong(format!("{name:?} is none of {allowed}")));
            }
            if entries[..index].iter().any(|(other, _)| other.text() == Ok(name)) {
                return Err(key.wrong(format!("{name:?} comes twice")));
            }
        }
        Ok(())
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let entries = self.map().unwrap_or_default();
        entries.iter().find(|(name, _)| name.text() == Ok(key)).map(|(_, value)| value)
    }

    /// The same of a key that has to be there.
    pub(super) fn need(&self, key: &str) -> Result<&Self, Wrong> {
        self.get(key).ok_or_else(|| self.wrong(format!("{key:?} is missing")))
    }
}

/// The one document of a text.
pub(super) fn parse(text: &str) -> Result<Node, Wrong> {
    let mut reader = Reader { parser: Parser::new_from_str(text), at: Mark::default() };
    let mut root = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, at) => {
                return root.ok_or(Wrong { at, what: "there is nothing".into() });
            }
            (
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing,
                _,
            ) => {}
            (first, at) if root.is_none() => root = Some(reader.node(first, at, 0)?),
            (_, at) => return Err(Wrong { at, what: "only one document may be in it".into() }),
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    at: Mark,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Mark), Wrong> {
        let mark = |span: Span| Mark { line: span.start.line(), column: span.start.col() + 1 };
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.at = mark(span);
                Ok((event, self.at))
            }
            Some(Err(error)) => {
                let marker = error.marker();
                let at = Mark { line: marker.line(), column: marker.col() + 1 };
                Err(Wrong { at, what: error.info().to_owned() })
            }
            None => Ok((Event::StreamEnd, self.at)),
        }
    }

    fn node(&mut self, first: Event<'t>, at: Mark, depth: usize) -> Result<Node, Wrong> {
        if depth > DEPTH_MAX {
            return Err(Wrong { at, what: format!("nested deeper than {DEPTH_MAX}") });
        }
        let value = match first {
            Event::Scalar(text, style, 0, None) => {
                Value::Scalar(text.into_owned(), style != ScalarStyle::Plain)
            }
            Event::SequenceStart(0, None) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Value::List(items),
                        (first, at) => items.push(self.node(first, at, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(0, None) => {
                let mut entries = Vec::new();
                loop {
                    let key = match self.next()? {
                        (Event::MappingEnd, _) => break Value::Map(entries),
                        (first, at) => self.node(first, at, depth + 1)?,
                    };
                    let (first, at) = self.next()?;
                    entries.push((key, self.node(first, at, depth + 1)?));
                }
            }
            _ => return Err(Wrong { at, what: "anchors, aliases and tags are not taken".into() }),
        };
        Ok(Node { at, value })
    }
}
