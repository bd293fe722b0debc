//! Finding the end of a head that comes in pieces, without looking at a byte twice.

use memchr::memchr3;

use crate::h1::Reason;
use crate::limits::{HEADERS_CAP, Limits};

/// Which kind of head is being looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// Begins with a request line.
    Request,
    /// Begins with a status line.
    Response,
}

/// What a scan has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// No end of head yet: more bytes are needed.
    Partial,
    /// The head ends before this offset; its final empty line is included.
    Complete(usize),
}

/// The place up to which a head has been scanned.
///
/// Each call is given all bytes of the head so far and goes on where the last one stopped, so a
/// head that drips in byte by byte is scanned once, not once for each byte. The answer depends on
/// the bytes alone, never on how they were cut. What no head may contain is refused as soon as it
/// is seen, so that a protocol other than HTTP is not waited for.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// Bytes before this offset need no second look.
    seen: u32,
    /// Where the current line begins.
    line: u32,
    /// Header fields so far.
    fields: u16,
    /// Whether the beginning of the start line has been found good.
    started: bool,
}

impl HeadScan {
    /// Looks for the end of the head in `head`, which begins at the first byte of the head and
    /// holds at least the bytes of the call before.
    ///
    /// # Errors
    /// The reason for which these bytes are no head that netra will touch.
    pub fn scan(
        &mut self,
        head: &[u8],
        kind: HeadKind,
        limits: &Limits,
    ) -> Result<Scanned, Reason> {
        let max = limits.head_bytes_max as usize;
        let head = &head[..head.len().min(max)];
        if !self.started {
            self.started = check_start(head, kind, limits)?;
        }
        loop {
            self.check_line_start(head)?;
            let from = self.seen as usize;
            let Some(found) = memchr3(b'\r', b'\n', 0, &head[from..]) else {
                self.seen = offset(head.len());
                break;
            };
            let at = from + found;
            match (head[at], head.get(at + 1)) {
                (0, _) => return Err(Reason::Nul),
                (b'\n', _) => return Err(Reason::BareLf),
                (_, None) => {
                    // The LF may be the next byte to come: look at this CR again.
                    self.seen = offset(at);
                    break;
                }
                (_, Some(b'\n')) => {
                    if self.end_line(&head[self.line as usize..at], kind, limits)? {
                        return Ok(Scanned::Complete(at + 2));
                    }
                    self.line = offset(at + 2);
                    self.seen = self.line;
                }
                // RFC 9112 §2.2: a bare CR is invalid, or to be read as a blank: two readings.
                (_, Some(_)) => return Err(Reason::BareCr),
            }
        }
        if head.len() == max { Err(Reason::HeadTooLong) } else { Ok(Scanned::Partial) }
    }

    /// RFC 9112 §5.2: a line that begins with a blank continues the one before. Parsers disagree
    /// about what it then says.
    fn check_line_start(&self, head: &[u8]) -> Result<(), Reason> {
        let at_start = self.line > 0 && self.seen == self.line;
        match head.get(self.line as usize) {
            Some(b' ' | b'\t') if at_start => Err(Reason::ObsFold),
            _ => Ok(()),
        }
    }

    /// Takes one line, without its CRLF. True when it was the empty one that ends the head.
    fn end_line(&mut self, line: &[u8], kind: HeadKind, limits: &Limits) -> Result<bool, Reason> {
        if self.line == 0 {
            return check_start_line(line, kind).map(|()| false);
        }
        if line.is_empty() {
            return Ok(true);
        }
        if usize::from(self.fields) >= usize::from(limits.headers_max).min(HEADERS_CAP) {
            return Err(Reason::TooManyFields);
        }
        self.fields += 1;
        Ok(false)
    }
}

/// Heads are bounded by a 32-bit limit, so an offset in one always fits.
#[allow(clippy::cast_possible_truncation)]
fn offset(at: usize) -> u32 {
    at as u32
}

/// Judges the first bytes of a head. True when nothing more is to be learnt from the start, false
/// when more bytes are needed.
fn check_start(head: &[u8], kind: HeadKind, limits: &Limits) -> Result<bool, Reason> {
    match kind {
        HeadKind::Request => check_request_start(head, usize::from(limits.method_bytes_max)),
        HeadKind::Response => check_response_start(head),
    }
}

/// RFC 9112 §3: method, one blank, and a target in one of its four forms.
fn check_request_start(head: &[u8], method_max: usize) -> Result<bool, Reason> {
    // A TLS handshake record begins with its type, 22.
    if head.first() == Some(&0x16) {
        return Err(Reason::Tls);
    }
    let Some(end) = head.iter().position(|&byte| !is_token_byte(byte)) else {
        return if head.len() > method_max { Err(Reason::NotHttp) } else { Ok(false) };
    };
    if head[end] != b' ' || end == 0 || end > method_max {
        return Err(Reason::NotHttp);
    }
    // RFC 9113 §3.4: the method PRI is reserved for the preface of HTTP/2.
    if &head[..end] == b"PRI" {
        return Err(Reason::Http2Preface);
    }
    match head.get(end + 1) {
        None => Ok(false),
        Some(b'/' | b'*' | b'[') => Ok(true),
        Some(byte) if byte.is_ascii_alphanumeric() || *byte >= 0x80 => Ok(true),
        Some(_) => Err(Reason::NotHttp),
    }
}

fn check_response_start(head: &[u8]) -> Result<bool, Reason> {
    const START: &[u8] = b"HTTP/1.";
    let len = head.len().min(START.len());
    if head[..len] != START[..len] {
        return Err(Reason::BadStatusLine);
    }
    Ok(len == START.len())
}

