//! What a setting is: a name, a default, a kind of value, and where the value goes. Parsing,
//! `--help`, `--print-config` and `--check-config` all read the same rows (`table.rs`).

use crate::{
    config::Config,
    mask,
    texts::{is_one_line, is_token, switch, whole},
};
use netra_codecs::PortSet;
use std::{borrow::Cow, net::IpAddr, time::Duration};

/// One row of the table: everything that netra knows about a setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The environment variable; the flag is derived from it.
    pub(crate) name: &'static str,
    /// Other variables that are read when [`Setting::name`] is not set, in this order.
    pub(crate) also: &'static [&'static str],
    /// The value when nothing is set, as one would write it.
    pub(crate) default: &'static str,
    /// What a value may be and where it goes.
    pub(crate) parse: Parse,
    /// One line for people.
    pub(crate) doc: &'static str,
    /// Must be set: an empty default is no answer.
    pub(crate) required: bool,
    /// How much of it is shown.
    pub(crate) shows: Shows,
}

/// How much of a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// All but the secrets of URLs in it.
    Plain,
    /// It is a URL, even where it has no scheme.
    Url,
    /// Nothing.
    Nothing,
}

impl Setting {
    /// A setting that this build acts on.
    pub(crate) const fn new(
        name: &'static str,
        default: &'static str,
        parse: Parse,
        doc: &'static str,
    ) -> Self {
        Self { name, also: &[], default, parse, doc, required: false, shows: Shows::Plain }
    }

    /// Must be set.
    pub(crate) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// Shown as stars.
    pub(crate) const fn secret(self) -> Self {
        Self { shows: Shows::Nothing, ..self }
    }

    /// Shown without users and values of its query, with a scheme or without.
    pub(crate) const fn url(self) -> Self {
        Self { shows: Shows::Url, ..self }
    }

    /// Reads these variables too.
    pub(crate) const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    /// The flag, without its dashes: `NETRA_HTTP_PORTS` is `http-ports`.
    pub(crate) fn flag(&self) -> String {
        let name = self.name.strip_prefix("NETRA_").unwrap_or(self.name);
        name.to_ascii_lowercase().replace('_', "-")
    }

    /// A value as it may be shown.
    pub(crate) fn shown<'v>(&self, value: &'v str) -> Cow<'v, str> {
        match self.shows {
            Shows::Nothing if !value.is_empty() => Cow::Borrowed(mask::SECRET),
            Shows::Url => mask::url(value),
            Shows::Plain | Shows::Nothing => mask::urls(value),
        }
    }
}

/// What a value may be. Each kind carries where its typed value goes, so that a row cannot parse
/// one type and store another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parse {
    /// An address without a port.
    Address(fn(&mut Config, IpAddr)),
    /// One of these words, by index; case does not matter.
    Choice(&'static [&'static str], fn(&mut Config, usize)),
    /// Whatever the function takes, described in words.
    Custom(&'static str, fn(&mut Config, &str) -> bool),
    /// The name of an HTTP header.
    HeaderName(fn(&mut Config, &str)),
    /// Whole microseconds.
    Micros(u32, u32, fn(&mut Config, Duration)),
    /// Whole milliseconds.
    Millis(u32, u32, fn(&mut Config, Duration)),
    /// A name that people read: not empty, on one line.
    Name(fn(&mut Config, &str)),
    /// A whole number.
    Number(u32, u32, fn(&mut Config, u32)),
    /// A TCP port to listen on.
    Port(fn(&mut Config, u16)),
    /// A list of TCP ports.
    Ports(fn(&mut Config, PortSet)),
    /// On or off, with the words that Go's ParseBool takes.
    Switch(fn(&mut Config, bool)),
    /// Any text on one line.
    Text(fn(&mut Config, &str)),
}

impl Parse {
    /// Stores `text` if it is allowed; says whether it is.
    pub(crate) fn apply(&self, config: &mut Config, text: &str) -> bool {
        let applied = match *self {
            Self::Address(put) => text.parse().ok().map(|address| put(config, address)),
            Self::Choice(words, put) => words
                .iter()
                .position(|word| word.eq_ignore_ascii_case(text))
                .map(|index| put(config, index)),
            Self::Custom(_, put) => put(config, text).then_some(()),
            Self::HeaderName(put) => is_token(text).then(|| put(config, text)),
            Self::Micros(min, max, put) => whole(text, min, max)
                .map(|number| put(config, Duration::from_micros(u64::from(number)))),
            Self::Millis(min, max, put) => whole(text, min, max)
                .map(|number| put(config, Duration::from_millis(u64::from(number)))),
            Self::Name(put) => (!text.is_empty() && is_one_line(text)).then(|| put(config, text)),
            Self::Number(min, max, put) => whole(text, min, max).map(|number| put(config, number)),
            Self::Port(put) => whole(text, 1, u32::from(u16::MAX))
                .and_then(|number| u16::try_from(number).ok())
                .map(|port| put(config, port)),
            Self::Ports(put) => text.parse().ok().map(|ports| put(config, ports)),
            Self::Switch(put) => switch(text).map(|on| put(config, on)),
            Self::Text(put) => is_one_line(text).then(|| put(config, text)),
        };
        applied.is_some()
    }

