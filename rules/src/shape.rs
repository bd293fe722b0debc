//! What documents may look like: one tree for each kind, by which documents are judged, and from
//! which editors get their schema.

use crate::{
    trouble::{Place, Troubles},
    yaml::{Node, Value},
};
use std::{fmt::Write as _, sync::Arc};

/// What may stand at a place of a document.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Any text.
    Text,
    /// A text that is not empty.
    Filled,
    /// One of these words.
    Word(&'static [&'static str]),
    /// The name of a host: labels of DNS in small letters.
    Host,
    /// A whole number between these, both included.
    Whole(u64, u64),
    /// A number of percent above 0, up to 100, with four decimals at most.
    Percent,
    /// `true` or `false`.
    Switch,
    /// A time of at least so many milliseconds: `10s`, `0.5s`, `100ms`, `1m30s`.
    Time(u64),
    /// One of `exact`, `prefix` and `regex`; nothing, or nothing of these, asks for presence.
    Match,
    /// Values of one shape.
    List(&'static Self),
    /// Values of one shape under names of the author's.
    Map(&'static Self),
    /// Fields, and no others.
    Object(&'static [Field]),
    /// What is not looked at.
    Any,
}

/// A field of an object.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: &'static Shape,
    pub(crate) is_required: bool,
    pub(crate) fate: Fate,
    pub(crate) doc: &'static str,
}

/// What becomes of a field that a document has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It is obeyed.
    Obeyed,
    /// It is not, and its author should know why that is well.
    Warned(&'static str),
    /// Without it the document means something else: it is refused.
    Refused(&'static str),
}

/// What is refused until connections have legs.
pub(crate) const WITH_LEGS: &str = "not in this version of netra, which has one upstream for each \
     connection: it comes with legs (several upstreams for a connection). Take the field out";
/// What is refused until sidecars are told of services.
pub(crate) const WITH_CONTROL_PLANE: &str = "not in this version of netra, which knows peers by \
     address alone: it comes with a control plane. Take the field out";

/// A field that is obeyed.
pub(crate) const fn field(name: &'static str, shape: &'static Shape, doc: &'static str) -> Field {
    Field { name, shape, is_required: false, fate: Fate::Obeyed, doc }
}

/// A field that has to be there.
pub(crate) const fn needed(name: &'static str, shape: &'static Shape, doc: &'static str) -> Field {
    Field { name, shape, is_required: true, fate: Fate::Obeyed, doc }
}

/// A field that is read and has no effect.
pub(crate) const fn warned(name: &'static str, shape: &'static Shape, why: &'static str) -> Field {
    Field { name, shape, is_required: false, fate: Fate::Warned(why), doc: why }
}

/// A field that no document may have.
pub(crate) const fn refused(name: &'static str, why: &'static str) -> Field {
    Field { name, shape: &Shape::Any, is_required: false, fate: Fate::Refused(why), doc: why }
}

impl Shape {
    /// What is allowed, in words.
    fn allowed(&self) -> String {
        match self {
            Self::Text => "a text; numbers, true, false and null in quotes".into(),
            Self::Filled => "a text that is not empty; numbers, true, false in quotes".into(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Host => "the name of one host: labels of letters, digits and - in small \
                           letters with dots between, at most 255 bytes, no wildcard; or of a \
                           service, _redis._tcp. before it"
                .into(),
            Self::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Self::Percent => "a number above 0 and up to 100, with 4 decimals at most".into(),
            Self::Switch => "true or false".into(),
            Self::Time(0) => "a time such as 10s, 0.5s, 100ms or 1m30s".into(),
            Self::Time(least) => {
                format!("a time such as 10s, 0.5s, 100ms or 1m30s, of {least} ms at least")
            }
            Self::Match => {
                "one of exact, prefix and regex with its text, or null for \"is there\"".into()
            }
            Self::List(_) => "a list".into(),
            Self::Map(_) => "names with values".into(),
            Self::Object(fields) => {
                let names: Vec<_> = fields.iter().map(|field| field.name).collect();
                format!("an object with fields of {}", names.join(", "))
            }
            Self::Any => "anything".into(),
        }
    }

    /// Whether a scalar is of this shape.
    fn takes(&self, node: &Node) -> bool {
        let Some(text) = node.text() else { return false };
        match self {
            Self::Text => !node.is_typed(),
            Self::Filled => !node.is_typed() && !text.is_empty(),
            Self::Word(words) => words.contains(&text),
            Self::Host => !node.is_typed() && is_host(text),
            Self::Whole(min, max) => whole(node).is_some_and(|it| (*min..=*max).contains(&it)),
            Self::Percent => percent_parts(node).is_some(),
            Self::Switch => switch(node).is_some(),
            Self::Time(least) => time_ns(text).is_some_and(|ns| ns >= least * 1_000_000),
            _ => false,
        }
    }
}

/// Judges a document, or a part of it.
pub(crate) struct Judge<'a> {
    pub(crate) file: &'a Arc<str>,
    pub(crate) troubles: &'a mut Troubles,
}

impl Judge<'_> {
    /// Whether `node`, which stands at `path`, is of the shape; what is wrong with it is noted.
    pub(crate) fn judge(&mut self, node: &Node, shape: &Shape, path: &str) {
        match (shape, &node.value) {
            (Shape::Any, _) => {}
            (Shape::Match, _) => self.judge_match(node, path),
            // As Kubernetes has it: what is null is not there.
            (Shape::Object(_) | Shape::Map(_) | Shape::List(_), _) if node.is_null() => {}
            (Shape::Object(fields), Value::Map(_)) => self.judge_object(node, fields, path),
            (Shape::Map(inner), Value::Map(entries)) => {
                for (key, value) in entries {
                    self.judge(value, inner, &format!("{path}.{}", short(&key.text)));
                }
            }
            (Shape::List(inner), Value::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.judge(item, inner, &format!("{path}[{index}]"));
                }
            }
            (shape, Value::Scalar(..)) if shape.takes(node) => {}
            (shape, _) => {
                let what = format!("{path}{}: allowed is {}", value_of(node), shape.allowed());
                self.troubles.error(Place::new(self.file, node.spot), what);
            }
        }
    }

    fn judge_object(&mut self, node: &Node, fields: &[Field], path: &str) {
        for (key, value) in node.entries() {
            let (name, place) = (short(&key.text), Place::new(self.file, key.spot));
            let Some(field) = fields.iter().find(|field| field.name == &*key.text) else {
                let names: Vec<_> = fields.iter().map(|field| field.name).collect();
                let what = format!("{path}.{name} is unknown: allowed is {}", names.join(", "));
                self.troubles.error(place, what);
                continue;
            };
            if value.is_null() && !matches!(field.shape, Shape::Match) {
                continue;
            }
            match field.fate {
                Fate::Refused(why) => self.troubles.error(place, format!("{path}.{name}: {why}")),
                Fate::Warned(why) => {
                    self.troubles.warn(place, format!("{path}.{name}: {why}"));
                    self.judge(value, field.shape, &format!("{path}.{name}"));
                }
                Fate::Obeyed => self.judge(value, field.shape, &format!("{path}.{name}")),
            }
        }
        for field in fields.iter().filter(|field| field.is_required) {
            if node.get(field.name).is_none_or(Node::is_null) {
                let allowed = field.shape.allowed();
                let what = format!("{path}.{} is missing: allowed is {allowed}", field.name);
                self.troubles.error(Place::new(self.file, node.spot), what);
            }
        }
    }

    fn judge_match(&mut self, node: &Node, path: &str) {
        let mut wrong = |node: &Node, name: &str| {
            let what =
                format!("{path}{name}{}: allowed is {}", value_of(node), Shape::Match.allowed());
            self.troubles.error(Place::new(self.file, node.spot), what);
        };
        match &node.value {
            _ if node.is_null() => {}
            Value::Map(entries) if entries.len() > 1 => wrong(node, ""),
            Value::Map(entries) => {
                for (key, value) in entries {
                    let is_known = ["exact", "prefix", "regex"].contains(&&*key.text);
                    if !is_known || !(Shape::Text.takes(value) || value.is_null()) {
                        wrong(value, &format!(".{}", short(&key.text)));
                    }
                }
            }
            _ => wrong(node, ""),
        }
    }
}

