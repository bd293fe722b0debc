//! The headers of records, where a batch of them lies within what is read.
//!
//! <https://kafka.apache.org/documentation/#recordbatch>: batches of version 2 whose records are not
//! compressed. Keys and values are walked over. One call may carry records of many requests: a
//! context is told only where all of its records are read and are of one trace.

use crate::codec::Pair;
use crate::trace::{extract, may_be_trace};

/// Where a batch says how its records are packed, and where they begin.
const ATTRIBUTES_AT: usize = 21;
const COMPRESSION: u16 = 7;
const RECORDS_AT: usize = 61;
/// Records of one batch that are compared: as many as have room in what is read.
const RECORDS_MAX: u32 = 32;

/// The headers of a trace that the first of `count` records has, all of which are in this batch.
pub(super) fn pairs<'b>(batch: &'b [u8], count: u32, take: &mut dyn FnMut(Pair<'b>)) {
    let Some(first) = first_of_one_trace(batch, count) else { return };
    first.filter(|(name, _)| may_be_trace(name)).for_each(take);
}

fn first_of_one_trace(batch: &[u8], count: u32) -> Option<Headers<'_>> {
    let attributes = u16::from_be_bytes(*batch.get(ATTRIBUTES_AT..)?.first_chunk()?);
    if attributes & COMPRESSION != 0 || !(1..=RECORDS_MAX).contains(&count) {
        return None;
    }
    let mut bytes = Bytes { rest: batch.get(RECORDS_AT..)? };
    let first = bytes.headers()?;
    let trace = |headers: &Headers<'_>| Some(extract(headers.clone()).context?.trace_id);
    let wanted = trace(&first)?;
    for _ in 1..count {
        if trace(&bytes.headers()?)? != wanted {
            return None;
        }
    }
    Some(first)
}

/// The bytes that are not read yet.
#[derive(Clone, Debug)]
struct Bytes<'b> {
    rest: &'b [u8],
}

impl<'b> Bytes<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// A number in groups of seven bits, the lowest first, whose lowest bit is its sign.
    fn number(&mut self) -> Option<i64> {
        let mut value = 0_u64;
        for shift in 0..10 {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        None
    }

    /// Bytes behind their length; of null, none.
    fn sized(&mut self) -> Option<&'b [u8]> {
        match self.number()? {
            -1 => Some(b""),
            len => self.take(usize::try_from(len).ok()?),
        }
    }

    /// The next record, which has to be here to its end.
    fn headers(&mut self) -> Option<Headers<'b>> {
        let mut record = Bytes { rest: self.sized()? };
        record.take(1)?;
        // Its time, and its place in the batch.
        record.number()?;
        record.number()?;
        record.sized()?;
        record.sized()?;
        let count = u32::try_from(record.number()?).ok()?;
        Some(Headers { rest: record, count })
    }
}

/// Names and values of one record.
#[derive(Clone, Debug)]
struct Headers<'b> {
    rest: Bytes<'b>,
    count: u32,
}

impl<'b> Iterator for Headers<'b> {
    type Item = Pair<'b>;

    fn next(&mut self) -> Option<Pair<'b>> {
        self.count = self.count.checked_sub(1)?;
        Some((self.rest.sized()?, self.rest.sized()?))
    }
}
