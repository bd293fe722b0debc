//! `--print-config`: every setting with its value and where it came from, for people and for tools.

use crate::{
    json, mask,
    values::{Effective, Origin},
};
use std::fmt::Write;

/// How `--print-config` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `NAME=value  # origin`, which a shell or an env file takes as it is.
    Text,
    /// An array of objects.
    Json,
}

/// All settings in the shape that was asked for. `decided` gives what `auto` came to, by name.
pub(crate) fn show(values: &[Effective], decided: &[(&str, String)], shape: Shape) -> String {
    match shape {
        Shape::Text => show_text(values, decided),
        Shape::Json => show_json(values, decided),
    }
}

fn show_text(values: &[Effective], decided: &[(&str, String)]) -> String {
    let mut out = String::new();
    for value in values {
        let text = value.setting.shown(&value.text);
        let assignment = format!("{}={}", value.setting.name, quoted(&text));
        let _ = write!(out, "{assignment:<56} # {}", origin(value));
        if let Some(decision) = decision(value, decided) {
            let _ = write!(out, ": {decision}");
        }
        out.push('\n');
    }
    out
}

fn show_json(values: &[Effective], decided: &[(&str, String)]) -> String {
    let mut out = String::from("[");
    for (index, value) in values.iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        let mut object = json::Object::begin(&mut out);
        object.text("name", value.setting.name);
        object.text("flag", &format!("--{}", value.setting.flag()));
        object.text("value", &value.setting.shown(&value.text));
        object.text("origin", origin_word(value.origin));
        if let Origin::Environment(variable) = value.origin {
            object.text("variable", variable);
        }
        if let Some(decision) = decision(value, decided) {
            object.text("decided", decision);
        }
        object.end();
    }
    out.push_str("\n]\n");
    out
}

fn decision<'d>(value: &Effective, decided: &'d [(&str, String)]) -> Option<&'d str> {
    let found = decided.iter().find(|(name, _)| *name == value.setting.name);
    found.map(|(_, decision)| decision.as_str())
}

fn origin(value: &Effective) -> String {
    match value.origin {
        Origin::Environment(variable) if variable != value.setting.name => {
            format!("environment {variable}")
        }
        origin => origin_word(origin).into(),
    }
}

fn origin_word(origin: Origin) -> &'static str {
    match origin {
        Origin::Default => "default",
        Origin::Environment(_) => "environment",
        Origin::Flag => "flag",
    }
}

/// A value as a shell takes it: bare when it is harmless, else in single quotes. What cannot be seen
/// is written out, as everywhere.
fn quoted(text: &str) -> String {
    let text = &*mask::line(text);
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.,:/@%+".contains(&byte);
    if text.bytes().all(harmless) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Sources, load};

    fn values() -> Vec<Effective> {
        let environment = vec![
            ("JAEGER_SERVICE_NAME".into(), "my \"shop\"".into()),
            ("JAEGER_PASSWORD".into(), "hunter2".into()),
        ];
        let flags = vec![("NETRA_PORT", "1000".into())];
        load(&Sources { flags, environment, ..Sources::default() }).unwrap().effective
    }

    #[test]
    fn text_names_value_and_origin() {
        let shown = show(&values(), &[("NETRA_SHARDS", "2, for a reason".into())], Shape::Text);
        let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("NETRA_SERVICE_NAME").starts_with("NETRA_SERVICE_NAME='my \"shop\"' "));
        assert!(line("NETRA_SERVICE_NAME").ends_with("# environment JAEGER_SERVICE_NAME"));
        assert!(line("NETRA_PORT=1000").ends_with("# flag"));
        assert!(line("NETRA_SHARDS=auto").ends_with("# default: 2, for a reason"));
        assert!(line("NETRA_HTTP_PORTS= ").ends_with("# default"));
        assert!(!shown.contains("hunter2"));
    }

    #[test]
    fn json_is_json() {
        let shown = show(&values(), &[("NETRA_SHARDS", "2".into())], Shape::Json);
        let rows: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let row = |name: &str| {
            rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone()
        };
        assert_eq!(row("NETRA_SERVICE_NAME")["value"], "my \"shop\"");
        assert_eq!(row("NETRA_SERVICE_NAME")["variable"], "JAEGER_SERVICE_NAME");
        assert_eq!(row("NETRA_PORT")["origin"], "flag");
        assert_eq!(row("NETRA_SHARDS")["decided"], "2");
        assert_eq!(row("JAEGER_PASSWORD")["value"], "***");
    }
}
