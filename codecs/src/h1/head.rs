//! Request and response heads as ranges of the bytes they came in.

use std::mem::MaybeUninit;

use httparse::ParserConfig;

use crate::h1::fields::{Fields, Lengths, LineOffsets, fill};
use crate::h1::framing::{self, Declared, Framing, FramingFields};
use crate::h1::plain;
use crate::h1::reason::Reason;
use crate::h1::scan::is_token_byte;
use crate::h1::target::RequestTarget;
use crate::limits::{HEADERS_CAP, Limits};

/// HTTP/1.0 or HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// What a request's method means for the body of its response (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestKind {
    /// Any method but HEAD and CONNECT.
    #[default]
    Ordinary,
    /// The response has no body, whatever its head says.
    Head,
    /// A 2xx response has no body and opens a tunnel.
    Connect,
}

/// Reads heads: the table of field ranges and the limits, one for a whole shard.
#[derive(Debug)]
pub struct HeadReader {
    limits: Limits,
    table: Box<[LineOffsets; HEADERS_CAP]>,
}

impl HeadReader {
    /// Makes the table (4 KiB); reading allocates nothing more.
    pub fn new(limits: Limits) -> Self {
        Self { limits, table: Box::new([LineOffsets::default(); HEADERS_CAP]) }
    }

    /// The limits that this reader keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Reads a whole request head: `bytes` ends with the empty line.
    ///
    /// # Errors
    /// The reason for which the head, or the framing it declares, is not certain.
    pub fn request<'b>(&'b mut self, bytes: &'b [u8]) -> Result<RequestHead<'b>, Reason> {
        let parts = self.read_request(bytes)?;
        Ok(parts.view(bytes, self))
    }

    /// Reads a whole response head: `bytes` ends with the empty line.
    ///
    /// # Errors
    /// The reason for which the head is not certain; its framing is judged by
    /// [`ResponseHead::framing`], which needs to know the request.
    pub fn response<'b>(&'b mut self, bytes: &'b [u8]) -> Result<ResponseHead<'b>, Reason> {
        let parts = self.read_response(bytes)?;
        Ok(parts.view(bytes, self))
    }

    /// Reads the head at the beginning of `input` if it is whole and plain: its length and what it
    /// says. None is no judgement: see [`plain`].
    #[inline]
    pub(crate) fn plain_request(&mut self, input: &[u8]) -> Option<(usize, RequestParts)> {
        let plain = plain::request(input, &mut self.table, &self.limits)?;
        let (line, fields) = (plain.start, plain.fields);
        let parts = RequestParts {
            field_count: fields.count,
            lengths: fields.lengths,
            method_end: line.method_end,
            target_end: line.target_end,
            version: line.version,
            kind: line.kind,
            framing: fields.framing.or(Framing::Length(0)),
            upgrade: fields.upgrade,
        };
        Some((plain.len, parts))
    }

    /// As [`plain_request`](Self::plain_request), for a response.
    #[inline]
    pub(crate) fn plain_response(&mut self, input: &[u8]) -> Option<(usize, ResponseParts)> {
        let plain = plain::response(input, &mut self.table, &self.limits)?;
        let (line, fields) = (plain.start, plain.fields);
        let parts = ResponseParts {
            field_count: fields.count,
            lengths: fields.lengths,
            status: line.status,
            version: line.version,
            declared: Some(fields.framing),
        };
        Some((plain.len, parts))
    }

