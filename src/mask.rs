//! What leaves netra, masked: by logs, pages, a terminal, spans. Secrets of URLs and of queries become
//! marks, and characters that a terminal or a reader's eye would obey are written out. Everything
//! that leaves goes through here; nothing here does I/O.

use memchr::{memchr, memchr2};
use std::{borrow::Cow, fmt::Write};

/// In the place of a secret.
pub(crate) const SECRET: &str = "***";
/// In the place of a value in a query.
const VALUE: &str = "..";

/// What becomes of queries in spans and access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Query {
    /// All of it stays, as netramesh has it.
    Keep,
    /// The names of parameters stay.
    #[default]
    Names,
    /// Nothing of it stays.
    Drop,
}

impl Query {
    pub(crate) const WORDS: &[&str] = &["keep", "names", "drop"];
    pub(crate) const ALL: [Self; 3] = [Self::Keep, Self::Names, Self::Drop];

    /// A request target as it may be told.
    pub(crate) fn target(self, target: &[u8]) -> Cow<'_, [u8]> {
        let mut out = Vec::new();
        match self.push_target(&mut out, target) {
            true => Cow::Owned(out),
            false => Cow::Borrowed(target),
        }
    }

    /// Writes a request target as it may be told, unless that is as it is. Who asks with a user and a
    /// password in the target does not want them told, whatever becomes of the query.
    pub(crate) fn push_target(self, out: &mut Vec<u8>, target: &[u8]) -> bool {
        // Most have neither.
        if memchr2(b'@', b'?', target).is_none() {
            return false;
        }
        let has_user =
            memchr(b'@', target).is_some() && target.windows(3).any(|three| three == b"://");
        let target = if has_user { without_user_of(target) } else { Cow::Borrowed(target) };
        let query = memchr(b'?', &target).filter(|_| self != Self::Keep);
        if query.is_none() && matches!(target, Cow::Borrowed(_)) {
            return false;
        }
        out.extend_from_slice(&target[..query.unwrap_or(target.len())]);
        if let Some(at) = query.filter(|_| self == Self::Names) {
            out.push(b'?');
            push_names(out, &target[at + 1..]);
        }
        true
    }

    /// A query by itself; None where nothing of it is to be told.
    pub(crate) fn query(self, query: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Keep => Some(Cow::Borrowed(query)),
            Self::Drop => None,
            Self::Names => {
                let mut out = Vec::with_capacity(query.len());
                push_names(&mut out, query);
                Some(Cow::Owned(out))
            }
        }
    }
}

/// `a=1&b=2` is `a=..&b=..`. What has no value may be one itself, a token with padding at its end
/// for example, so that its name goes, too.
fn push_names(out: &mut Vec<u8>, query: &[u8]) {
    for (index, parameter) in query.split(|&byte| byte == b'&').enumerate() {
        if index > 0 {
            out.push(b'&');
        }
        let equals = memchr(b'=', parameter);
        let name = equals.filter(|&at| parameter[at..].iter().any(|&byte| byte != b'='));
        out.extend_from_slice(name.map_or(&[], |at| &parameter[..=at]));
        if !parameter.is_empty() {
            out.extend_from_slice(VALUE.as_bytes());
        }
    }
}

/// A target in absolute form (RFC 9112 section 3.2.2) without who asks.
fn without_user_of(target: &[u8]) -> Cow<'_, [u8]> {
    let query = target.iter().position(|&byte| byte == b'?').unwrap_or(target.len());
    let Some(scheme) = target[..query].windows(3).position(|three| three == b"://") else {
        return Cow::Borrowed(target);
    };
    let authority = scheme + 3;
    let path = target[authority..query].iter().position(|&byte| byte == b'/');
    let end = path.map_or(query, |at| authority + at);
    match target[authority..end].iter().rposition(|&byte| byte == b'@') {
        Some(at) => Cow::Owned(
            [&target[..authority], SECRET.as_bytes(), &target[authority + at..]].concat(),
        ),
        None => Cow::Borrowed(target),
    }
}

