//! CustomResourceDefinitions of the kinds, from the shapes by which documents are judged.
//!
//! An API server drops fields that a schema does not have, without a word. So every object keeps
//! what it does not know, and whoever reads the document says what is wrong with it.

use crate::{
    kinds::{KINDS, Kind},
    schema::{HOST, Json, TIME, object, text},
    shape::{Fate, Field, Shape},
};
use std::fmt::Write as _;

/// Whose kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crds {
    /// netra's own and Aeraki's.
    Own,
    /// Istio's, for a cluster that does not have them.
    Istio,
}

/// A definition of every kind, as YAML.
pub fn crds(whose: Crds) -> String {
    let is_wanted = |kind: &&Kind| kind.group.ends_with(".istio.io") == (whose == Crds::Istio);
    let mut out = String::new();
    for kind in KINDS.iter().filter(is_wanted) {
        out.push_str("---\n");
        block(&definition(kind), 0, &mut out);
    }
    out
}

fn definition(kind: &Kind) -> Json {
    let singular = kind.name.to_ascii_lowercase();
    let plural = match singular.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{singular}s"),
    };
    let names = object([
        ("kind", text(kind.name)),
        ("listKind", text(&format!("{}List", kind.name))),
        ("plural", text(&plural)),
        ("singular", text(&singular)),
        ("categories", Json::List(vec![text("netra")])),
    ]);
    let versions = kind.versions.iter().enumerate().map(|(at, name)| version(kind, name, at == 0));
    object([
        ("apiVersion", text("apiextensions.k8s.io/v1")),
        ("kind", text("CustomResourceDefinition")),
        ("metadata", object([("name", text(&format!("{plural}.{}", kind.group)))])),
        (
            "spec",
            object([
                ("group", text(kind.group)),
                ("names", names),
                ("scope", text("Namespaced")),
                ("versions", Json::List(versions.collect())),
            ]),
        ),
    ])
}

fn version(kind: &Kind, name: &str, is_stored: bool) -> Json {
    let Shape::Object(fields) = &kind.document else { return Json::False };
    let spec = fields.iter().filter(|field| field.name == "spec").map(property);
    let mut properties = vec![
        ("apiVersion".to_owned(), typed("string", [])),
        ("kind".to_owned(), typed("string", [])),
        ("metadata".to_owned(), typed("object", [])),
    ];
    properties.extend(spec);
    properties.push(("status".to_owned(), status()));
    let schema = typed(
        "object",
        [("required", Json::List(vec![text("spec")])), ("properties", Json::Object(properties))],
    );
    let column = |name: &str, kind: &str, path: &str| {
        object([("name", text(name)), ("type", text(kind)), ("jsonPath", text(path))])
    };
    object([
        ("name", text(name)),
        ("served", Json::True),
        ("storage", if is_stored { Json::True } else { Json::False }),
        ("schema", object([("openAPIV3Schema", schema)])),
        ("subresources", object([("status", object([]))])),
        (
            "additionalPrinterColumns",
            Json::List(vec![
                column("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status"),
                column("Sidecars", "integer", ".status.sidecars"),
                column("Age", "date", ".metadata.creationTimestamp"),
            ]),
        ),
    ])
}

/// What netra-control writes back; what others write there stays.
fn status() -> Json {
    let described = |kind: &str, what: &str| typed(kind, [("description", text(what))]);
    let texts = typed(
        "array",
        [
            ("description", text("What the document does, a line for each of its rules")),
            ("items", typed("string", [])),
        ],
    );
    let condition = object(
        ["type", "status", "reason", "message", "lastTransitionTime"]
            .map(|name| (name, typed("string", []))),
    );
    let condition = typed("object", [(KEEP, Json::True), ("properties", condition)]);
    let conditions = typed("array", [("items", condition)]);
    typed(
        "object",
        [
            (KEEP, Json::True),
            (
                "properties",
                object([
                    ("conditions", conditions),
                    ("does", texts),
                    (
                        "sidecars",
                        described("integer", "Sidecars that run it, of those that ask `writer`"),
                    ),
                    ("writer", described("string", "The netra-control that wrote this")),
                ]),
            ),
        ],
    )
}

