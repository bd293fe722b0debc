//! Messages with nothing around them, which have to be walked through.

use super::Shape;
use super::message::{self, Encoding, Message};
use super::walk::{Walk, Walked};
use crate::codec::{Event, Head, Held, Reason, Way};
use crate::limits::Limits;

/// Both ways of a connection.
#[derive(Debug)]
pub(super) struct Unframed {
    encoding: Encoding,
    request: Side,
    response: Side,
}

#[derive(Debug, Default)]
struct Side {
    /// The beginning of a message that is not known yet.
    held: Held,
    walk: Walk,
}

/// Reads the beginning of a message, as far as the limit allows.
fn read(bytes: &[u8], encoding: Encoding, way: Way, limits: &Limits, head: &mut Head) -> Message {
    let max = limits.message_head_bytes_max as usize;
    let is_all = bytes.len() >= max;
    *head = Head::default();
    match message::read(&bytes[..bytes.len().min(max)], 0, encoding, way, is_all, head) {
        Message::Partial if is_all => Message::Bad(Reason::TooLarge),
        Message::Head(len) => {
            head.extra = Shape::Unframed(encoding).mark();
            Message::Head(len)
        }
        message => message,
    }
}

impl Side {
    /// A message whose beginning came in pieces. What is held of it, and of the struct behind it,
    /// is walked through first.
    #[cold]
    fn gather(
        &mut self,
        way: Way,
        input: &[u8],
        encoding: Encoding,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        let before = self.held.bytes().len();
        let filled = self.held.fill(input, limits.message_head_bytes_max as usize);
        let bytes = self.held.bytes();
        let len = match read(bytes, encoding, way, limits, head) {
            Message::Head(len) => len,
            Message::Partial => return Event::Need,
            Message::Bad(reason) => return Event::Not(reason),
        };
        self.walk.begin(encoding == Encoding::Compact);
        let (count, mut whole) = self.walk.run_on(&bytes[len..], limits);
        let mut consumed = (len + count).saturating_sub(before);
        if !whole && consumed == filled {
            let (count, ends) = self.walk.run_on(&input[filled..], limits);
            (consumed, whole) = (filled + count, ends);
        }
        self.held.spend(len);
        Event::Head { consumed, len, held: true, whole }
    }
}

impl Unframed {
    pub(super) fn new(encoding: Encoding) -> Self {
        Self { encoding, request: Side::default(), response: Side::default() }
    }

    fn side(&self, way: Way) -> &Side {
        match way {
            Way::Request => &self.request,
            Way::Response => &self.response,
        }
    }

    fn side_mut(&mut self, way: Way) -> &mut Side {
        match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        }
    }

    pub(super) fn advance(
        &mut self,
        way: Way,
        input: &[u8],
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        let encoding = self.encoding;
        let side = self.side_mut(way);
        side.held.begin(limits);
        if side.walk.is_under_way() {
            return match side.walk.run(input, limits.message_bytes_max) {
                Walked::More => Event::Body(input.len()),
                Walked::End(count) => Event::End(count),
                Walked::Bad(reason, _) => Event::Not(reason),
            };
        }
        if !side.held.is_empty() {
            return side.gather(way, input, encoding, limits, head);
        }
        match read(input, encoding, way, limits, head) {
            Message::Bad(reason) => Event::Not(reason),
            Message::Partial => side.gather(way, input, encoding, limits, head),
            Message::Head(len) => {
                side.walk.begin(encoding == Encoding::Compact);
                let (count, whole) = side.walk.run_on(&input[len..], limits);
                Event::Head { consumed: len + count, len, held: false, whole }
            }
        }
    }

    pub(super) fn passable(&self, way: Way) -> u64 {
        self.side(way).walk.passable()
    }

    /// A string or a list is never the end of a message: a struct is.
    pub(super) fn passed(&mut self, way: Way, count: u64) -> bool {
        self.side_mut(way).walk.pass(count);
        false
    }

    pub(super) fn held_head(&self, way: Way) -> &[u8] {
        self.side(way).held.bytes()
    }

    pub(super) fn held(&self) -> usize {
        self.request.held.len() + self.response.held.len()
    }

    pub(super) fn release_memory(&mut self) {
        self.request.held.release_memory();
        self.response.held.release_memory();
    }
}
