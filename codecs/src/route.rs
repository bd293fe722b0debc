//! Header routing: which backend a request asks for.
//!
//! The value of the routing header or cookie is a list of pairs, `from=to,from2=to2`: a request
//! for host `from` is sent to `to` instead.

use std::fmt;
use std::net::IpAddr;

use memchr::memchr;

use crate::h1::RequestHead;

mod allow;

pub use allow::{AllowList, Refusal, RoutePolicy, is_forbidden};

/// Bytes of a host name (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// The port of a target that names none.
const PORT_DEFAULT: u16 = 80;

/// Where a request is to be sent: a name or an address, and a port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Target {
    host: [u8; HOST_BYTES_MAX],
    host_len: u8,
    /// The TCP port, never 0.
    pub port: u16,
}

impl Target {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; without a port it is 80.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (host, port) = split_port(text);
        let port = match port {
            None => PORT_DEFAULT,
            Some(digits) => parse_port(digits)?,
        };
        let inside = match host.strip_prefix(b"[") {
            Some(rest) => {
                let inside = rest.strip_suffix(b"]")?;
                let address = str::from_utf8(inside).ok()?;
                address.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6)?;
                inside
            }
            None => host,
        };
        let is_name =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if inside.is_empty() || (inside.len() == host.len() && !inside.iter().all(is_name)) {
            return None;
        }
        let mut target =
            Self { host: [0; HOST_BYTES_MAX], host_len: u8::try_from(inside.len()).ok()?, port };
        target.host.get_mut(..inside.len())?.copy_from_slice(inside);
        Some(target)
    }

    /// The name or address, without port and brackets.
    pub fn host(&self) -> &str {
        // Only ASCII was let in.
        str::from_utf8(&self.host[..usize::from(self.host_len)]).unwrap_or_default()
    }

    /// The address, when the host is one and needs no look-up.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host().contains(':') {
            true => write!(f, "[{}]:{}", self.host(), self.port),
            false => write!(f, "{}:{}", self.host(), self.port),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// What a routing value says about a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// The target of the first pair that names the host and another place.
    pub target: Option<Target>,
    /// Pairs that could not be read, up to the one that was taken; they are skipped.
    pub malformed: u32,
}

/// Looks `host` (a Host value, with or without a port) up in a routing value.
///
/// `from` may name the host with its port or without; case does not matter, nor do blanks around
/// names. A pair from a host to itself says nothing.
pub fn find_target(value: &[u8], host: &[u8]) -> Routed {
    let host = host.trim_ascii();
    let (bare, _) = split_port(host);
    let mut routed = Routed::default();
    for pair in value.split(|&byte| byte == b',') {
        let Some((from, to)) = split_pair(pair) else {
            routed.malformed = routed.malformed.saturating_add(1);
            continue;
        };
        let Some(target) = Target::parse(to) else {
            routed.malformed = routed.malformed.saturating_add(1);
            continue;
        };
        let is_named = from.eq_ignore_ascii_case(host) || from.eq_ignore_ascii_case(bare);
        if is_named && !from.eq_ignore_ascii_case(to) {
            routed.target = Some(target);
            break;
        }
    }
    routed
}

/// The names by which a request says how it is routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteNames {
    /// Name of the header.
    pub header: Box<[u8]>,
    /// Name of the cookie, which comes first, when cookies are looked at.
    pub cookie: Option<Box<[u8]>>,
}

impl RouteNames {
    /// The routing value of a request: of the cookie, else of the header. Empty ones are none.
    pub fn value<'b>(&self, head: &RequestHead<'b>) -> Option<&'b [u8]> {
        let cookie = self.cookie.as_deref().and_then(|name| {
            head.fields().named(b"cookie").find_map(|cookies| cookie_value(cookies, name))
        });
        let header = || head.field(&self.header);
        cookie.filter(|value| !value.is_empty()).or_else(header).filter(|value| !value.is_empty())
    }
}

/// The value of the first cookie of this name in a Cookie header (RFC 6265 §4.2.1), without the
/// quotes it may stand in. Names are compared byte by byte.
pub fn cookie_value<'c>(cookies: &'c [u8], name: &[u8]) -> Option<&'c [u8]> {
    cookies.split(|&byte| byte == b';').find_map(|pair| {
        let equals = memchr(b'=', pair)?;
        let (found, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        let inside = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        (found == name).then_some(inside.unwrap_or(value))
    })
}

/// A routing value that is remembered by request id: at most 254 bytes, no heap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteText {
    bytes: [u8; Self::BYTES_MAX],
    len: u8,
}

impl RouteText {
    /// The longest value that can be remembered, in bytes.
    pub const BYTES_MAX: usize = 254;
    /// What is remembered of a request whose route is not followed.
    pub const REFUSED: Self = Self { bytes: [0; Self::BYTES_MAX], len: 0 };

    /// The value, unless it is too long.
    pub fn new(value: &[u8]) -> Option<Self> {
        let mut text = Self { bytes: [0; Self::BYTES_MAX], len: u8::try_from(value.len()).ok()? };
        text.bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(text)
    }

    /// The value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether this is [`RouteText::REFUSED`].
    pub fn is_refused(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for RouteText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteText(\"{}\")", self.as_bytes().escape_ascii())
    }
}

/// Splits `from=to`; neither side may be empty, and there is exactly one `=`.
fn split_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = memchr(b'=', pair)?;
    let (from, to) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
    let good = !from.is_empty() && !to.is_empty() && memchr(b'=', to).is_none();
    good.then_some((from, to))
}

