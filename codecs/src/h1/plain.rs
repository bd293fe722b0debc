//! Heads as almost all are: whole in one input, strict, framed in one way. One pass finds the end,
//! the fields and the framing.
//!
//! Whatever is not plain is left to the scan and the parser, which take longer and know why. So
//! nothing here gives a reason, and everything here must read a head exactly as they do: the tests
//! below, `tests/split.rs` and the fuzz targets compare the two.

use crate::h1::fields::{Lengths, LineOffsets};
use crate::h1::framing::{Declared, Framing, parse_length};
use crate::h1::head::{RequestKind, Version};
use crate::h1::words::{is_same_name, target_len, token, value_len};
use crate::limits::{HEADERS_CAP, Limits};

/// What was read of a plain head besides its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain<S> {
    /// Bytes of the head.
    pub(crate) len: usize,
    pub(crate) start: S,
    pub(crate) fields: PlainFields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlainFields {
    pub(crate) count: usize,
    pub(crate) lengths: Lengths,
    pub(crate) framing: Declared,
    pub(crate) upgrade: bool,
}

/// A request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) method_end: usize,
    pub(crate) target_end: usize,
    pub(crate) version: Version,
    pub(crate) kind: RequestKind,
}

/// A status line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatusLine {
    pub(crate) status: u16,
    pub(crate) version: Version,
}

type Table = [LineOffsets; HEADERS_CAP];

/// Reads the request head at the beginning of `input`, if it is a plain one.
#[inline]
pub(crate) fn request(
    input: &[u8],
    table: &mut Table,
    limits: &Limits,
) -> Option<Plain<RequestLine>> {
    let input = &input[..input.len().min(limits.head_bytes_max as usize)];
    let (method_end, b' ') = token(input)? else { return None };
    let method = &input[..method_end];
    if method.len() > usize::from(limits.method_bytes_max) {
        return None;
    }
    let kind = match (method.len(), method.first()? | 0x20) {
        (3, b'p') if method == b"PRI" => return None,
        (4, b'h') | (7, b'c') => kind_of(method)?,
        _ => RequestKind::Ordinary,
    };
    let target = method_end + 1;
    let rest = &input[target..];
    if !matches!(rest.first()?, b'/' | b'*' | b'a'..=b'z' | b'A'..=b'Z') {
        return None;
    }
    let target_end = target + target_len(rest);
    let (version, fields) = match input.get(target_end..)?.first_chunk()? {
        b" HTTP/1.1\r\n" => (Version::Http11, target_end + 11),
        b" HTTP/1.0\r\n" => (Version::Http10, target_end + 11),
        _ => return None,
    };
    let (len, fields) = read_fields(input, fields, table, limits, version)?;
    if kind == RequestKind::Connect && fields.framing != Declared::Nothing {
        return None;
    }
    Some(Plain { len, start: RequestLine { method_end, target_end, version, kind }, fields })
}

/// Reads the response head at the beginning of `input`, if it is a plain one.
#[inline]
pub(crate) fn response(
    input: &[u8],
    table: &mut Table,
    limits: &Limits,
) -> Option<Plain<StatusLine>> {
    let input = &input[..input.len().min(limits.head_bytes_max as usize)];
    let (start, rest) = input.split_first_chunk::<13>()?;
    let version = match &start[..9] {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        _ => return None,
    };
    let status = start[9..12].iter().try_fold(0, |status, digit| {
        digit.is_ascii_digit().then(|| status * 10 + u16::from(digit - b'0'))
    })?;
    let end = match start[12] {
        b' ' => line_end(input, 13)?,
        b'\r' if rest.first() == Some(&b'\n') => 12,
        _ => return None,
    };
    if status < 100 {
        return None;
    }
    let (len, fields) = read_fields(input, end + 2, table, limits, version)?;
    Some(Plain { len, start: StatusLine { status, version }, fields })
}

