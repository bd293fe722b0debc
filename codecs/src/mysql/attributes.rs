//! Attributes of a query: what a client tells beside its text, trace contexts among it.
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query.html>

use super::wire::{Bytes, HEAD};
use crate::codec::Pair;

/// Attributes of one query that are read.
const COUNT_MAX: u64 = 64;

/// Where the text begins in the head of a query; None where that is further behind.
pub(super) fn text_at(head: &[u8]) -> Option<usize> {
    let at = walk(head, &mut |_| {})?;
    (at <= head.len()).then_some(at)
}

/// The attributes that are strings.
pub(super) fn pairs<'b>(head: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
    walk(head, take);
}

/// Through names and types, and the values behind them.
fn walk<'b>(head: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) -> Option<usize> {
    let mut names = Bytes::new(head, HEAD + 1);
    let (count, sets) = (names.counted()?, names.counted()?);
    if sets != 1 || count > COUNT_MAX {
        return None;
    }
    let nulls = names.take(crate::codec::size(count.div_ceil(8)))?;
    // Names and types are there.
    if names.number(1)? != 1 {
        return None;
    }
    let mut values = names;
    for _ in 0..count {
        values.number(2)?;
        values.string()?;
    }
    for index in 0..crate::codec::size(count) {
        let kind = names.number(2)?;
        let name = names.string()?;
        if nulls[index / 8] >> (index % 8) & 1 == 1 {
            continue;
        }
        if let Some(value) = read_value(&mut values, kind & 0xff)? {
            take((name, value));
        }
    }
    Some(values.at())
}

/// A value by its type, if it is a string.
#[allow(clippy::option_option, reason = "none is there, or none of interest")]
fn read_value<'b>(bytes: &mut Bytes<'b>, kind: u64) -> Option<Option<&'b [u8]>> {
    let len = match kind {
        // TINY; SHORT, YEAR; LONG, FLOAT, INT24; DOUBLE, LONGLONG; NULL.
        1 => 1,
        2 | 13 => 2,
        3 | 4 | 9 => 4,
        5 | 8 => 8,
        6 => 0,
        // TIMESTAMP, DATE, TIME, DATETIME say how long they are.
        7 | 10 | 11 | 12 => crate::codec::size(bytes.number(1)?),
        _ => return Some(Some(bytes.string()?)),
    };
    bytes.take(len)?;
    Some(None)
}