    /// As [`request`](Self::request), without borrowing: the view is made later, of the same bytes.
    pub(crate) fn read_request(&mut self, bytes: &[u8]) -> Result<RequestParts, Reason> {
        let mut request = httparse::Request::new(&mut []);
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_CAP];
        let headers = &mut headers[..usize::from(self.limits.headers_max).min(HEADERS_CAP)];
        let config = ParserConfig::default();
        let parsed = config.parse_request_with_uninit_headers(&mut request, bytes, headers);
        check_whole(parsed, bytes, Reason::BadRequestLine)?;
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Err(Reason::BadRequestLine);
        };
        let version = version(request.version)?;
        let fields = fill(&mut self.table[..], bytes, request.headers)?;
        let framing_fields = FramingFields::collect(fields)?;
        let kind = request_kind(method.as_bytes())?;
        Ok(RequestParts {
            field_count: fields.len(),
            lengths: fields.lengths(),
            method_end: method.len(),
            target_end: method.len() + 1 + target.len(),
            version,
            kind,
            framing: framing::request(version, kind, &framing_fields)?,
            upgrade: framing_fields.upgrade,
        })
    }

    /// As [`response`](Self::response), without borrowing.
    pub(crate) fn read_response(&mut self, bytes: &[u8]) -> Result<ResponseParts, Reason> {
        let mut response = httparse::Response::new(&mut []);
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_CAP];
        let headers = &mut headers[..usize::from(self.limits.headers_max).min(HEADERS_CAP)];
        let config = ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, headers);
        check_whole(parsed, bytes, Reason::BadStatusLine)?;
        let Some(status @ 100..=999) = response.code else {
            return Err(Reason::BadStatusLine);
        };
        let version = version(response.version)?;
        let fields = fill(&mut self.table[..], bytes, response.headers)?;
        let (field_count, lengths) = (fields.len(), fields.lengths());
        Ok(ResponseParts { field_count, lengths, status, version, declared: None })
    }
}

/// What was read of a request head, as offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestParts {
    field_count: usize,
    lengths: Lengths,
    method_end: usize,
    target_end: usize,
    version: Version,
    pub(crate) kind: RequestKind,
    pub(crate) framing: Framing,
    upgrade: bool,
}

impl RequestParts {
    /// The head of the bytes that were read last.
    #[inline]
    pub(crate) fn view<'b>(self, bytes: &'b [u8], reader: &'b HeadReader) -> RequestHead<'b> {
        let fields = Fields::new(bytes, &reader.table[..self.field_count], self.lengths);
        RequestHead { fields, parts: self }
    }

    pub(crate) fn asks_to_switch(&self) -> bool {
        self.upgrade || self.kind == RequestKind::Connect
    }
}

/// What was read of a response head, as offsets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseParts {
    field_count: usize,
    lengths: Lengths,
    pub(crate) status: u16,
    version: Version,
    /// What its fields say about the framing, if that was found out already.
    declared: Option<Declared>,
}

impl ResponseParts {
    /// The framing of the response to a request of this kind, if the head is plain.
    pub(crate) fn plain_framing(&self, kind: RequestKind) -> Option<Framing> {
        let declared = self.declared?;
        framing::response(self.status, kind, || Ok(declared)).ok()
    }

    /// The head of the bytes that were read last.
    #[inline]
    pub(crate) fn view<'b>(self, bytes: &'b [u8], reader: &'b HeadReader) -> ResponseHead<'b> {
        let fields = Fields::new(bytes, &reader.table[..self.field_count], self.lengths);
        ResponseHead { fields, parts: self }
    }
}

/// A request head whose framing is certain.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'b> {
    fields: Fields<'b>,
    parts: RequestParts,
}

impl<'b> RequestHead<'b> {
    /// A head that did not come as one: fields of HTTP/2 behind a line with method and target, which
    /// end there. Their framing is nobody's business.
    pub(crate) fn of_fields(fields: Fields<'b>, method_end: usize, target_end: usize) -> Self {
        let kind = match &fields.head()[..method_end] {
            b"HEAD" => RequestKind::Head,
            b"CONNECT" => RequestKind::Connect,
            _ => RequestKind::Ordinary,
        };
        let parts = RequestParts {
            field_count: fields.len(),
            lengths: fields.lengths(),
            method_end,
            target_end,
            version: Version::Http11,
            kind,
            framing: Framing::Length(0),
            upgrade: false,
        };
        Self { fields, parts }
    }