/// A value as it is shown in a message: `="text"` of a scalar.
fn value_of(node: &Node) -> String {
    match &node.value {
        Value::Scalar(text, _) => format!("={:?}", short(text)),
        Value::List(_) => " is a list".into(),
        Value::Map(_) => " is an object".into(),
    }
}

/// So much of a text as a message has room for.
pub(crate) fn short(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut out: String = text.chars().take(CHARS_MAX).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        let _ = write!(out, "...");
    }
    out
}

/// A whole number.
pub(crate) fn whole(node: &Node) -> Option<u64> {
    match &node.value {
        Value::Scalar(text, true) => text.parse().ok(),
        _ => None,
    }
}

/// A switch.
pub(crate) fn switch(node: &Node) -> Option<bool> {
    match &node.value {
        Value::Scalar(text, true) => text.to_ascii_lowercase().parse().ok(),
        _ => None,
    }
}

/// Percent in parts of 0.0001: at most 1,000,000.
pub(crate) fn percent_parts(node: &Node) -> Option<u32> {
    let Value::Scalar(text, true) = &node.value else { return None };
    let (before, after) = text.split_once('.').unwrap_or((text, ""));
    let after = after.trim_end_matches('0');
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if before.is_empty()
        || before.len() > 3
        || after.len() > 4
        || !is_digits(after)
        || !is_digits(before)
    {
        return None;
    }
    let fraction = format!("{after:0<4}");
    let parts = before.parse::<u32>().ok()? * 10_000 + fraction.parse::<u32>().ok()?;
    (1..=1_000_000).contains(&parts).then_some(parts)
}

