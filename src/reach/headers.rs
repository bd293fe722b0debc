//! Headers from a file, one a line, as `curl --header @FILE` reads them: tokens that are renewed need
//! no new process, and stand in no environment.

use super::{Stamp, pem};
use crate::{failure::Failure, texts::is_token};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;

/// What NETRA_EXPORT_HEADERS_FILE may be, in words.
pub(crate) const ALLOWED: &str = "a readable file with lines such as `Authorization: Bearer TOKEN`";

/// The headers of a file as they were last read. Their values are never shown.
#[derive(Clone, Default)]
pub(crate) struct Headers {
    path: String,
    read: Option<(Stamp, HeaderMap)>,
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headers").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Headers {
    /// Of a file; an empty path has none.
    pub(crate) fn new(path: &str) -> Self {
        Self { path: path.into(), read: None }
    }

    /// Whether the file can be read, and why not.
    pub(crate) fn check(path: &str) -> Result<(), String> {
        match path.is_empty() {
            true => Ok(()),
            false => lines(path).map(drop).map_err(|why| format!("{ALLOWED}; {why}")),
        }
    }

    /// What the file says now; it is read again when it has changed.
    pub(crate) fn now(&mut self) -> Result<HeaderMap, Failure> {
        if self.path.is_empty() {
            return Ok(HeaderMap::new());
        }
        let stamp = Stamp::of(&self.path);
        match (&self.read, stamp) {
            (Some((known, headers)), Some(stamp)) if *known == stamp => Ok(headers.clone()),
            _ => {
                let read = lines(&self.path);
                let headers = read.map_err(|why| format!("the headers in {}: {why}", self.path))?;
                self.read = stamp.map(|stamp| (stamp, headers.clone()));
                Ok(headers)
            }
        }
    }
}

/// Empty lines and those that begin with `#` say nothing.
fn lines(path: &str) -> Result<HeaderMap, Failure> {
    let text = String::from_utf8(pem::read(path)?).map_err(|_| "it is no text")?;
    let mut headers = HeaderMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line.split_once(':').filter(|(name, _)| is_token(name.trim()));
        let pair = pair.and_then(|(name, value)| {
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((name.trim().parse::<HeaderName>().ok()?, value))
        });
        // The line itself may be the secret.
        let (name, value) = pair.ok_or_else(|| format!("line {} is no header", index + 1))?;
        headers.append(name, value);
    }
    Ok(headers)
}