    /// The head as it came, from the method to the empty line.
    pub fn bytes(&self) -> &'b [u8] {
        self.fields.head()
    }

    /// The method; case matters.
    pub fn method(&self) -> &'b [u8] {
        &self.fields.head()[..self.parts.method_end]
    }

    /// The request target as it came: origin form, absolute form, authority or `*`.
    pub fn target(&self) -> &'b [u8] {
        &self.fields.head()[self.parts.method_end + 1..self.parts.target_end]
    }

    /// The target taken apart.
    #[inline]
    pub fn target_parts(&self) -> RequestTarget<'b> {
        RequestTarget::new(self.target())
    }

    /// Whom the request is for, with its port if one was given. RFC 9112 §3.2.2: the authority of
    /// an absolute-form target comes before Host. None without either, or with several Host lines.
    pub fn host(&self) -> Option<&'b [u8]> {
        let authority = self.target_parts().authority();
        authority.or_else(|| self.fields.only(b"host").filter(|host| !host.is_empty()))
    }

    /// The HTTP version.
    pub fn version(&self) -> Version {
        self.parts.version
    }

    /// What the method means for the response.
    pub fn kind(&self) -> RequestKind {
        self.parts.kind
    }

    /// How the end of the request body is found; never [`Framing::UntilClose`].
    pub fn framing(&self) -> Framing {
        self.parts.framing
    }

    /// Whether the bytes after this request may be those of another protocol: CONNECT, or any
    /// Upgrade line, named by Connection or not.
    pub fn asks_to_switch(&self) -> bool {
        self.parts.asks_to_switch()
    }

    /// The header fields.
    pub fn fields(&self) -> Fields<'b> {
        self.fields
    }

    /// The value of the first field of this name.
    #[inline]
    pub fn field(&self, name: &[u8]) -> Option<&'b [u8]> {
        self.fields.first(name)
    }
}

/// A response head.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'b> {
    fields: Fields<'b>,
    parts: ResponseParts,
}

impl<'b> ResponseHead<'b> {
    /// The head as it came, from the version to the empty line.
    pub fn bytes(&self) -> &'b [u8] {
        self.fields.head()
    }

    /// The status code, 100 to 999.
    pub fn status(&self) -> u16 {
        self.parts.status
    }

    /// RFC 9110 §15.2: another head follows for the same request. 101 is not interim: it is the
    /// last thing that is HTTP.
    pub fn is_interim(&self) -> bool {
        is_interim(self.status())
    }

    /// The HTTP version.
    pub fn version(&self) -> Version {
        self.parts.version
    }

    /// How the end of the body is found when the request was of this kind.
    ///
    /// # Errors
    /// The reason for which two parsers could find different ends.
    pub fn framing(&self, kind: RequestKind) -> Result<Framing, Reason> {
        framing::response(self.status(), kind, || match self.parts.declared {
            Some(declared) => Ok(declared),
            None => framing::declared(self.fields, self.version()),
        })
    }

    /// The header fields.
    pub fn fields(&self) -> Fields<'b> {
        self.fields
    }

    /// The value of the first field of this name.
    #[inline]
    pub fn field(&self, name: &[u8]) -> Option<&'b [u8]> {
        self.fields.first(name)
    }
}

pub(crate) fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}

/// Turns httparse's answer into a reason. The head must be the whole of `bytes`: an earlier end
/// would mean that the parser and the scan read the bytes differently.
fn check_whole(
    parsed: httparse::Result<usize>,
    bytes: &[u8],
    start_line: Reason,
) -> Result<(), Reason> {
    use httparse::{Error, Status};
    if !bytes.ends_with(b"\r\n\r\n") || !bytes.first().is_some_and(|&byte| is_token_byte(byte)) {
        return Err(start_line);
    }
    match parsed {
        Ok(Status::Complete(len)) if len == bytes.len() => Ok(()),
        Ok(_) => Err(start_line),
        Err(Error::TooManyHeaders) => Err(Reason::TooManyFields),
        Err(Error::Version) => Err(Reason::BadVersion),
        Err(Error::HeaderName) => Err(name_reason(bytes)),
        Err(Error::HeaderValue | Error::NewLine) => Err(Reason::BadField),
        Err(Error::Token | Error::Status) => Err(start_line),
    }
}

/// RFC 9112 §5.1: a blank between name and colon has been used to smuggle requests; it has a
/// reason of its own.
fn name_reason(bytes: &[u8]) -> Reason {
    let lines = bytes.split(|&byte| byte == b'\n').skip(1);
    let mut names = lines.filter_map(|line| line.split(|&byte| byte == b':').next());
    let blank_last = |name: &[u8]| matches!(name.last(), Some(b' ' | b'\t'));
    if names.any(blank_last) { Reason::SpaceBeforeColon } else { Reason::BadField }
}

fn version(minor: Option<u8>) -> Result<Version, Reason> {
    match minor {
        Some(0) => Ok(Version::Http10),
        Some(1) => Ok(Version::Http11),
        _ => Err(Reason::BadVersion),
    }
}

