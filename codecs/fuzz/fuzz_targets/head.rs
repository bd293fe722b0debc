//! Any bytes as a head: the scan gives the same answer however they are cut, and a head that is
//! taken is ranges of its own bytes, the same whichever way it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netra_codecs::Limits;
use netra_codecs::h1::{
    Exchanges, HeadKind, HeadPatch, HeadReader, HeadScan, RequestHalf, RequestKind, RequestStep,
    ResponseHalf, ResponseStep, Scanned,
};

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
    check_half(bytes, kind);
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

/// A half reads a head that came whole in one pass if it can: as the reader does, which takes two.
fn check_half(bytes: &[u8], kind: HeadKind) {
    let (mut quick, mut slow) =
        (HeadReader::new(Limits::DEFAULT), HeadReader::new(Limits::DEFAULT));
    let mut exchanges = Exchanges::<()>::new();
    let (mut gate, mut tap) = (RequestHalf::new(), ResponseHalf::new());
    let (one, two) = match kind {
        HeadKind::Request => {
            let read = slow.request(bytes);
            match gate.step(bytes, &mut quick, &mut exchanges, 0) {
                RequestStep::Head { head, .. } => {
                    let read = read.expect("a head to both");
                    assert_eq!((head.method(), head.target()), (read.method(), read.target()));
                    assert_eq!((head.version(), head.kind()), (read.version(), read.kind()));
                    assert_eq!(head.framing(), read.framing());
                    assert_eq!(head.asks_to_switch(), read.asks_to_switch());
                    assert_eq!(head.host(), read.host());
                    (head.fields(), read.fields())
                }
                step => return assert!(read.is_err(), "{step:?}"),
            }
        }
        HeadKind::Response => {
            let ask = b"GET / HTTP/1.1\r\n\r\n";
            assert!(matches!(
                gate.step(ask, &mut quick, &mut exchanges, 0),
                RequestStep::Head { .. }
            ));
            let read = slow.response(bytes);
            match tap.step(bytes, &mut quick, &mut exchanges) {
                ResponseStep::Head { head, .. } => {
                    let read = read.expect("a head to both");
                    assert_eq!((head.status(), head.version()), (read.status(), read.version()));
                    for kind in [RequestKind::Ordinary, RequestKind::Head, RequestKind::Connect] {
                        assert_eq!(head.framing(kind), read.framing(kind));
                    }
                    (head.fields(), read.fields())
                }
                step => {
                    let framing = read.and_then(|head| head.framing(RequestKind::Ordinary));
                    return assert!(framing.is_err(), "{step:?}");
                }
            }
        }
    };
    assert_eq!(one.len(), two.len());
    assert!((0..one.len()).all(|index| one.at(index) == two.at(index)));
}

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