/// Reads lines up to the empty one: the end of the head, and what was found.
fn read_fields(
    input: &[u8],
    from: usize,
    table: &mut Table,
    limits: &Limits,
    version: Version,
) -> Option<(usize, PlainFields)> {
    let table = &mut table[..usize::from(limits.headers_max).min(HEADERS_CAP)];
    let mut fields = PlainFields {
        count: 0,
        lengths: Lengths::default(),
        framing: Declared::Nothing,
        upgrade: false,
    };
    let mut line = from;
    loop {
        let rest = input.get(line..)?;
        if *rest.first()? == b'\r' {
            return (*rest.get(1)? == b'\n').then_some((line + 2, fields));
        }
        let (name_len @ 1.., b':') = token(rest)? else { return None };
        let mut value = name_len + 1;
        if *rest.get(value)? == b' ' {
            value += 1;
        }
        let mut after = rest.get(value..)?;
        if let b' ' | b'\t' = after.first()? {
            after = after_blanks(after);
            value = rest.len() - after.len();
        }
        let len = value_len(after);
        let (said, ending) = after.split_at_checked(len)?;
        if ending.first_chunk()? != b"\r\n" {
            return None;
        }
        let said = if let Some(b' ' | b'\t') = said.last() { said.trim_ascii_end() } else { said };
        let (end, value_end) = (value + len, value + said.len());
        if let 7 | 14 | 17 = name_len {
            fields.note(&rest[..name_len], said, version)?;
        }
        *table.get_mut(fields.count)? =
            LineOffsets::new(line, line + name_len, line + value, line + value_end);
        fields.count += 1;
        fields.lengths.add(name_len);
        line += end + 2;
    }
}

/// What stands behind blanks; to trim would go on with the next line.
#[cold]
#[inline(never)]
fn after_blanks(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    &bytes[blanks.unwrap_or(bytes.len())..]
}

impl PlainFields {
    /// Takes note of a field that may say something about framing. None where it says that in an
    /// odd way, or not alone.
    #[inline(never)]
    fn note(&mut self, name: &[u8], value: &[u8], version: Version) -> Option<()> {
        let is = |wanted: &[u8]| name.len() == wanted.len() && is_same_name(name, wanted);
        let framing = if is(b"content-length") {
            Framing::Length(parse_length(value).ok()?)
        } else if is(b"upgrade") {
            self.upgrade = true;
            return Some(());
        } else if is(b"transfer-encoding") {
            let is_sure = version == Version::Http11 && value.eq_ignore_ascii_case(b"chunked");
            is_sure.then_some(Framing::Chunked)?
        } else {
            return (!name.contains(&b'_')).then_some(());
        };
        if self.framing != Declared::Nothing {
            return None;
        }
        self.framing = Declared::Once(framing);
        Some(())
    }
}

/// The kind of a method that may be HEAD or CONNECT. None where it is one in an odd case.
fn kind_of(method: &[u8]) -> Option<RequestKind> {
    match method {
        b"HEAD" => Some(RequestKind::Head),
        b"CONNECT" => Some(RequestKind::Connect),
        _ if method.eq_ignore_ascii_case(b"HEAD") => None,
        _ if method.eq_ignore_ascii_case(b"CONNECT") => None,
        _ => Some(RequestKind::Ordinary),
    }
}