/// A text with URLs in it, wherever they are: users, values of queries and fragments are masked.
pub(crate) fn urls(text: &str) -> Cow<'_, str> {
    const SCHEME: &str = "://";
    if !text.contains(SCHEME) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(SCHEME) {
        let (before, url) = rest.split_at(at + SCHEME.len());
        let end = url.find(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>'));
        // What ends a clause is the sentence's.
        let url_end = url[..end.unwrap_or(url.len())].trim_end_matches([',', ';', ')']).len();
        let (url, after) = url.split_at(url_end);
        out.push_str(before);
        push_url(&mut out, url);
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// A URL and nothing else, whose scheme may be missing.
pub(crate) fn url(text: &str) -> Cow<'_, str> {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    let has_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphabetic());
    let (scheme, rest) = text.split_at(if has_scheme { scheme.len() + 3 } else { 0 });
    let mut out = String::from(scheme);
    push_url(&mut out, rest);
    Cow::Owned(out)
}

/// A URL from its authority on.
fn push_url(out: &mut String, url: &str) {
    let end = url.find(['/', '?', '#']).unwrap_or(url.len());
    // A password that nobody escaped may have the signs that end an authority.
    let is_cut = !is_host_and_port(&url[..end]);
    let user = url[..end].rfind('@').or_else(|| url.rfind('@').filter(|_| is_cut));
    let rest = match user {
        Some(at) => {
            out.push_str(SECRET);
            &url[at..]
        }
        None => url,
    };
    let (rest, has_fragment) = match rest.split_once('#') {
        Some((rest, _)) => (rest, true),
        None => (rest, false),
    };
    let masked = Query::Names.target(rest.as_bytes());
    out.push_str(&String::from_utf8_lossy(&masked));
    if has_fragment {
        out.push('#');
        out.push_str(VALUE);
    }
}

/// Whether it could be all of an authority, with nobody's name before it.
fn is_host_and_port(text: &str) -> bool {
    let is_address =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte));
    let is_name = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let (is_host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (is_address(address), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_name(name), port)
        }
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    is_host
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (port.is_empty() || !digits.is_empty())
}

/// A character that is obeyed, not seen: controls of both kinds, those of the direction of text, line
/// ends that not every program knows, and what has no width.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// One such character as JSON has it (RFC 8259 section 7), which people can read as well.
fn push_unseen(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}

/// A text that begins no line of its own and moves no cursor, whoever wrote it.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unseen) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unseen(c) { push_unseen(&mut out, c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A text in quotation marks, as JSON has it.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if is_unseen(c) => push_unseen(out, c),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The value of `key=value`: bare where it needs no quotation marks.
pub(crate) fn push_value(out: &mut String, text: &str) {
    let is_plain = |c: char| !c.is_whitespace() && !is_unseen(c) && !matches!(c, '"' | '=' | '\\');
    if !text.is_empty() && text.chars().all(is_plain) {
        out.push_str(text);
    } else {
        push_quoted(out, text);
    }
}

/// JSON that others wrote with its unseen characters written out: outside of ASCII they can only be
/// inside of strings.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    let is_raw = |c: char| is_unseen(c) && c > '\u{1f}';
    if !text.contains(is_raw) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_raw(c) { push_unseen(&mut out, c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A command line: of a flag that `shown` knows, by its name without dashes, the value as `shown`
/// shows it; of all else, URLs masked.
pub(crate) fn arguments<'a>(
    arguments: impl Iterator<Item = &'a str>,
    shown: impl Fn(&str, &str) -> Option<String>,
) -> Vec<String> {
    let mut flag: Option<&str> = None;
    let mut masked = Vec::new();
    for argument in arguments {
        let known = flag.take().and_then(|flag| shown(flag, argument));
        let named = argument.strip_prefix('-').map(|rest| rest.trim_start_matches('-'));
        let pair = named.and_then(|named| named.split_once('='));
        let assigned = pair.and_then(|(name, value)| {
            let before = &argument[..argument.len() - value.len()];
            Some(format!("{before}{}", shown(name, value)?))
        });
        if known.is_none() && pair.is_none() {
            flag = named;
        }
        masked.push(known.or(assigned).unwrap_or_else(|| urls(argument).into_owned()));
    }
    masked
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
