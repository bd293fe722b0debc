//! What the program says: results on standard output, warnings and errors on standard error, as
//! text or as one JSON object per line.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::doctor::{Check, Verdict};
use crate::error::Error;

/// How to write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Format {
    /// Parses `text` or `json`.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("allowed are text and json".to_owned()),
        }
    }
}

/// Writes results, warnings and errors. A reader that went away is not an error of ours, so write
/// errors are dropped.
#[derive(Clone, Copy, Debug)]
pub struct Reporter {
    format: Format,
}

impl Reporter {
    /// A reporter for `format`.
    pub const fn new(format: Format) -> Self {
        Self { format }
    }

    /// The outcome of the run. `fields` come along in JSON.
    pub fn result(&self, event: &str, message: &str, fields: &[(&str, &str)]) {
        let line = self.line("info", event, message, fields);
        let _ = writeln!(io::stdout(), "{line}");
    }

    /// Something the user should know although the run goes on.
    pub fn warn(&self, event: &str, message: &str) {
        let line = self.line("warn", event, message, &[]);
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// Why the run failed.
    pub fn error(&self, error: &Error) {
        let code = error.kind.exit_code().to_string();
        let line = self.line("error", error.kind.name(), &error.message, &[("exit_code", &code)]);
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// The rules that are in place.
    pub fn rules(&self, text: &str) {
        match self.format {
            Format::Text => self.raw(text),
            Format::Json => self.result("rules", text, &[]),
        }
    }

    /// One finding of the doctor.
    pub fn check(&self, check: &Check) {
        let verdict = check.verdict.name();
        if self.format == Format::Text {
            let _ = writeln!(io::stdout(), "{verdict:<5} {:<16} {}", check.name, check.found);
            if !check.advice.is_empty() {
                let _ = writeln!(io::stdout(), "{:<5} {:<16} -> {}", "", "", check.advice);
            }
            return;
        }
        let level = match check.verdict {
            Verdict::Ok => "info",
            Verdict::Warn => "warn",
            Verdict::Fail(_) => "error",
        };
        let fields = [("check", check.name), ("result", verdict), ("advice", check.advice)];
        let _ = writeln!(io::stdout(), "{}", self.line(level, "doctor", &check.found, &fields));
    }

    /// Text the user asked for, as it is.
    pub fn raw(&self, text: &str) {
        let _ = io::stdout().write_all(text.as_bytes());
    }

    fn line(&self, level: &str, event: &str, message: &str, fields: &[(&str, &str)]) -> String {
        if self.format == Format::Text {
            let prefix = if level == "info" { String::new() } else { format!("{level}: ") };
            return format!("netra-init: {prefix}{message}");
        }
        let mut line = String::from("{");
        let all = [("level", level), ("event", event), ("message", message)];
        for (index, (name, value)) in all.iter().chain(fields).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(line, "{comma}{}:{}", json_string(name), json_string(value));
        }
        line.push('}');
        line
    }
}

/// RFC 8259 §7: quotes, backslashes and control characters are escaped.
fn json_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            char if char.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(char));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json() {
        let line = |format| Reporter::new(format).line("warn", "e", "a \"b\"\n", &[("k", "v\\")]);
        assert_eq!(line(Format::Text), "netra-init: warn: a \"b\"\n");
        let json = r#"{"level":"warn","event":"e","message":"a \"b\"\u000a","k":"v\\"}"#;
        assert_eq!(line(Format::Json), json);
    }
}