/// The CR that ends the line of this value.
fn line_end(input: &[u8], from: usize) -> Option<usize> {
    let end = from + value_len(input.get(from..)?);
    (input.get(end..)?.first_chunk()? == b"\r\n").then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::head::HeadReader;
    use crate::h1::scan::{HeadKind, HeadScan, Scanned};

    /// Heads that have to be plain, for netra to be quick with them.
    const REQUESTS: [&str; 6] = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET /a/b?c=d&e#f HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\nCookie: a=b; c=\"d\"\r\n\r\n",
        "POST http://a/ HTTP/1.0\r\nHost:a\r\nContent-Length: 17\r\nX-Empty:\r\nX: \t \r\n\r\n",
        "PUT * HTTP/1.1\r\ntransfer-encoding: Chunked\r\nX-A: b\tc \u{e9} \t\r\n\r\n",
        "HEAD / HTTP/1.1\r\nUpgrade: h2c\r\nUpgrade: h2c\r\n12345678901234: 1\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nProxy_Connection: x\r\n\r\n",
    ];
    const RESPONSES: [&str; 4] = [
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: Thu, 26 Nov 2026 00:00:00 GMT\r\n\r\n",
        "HTTP/1.0 404\r\nA: b\r\n\r\n",
        "HTTP/1.1 999 Wh\u{e9}n \t x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 \r\n\r\n",
    ];

    /// Both ways of a reader over these bytes: whether they are plain. Where they are, the scan and
    /// the parser must have read the same.
    fn is_plain(bytes: &[u8], kind: HeadKind, limits: Limits) -> bool {
        let (mut quick, mut slow) = (HeadReader::new(limits), HeadReader::new(limits));
        let scanned = HeadScan::default().scan(bytes, kind, &limits);
        let shown = bytes.escape_ascii();
        let head = |len: usize| {
            assert_eq!(scanned, Ok(Scanned::Complete(len)), "{shown}");
            &bytes[..len]
        };
        let (quick, slow) = match kind {
            HeadKind::Request => {
                let Some((len, parts)) = quick.plain_request(bytes) else { return false };
                let head = head(len);
                let read = slow.read_request(head);
                assert_eq!(Ok(parts), read, "{shown}");
                (parts.view(head, &quick).fields(), parts.view(head, &slow).fields())
            }
            HeadKind::Response => {
                let Some((len, parts)) = quick.plain_response(bytes) else { return false };
                let head = head(len);
                let read = slow.read_response(head);
                let (one, two) = (parts.view(head, &quick), read.unwrap().view(head, &slow));
                assert_eq!((one.status(), one.version()), (two.status(), two.version()));
                for kind in [RequestKind::Ordinary, RequestKind::Head, RequestKind::Connect] {
                    assert_eq!(one.framing(kind), two.framing(kind), "{shown}");
                }
                (one.fields(), two.fields())
            }
        };
        assert_eq!(quick.len(), slow.len(), "{shown}");
        assert_eq!(quick.lengths(), slow.lengths(), "{shown}");
        assert!((0..quick.len()).all(|index| quick.at(index) == slow.at(index)), "{shown}");
        true
    }

    #[test]
    fn usual_heads_are_plain_and_only_whole_ones() {
        let requests = REQUESTS.map(|head| (head, HeadKind::Request));
        let responses = RESPONSES.map(|head| (head, HeadKind::Response));
        for (head, kind) in requests.into_iter().chain(responses) {
            let mut bytes = head.as_bytes().to_vec();
            for len in 0..bytes.len() {
                assert!(!is_plain(&bytes[..len], kind, Limits::DEFAULT), "{:?}", &head[..len]);
            }
            bytes.extend_from_slice(b"GET / HTTP");
            assert!(is_plain(&bytes, kind, Limits::DEFAULT), "{head:?}");
            let head_bytes_max = u32::try_from(head.len()).unwrap();
            let just = Limits { head_bytes_max, ..Limits::DEFAULT };
            assert!(is_plain(&bytes, kind, just), "{head:?}");
            let short = Limits { head_bytes_max: head_bytes_max - 1, ..Limits::DEFAULT };
            assert!(!is_plain(&bytes, kind, short), "{head:?}");
        }
    }

    #[test]
    fn limits_hold() {
        let three = b"POST / HTTP/1.1\r\nA: b\r\nB: c\r\nC: d\r\n\r\n";
        for (headers_max, method_bytes_max, plain) in [(3, 4, true), (2, 4, false), (3, 3, false)] {
            let limits = Limits { headers_max, method_bytes_max, ..Limits::DEFAULT };
            assert_eq!(is_plain(three, HeadKind::Request, limits), plain);
        }
        let many = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        let limits = Limits { headers_max: u16::MAX, ..Limits::DEFAULT };
        assert!(is_plain(many(HEADERS_CAP).as_bytes(), HeadKind::Request, limits));
        assert!(!is_plain(many(HEADERS_CAP + 1).as_bytes(), HeadKind::Request, limits));
    }

    /// What is almost a usual head is either left to the others or read as they read it.
    #[test]
    fn damaged_heads_are_read_as_the_others_read_them() {
        const PIECES: [&[u8]; 24] = [
            b"\r",
            b"\n",
            b"\r\n",
            b" ",
            b"\t",
            b":",
            b"\0",
            b"\x7f",
            b"\x80",
            b"_",
            b"PRI ",
            b"HEAD ",
            b"head ",
            b"Connect ",
            b"HTTP/1.0",
            b"HTTP/2.0",
            b"Content-Length: 5\r\n",
            b"Content_Length: 5\r\n",
            b"Content-Length: 05\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"Upgrade: x\r\n",
            b"Upgrade",
            b"\r\n\r\n",
        ];
        let mut state = 7_u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        let mut plain = 0;
        for _ in 0..20_000 {
            let pick = draw(REQUESTS.len() + RESPONSES.len());
            let (head, kind) = match pick.checked_sub(REQUESTS.len()) {
                None => (REQUESTS[pick], HeadKind::Request),
                Some(pick) => (RESPONSES[pick], HeadKind::Response),
            };
            let mut bytes = head.as_bytes().to_vec();
            for _ in 0..=draw(2) {
                let at = draw(bytes.len());
                let until = at + draw(3).min(bytes.len() - at);
                // A line is more likely to matter where a line may stand.
                let starts = (1..bytes.len()).filter(|at| bytes[at - 1] == b'\n');
                let at_line = draw(2) == 0;
                let line = starts.clone().nth(draw(starts.count().max(1)));
                let place = if at_line { line.map_or(0..0, |at| at..at) } else { at..until };
                bytes.splice(place, PIECES[draw(PIECES.len())].iter().copied());
            }
            plain += u32::from(is_plain(&bytes, kind, Limits::DEFAULT));
        }
        assert!((2_000..18_000).contains(&plain), "{plain} of 20000 are plain");
    }
}
