//! The shapes of documents as a JSON Schema, for editors.

use crate::{
    kinds::{KINDS, Kind},
    shape::{Fate, Field, Shape},
};
use std::fmt::{self, Write as _};

/// A JSON Schema (draft 7) of every kind of document, as a text.
pub fn schema() -> String {
    let kinds = KINDS.iter().map(of_kind).collect();
    let names = KINDS.iter().map(|kind| text(kind.name)).collect();
    let schema = object([
        ("$schema", text("http://json-schema.org/draft-07/schema#")),
        ("title", text("Rules of netra")),
        ("type", text("object")),
        ("required", Json::List(vec![text("apiVersion"), text("kind")])),
        ("properties", object([("kind", object([("enum", Json::List(names))]))])),
        ("allOf", Json::List(kinds)),
    ]);
    format!("{schema}\n")
}

fn of_kind(kind: &Kind) -> Json {
    let is_it = object([("kind", object([("const", text(kind.name))]))]);
    let versions = kind.versions.iter();
    let versions = versions.map(|version| text(&format!("{}/{version}", kind.group))).collect();
    let of_version = object([("enum", Json::List(versions))]);
    let version = object([("properties", object([("apiVersion", of_version)]))]);
    object([
        ("if", object([("properties", is_it)])),
        ("then", object([("allOf", Json::List(vec![of(&kind.document), version]))])),
    ])
}

fn of(shape: &Shape) -> Json {
    match shape {
        Shape::Any => object([]),
        Shape::Text => typed("string", []),
        Shape::Filled => typed("string", [("minLength", Json::Number(1))]),
        Shape::Word(words) => {
            object([("enum", Json::List(words.iter().map(|word| text(word)).collect()))])
        }
        Shape::Host => typed("string", [("maxLength", Json::Number(255)), ("pattern", text(HOST))]),
        Shape::Whole(min, max) => {
            let (min, max) = (Json::Number(*min), Json::Number(*max));
            typed("integer", [("minimum", min), ("maximum", max)])
        }
        Shape::Percent => {
            let (above, most) = (Json::Number(0), Json::Number(100));
            typed("number", [("exclusiveMinimum", above), ("maximum", most)])
        }
        Shape::Switch => typed("boolean", []),
        Shape::Time(_) => typed("string", [("pattern", text(TIME))]),
        Shape::Match => {
            let or_null = |name: &str| Json::List(vec![text(name), text("null")]);
            let value = |name| (name, object([("type", or_null("string"))]));
            object([
                ("type", or_null("object")),
                ("maxProperties", Json::Number(1)),
                ("additionalProperties", Json::False),
                ("properties", object(["exact", "prefix", "regex"].map(value))),
            ])
        }
        Shape::List(inner) => typed("array", [("items", of(inner))]),
        Shape::Map(inner) => typed("object", [("additionalProperties", of(inner))]),
        Shape::Object(fields) => {
            let required = fields.iter().filter(|field| field.is_required);
            typed(
                "object",
                [
                    ("additionalProperties", Json::False),
                    ("required", Json::List(required.map(|field| text(field.name)).collect())),
                    ("properties", Json::Object(fields.iter().map(property).collect())),
                ],
            )
        }
    }
}

pub(crate) const HOST: &str = "^(_[-a-z0-9]{1,62}\\._[-a-z0-9]{1,62}\\.)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$";
pub(crate) const TIME: &str = "^(0|([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|ms|s|m|h))+$";

fn property(field: &Field) -> (String, Json) {
    let schema = match field.fate {
        // What is refused is known, and wrong: an editor shows why.
        Fate::Refused(_) => object([("not", object([]))]),
        Fate::Obeyed | Fate::Warned(_) => of(field.shape),
    };
    let Json::Object(mut parts) = schema else { return (field.name.to_owned(), schema) };
    if !field.doc.is_empty() {
        parts.push(("description".to_owned(), text(field.doc)));
    }
    (field.name.to_owned(), Json::Object(parts))
}

fn typed<const N: usize>(kind: &str, more: [(&str, Json); N]) -> Json {
    let Json::Object(mut parts) = object(more) else { return Json::False };
    parts.insert(0, ("type".to_owned(), text(kind)));
    Json::Object(parts)
}

pub(crate) fn object<const N: usize>(parts: [(&str, Json); N]) -> Json {
    Json::Object(parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

pub(crate) fn text(text: &str) -> Json {
    Json::Text(text.to_owned())
}

/// As much of JSON as a schema has.
pub(crate) enum Json {
    False,
    True,
    Number(u64),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::False => f.write_str("false"),
            Self::True => f.write_str("true"),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => quoted(text, f),
            Self::List(items) => {
                f.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{item}")?;
                }
                f.write_char(']')
            }
            Self::Object(parts) => {
                f.write_char('{')?;
                for (index, (name, value)) in parts.iter().enumerate() {
                    f.write_str(if index > 0 { "," } else { "" })?;
                    quoted(name, f)?;
                    write!(f, ":{value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}
