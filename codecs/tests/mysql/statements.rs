//! Prepared statements.

use super::kit::{LIMITS, Part, Taster};
use super::wire::*;
use netra_codecs::tap::Protocol;

fn prepared(id: u8, columns: u8, parameters: u8) -> Vec<u8> {
    vec![0, id, 0, 0, 0, columns, 0, parameters, 0, 0, 0, 0]
}

fn execute(id: u8, flags: u8) -> Part {
    command(0x17, [id, 0, 0, 0, flags, 1, 0, 0, 0])
}

#[test]
fn statements_are_known_by_their_id() {
    let told = told(
        USUAL,
        &[
            command(0x16, b"SELECT a FROM t WHERE a = ?"),
            answer(&[&prepared(1, 1, 1), COLUMN, &eof(2), COLUMN, &eof(2)]),
            command(0x16, b"INSERT INTO u VALUES (?, 's3cret')"),
            answer(&[&prepared(2, 0, 2), COLUMN, COLUMN, &eof(2)]),
            command(0x16, b"COMMIT"),
            answer(&[&prepared(3, 0, 0)]),
            command(0x16, b"SELECT a FROM nowhere"),
            answer(&[ERR]),
            // Rows are binary, and begin with a zero as OK does.
            execute(1, 0),
            answer(&[b"\x01", COLUMN, &eof(2), b"\0\0\x06s3cret", &eof(2)]),
            command(0x18, b"\x02\0\0\0\0\0s3cret"),
            execute(2, 0),
            answer(&[&ok(2)]),
            // A cursor: rows come by themselves.
            execute(1, 1),
            answer(&[b"\x01", COLUMN, &eof(2 | CURSOR)]),
            command(0x1c, b"\x01\0\0\0\x64\0\0\0"),
            answer(&[b"\0\0\x06s3cret", b"\0\0\x01b", &eof(2 | CURSOR)]),
            command(0x1a, b"\x01\0\0\0"),
            answer(&[&ok(2)]),
            command(0x19, b"\x01\0\0\0"),
            execute(1, 0),
            answer(&[ERR]),
            execute(9, 0),
            answer(&[ERR]),
            command(0x1f, b""),
            answer(&[&ok(2)]),
            execute(2, 0),
            answer(&[ERR]),
        ],
    );
    let opened: Vec<_> = told.iter().filter_map(|line| line.strip_prefix("open ")).collect();
    assert_eq!(
        opened,
        [
            "1 request COM_STMT_PREPARE SELECT t",
            "2 request COM_STMT_PREPARE INSERT u",
            "3 request COM_STMT_PREPARE COMMIT",
            "4 request COM_STMT_PREPARE SELECT nowhere",
            "5 request SELECT t",
            "6 oneway COM_STMT_SEND_LONG_DATA INSERT u",
            "7 request INSERT u",
            "8 request SELECT t",
            "9 request SELECT t",
            "10 request COM_STMT_RESET SELECT t",
            "11 oneway COM_STMT_CLOSE SELECT t",
            "12 request COM_STMT_EXECUTE",
            "13 request COM_STMT_EXECUTE",
            "14 request COM_RESET_CONNECTION",
            "15 request COM_STMT_EXECUTE",
        ]
    );
    assert_eq!(done(&told).len(), 15);
    assert_eq!(tunnel(&told), None);
}

/// A client that never closes what it prepared costs no more than the limit.
#[test]
fn too_many_statements_are_forgotten() {
    let mut taster = Taster::new(Protocol::Mysql, LIMITS);
    session(USUAL).iter().for_each(|part| taster.show(part));
    for id in 1..=2000_u32 {
        let text = format!("SELECT a FROM table_{id}");
        let prepared = [&[0][..], &id.to_le_bytes(), &[0; 7]].concat();
        taster.show(&command(0x16, text));
        taster.show(&answer(&[&prepared]));
    }
    assert!(taster.held_most <= 256 * 64 + 64, "{}", taster.held_most);
    for (id, is_known) in [(1, false), (1000, false), (1745, true), (2000, true)] {
        let before = taster.told.len();
        let id = u32::to_le_bytes(id);
        taster.show(&command(0x17, [&id[..], &[0, 1, 0, 0, 0]].concat()));
        assert_eq!(taster.told[before].contains("SELECT table_"), is_known, "{id:?}");
        taster.show(&answer(&[&ok(2)]));
    }
}

/// MariaDB's clients need not wait for the id.
#[test]
fn the_last_statement_has_an_id_of_its_own() {
    let told = told(
        USUAL,
        &[
            command(0x16, b"DELETE FROM v"),
            command(0x17, [0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0]),
            answer(&[&prepared(7, 0, 0)]),
            answer(&[&ok(2)]),
            command(0xfa, b"\x07\0\0\0\x80\0"),
            answer(&[&ok(2)]),
        ],
    );
    let opened: Vec<_> = told.iter().filter_map(|line| line.strip_prefix("open ")).collect();
    let expected =
        ["1 request COM_STMT_PREPARE DELETE v", "2 request DELETE v", "3 request DELETE v"];
    assert_eq!(opened, expected);
    assert_eq!(done(&told).len(), 3);
}
