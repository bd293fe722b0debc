//! The little JSON that netra writes: flat objects of text, one to a line. Nothing here reads JSON.

use crate::mask::push_quoted;

/// An object that is being written to the end of a string.
#[derive(Debug)]
pub(crate) struct Object<'o> {
    out: &'o mut String,
    empty: bool,
}

impl<'o> Object<'o> {
    /// Opens an object.
    pub(crate) fn begin(out: &'o mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    /// A field with a string.
    pub(crate) fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        push_quoted(self.out, text);
    }

    /// A field whose value is already JSON: a number, a bool.
    pub(crate) fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.out.push_str(json);
    }

    /// Closes the object.
    pub(crate) fn end(self) {
        self.out.push('}');
    }

    /// Closes the object, and with it the line.
    pub(crate) fn end_line(self) {
        self.out.push_str("}\n");
    }

    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
        push_quoted(self.out, key);
        self.out.push(':');
    }
}

/// An object by itself.
pub(crate) fn object(fill: impl FnOnce(&mut Object<'_>)) -> String {
    let mut out = String::new();
    let mut object = Object::begin(&mut out);
    fill(&mut object);
    object.end();
    out
}

/// A list of what is JSON already.
pub(crate) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_comes_back() {
        let all: String = (0..0x250u32).filter_map(char::from_u32).chain(['\u{1f980}']).collect();
        let mut out = String::new();
        let mut object = Object::begin(&mut out);
        object.text("text", &all);
        object.raw("count", "3");
        object.end();
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["text"], all.as_str());
        assert_eq!(value["count"], 3);
    }
}
