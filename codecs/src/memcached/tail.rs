//! What is still to come of a message whose beginning was read, without its bytes.

use crate::codec::{Event, Held, Reason, size};
use crate::limits::Limits;

/// Counters, and no bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tail {
    state: State,
    left: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing.
    #[default]
    Done,
    /// The rest of a line.
    Line,
    /// So many bytes of a value, then CRLF.
    Value,
    Cr,
    Lf,
    /// So many bytes.
    Body,
}

/// How far it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// Through all of the input.
    More,
    /// To the end, behind so many bytes.
    End(usize),
    /// A value is longer or shorter than was said, as the byte at this place shows; shown again, it
    /// does so again.
    Bad(usize),
}

impl Tail {
    /// The rest of a line is to come.
    pub(super) fn line() -> Self {
        Self { state: State::Line, left: 0 }
    }

    /// A value and CRLF are to come.
    #[inline]
    pub(super) fn value(len: u64) -> Self {
        Self { state: if len > 0 { State::Value } else { State::Cr }, left: len }
    }

    /// So many bytes are to come.
    #[inline]
    pub(super) fn body(len: u64) -> Self {
        Self { state: if len > 0 { State::Body } else { State::Done }, left: len }
    }

    #[inline]
    pub(super) fn is_done(self) -> bool {
        self.state == State::Done
    }

    /// Bytes that are known to mean nothing.
    pub(super) fn passable(self) -> u64 {
        if matches!(self.state, State::Value | State::Body) { self.left } else { 0 }
    }

    /// Takes note of such bytes.
    pub(super) fn pass(&mut self, count: u64) {
        if self.passable() > 0 {
            self.left = self.left.saturating_sub(count);
            self.end_bytes();
        }
    }

    fn end_bytes(&mut self) {
        if self.left == 0 {
            self.state = if self.state == State::Value { State::Cr } else { State::Done };
        }
    }

    /// Goes on with a message whose head was told, if one is under way.
    #[inline]
    pub(super) fn go_on(&mut self, input: &[u8]) -> Option<Event> {
        if self.is_done() {
            return None;
        }
        Some(match self.run(input) {
            Walked::More => Event::Body(input.len()),
            Walked::End(count) => Event::End(count),
            Walked::Bad(_) => Event::Not(Reason::Malformed),
        })
    }

    /// Goes on.
    #[inline]
    pub(super) fn run(&mut self, input: &[u8]) -> Walked {
        let mut at = 0;
        while self.state != State::Done {
            let Some(&byte) = input.get(at) else { return Walked::More };
            match self.state {
                State::Done => {}
                State::Line => match memchr::memchr(b'\n', &input[at..]) {
                    Some(offset) => {
                        at += offset + 1;
                        self.state = State::Done;
                    }
                    None => return Walked::More,
                },
                State::Value | State::Body => {
                    let count = size(self.left).min(input.len() - at);
                    at += count;
                    self.left -= count as u64;
                    self.end_bytes();
                }
                State::Cr | State::Lf => {
                    let (wanted, next) = match self.state {
                        State::Cr => (b'\r', State::Lf),
                        _ => (b'\n', State::Done),
                    };
                    if byte != wanted {
                        return Walked::Bad(at);
                    }
                    at += 1;
                    self.state = next;
                }
            }
        }
        Walked::End(at)
    }
}

/// A line that begins in what is held, or else in the input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Bytes of the input that belong to it.
    pub(super) taken: usize,
    /// Its bytes are those that are held; if not they begin the input.
    pub(super) held: bool,
    /// It is longer than what is read of a message.
    pub(super) is_cut: bool,
}

impl Line {
    /// The line, or None when it has not come whole: what there is of it is held then.
    #[inline]
    pub(super) fn read(held: &mut Held, input: &[u8], limits: &Limits) -> Option<Self> {
        let max = limits.message_head_bytes_max as usize;
        if held.is_empty() {
            let window = &input[..input.len().min(max)];
            let end = memchr::memchr(b'\n', window);
            if let Some(taken) = end.map(|at| at + 1).or((window.len() == max).then_some(max)) {
                return Some(Self { taken, held: false, is_cut: end.is_none() });
            }
        }
        Self::gather(held, input, max)
    }

    #[cold]
    fn gather(held: &mut Held, input: &[u8], max: usize) -> Option<Self> {
        let before = held.bytes().len();
        let wanted = memchr::memchr(b'\n', input).map_or(max, |at| before + at + 1);
        let taken = held.fill(input, wanted.min(max));
        let is_whole = held.bytes().last() == Some(&b'\n');
        let is_cut = !is_whole && held.bytes().len() >= max;
        (is_whole || is_cut).then_some(Self { taken, held: true, is_cut })
    }

    /// Its bytes without what ends it.
    #[inline]
    pub(super) fn text<'b>(&self, held: &'b Held, input: &'b [u8]) -> &'b [u8] {
        let bytes = if self.held { held.bytes() } else { &input[..self.taken] };
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        bytes.strip_suffix(b"\r").unwrap_or(bytes)
    }
}

/// The words of a line.
#[inline]
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

/// A number without sign.
#[inline]
pub(super) fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() || word.len() > 19 {
        return None;
    }
    word.iter().try_fold(0, |value: u64, byte| {
        byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0'))
    })
}

/// A token by which a client finds its answers, as a number that is not 0 and leaves the highest
/// bit free.
pub(super) fn token(text: &[u8]) -> u32 {
    let mixed = text
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (mixed >> 1).max(1)
}