/// A time as Go and protobuf write it, in nanoseconds.
pub(crate) fn time_ns(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut sum) = (text, 0.0_f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [
            ("ns", 1.0),
            ("us", 1e3),
            ("µs", 1e3),
            ("ms", 1e6),
            ("s", 1e9),
            ("m", 6e10),
            ("h", 3.6e12),
        ];
        let (unit, scale) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        sum += number * scale;
    }
    // A year is more than anybody means, and exact enough in a float.
    let is_sane = !text.is_empty() && sum <= 3.2e16;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    is_sane.then_some(sum.round() as u64)
}

/// Whether it is the name of one host: DNS-1123 labels, the last one not all digits.
pub(crate) fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let edges = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && label.len() <= 63 && !edges && label.bytes().all(is_part)
    };
    let last = text.rsplit('.').next().unwrap_or(text);
    text.len() <= 255
        && host_of(text).split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// What stands behind `_service._proto.`, or all of it; nothing where only half of that is there.
fn host_of(text: &str) -> &str {
    if !text.starts_with('_') {
        return text;
    }
    behind_word(text).and_then(behind_word).unwrap_or_default()
}

/// What stands behind a label that begins with `_`.
fn behind_word(text: &str) -> Option<&str> {
    let (word, rest) = text.strip_prefix('_')?.split_once('.')?;
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ((1..63).contains(&word.len()) && word.bytes().all(is_part)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, ns) in [
            ("60s", 60_000_000_000),
            ("0.1s", 100_000_000),
            ("100ms", 100_000_000),
            ("1m30s", 90_000_000_000),
            ("1h", 3_600_000_000_000),
            ("0s", 0),
            ("0", 0),
        ] {
            assert_eq!(time_ns(text), Some(ns), "{text}");
        }
        for text in ["", "1", "s", "1 s", "-1s", "1d", "1.2.3s", "9999999h", "1s2"] {
            assert_eq!(time_ns(text), None, "{text}");
        }
    }

    #[test]
    fn percent_has_four_decimals() {
        let read = |text: &str| percent_parts(&yaml::read(text).unwrap()[0]);
        for (text, parts) in [("100", 1_000_000), ("0.0001", 1), ("50.0", 500_000), ("3", 30_000)] {
            assert_eq!(read(text), Some(parts), "{text}");
        }
        for text in ["0", "100.0001", "0.00001", "-1", "1e2", "\"5\"", "1.-2", "."] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn hosts_are_names() {
        for host in [
            "a",
            "orders.shop.svc.cluster.local",
            "org.apache.demo",
            "x-1.y2",
            "_redis._tcp.cache.test",
            "_x-1._sctp.a",
        ] {
            assert!(is_host(host), "{host}");
        }
        let long = format!("{}.a", "b".repeat(64));
        for host in ["", "A.b", "*.a", "a..b", "-a", "a-", "10.0.0.1", "a_b", "a.", &long] {
            assert!(!is_host(host), "{host}");
        }
        for host in [
            "_a",
            "_a._b",
            "_a._b.",
            "_a.b",
            "_a._tcp.a.1",
            "_._tcp.a",
            "_a._.b",
            "_A._tcp.b",
            "a._tcp.b",
            "_a._tcp._c",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }
}
