//! Through one value of RESP, whatever is in it, in any pieces.

use crate::codec::{Reason, size};

/// Values within values that are followed: clients of Redis go no deeper than 9.
const DEPTH_MAX: usize = 16;
/// Elements that an aggregate may say it has.
const COUNT_MAX: u32 = 1 << 30;
/// Digits of a length or a number.
const DIGITS_MAX: u8 = 19;

/// Where in a value: counters of what is still to come, and no bytes.
///
/// It walks `+ - : $ * _ # , ( ! = % ~ > |` of RESP2 and RESP3
/// (<https://redis.io/docs/latest/develop/reference/protocol-spec/>); strings and aggregates whose
/// length is not said beforehand, which no server sends, are not followed.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// Elements that are still to come, outermost first.
    left: [u32; DEPTH_MAX],
    depth: u8,
    state: State,
    /// The type of the line that is being read.
    kind: u8,
    negative: bool,
    digits: u8,
    number: u64,
    /// Only strings with a length, as the elements of a request are.
    only_bulk: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value begins.
    Type,
    /// A number until CR.
    Number,
    /// Anything until CR.
    Line,
    /// LF, behind a line.
    Lf,
    /// So many bytes of a string: [`Walk::number`].
    Bulk,
    /// CR, behind a string.
    BulkCr,
    /// LF, behind a string.
    BulkLf,
}

/// How far it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// Through all of the input.
    More,
    /// To the end, behind so many bytes.
    End(usize),
    /// It is no value, as the byte at this place shows; shown again, it does so again.
    Bad(Reason, usize),
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            left: [0; DEPTH_MAX],
            depth: 0,
            state: State::Type,
            kind: 0,
            negative: false,
            digits: 0,
            number: 0,
            only_bulk: false,
        }
    }
}

impl Walk {
    /// Whether a value is under way.
    #[inline]
    pub(super) fn is_under_way(&self) -> bool {
        self.depth > 0
    }

    /// A reply begins.
    #[inline]
    pub(super) fn begin_reply(&mut self) {
        self.left[0] = 1;
        self.depth = 1;
        self.state = State::Type;
    }

    /// The attribute before a reply begins.
    pub(super) fn begin_attribute(&mut self) {
        self.left[0] = 0;
        self.depth = 1;
        self.state = State::Type;
    }

    /// So many strings are to come, behind `bulk` bytes of one that began.
    #[inline]
    pub(super) fn begin_strings(&mut self, count: u32, bulk: Option<u64>) {
        self.only_bulk = true;
        self.left[0] = count + u32::from(bulk.is_some());
        self.depth = u8::from(self.left[0] > 0);
        self.number = bulk.unwrap_or(0);
        self.state = if bulk.is_some() { State::Bulk } else { State::Type };
    }

    /// The last number that was read, as `:` says it.
    pub(super) fn last_number(&self) -> Option<u64> {
        (!self.negative).then_some(self.number)
    }

    /// Bytes that are known to be of a string.
    pub(super) fn passable(&self) -> u64 {
        if self.depth > 0 && self.state == State::Bulk { self.number } else { 0 }
    }

    /// Takes note of such bytes.
    pub(super) fn pass(&mut self, count: u64) {
        if self.state == State::Bulk {
            self.number = self.number.saturating_sub(count);
        }
    }

