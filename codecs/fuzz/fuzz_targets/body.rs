//! Any bytes as a body: cuts and unseen passing change nothing, and what is taken for a whole
//! chunked body decodes by plain rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netra_codecs::Limits;
use netra_codecs::h1::{Advance, BodyCursor, Framing};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let framing = match choice & 3 {
        0 => Framing::Length(u64::from(choice)),
        _ => Framing::Chunked,
    };
    let limits = Limits { chunk_extension_bytes_max: 40, trailer_bytes_max: 60, ..Limits::DEFAULT };
    let whole = BodyCursor::new(framing, &limits).advance(bytes);
    let size = 1 + usize::from(choice >> 2);
    for unseen in [false, true] {
        assert_eq!(whole, cut(framing, &limits, bytes, size, unseen));
    }
    if let (Advance::End(end), Framing::Chunked) = (whole, framing) {
        assert_eq!(plain_end(bytes), Some(end));
    }
});

fn cut(framing: Framing, limits: &Limits, bytes: &[u8], size: usize, unseen: bool) -> Advance {
    let mut cursor = BodyCursor::new(framing, limits);
    let mut taken = 0;
    for piece in bytes.chunks(size) {
        let pass = if unseen { (cursor.passable() as usize).min(piece.len()) } else { 0 };
        cursor.pass(pass as u64);
        match cursor.advance(&piece[pass..]) {
            Advance::More => {}
            Advance::End(count) => return Advance::End(taken + pass + count),
            Advance::Bad(count, reason) => return Advance::Bad(taken + pass + count, reason),
        }
        taken += piece.len();
    }
    if cursor.is_end() { Advance::End(taken) } else { Advance::More }
}

/// The end of a chunked body, found by splitting at CRLF.
fn plain_end(bytes: &[u8]) -> Option<usize> {
    let line_at = |at: usize| {
        let len = bytes[at..].windows(2).position(|two| two == b"\r\n")?;
        Some((&bytes[at..at + len], at + len + 2))
    };
    let mut at = 0;
    loop {
        let (line, after) = line_at(at)?;
        let size = line.split(|&byte| byte == b';').next()?;
        let size = usize::from_str_radix(str::from_utf8(size).ok()?, 16).ok()?;
        at = after;
        if size == 0 {
            break;
        }
        if bytes.get(at + size..at + size + 2) != Some(b"\r\n") {
            return None;
        }
        at += size + 2;
    }
    loop {
        let (line, after) = line_at(at)?;
        at = after;
        if line.is_empty() {
            return Some(at);
        }
        line.iter().position(|&byte| byte == b':').filter(|&colon| colon > 0)?;
    }
}
