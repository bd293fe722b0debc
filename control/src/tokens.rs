//! Who may have what: a token is of one namespace.

use crate::changed::changed;
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// Of a token file: who may have the rules of every namespace, and the pages.
pub(crate) const EVERYWHERE: &str = "*";

/// Characters of a token, at least.
const TOKEN_CHARS_MIN: usize = 16;

/// What a token lets its bearer have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// What the sidecars of this namespace get.
    Namespace(String),
    /// Everything.
    Everything,
}

impl Right {
    /// Whether it is enough for the rules of a namespace.
    pub(crate) fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::Namespace(own) => own == namespace,
            Self::Everything => true,
        }
    }
}

/// A file of lines `NAMESPACE TOKEN`, `*` for every namespace; `#` begins a comment. It is read
/// again when it has changed.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    changed: Option<SystemTime>,
    rights: HashMap<String, Right>,
}

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or a line is not as it should be; the message says which.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let read = Read { changed: changed(path), rights: parse(&fs::read_to_string(path)?)? };
        Ok(Self { path: path.to_owned(), read: Mutex::new(read) })
    }

    /// What a token lets its bearer have; None is nothing. A file that has become unreadable or
    /// wrong leaves what was read before.
    pub(crate) fn right(&self, token: &str) -> Option<Right> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = changed(&self.path);
        if now.is_some() && now != read.changed {
            read.changed = now;
            match fs::read_to_string(&self.path).and_then(|text| parse(&text)) {
                Ok(rights) => read.rights = rights,
                Err(why) => eprintln!(
                    "netra-control: {}: {why}; the tokens before stand",
                    self.path.display()
                ),
            }
        }
        read.rights.get(token).cloned()
    }
}

fn parse(text: &str) -> io::Result<HashMap<String, Right>> {
    let mut rights = HashMap::new();
    for (place, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let (namespace, token) = match words[..] {
            [] => continue,
            [namespace, token] if token.len() >= TOKEN_CHARS_MIN => (namespace, token),
            _ => {
                let what = "NAMESPACE (or *) and a token of 16 characters at least";
                let why = format!("line {}: allowed is {what}", place + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        };
        let right = match namespace {
            EVERYWHERE => Right::Everything,
            namespace => Right::Namespace(namespace.to_owned()),
        };
        rights.insert(token.to_owned(), right);
    }
    Ok(rights)
}

/// The token of a header `Authorization: Bearer TOKEN`.
pub(crate) fn bearer(header: Option<&hyper::header::HeaderValue>) -> Option<&str> {
    let (scheme, token) = header?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_one_namespace() {
        let rights = parse("# who\nshop 0123456789abcdef # ours\n* fedcba9876543210\n\n").unwrap();
        assert_eq!(rights["0123456789abcdef"], Right::Namespace("shop".into()));
        assert!(rights["0123456789abcdef"].covers("shop"));
        assert!(!rights["0123456789abcdef"].covers("pay"));
        assert!(rights["fedcba9876543210"].covers("pay"));
        for bad in ["shop short", "shop", "shop 0123456789abcdef more"] {
            assert!(parse(bad).unwrap_err().to_string().starts_with("line 1: "), "{bad}");
        }
    }

    #[test]
    fn bearers_are_understood() {
        let header = |text: &'static str| hyper::header::HeaderValue::from_static(text);
        assert_eq!(bearer(Some(&header("Bearer abc"))), Some("abc"));
        assert_eq!(bearer(Some(&header("bearer abc "))), Some("abc"));
        assert_eq!(bearer(Some(&header("Basic abc"))), None);
        assert_eq!(bearer(None), None);
    }
}
