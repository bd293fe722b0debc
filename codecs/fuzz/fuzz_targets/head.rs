//! Any bytes as a head: the scan gives the same answer however they are cut, and a head that is
//! taken is ranges of its own bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netra_codecs::Limits;
use netra_codecs::h1::{HeadKind, HeadPatch, HeadReader, HeadScan, Scanned};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let kind = if choice & 1 == 0 { HeadKind::Request } else { HeadKind::Response };
    let whole = HeadScan::default().scan(bytes, kind, &Limits::DEFAULT);
    let step = 1 + usize::from(choice >> 1);
    let mut scan = HeadScan::default();
    let mut dripped = Ok(Scanned::Partial);
    for len in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
        dripped = scan.scan(&bytes[..len], kind, &Limits::DEFAULT);
        if dripped != Ok(Scanned::Partial) {
            break;
        }
    }
    assert_eq!(whole, dripped);
    let Ok(Scanned::Complete(len)) = whole else { return };
    let bytes = &bytes[..len];
    assert!(bytes.ends_with(b"\r\n\r\n"));
    let mut reader = HeadReader::new(Limits::DEFAULT);
    let fields = match kind {
        HeadKind::Request => reader.request(bytes).map(|head| head.fields()),
        HeadKind::Response => reader.response(bytes).map(|head| head.fields()),
    };
    let Ok(fields) = fields else { return };
    // Start line, lines and empty line are the head, without gap or overlap.
    let mut at = memchr(bytes) + 1;
    for index in 0..fields.len() {
        let field = fields.at(index);
        assert_eq!(field.line.start, at);
        assert!(field.name_end < field.value.start && field.value.end <= field.line.end - 2);
        assert_eq!(bytes[field.name_end], b':');
        at = field.line.end;
    }
    assert_eq!(&bytes[at..], b"\r\n");
    check_patch(bytes, kind);
});

/// A patched head is a head: the same fields, and the one that was set exactly once.
fn check_patch(bytes: &[u8], kind: HeadKind) {
    let mut reader = HeadReader::new(Limits::DEFAULT);
    if kind == HeadKind::Response {
        return;
    }
    let head = reader.request(bytes).expect("read before");
    let mut patch = HeadPatch::new();
    if patch.set(head.fields(), b"x-source", b"netra").is_err() {
        return;
    }
    let kept: Vec<(Vec<u8>, Vec<u8>)> = others(head.fields().iter());
    let patched: Vec<u8> = patch.pieces(bytes).flat_map(|piece| piece.bytes().to_vec()).collect();
    assert_eq!(patched.len(), patch.patched_len(bytes.len()));
    let limits = Limits { head_bytes_max: 1 << 20, ..Limits::DEFAULT };
    let mut reader = HeadReader::new(limits);
    let Ok(again) = reader.request(&patched) else {
        assert_eq!(kept.len(), 256, "only one field too many");
        return;
    };
    assert_eq!(others(again.fields().iter()), kept);
    let set: Vec<_> = again.fields().named(b"x-source").collect();
    assert_eq!(set, [b"netra"]);
}

fn others<'h>(fields: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let other = fields.filter(|(name, _)| !name.eq_ignore_ascii_case(b"x-source"));
    other.map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

fn memchr(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| byte == b'\n').expect("a start line ends")
}
