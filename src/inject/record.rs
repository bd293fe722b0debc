//! What a pod carries of its injection, beside the version: the flags, and the text that had to
//! make way, so that taking out gives back every byte.

use super::pods::INJECTED;
use super::text::Aside;
use super::yaml::{self, Node};

/// The flags of the injection.
pub(super) const FLAGS: &str = "netra.io/injected-flags";
/// What was there before, where it was not nothing.
pub(super) const OVER: &str = "netra.io/injected-over";
/// Annotations of ours.
pub(super) const ANNOTATIONS: [&str; 3] = [INJECTED, FLAGS, OVER];

/// Text that made way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Over {
    /// Empty values, by their key: `[]`, `null`, nothing.
    pub(super) empty: Vec<(String, String)>,
    /// Containers that ours stand in the place of, by their list.
    pub(super) exchanged: Vec<(String, String)>,
    /// A container of the list `containers` that nothing stands in the place of.
    pub(super) aside: Option<Aside>,
}

impl Over {
    pub(super) fn empty(&self, key: &str) -> Option<&str> {
        self.empty.iter().find(|(of, _)| of == key).map(|(_, text)| text.as_str())
    }

    pub(super) fn exchanged(&self, list: &str) -> Option<&str> {
        self.exchanged.iter().find(|(of, _)| of == list).map(|(_, text)| text.as_str())
    }

    /// As the pod carries it; nothing if nothing made way.
    pub(super) fn to_json(&self) -> Option<String> {
        let texts = |list: &[(String, String)]| {
            let mut node = Node::mapping([]);
            list.iter().for_each(|(key, text)| node.set(key, Node::text(text)));
            node
        };
        let mut all = Node::mapping([]);
        if !self.empty.is_empty() {
            all.set("empty", texts(&self.empty));
        }
        if !self.exchanged.is_empty() {
            all.set("exchanged", texts(&self.exchanged));
        }
        if let Some(Aside { index, gap, text }) = &self.aside {
            let number = |number: &usize| Node::plain(&number.to_string());
            let fields =
                [("index", number(index)), ("gap", number(gap)), ("text", Node::text(text))];
            all.set("aside", Node::mapping(fields));
        }
        (!all.is_empty()).then(|| yaml::json(&all))
    }

    pub(super) fn from_json(text: &str) -> Result<Self, String> {
        let documents = yaml::read(text)?;
        let Some(root) = documents.first().map(|document| &document.root) else {
            return Ok(Self::default());
        };
        let texts = |key: &str| {
            let entries = root.get(key).map(Node::entries).unwrap_or_default().iter();
            let text = |node: &Node| node.as_str().map(str::to_owned);
            entries.filter_map(|(key, value)| text(key).zip(text(value))).collect()
        };
        let aside = root.get("aside").map(|aside| {
            let field = |key| aside.get(key).and_then(Node::as_str);
            let number = |key| field(key).and_then(|text| text.parse().ok());
            let text = field("text").map(str::to_owned);
            let (index, gap) = number("index").zip(number("gap")).ok_or("no place")?;
            Ok::<_, String>(Aside { index, gap, text: text.ok_or("no text")? })
        });
        Ok(Self { empty: texts("empty"), exchanged: texts("exchanged"), aside: aside.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_made_way_is_read_as_it_was_written() {
        let over = Over {
            empty: vec![("metadata".to_owned(), "{ }".to_owned())],
            exchanged: vec![("containers".to_owned(), "- 'a\t\"'\r\n  # é\n".to_owned())],
            aside: Some(Aside { index: 1, gap: 7, text: "- b\n".to_owned() }),
        };
        assert_eq!(Over::from_json(&over.to_json().unwrap()).unwrap(), over);
        assert_eq!(Over::default().to_json(), None);
    }
}