/// A whole start line. A request line must say its version at once: text protocols with lines of
/// their own (`GET key`) would otherwise be held until something that looks like the end of a head.
fn check_start_line(line: &[u8], kind: HeadKind) -> Result<(), Reason> {
    if kind == HeadKind::Response {
        return Ok(());
    }
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
        _ if version.starts_with(b"HTTP/") => Err(Reason::BadVersion),
        _ => Err(Reason::NotHttp),
    }
}

/// RFC 9110 §5.6.2: the bytes of a token.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-')
            || matches!(byte, b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_all(bytes: &[u8], kind: HeadKind) -> Result<Scanned, Reason> {
        HeadScan::default().scan(bytes, kind, &Limits::DEFAULT)
    }

    /// Scans the bytes one after the other; also proves that each is refused or taken at the
    /// same place as in one go.
    fn scan_dripped(bytes: &[u8], kind: HeadKind) -> (usize, Result<Scanned, Reason>) {
        let mut scan = HeadScan::default();
        for len in 1..=bytes.len() {
            let answer = scan.scan(&bytes[..len], kind, &Limits::DEFAULT);
            if answer != Ok(Scanned::Partial) {
                return (len, answer);
            }
        }
        (bytes.len(), Ok(Scanned::Partial))
    }

    #[test]
    fn refuses_at_the_first_byte_that_tells() {
        use HeadKind::{Request, Response};
        for (kind, bytes, reason, at) in [
            (Request, &b"\x16\x03\x01\x02\x00"[..], Reason::Tls, 1),
            (Request, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reason::Http2Preface, 4),
            (Request, b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Reason::NotHttp, 1),
            (Request, b"SSH-2.0-OpenSSH_9.2\r\n", Reason::NotHttp, 20),
            (Request, b"*1\r\n$4\r\nPING\r\n", Reason::NotHttp, 3),
            (Request, b"get key\r\n", Reason::NotHttp, 9),
            (Request, b"GET /\r\n", Reason::NotHttp, 7),
            (Request, b" GET / HTTP/1.1\r\n", Reason::NotHttp, 1),
            (Request, b"GET  / HTTP/1.1\r\n", Reason::NotHttp, 5),
            (Request, b"GET / HTTP/2.0\r\n", Reason::BadVersion, 16),
            (Request, b"GET / HTTP/1.1 \r\n", Reason::NotHttp, 17),
            (Request, b"GET / HTTP/1.1\n", Reason::BareLf, 15),
            (Request, b"GET / HTTP/1.1\rX", Reason::BareCr, 16),
            (Request, b"GET / HTTP/1.1\r\nA: b\0", Reason::Nul, 21),
            (Request, b"GET / HTTP/1.1\r\nA: b\r\n c\r\n", Reason::ObsFold, 23),
            (Request, b"GET / HTTP/1.1\r\n\tA: b\r\n", Reason::ObsFold, 17),
            (Request, b"GET / HTTP/1.1\r\nA: b\r\n\n", Reason::BareLf, 23),
            (Response, b"HTTP/2", Reason::BadStatusLine, 6),
            (Response, b"220 mail ready\r\n", Reason::BadStatusLine, 1),
            (Response, b"HTTP/1.1 200 OK\n", Reason::BareLf, 16),
        ] {
            let text = bytes.escape_ascii();
            assert_eq!(scan_dripped(bytes, kind), (at, Err(reason)), "{text}");
            assert_eq!(scan_all(bytes, kind), Err(reason), "{text}");
        }
        let long = [b'A'; 40];
        assert_eq!(scan_dripped(&long, HeadKind::Request), (33, Err(Reason::NotHttp)));
    }

    #[test]
    fn finds_the_end_and_only_the_end() {
        for (kind, head) in [
            (HeadKind::Request, &b"GET / HTTP/1.1\r\n\r\n"[..]),
            (HeadKind::Request, b"OPTIONS * HTTP/1.0\r\nA:\r\nB: c\r\n\r\n"),
            (HeadKind::Request, b"CONNECT [::1]:80 HTTP/1.1\r\n\r\n"),
            (HeadKind::Response, b"HTTP/1.1 204\r\n\r\n"),
        ] {
            let done = Ok(Scanned::Complete(head.len()));
            assert_eq!(scan_all(head, kind), done);
            assert_eq!(scan_dripped(head, kind), (head.len(), done));
            assert_eq!(scan_all(&[head, b"rest\r\n\r\n"].concat(), kind), done);
        }
    }

    #[test]
    fn limits_hold_at_their_exact_value() {
        let limits = Limits { head_bytes_max: 40, headers_max: 2, ..Limits::DEFAULT };
        let scan = |bytes: &[u8]| HeadScan::default().scan(bytes, HeadKind::Request, &limits);
        let head = |pad: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(pad));
        assert_eq!(head(17).len(), 40);
        assert_eq!(scan(head(17).as_bytes()), Ok(Scanned::Complete(40)));
        assert_eq!(scan(head(18).as_bytes()), Err(Reason::HeadTooLong));
        assert_eq!(scan(&head(18).as_bytes()[..39]), Ok(Scanned::Partial));
        let two = b"GET / HTTP/1.1\r\nA:\r\nB:\r\n\r\n";
        assert_eq!(scan(two), Ok(Scanned::Complete(two.len())));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nA:\r\nB:\r\nC:\r\n"), Err(Reason::TooManyFields));
    }
}
