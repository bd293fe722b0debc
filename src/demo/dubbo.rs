//! As much of Dubbo 2 as the demo asks for: a service with one method from string to string, and a
//! call of it. <https://dubbo.apache.org/en/overview/reference/protocols/tcp/>

use std::io::{self, Read, Write};
use std::net::TcpStream;

const MAGIC: [u8; 2] = [0xda, 0xbb];
/// A request that wants an answer, its body by hessian2.
const CALL: u8 = 0x80 | 0x40 | HESSIAN2;
const HESSIAN2: u8 = 2;
const OK: u8 = 20;
const SERVICE_NOT_FOUND: u8 = 60;
/// In front of a value that is returned: the int 1.
const RETURNED: u8 = 0x91;
const BODY_BYTES_MAX: usize = 4 << 10;

/// What is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    pub(super) interface: &'static str,
    pub(super) name: &'static str,
}

/// A frame: what the head says, and the body.
#[derive(Debug, PartialEq)]
struct Frame {
    flags: u8,
    status: u8,
    id: u64,
    body: Vec<u8>,
}

/// Serves a connection: the method answers with what `value_of` makes of its argument.
pub(super) fn converse(
    mut stream: &TcpStream,
    method: Method,
    value_of: impl Fn(&str) -> Option<&'static str>,
) -> io::Result<()> {
    while let Some(Frame { flags, id, body, .. }) = read(&mut stream)? {
        let value = (flags == CALL).then(|| argument(&body, method)).flatten();
        let (status, body) = match value.and_then(|argument| value_of(&argument)) {
            Some(value) => (OK, [&[RETURNED], &string(value)[..]].concat()),
            None => (SERVICE_NOT_FOUND, string("this service only has one method")),
        };
        let answer = Frame { flags: HESSIAN2, status, id, body };
        stream.write_all(&answer.bytes())?;
    }
    Ok(())
}

/// Calls the method, with these attachments.
pub(super) fn call(
    mut stream: &TcpStream,
    method: Method,
    argument: &str,
    attachments: &[(&str, &str)],
) -> io::Result<String> {
    let Method { interface, name } = method;
    let head = ["2.0.2", interface, "0.0.0", name, "Ljava/lang/String;", argument];
    let mut body: Vec<u8> = head.iter().flat_map(|text| string(text)).collect();
    body.push(b'H');
    for (key, value) in attachments {
        body.extend([string(key), string(value)].concat());
    }
    body.push(b'Z');
    stream.write_all(&Frame { flags: CALL, status: 0, id: 1, body }.bytes())?;
    let answer = read(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let odd = || io::Error::other(format!("{interface}/{name} is answered with {answer:?}"));
    match answer.body.split_first() {
        Some((&RETURNED, mut value)) if answer.status == OK => take(&mut value).ok_or_else(odd),
        _ => Err(odd()),
    }
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let Self { flags, status, id, body } = self;
        // Bodies are made here, and they are short.
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let [m0, m1] = MAGIC;
        [&[m0, m1, *flags, *status], &id.to_be_bytes()[..], &len.to_be_bytes(), body].concat()
    }
}

/// A frame; none at the end of the stream.
fn read(reader: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; 16];
    if reader.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut head[1..])?;
    let [m0, m1, flags, status, rest @ ..] = head;
    let (id, len) = (&rest[..8], &rest[8..]);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let len = usize::try_from(number(len)).ok().filter(|len| *len <= BODY_BYTES_MAX);
    let Some(len) = len.filter(|_| [m0, m1] == MAGIC) else {
        return Err(io::Error::other(format!("no Dubbo of ours: {head:?}")));
    };
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(Some(Frame { flags, status, id: number(id), body }))
}

/// The argument of a call of this method.
fn argument(mut body: &[u8], Method { interface, name }: Method) -> Option<String> {
    let [_version, called, _of_service, method, _types, argument] =
        std::array::from_fn(|_| take(&mut body));
    let is_it = called? == interface && method? == name;
    argument.filter(|_| is_it)
}

/// A string by hessian2: a length of one byte up to 31, of two up to 1023. The demo's are ASCII, of
/// which characters, which hessian2 counts, are bytes.
fn string(text: &str) -> Vec<u8> {
    let len = text.len().min(1023);
    let [high, low] = u16::try_from(len).unwrap_or_default().to_be_bytes();
    let head = if len < 32 { vec![low] } else { vec![0x30 + high, low] };
    [&head[..], &text.as_bytes()[..len]].concat()
}

/// Takes a string away from the beginning.
fn take(bytes: &mut &[u8]) -> Option<String> {
    let (len, rest) = match **bytes {
        [len @ ..=31, ref rest @ ..] => (usize::from(len), rest),
        [high @ 0x30..=0x33, low, ref rest @ ..] => {
            (usize::from(high - 0x30) << 8 | usize::from(low), rest)
        }
        _ => return None,
    };
    let (text, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_either_length() {
        for len in [0, 31, 32, 300, 1023] {
            let text = "x".repeat(len);
            let mut bytes = &[&string(&text)[..], b"rest"].concat()[..];
            assert_eq!(take(&mut bytes).unwrap(), text);
            assert_eq!(bytes, b"rest");
        }
        assert_eq!(string("tea"), b"\x03tea");
        assert_eq!(string(&"x".repeat(0x123))[..3], [0x31, 0x23, b'x']);
        assert_eq!(take(&mut &b"\x03te"[..]), None);
    }

    #[test]
    fn frames() {
        let frame = Frame { flags: CALL, status: 0, id: 0x0102, body: b"\x03tea".to_vec() };
        let bytes = frame.bytes();
        assert_eq!(bytes, b"\xda\xbb\xc2\0\0\0\0\0\0\0\x01\x02\0\0\0\x04\x03tea");
        assert_eq!(read(&mut &bytes[..]).unwrap().unwrap(), frame);
        assert!(read(&mut &b""[..]).unwrap().is_none());
        for len in 1..bytes.len() {
            assert!(read(&mut &bytes[..len]).is_err(), "{len} bytes");
        }
        for (at, byte) in [(0, 0xdb), (12, 1)] {
            let mut odd = bytes.clone();
            odd[at] = byte;
            assert!(read(&mut &odd[..]).is_err(), "byte {at}");
        }
    }

    #[test]
    fn another_method_is_not_there() {
        let body: Vec<u8> = ["2.0.2", "demo.Price", "0.0.0", "of", "Ljava/lang/String;", "tea"]
            .map(string)
            .concat();
        let of = |interface, name| argument(&body, Method { interface, name });
        assert_eq!(of("demo.Price", "of").as_deref(), Some("tea"));
        assert_eq!(of("demo.Price", "is"), None);
        assert_eq!(of("demo.Prices", "of"), None);
        assert_eq!(argument(&body[..20], Method { interface: "demo.Price", name: "of" }), None);
    }
}