    /// Goes on.
    #[inline]
    pub(super) fn run(&mut self, input: &[u8], bulk_max: u64) -> Walked {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.state {
                State::Type => {
                    if let Err(reason) = self.begin_value(byte) {
                        return Walked::Bad(reason, at);
                    }
                    at += 1;
                }
                State::Number => {
                    if let Err(reason) = self.step_number(byte) {
                        return Walked::Bad(reason, at);
                    }
                    at += 1;
                }
                State::Line => match memchr::memchr(b'\r', &input[at..]) {
                    Some(offset) => {
                        self.state = State::Lf;
                        at += offset + 1;
                    }
                    None => return Walked::More,
                },
                State::Lf => {
                    if byte != b'\n' {
                        return Walked::Bad(Reason::Malformed, at);
                    }
                    match self.end_line(bulk_max) {
                        Ok(true) => return Walked::End(at + 1),
                        Ok(false) => at += 1,
                        Err(reason) => return Walked::Bad(reason, at),
                    }
                }
                State::Bulk => {
                    let available = (input.len() - at) as u64;
                    if self.number > available {
                        self.number -= available;
                        return Walked::More;
                    }
                    at += size(self.number);
                    self.number = 0;
                    self.state = State::BulkCr;
                }
                State::BulkCr => {
                    if byte != b'\r' {
                        return Walked::Bad(Reason::Malformed, at);
                    }
                    self.state = State::BulkLf;
                    at += 1;
                }
                State::BulkLf => {
                    if byte != b'\n' {
                        return Walked::Bad(Reason::Malformed, at);
                    }
                    at += 1;
                    if self.end_value() {
                        return Walked::End(at);
                    }
                }
            }
        }
        Walked::More
    }

    #[inline]
    fn step_number(&mut self, byte: u8) -> Result<(), Reason> {
        match byte {
            b'0'..=b'9' if self.digits < DIGITS_MAX => {
                self.number = self.number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
                self.digits += 1;
            }
            b'-' | b'+' if self.digits == 0 && !self.negative => self.negative = byte == b'-',
            b'\r' if self.digits > 0 => self.state = State::Lf,
            b'?' => return Err(Reason::Unsupported),
            _ => return Err(Reason::Malformed),
        }
        Ok(())
    }

    #[inline]
    fn begin_value(&mut self, byte: u8) -> Result<(), Reason> {
        self.kind = byte;
        self.state = match byte {
            b'$' => State::Number,
            _ if self.only_bulk => return Err(Reason::Malformed),
            b':' | b'*' | b'%' | b'~' | b'>' | b'|' | b'!' | b'=' => State::Number,
            b'+' | b'-' | b'_' | b'#' | b',' | b'(' => State::Line,
            _ => return Err(Reason::Malformed),
        };
        self.negative = false;
        self.digits = 0;
        self.number = 0;
        Ok(())
    }

    /// A line has been read; returns whether it was the last.
    #[inline]
    fn end_line(&mut self, bulk_max: u64) -> Result<bool, Reason> {
        match self.kind {
            b'$' | b'!' | b'=' => {
                if self.negative {
                    // A null of RESP2; in a request there is none.
                    let is_null = self.number == 1 && !self.only_bulk;
                    return if is_null { Ok(self.end_value()) } else { Err(Reason::Malformed) };
                }
                if self.number > bulk_max {
                    return Err(Reason::TooLarge);
                }
                self.state = if self.number == 0 { State::BulkCr } else { State::Bulk };
                Ok(false)
            }
            b'*' | b'~' | b'>' | b'%' | b'|' => self.enter(),
            _ => Ok(self.end_value()),
        }
    }

    /// An aggregate begins.
    fn enter(&mut self) -> Result<bool, Reason> {
        if self.negative {
            let is_null = self.number == 1 && self.kind == b'*';
            return if is_null { Ok(self.end_value()) } else { Err(Reason::Malformed) };
        }
        let count = match u32::try_from(self.number) {
            Ok(count) if count <= COUNT_MAX => count,
            _ => return Err(Reason::TooLarge),
        };
        let elements = if matches!(self.kind, b'%' | b'|') { 2 * count } else { count };
        if self.kind == b'|' {
            // An attribute comes before the value that it belongs to: one more is to come.
            self.left[usize::from(self.depth) - 1] += 1;
        }
        if elements == 0 {
            return Ok(self.end_value());
        }
        if usize::from(self.depth) == DEPTH_MAX {
            return Err(Reason::NestedTooDeep);
        }
        self.left[usize::from(self.depth)] = elements;
        self.depth += 1;
        self.state = State::Type;
        Ok(false)
    }

    /// A value has been read, and with it perhaps those that it was the last element of.
    #[inline]
    fn end_value(&mut self) -> bool {
        self.state = State::Type;
        while self.depth > 0 {
            let left = &mut self.left[usize::from(self.depth) - 1];
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.depth -= 1;
        }
        true
    }
}
