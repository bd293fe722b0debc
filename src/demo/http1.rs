//! As much HTTP/1 as the demo's services and their client speak: heads, and bodies with a length.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

const HEAD_BYTES_MAX: u64 = 16 << 10;
const BODY_BYTES_MAX: usize = 64 << 10;

/// A response.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// A head as it came, with the empty line; none at the end of the stream.
pub(super) fn head(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = String::new();
    let mut limited = reader.take(HEAD_BYTES_MAX);
    while !head.ends_with("\r\n\r\n") {
        if limited.read_line(&mut head)? == 0 {
            let cut = io::Error::other("a head without end");
            return if head.is_empty() { Ok(None) } else { Err(cut) };
        }
    }
    Ok(Some(head))
}

/// The value of the first field of this name.
pub(super) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut named = fields.filter(|(found, _)| found.eq_ignore_ascii_case(name));
    named.next().map(|(_, value)| value.trim())
}

/// Sends a request without a body, and waits for its response.
pub(super) fn ask(reader: &mut BufReader<&TcpStream>, request: &str) -> io::Result<Answer> {
    let mut stream = *reader.get_ref();
    stream.write_all(request.as_bytes())?;
    let head = head(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let len = field(&head, "Content-Length").and_then(|len| len.parse().ok());
    let (Some(status), Some(len @ ..=BODY_BYTES_MAX)) = (status, len) else {
        return Err(io::Error::other(format!("no answer of ours: {head}")));
    };
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}
