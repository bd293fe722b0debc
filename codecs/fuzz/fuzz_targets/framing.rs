//! Any field lines: framing is certain only where a slow, plain reading of RFC 9112 section 6
//! finds exactly one way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netra_codecs::Limits;
use netra_codecs::h1::{Framing, HeadReader, RequestKind};

fuzz_target!(|lines: &[u8]| {
    let request = [b"POST / HTTP/1.1\r\n", lines, b"\r\n\r\n"].concat();
    let response = [b"HTTP/1.1 200 OK\r\n", lines, b"\r\n\r\n"].concat();
    let mut reader = HeadReader::new(Limits::DEFAULT);
    if let Ok(head) = reader.request(&request) {
        let expected = plain(&request).expect("framing of what is not certain");
        assert_eq!(head.framing(), expected.unwrap_or(Framing::Length(0)));
    }
    let Ok(head) = reader.response(&response) else { return };
    assert_eq!(head.framing(RequestKind::Head), Ok(Framing::Length(0)));
    if let Ok(framing) = head.framing(RequestKind::Ordinary) {
        let expected = plain(&response).expect("framing of what is not certain");
        assert_eq!(framing, expected.unwrap_or(Framing::UntilClose));
    }
});

/// None when there is doubt; Some(None) when nothing is declared.
fn plain(head: &[u8]) -> Option<Option<Framing>> {
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let mut framing = None;
    for line in text.split("\r\n").skip(1).filter(|line| !line.is_empty()) {
        if line.contains(['\r', '\n', '\0']) || line.starts_with([' ', '\t']) {
            return None;
        }
        let (name, value) = line.split_once(':')?;
        let name = name.to_ascii_lowercase().replace('_', "-");
        let value = value.trim_matches([' ', '\t']);
        let declared = match name.trim() {
            "content-length" => {
                let length: u64 = value.parse().ok()?;
                if length.to_string() != value || length > i64::MAX as u64 {
                    return None;
                }
                Framing::Length(length)
            }
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => Framing::Chunked,
            "transfer-encoding" => return None,
            _ => continue,
        };
        if framing.replace(declared).is_some() {
            return None;
        }
    }
    Some(framing)
}
