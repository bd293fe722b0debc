//! Where netra sends to and asks over HTTP.

use hyper::Uri;
use std::fmt;

/// Where requests go: `http[s]://host[:port][/path][?query]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    is_tls: bool,
    host: String,
    port: u16,
    /// Path and query.
    target: String,
}

impl Url {
    /// Takes http:// and https:// only, and neither users nor fragments.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let is_tls = uri.scheme_str() == Some("https");
        let is_good = (is_tls || uri.scheme_str() == Some("http"))
            && !authority.host().is_empty()
            && !authority.as_str().contains('@')
            && (authority.port_u16().is_some() || authority.as_str() == authority.host())
            && !text.contains('#');
        let host = authority.host();
        let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = Some(uri.path()).filter(|path| !path.is_empty()).unwrap_or("/");
        let target = format!("{path}{query}");
        is_good.then(|| Self {
            is_tls,
            host: inside.unwrap_or(host).to_owned(),
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            target,
        })
    }

    /// Whether it is not spoken to in the clear.
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Name or address, without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The one that is meant where none is said.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// With one more parameter in its query.
    pub(crate) fn with_query(mut self, name: &str, value: &str) -> Self {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let between = if self.target.contains('?') { '&' } else { '?' };
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        self.target = format!("{}{between}{name}={value}", self.target);
        self
    }

    /// The same host with another path.
    pub(crate) fn with_path(self, path: &str) -> Self {
        Self { target: path.to_owned(), ..self }
    }

    /// Host and port, as a `Host` line has them.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, shown) in [
            ("http://c", Some("http://c:80/")),
            ("http://c:14268/api/traces?x=1", Some("http://c:14268/api/traces?x=1")),
            ("http://[::1]:5778/sampling", Some("http://[::1]:5778/sampling")),
            ("http://c?service", Some("http://c:80/?service")),
            ("https://c", Some("https://c:443/")),
            ("https://[::1]:4318/v1/traces", Some("https://[::1]:4318/v1/traces")),
            ("ftp://c/", None),
            ("https://u:p@c/", None),
            ("c:14268", None),
            ("/api", None),
            ("http://", None),
            ("http://u:p@c/", None),
            ("http://c/#a", None),
            ("http://c:/", None),
            ("http://c:x/", None),
            ("http://a b/", None),
            ("", None),
        ] {
            let url = Url::parse(text).map(|url| url.to_string());
            assert_eq!(url.as_deref(), shown, "{text:?}");
        }
        let url = Url::parse("http://c/s").unwrap().with_query("service", "a b&c");
        assert_eq!(url.to_string(), "http://c:80/s?service=a%20b%26c");
        assert_eq!(url.with_query("x", "1").to_string(), "http://c:80/s?service=a%20b%26c&x=1");
    }
}