/// RFC 9110 §9.1: methods are case-sensitive. A server that takes `head` for HEAD all the same
/// would end its response elsewhere, so such a method is not guessed at.
fn request_kind(method: &[u8]) -> Result<RequestKind, Reason> {
    match method {
        b"HEAD" => Ok(RequestKind::Head),
        b"CONNECT" => Ok(RequestKind::Connect),
        _ if method.eq_ignore_ascii_case(b"HEAD") => Err(Reason::OddMethod),
        _ if method.eq_ignore_ascii_case(b"CONNECT") => Err(Reason::OddMethod),
        _ => Ok(RequestKind::Ordinary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> HeadReader {
        HeadReader::new(Limits::DEFAULT)
    }

    #[test]
    fn a_request_is_ranges_of_its_bytes() {
        let bytes = b"POST /a/b?c=d#e HTTP/1.1\r\nhOsT: shop:80\r\nX-A:\r\nX-A: \t two \t \r\n\
            Content-Length: 3\r\n\r\n";
        let mut reader = reader();
        let head = reader.request(bytes).unwrap();
        assert_eq!((head.method(), head.target()), (&b"POST"[..], &b"/a/b?c=d#e"[..]));
        assert_eq!(head.target_parts().path(), b"/a/b");
        assert_eq!(head.host(), Some(&b"shop:80"[..]));
        assert_eq!((head.version(), head.framing()), (Version::Http11, Framing::Length(3)));
        let values: Vec<_> = head.fields().named(b"x-a").collect();
        assert_eq!(values, [&b""[..], b"two"]);
        assert_eq!(head.field(b"x-b"), None);
        let fields = head.fields();
        assert_eq!((fields.len(), fields.is_empty()), (4, false));
        let names: Vec<_> = fields.iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"hOsT"[..], b"X-A", b"X-A", b"Content-Length"]);
        // The lines tile the head between start line and empty line.
        let mut at = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for index in 0..fields.len() {
            let field = fields.at(index);
            assert_eq!(field.line.start, at);
            assert!(bytes[field.line.clone()].ends_with(b"\r\n"));
            at = field.line.end;
        }
        assert_eq!(&bytes[at..], b"\r\n");
    }

    /// The scan refuses these before; the reader does not rely on it.
    #[test]
    fn a_head_is_whole_and_its_lines_end_with_crlf() {
        for text in [
            "",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n",
            "GET / HTTP/1.1\n\n",
            "GET / HTTP/1.1\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\nB: c\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n\r\n\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\n\r\n",
            "\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(reader().request(text.as_bytes()).is_err(), "{text:?}");
            let text = text.replace("GET / HTTP/1.1", "HTTP/1.1 200 OK");
            assert!(reader().response(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_target_names_the_host_before_its_line_does() {
        for (target, host, expected) in [
            ("/x?y", "a:1", Some("a:1")),
            ("*", "a", Some("a")),
            ("http://b:8/x", "a", Some("b:8")),
            ("http:/x", "a", Some("a")),
            ("/", "", None),
            ("/", "a\r\nHost: b", None),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let mut reader = reader();
            let head = reader.request(text.as_bytes()).unwrap();
            assert_eq!(head.host(), expected.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn responses_with_and_without_reason() {
        for (line, status, version) in [
            ("HTTP/1.1 200 OK", 200, Version::Http11),
            ("HTTP/1.0 404 Not \u{e9}", 404, Version::Http10),
            ("HTTP/1.1 599", 599, Version::Http11),
            ("HTTP/1.1 204 ", 204, Version::Http11),
        ] {
            let text = format!("{line}\r\nA: b\r\n\r\n");
            let mut reader = reader();
            let head = reader.response(text.as_bytes()).unwrap();
            assert_eq!((head.status(), head.version()), (status, version));
            assert_eq!((head.field(b"a"), head.bytes()), (Some(&b"b"[..]), text.as_bytes()));
        }
        for line in ["HTTP/1.1 20 OK", "HTTP/1.1 2000", "HTTP/1.1  200", "HTTP/1.1 099 x", "x"] {
            let text = format!("{line}\r\n\r\n");
            assert!(reader().response(text.as_bytes()).is_err(), "{line}");
        }
    }
}