/// Unknown fields are kept, see above.
const KEEP: &str = "x-kubernetes-preserve-unknown-fields";

fn property(field: &Field) -> (String, Json) {
    let Json::Object(mut parts) = of(field.shape) else {
        return (field.name.to_owned(), Json::False);
    };
    if !field.doc.is_empty() {
        parts.push(("description".to_owned(), text(field.doc)));
    }
    (field.name.to_owned(), Json::Object(parts))
}

/// A structural schema: every value has a type, nothing is `false`.
fn of(shape: &Shape) -> Json {
    match shape {
        Shape::Any => object([(KEEP, Json::True)]),
        Shape::Text => typed("string", []),
        Shape::Filled => typed("string", [("minLength", Json::Number(1))]),
        Shape::Word(words) => {
            let words = words.iter().map(|word| text(word)).collect();
            typed("string", [("enum", Json::List(words))])
        }
        Shape::Host => typed("string", [("maxLength", Json::Number(255)), ("pattern", text(HOST))]),
        Shape::Whole(min, max) => {
            let (min, max) = (("minimum", *min), ("maximum", *max));
            // A larger one has no place in an API server's numbers.
            let bounds = [min, max].into_iter().filter(|(_, bound)| *bound < 1 << 53);
            let mut parts = vec![("type".to_owned(), text("integer"))];
            parts.extend(bounds.map(|(name, bound)| (name.to_owned(), Json::Number(bound))));
            parts.push(("format".to_owned(), text("int64")));
            Json::Object(parts)
        }
        Shape::Percent => {
            let (least, most) = (("minimum", Json::Number(0)), ("maximum", Json::Number(100)));
            typed("number", [least, ("exclusiveMinimum", Json::True), most])
        }
        Shape::Switch => typed("boolean", []),
        Shape::Time(_) => typed("string", [("pattern", text(TIME))]),
        Shape::Match => {
            let null = ("nullable", Json::True);
            let value = |name| (name, typed("string", [("nullable", Json::True)]));
            let values = object(["exact", "prefix", "regex"].map(value));
            typed("object", [null, (KEEP, Json::True), ("properties", values)])
        }
        Shape::List(inner) => typed("array", [("items", of(inner))]),
        Shape::Map(inner) => typed("object", [("additionalProperties", of(inner))]),
        Shape::Object(fields) => {
            // What is refused is kept like what is unknown: the reader says why it is wrong.
            let known = fields.iter().filter(|field| !matches!(field.fate, Fate::Refused(_)));
            let needed: Vec<Json> =
                known.clone().filter(|it| it.is_required).map(|it| text(it.name)).collect();
            let mut parts =
                vec![("type".to_owned(), text("object")), (KEEP.to_owned(), Json::True)];
            if !needed.is_empty() {
                parts.push(("required".to_owned(), Json::List(needed)));
            }
            parts.push(("properties".to_owned(), Json::Object(known.map(property).collect())));
            Json::Object(parts)
        }
    }
}

fn typed<const N: usize>(kind: &str, more: [(&str, Json); N]) -> Json {
    let Json::Object(mut parts) = object(more) else { return Json::False };
    parts.insert(0, ("type".to_owned(), text(kind)));
    Json::Object(parts)
}

/// YAML in blocks; what is no block is JSON, which is YAML, too.
fn block(json: &Json, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    let mut item = |head: String, value: &Json, depth: usize| match value {
        Json::Object(parts) if !parts.is_empty() => {
            let _ = writeln!(out, "{head}");
            block(value, depth, out);
        }
        Json::List(items) if items.iter().any(|it| matches!(it, Json::Object(_))) => {
            let _ = writeln!(out, "{head}");
            block(value, depth, out);
        }
        _ => {
            let _ = writeln!(out, "{head} {value}");
        }
    };
    match json {
        Json::Object(parts) => {
            for (name, value) in parts {
                item(format!("{pad}{name}:"), value, depth + 1);
            }
        }
        Json::List(items) => {
            for value in items {
                item(format!("{pad}-"), value, depth + 1);
            }
        }
        _ => {}
    }
}