/// Splits a host from its port. The colons of an address in brackets are not its port's.
fn split_port(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let inside = memchr(b']', text).map_or(0, |at| at + 1);
    match memchr(b':', &text[inside..]) {
        Some(at) => (&text[..inside + at], Some(&text[inside + at + 1..])),
        None => (text, None),
    }
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok().filter(|&port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::HeadReader;
    use crate::limits::Limits;

    #[test]
    fn targets() {
        for (text, shown, is_ip) in [
            ("b", Some("b:80"), false),
            ("b.default.svc:8080", Some("b.default.svc:8080"), false),
            ("10.0.0.1:65535", Some("10.0.0.1:65535"), true),
            ("[::1]:8080", Some("[::1]:8080"), true),
            ("[2001:db8::1]", Some("[2001:db8::1]:80"), true),
            ("", None, false),
            (":80", None, false),
            ("b:", None, false),
            ("b:0", None, false),
            ("b:65536", None, false),
            ("b:+80", None, false),
            ("b:80:80", None, false),
            ("::1", None, false),
            ("[::1", None, false),
            ("[]", None, false),
            ("[b]", None, false),
            ("[1.2.3.4]", None, false),
            ("b/c", None, false),
            ("u@b", None, false),
            ("b c", None, false),
            ("b\0", None, false),
            ("\u{e9}", None, false),
        ] {
            let target = Target::parse(text.as_bytes());
            assert_eq!(target.map(|target| target.to_string()).as_deref(), shown, "{text:?}");
            assert_eq!(target.and_then(|target| target.ip()).is_some(), is_ip, "{text:?}");
        }
        assert!(Target::parse(&[b'a'; 253]).is_some());
        assert!(Target::parse(&[b'a'; 254]).is_none());
        assert!(Target::parse(&[b'a'; 300]).is_none());
    }

    #[test]
    fn values() {
        for (value, host, target, malformed) in [
            ("a=b", "a", Some("b:80"), 0),
            ("a=b:81", "a:8080", Some("b:81"), 0),
            ("a:8080=b", "a:8080", Some("b:80"), 0),
            ("a:8080=b", "a", None, 0),
            ("a:8080=b", "a:8081", None, 0),
            ("A=b", "a", Some("b:80"), 0),
            ("x=y,a=b,a=c", "a", Some("b:80"), 0),
            (" x = y , a = b ", "a", Some("b:80"), 0),
            ("a=a,a=b", "a", Some("b:80"), 0),
            ("a=a", "a", None, 0),
            ("a=b", "c", None, 0),
            ("[::1]=b", "[::1]:80", Some("b:80"), 0),
            ("a", "a", None, 1),
            ("", "a", None, 1),
            ("a=", "a", None, 1),
            ("=b", "a", None, 1),
            ("a=b=c,,a=b:x,a=d", "a", Some("d:80"), 3),
            ("a=b", "", None, 0),
        ] {
            let routed = find_target(value.as_bytes(), host.as_bytes());
            let shown = routed.target.map(|target| target.to_string());
            assert_eq!(shown.as_deref(), target, "{value:?} for {host:?}");
            assert_eq!(routed.malformed, malformed, "{value:?} for {host:?}");
        }
    }

    #[test]
    fn cookies() {
        for (cookies, value) in [
            ("X-Route=a=b,c=d", Some("a=b,c=d")),
            ("x=1; X-Route=a=b; X-Route=c=d", Some("a=b")),
            ("x=1;X-Route = \"a=b\" ", Some("a=b")),
            ("X-Route=\"a=b", Some("\"a=b")),
            ("X-Route=", Some("")),
            ("x-route=a=b", None),
            ("X-Route", None),
            ("Y-X-Route=a", None),
            ("", None),
        ] {
            let found = cookie_value(cookies.as_bytes(), b"X-Route");
            assert_eq!(found, value.map(str::as_bytes), "{cookies:?}");
        }
    }

    #[test]
    fn the_cookie_comes_before_the_header() {
        let names = |cookie: bool| RouteNames {
            header: b"X-Route"[..].into(),
            cookie: cookie.then(|| b"route"[..].into()),
        };
        for (lines, with_cookie, without) in [
            ("x-route: h\r\nCookie: a=1\r\nCookie: route=c\r\n", Some("c"), Some("h")),
            ("x-route: h\r\nCookie: route=\r\n", Some("h"), Some("h")),
            ("x-route:\r\nCookie: route=c\r\n", Some("c"), None),
            ("", None, None),
        ] {
            let head = format!("GET / HTTP/1.1\r\n{lines}\r\n");
            let mut reader = HeadReader::new(Limits::DEFAULT);
            let head = reader.request(head.as_bytes()).unwrap();
            assert_eq!(names(true).value(&head), with_cookie.map(str::as_bytes));
            assert_eq!(names(false).value(&head), without.map(str::as_bytes));
        }
    }

    #[test]
    fn remembered_values_are_bounded() {
        assert_eq!(size_of::<RouteText>(), 255);
        assert_eq!(RouteText::new(b"a=b").unwrap().as_bytes(), b"a=b");
        assert!(RouteText::new(&[b'x'; 254]).is_some());
        assert!(RouteText::new(&[b'x'; 255]).is_none());
        assert!(RouteText::new(&[b'x'; 256]).is_none());
    }
}
