//! Request targets taken apart.

use memchr::{memchr, memchr2, memrchr};

/// A request target (RFC 9112 §3.2) taken apart, all of it as it came, still escaped.
#[derive(Clone, Copy, Debug)]
pub struct RequestTarget<'t> {
    authority: Option<&'t [u8]>,
    /// What is left of an absolute form without scheme and authority; of others, all.
    rest: &'t [u8],
}

impl<'t> RequestTarget<'t> {
    /// Takes a target apart. What is no absolute form has no authority.
    #[inline]
    pub fn new(target: &'t [u8]) -> Self {
        // As nearly all begin.
        if target.first() == Some(&b'/') {
            return Self { authority: None, rest: target };
        }
        Self::absolute(target).unwrap_or(Self { authority: None, rest: target })
    }

    fn absolute(target: &'t [u8]) -> Option<Self> {
        if !target.first()?.is_ascii_alphabetic() {
            return None;
        }
        let scheme = target.iter().position(|&byte| {
            !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
        })?;
        let behind = target[scheme..].strip_prefix(b"://")?;
        let end = behind.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
        let (authority, rest) = behind.split_at(end.unwrap_or(behind.len()));
        let user = memrchr(b'@', authority).map_or(0, |at| at + 1);
        Some(Self { authority: Some(&authority[user..]), rest })
    }

    /// The host, with its port if one was given, that an absolute form names.
    #[inline]
    pub fn authority(&self) -> Option<&'t [u8]> {
        self.authority
    }

    /// The path, without query; `/` where an absolute form has none.
    #[inline]
    pub fn path(&self) -> &'t [u8] {
        let path = &self.rest[..memchr2(b'?', b'#', self.rest).unwrap_or(self.rest.len())];
        if path.is_empty() && self.authority.is_some() { b"/" } else { path }
    }

    /// What is behind the first `?`, if there is one.
    pub fn query(&self) -> Option<&'t [u8]> {
        let rest = &self.rest[..memchr(b'#', self.rest).unwrap_or(self.rest.len())];
        memchr(b'?', rest).map(|at| &rest[at + 1..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_one_reading() {
        for (target, authority, path, query) in [
            ("/", None, "/", None),
            ("/a/b?x=1", None, "/a/b", Some("x=1")),
            ("/a?", None, "/a", Some("")),
            ("/a?b?c#d", None, "/a", Some("b?c")),
            ("/a#b?c", None, "/a", None),
            ("//b/c", None, "//b/c", None),
            ("/http://b/", None, "/http://b/", None),
            ("*", None, "*", None),
            ("b:443", None, "b:443", None),
            ("http://b", Some("b"), "/", None),
            ("http://b:8/x?y", Some("b:8"), "/x", Some("y")),
            ("http://b?x", Some("b"), "/", Some("x")),
            ("http://b#x", Some("b"), "/", None),
            ("HTTPS://u:p@[::1]:8/?", Some("[::1]:8"), "/", Some("")),
            ("a+b-c.1://b/x", Some("b"), "/x", None),
            ("http://", Some(""), "/", None),
            ("http:/x", None, "http:/x", None),
            ("1http://b/x", None, "1http://b/x", None),
            ("", None, "", None),
        ] {
            let parts = RequestTarget::new(target.as_bytes());
            assert_eq!(parts.authority(), authority.map(str::as_bytes), "{target}");
            assert_eq!(parts.path(), path.as_bytes(), "{target}");
            assert_eq!(parts.query(), query.map(str::as_bytes), "{target}");
        }
    }
}
