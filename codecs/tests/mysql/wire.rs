//! Packets of MySQL, and what is said of them.

#![allow(unreachable_pub)]

use super::kit::{Part, Pieces, ask, say, tell};
use netra_codecs::tap::Protocol;

pub const MYSQL: u64 = 1;
pub const CONNECT_WITH_DB: u64 = 1 << 3;
pub const COMPRESS: u64 = 1 << 5;
pub const PROTOCOL_41: u64 = 1 << 9;
pub const SSL: u64 = 1 << 11;
pub const SECURE: u64 = 1 << 15;
pub const LENENC_AUTH: u64 = 1 << 21;
pub const DEPRECATE_EOF: u64 = 1 << 24;
pub const OPTIONAL_METADATA: u64 = 1 << 25;
pub const ZSTD: u64 = 1 << 26;
pub const ATTRIBUTES: u64 = 1 << 27;
pub const CACHED_METADATA: u64 = 1 << 36;
pub const USUAL: u64 = MYSQL | CONNECT_WITH_DB | PROTOCOL_41 | SECURE;

pub const AUTOCOMMIT: u16 = 2;
pub const MORE: u16 = 8;
pub const CURSOR: u16 = 0x40;

pub fn packet(sequence: usize, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = u32::try_from(payload.len()).unwrap().to_le_bytes()[..3].to_vec();
    bytes.push(u8::try_from(sequence % 256).unwrap());
    bytes.extend(payload);
    bytes
}

/// Packets of an answer, numbered from 1 on.
pub fn answer(payloads: &[&[u8]]) -> Part {
    numbered(1, payloads)
}

pub fn numbered(first: usize, payloads: &[&[u8]]) -> Part {
    say((first..).zip(payloads).flat_map(|(at, it)| packet(at, it)).collect::<Vec<_>>())
}

pub fn command(number: u8, rest: impl AsRef<[u8]>) -> Part {
    ask(packet(0, [&[number][..], rest.as_ref()].concat()))
}

pub fn query(text: &str) -> Part {
    command(3, text)
}

pub fn ok(status: u16) -> Vec<u8> {
    ending(0, status)
}

pub fn ending(first: u8, status: u16) -> Vec<u8> {
    [&[first, 0, 0][..], &status.to_le_bytes(), &[0, 0]].concat()
}

pub fn eof(status: u16) -> Vec<u8> {
    [&[0xfe, 0, 0][..], &status.to_le_bytes()].concat()
}

pub const ERR: &[u8] = b"\xff\x7a\x04#42S02Table 's3cret' doesn't exist";
pub const COLUMN: &[u8] = b"\x03def\x01t\x01t\x01t\x01a\x01a\x0c\x3f\0\x0b\0\0\0\x03\0\0\0\0\0";
pub const ROW: &[u8] = b"\x06s3cret";

pub fn greeting(capabilities: u64) -> Part {
    let bits = capabilities.to_le_bytes();
    let head = [b"\x0a8.4.0\0\x07\0\0\0saltsalt\0", &bits[..2], b"\xff\x02\0", &bits[2..4]];
    let mariadb = if capabilities & MYSQL == 0 { &bits[4..] } else { &[0; 4] };
    let tail = [&b"\x15\0\0\0\0\0\0"[..], mariadb, b"saltsaltsalt\0caching_sha2_password\0"];
    say(packet(0, [head.concat(), tail.concat()].concat()))
}

pub fn login(capabilities: u64) -> Part {
    let bits = capabilities.to_le_bytes();
    let mariadb = if capabilities & MYSQL == 0 { &bits[4..] } else { &[0; 4] };
    let head = [&bits[..4], b"\0\0\0\x01\xff", &[0; 19], mariadb].concat();
    ask(packet(1, [&head[..], b"s3cret\0\x06s3cretshop\0plugin\0"].concat()))
}

/// A connection that has begun, with what both sides can.
pub fn session(capabilities: u64) -> Vec<Part> {
    let server = greeting(!SSL & !MYSQL | capabilities & MYSQL);
    vec![server, login(capabilities), numbered(2, &[&ok(AUTOCOMMIT)])]
}

pub fn with(capabilities: u64, parts: &[Part]) -> Vec<Part> {
    [&session(capabilities)[..], parts].concat()
}

/// What is said, in any pieces, of what follows the beginning.
pub fn told(capabilities: u64, parts: &[Part]) -> Vec<String> {
    let all = said(&with(capabilities, parts));
    assert_eq!(all[..2], ["aside push", "open 0 handshake login database=shop"]);
    assert!(all[2].starts_with("done 0 handshake login ok"), "{all:?}");
    // The database in use comes with every request.
    let open = |line: &String| line.replace(" database=shop", "");
    all[3..].iter().map(open).collect()
}

pub fn said(parts: &[Part]) -> Vec<String> {
    let whole = tell(Protocol::Mysql, parts, Pieces::Whole);
    for pieces in [Pieces::Of(1), Pieces::Of(3), Pieces::Of(7), Pieces::Passing] {
        assert_eq!(tell(Protocol::Mysql, parts, pieces), whole, "{pieces:?}");
    }
    let text = whole.join("\n");
    assert!(!text.contains("s3cret"), "{text}");
    whole
}

pub fn done(told: &[String]) -> Vec<&str> {
    told.iter().filter(|line| line.starts_with("done")).map(|line| &line[5..]).collect()
}

pub fn tunnel(told: &[String]) -> Option<&str> {
    told.iter().find_map(|line| line.strip_prefix("tunnel "))
}
