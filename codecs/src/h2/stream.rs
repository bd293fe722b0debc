//! The streams of a connection that are told of.

use crate::codec::Way;

/// What has come of one way of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes of DATA, without padding.
    pub bytes: u64,
    /// Messages that have begun: gRPC's, where the stream is one.
    pub messages: u32,
    /// Bytes of the message under way that are still to come.
    left: u32,
    /// The beginning of a message's prefix.
    prefix: [u8; 4],
    prefix_len: u8,
}

/// One request with its response.
///
/// Times are nanoseconds of the caller's monotonic clock.
#[derive(Clone, Debug)]
pub struct Stream<T> {
    /// Its number.
    pub id: u32,
    /// When the head of the request was whole.
    pub opened_ns: u64,
    /// When the first byte of the response came: its head.
    pub first_ns: Option<u64>,
    /// When the client will have waited long enough, by gRPC's `grpc-timeout`.
    pub deadline_ns: Option<u64>,
    /// Status of the final response, 0 before its head has come.
    pub status: u16,
    /// It carries gRPC.
    pub is_grpc: bool,
    /// The request is whole.
    pub request_ended: bool,
    /// Both ways, the request's first.
    pub carried: [Carried; 2],
    /// The caller's own.
    pub data: T,
}

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The response is whole.
    Whole,
    /// One side has cut it, with this error (RFC 9113 §7).
    Reset {
        /// The way of the frame that said so: the client's is the request's.
        by: Way,
        /// The error.
        code: u32,
    },
    /// The client has waited as long as it had said.
    Deadline,
    /// The server has said, with this error, that it will not look at it (RFC 9113 §6.8).
    Refused {
        /// The error.
        code: u32,
    },
}

impl Carried {
    /// Bytes that may pass without being shown: those of the message under way.
    pub(super) fn passable(&self, is_grpc: bool) -> u64 {
        if is_grpc { self.left.into() } else { u64::MAX }
    }

    /// So many have passed.
    pub(super) fn passed(&mut self, count: u64) {
        self.bytes += count;
        self.left = self.left.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Reads along with bytes of DATA. Of gRPC that is messages: a byte, a length of four, so many
    /// bytes.
    pub(super) fn data(&mut self, mut bytes: &[u8], is_grpc: bool) {
        self.bytes += bytes.len() as u64;
        while is_grpc && !bytes.is_empty() {
            if self.left > 0 {
                let count = (self.left as usize).min(bytes.len());
                self.left -= u32::try_from(count).unwrap_or(self.left);
                bytes = &bytes[count..];
                continue;
            }
            if let (0, Some(([_, len @ ..], after))) =
                (self.prefix_len, bytes.split_first_chunk::<5>())
            {
                self.left = u32::from_be_bytes(*len);
                self.messages = self.messages.saturating_add(1);
                bytes = after;
                continue;
            }
            let byte = bytes[0];
            bytes = &bytes[1..];
            if self.prefix_len < 4 {
                self.prefix[usize::from(self.prefix_len)] = byte;
                self.prefix_len += 1;
                continue;
            }
            let [_, a, b, c] = self.prefix;
            (self.left, self.prefix_len) = (u32::from_be_bytes([a, b, c, byte]), 0);
            self.messages = self.messages.saturating_add(1);
        }
    }
}

/// The open ones, by number, which counts up.
#[derive(Debug)]
pub(super) struct Streams<T> {
    open: Vec<Stream<T>>,
    /// The highest number that a client has used.
    last: u32,
}

impl<T> Streams<T> {
    pub(super) const fn new() -> Self {
        Self { open: Vec::new(), last: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream<T>> {
        self.open.iter()
    }

    /// A client may use this number for a new stream. It is used from now on.
    pub(super) fn is_new(&mut self, id: u32) -> bool {
        let is_new = id % 2 == 1 && id > self.last;
        if is_new {
            self.last = id;
        }
        is_new
    }

    pub(super) fn place(&self, id: u32) -> Option<usize> {
        // Those that end are nearly always among the oldest.
        match self.open.first() {
            Some(first) if first.id == id => Some(0),
            _ => self.open.binary_search_by_key(&id, |stream| stream.id).ok(),
        }
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream<T>> {
        let place = self.place(id)?;
        self.open.get_mut(place)
    }

    /// Those from this number on.
    pub(super) fn begun_from(&mut self, id: u32) -> impl Iterator<Item = &mut Stream<T>> {
        let place = self.open.partition_point(|stream| stream.id < id);
        self.open[place..].iter_mut()
    }

    pub(super) fn open(&mut self, stream: Stream<T>) {
        debug_assert!(self.open.last().is_none_or(|last| last.id < stream.id));
        if self.open.capacity() == 0 {
            self.open.reserve_exact(4);
        }
        self.open.push(stream);
    }

    pub(super) fn close(&mut self, place: usize) -> Stream<T> {
        let closed = self.open.remove(place);
        // A connection that had many at once keeps room for few.
        if self.open.is_empty() && self.open.capacity() > KEPT {
            self.open = Vec::new();
        }
        closed
    }

    /// The last one, if its number is above this.
    pub(super) fn close_above(&mut self, id: u32) -> Option<Stream<T>> {
        if self.open.last()?.id > id { self.open.pop() } else { None }
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Stream<T>> {
        self.open.drain(..)
    }

    /// Bytes of storage.
    pub(super) fn held(&self) -> usize {
        self.open.capacity() * size_of::<Stream<T>>()
    }
}

/// Streams whose storage is kept while none is open.
const KEPT: usize = 8;

/// What gRPC's `grpc-timeout` says, in nanoseconds: up to eight digits and a unit.
pub(super) fn timeout_ns(text: &[u8]) -> Option<u64> {
    let (unit, digits) = text.split_last()?;
    let unit = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    let is_number = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let number = || digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    is_number.then(|| number().saturating_mul(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_wherever_they_are_cut() {
        let mut text = Vec::new();
        for len in [0u8, 3, 7, 0, 200] {
            text.extend_from_slice(&[0, 0, 0, 0, len]);
            text.resize(text.len() + usize::from(len), 9);
        }
        for cut in 1..text.len() {
            let mut carried = Carried::default();
            for piece in text.chunks(cut) {
                carried.data(piece, true);
            }
            assert_eq!((carried.messages, carried.bytes), (5, text.len() as u64), "{cut}");
            assert_eq!((carried.left, carried.prefix_len), (0, 0));
        }
        let mut carried = Carried::default();
        carried.data(&text, false);
        assert_eq!((carried.messages, carried.bytes), (0, text.len() as u64));
    }

    #[test]
    fn timeouts() {
        for (text, ns) in [
            ("1S", Some(1_000_000_000)),
            ("99999999H", Some(u64::MAX)),
            ("250m", Some(250_000_000)),
            ("7n", Some(7)),
            ("", None),
            ("S", None),
            ("123456789n", None),
            ("-1S", None),
            ("1s", None),
        ] {
            assert_eq!(timeout_ns(text.as_bytes()), ns, "{text}");
        }
    }
}