    /// What a value may be, in words.
    pub(crate) fn allowed(&self) -> String {
        match *self {
            Self::Address(_) => "an IPv4 or IPv6 address without a port".into(),
            Self::Choice(words, _) => format!("one of {}", words.join(", ")),
            Self::Custom(words, _) => words.into(),
            Self::HeaderName(_) => "the name of an HTTP header, for example X-Request-Id".into(),
            Self::Micros(min, max, _) => format!("whole microseconds from {min} to {max}"),
            Self::Millis(min, max, _) => format!("whole milliseconds from {min} to {max}"),
            Self::Name(_) => "a name on one line, not empty".into(),
            Self::Number(min, max, _) => format!("a whole number from {min} to {max}"),
            Self::Port(_) => "a port from 1 to 65535".into(),
            Self::Ports(_) => "ports from 1 to 65535 with commas between, or nothing".into(),
            Self::Switch(_) => "true or false".into(),
            Self::Text(_) => "text on one line".into(),
        }
    }

    /// What stands for the value in `--help`.
    pub(crate) fn placeholder(&self) -> &'static str {
        match self {
            Self::Address(_) => "ADDRESS",
            Self::Choice(..) => "WORD",
            Self::Custom(..) | Self::Text(_) => "TEXT",
            Self::HeaderName(_) | Self::Name(_) => "NAME",
            Self::Micros(..) => "US",
            Self::Millis(..) => "MS",
            Self::Number(..) => "NUMBER",
            Self::Port(_) => "PORT",
            Self::Ports(_) => "PORTS",
            Self::Switch(_) => "BOOL",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_after_variables() {
        for (name, flag) in [
            ("NETRA_HTTP_PORTS", "http-ports"),
            ("NETRA_PORT", "port"),
            ("JAEGER_SAMPLER_TYPE", "jaeger-sampler-type"),
            ("HTTP_HEADER_TAG_MAP", "http-header-tag-map"),
        ] {
            let row = Setting::new(name, "", Parse::Text(|_, _| {}), "");
            assert_eq!(row.flag(), flag);
        }
    }

    #[test]
    fn every_kind_takes_and_refuses() {
        let cases: [(Parse, &[&str], &[&str]); 12] = [
            (Parse::Address(|_, _| {}), &["127.0.0.1", "::1"], &["", "localhost", "1.2.3.4:5"]),
            (Parse::Choice(&["off", "on"], |_, _| {}), &["on", "OFF"], &["", "o", "on "]),
            (Parse::Custom("x", |_, text| text == "x"), &["x"], &["", "y"]),
            (Parse::HeaderName(|_, _| {}), &["X-Id", "a_b"], &["", "X Id", "X:", "\u{e9}"]),
            (Parse::Micros(0, 9, |_, _| {}), &["0", "9"], &["10", "1.5", "1us"]),
            (Parse::Millis(5, 9, |_, _| {}), &["5", "09"], &["4", "10", "-5", "+5", ""]),
            (Parse::Name(|_, _| {}), &["shop", "a b"], &["", "a\nb"]),
            (Parse::Number(1, 4_294_967_295, |_, _| {}), &["4294967295"], &["0", "4294967296"]),
            (Parse::Port(|_, _| {}), &["1", "65535"], &["0", "65536", "http", "-1", " 80"]),
            (Parse::Ports(|_, _| {}), &["", "80, 81"], &["80,", "0", "80-90"]),
            (Parse::Switch(|_, _| {}), &["1", "t", "True"], &["yes", "tRUE", "", "2"]),
            (Parse::Text(|_, _| {}), &["", "a,b"], &["a\r\nb", "\0"]),
        ];
        for (kind, good, bad) in cases {
            let mut config = Config::default();
            for text in good {
                assert!(kind.apply(&mut config, text), "{kind:?} {text:?}");
            }
            for text in bad {
                assert!(!kind.apply(&mut config, text), "{kind:?} {text:?}");
            }
            assert!(!kind.allowed().is_empty() && !kind.placeholder().is_empty());
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let row = Setting::new("JAEGER_PASSWORD", "", Parse::Text(|_, _| {}), "").secret();
        assert_eq!(row.shown("hunter2"), "***");
        assert_eq!(row.shown(""), "");
        let row = Setting::new("JAEGER_ENDPOINT", "", Parse::Text(|_, _| {}), "").url();
        assert_eq!(row.shown("c:14268/?token=hunter2"), "c:14268/?token=..");
        let row = Setting::new("OTEL_TRACES_SAMPLER_ARG", "", Parse::Text(|_, _| {}), "");
        assert_eq!(row.shown("endpoint=http://hunter2@m/"), "endpoint=http://***@m/");
    }
}
