//! Protocols whose messages say their own length.

use std::marker::PhantomData;

use crate::codec::about::{About, Key, Way};
use crate::codec::carry::{CannotEdit, Pairs};
use crate::codec::edits::Edits;
use crate::codec::event::{Asked, Codec, Event, Head, Pair};
use crate::codec::held::{Held, Line};
use crate::codec::reason::Reason;
use crate::codec::refusal::{Refusal, Replied};
use crate::codec::size;
use crate::codec::stays::Leaves;
use crate::limits::Limits;

/// What the first bytes of a message say about its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nothing until there are so many bytes: more than were shown, and few.
    Need(usize),
    /// Nothing until the line ends that it begins with; a line has a limit, as heads do.
    Line,
    /// It has so many bytes, those that say so among them.
    Total(u64),
    /// It is none.
    Not(Reason),
}

/// A protocol whose messages say their own length. Everything else (heads in pieces, long bodies,
/// many messages in one input, correlation) is done for it.
pub trait FrameCodec {
    /// What it says about itself.
    const ABOUT: &'static About;

    /// See [`Codec::EDITS`].
    const EDITS: bool = false;

    /// See [`Codec::MOVES`].
    const MOVES: bool = false;

    /// How much of a message it reads, if that is less than
    /// [`Limits::message_head_bytes_max`].
    const HEAD_BYTES_MAX: u32 = u32::MAX;

    /// What it remembers of a connection: a few words, and no heap.
    type Memory: Default + std::fmt::Debug;

    /// Takes note of the request whose answer comes next, where answers come in order; told before
    /// anything else of an answer is asked.
    fn asks(_: &mut Self::Memory, _: Option<Asked>) {}

    /// How long the message is that begins with `bytes`. Asked again with more bytes, it says the
    /// same.
    fn frame(memory: &Self::Memory, way: Way, bytes: &[u8]) -> Frame;

    /// Reads the head of a message into `head`, which is empty; `bytes` is all of it, or as much as
    /// [`Limits::message_head_bytes_max`] allows when it is longer. Asked once for each message.
    fn head(
        memory: &mut Self::Memory,
        way: Way,
        bytes: &[u8],
        head: &mut Head,
    ) -> Result<(), Reason>;

    /// See [`Codec::value`].
    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]>;

    /// See [`Codec::number`].
    fn number(_: &Head, _: &[u8], _: Key) -> Option<u32> {
        None
    }

    /// See [`Codec::pairs`].
    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>));

    /// See [`Codec::name`].
    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3];

    /// See [`Codec::edit`].
    ///
    /// # Errors
    /// [`CannotEdit`].
    fn edit(_: &Head, _: &[u8], _: &Pairs, _: &mut Edits) -> Result<(), CannotEdit> {
        Err(CannotEdit::Never)
    }

    /// See [`Codec::reply`].
    fn reply(_: &Head, _: &[u8], _: &Refusal<'_>, _: &mut Vec<u8>) -> Replied {
        Replied::MustClose
    }

    /// See [`Codec::leaves`].
    fn leaves(head: &Head, _: &[u8]) -> Leaves {
        Leaves::of(head.kind)
    }
}

/// The [`Codec`] of a [`FrameCodec`].
#[derive(Debug)]
pub struct Framed<C: FrameCodec> {
    memory: C::Memory,
    request: Side,
    response: Side,
    codec: PhantomData<C>,
}

/// One way.
#[derive(Debug, Default)]
struct Side {
    /// The beginning of a message whose head is not known yet.
    held: Held,
    /// Bytes of the message under way that are still to come.
    left: u64,
}

impl<C: FrameCodec> Default for Framed<C> {
    fn default() -> Self {
        Self {
            memory: C::Memory::default(),
            request: Side::default(),
            response: Side::default(),
            codec: PhantomData,
        }
    }
}

impl<C: FrameCodec> Framed<C> {
    /// What the codec remembers.
    pub fn memory_mut(&mut self) -> &mut C::Memory {
        &mut self.memory
    }

    fn side(&self, way: Way) -> &Side {
        match way {
            Way::Request => &self.request,
            Way::Response => &self.response,
        }
    }

    /// A message that begins in this input, or in those before it.
    #[cold]
    fn gather(
        memory: &mut C::Memory,
        side: &mut Side,
        way: Way,
        input: &[u8],
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        let mut taken = 0;
        loop {
            let wanted = match C::frame(memory, way, side.held.bytes()) {
                Frame::Not(reason) => return Event::Not(reason),
                Frame::Need(wanted) => wanted,
                Frame::Line => match side.held.fill_line(&input[taken..], limits) {
                    Line::Whole(count) => {
                        taken += count;
                        continue;
                    }
                    Line::Partial => return Self::need(memory, way, side.held.bytes()),
                    Line::TooLong => return Event::Not(Reason::TooLarge),
                },
                Frame::Total(total) => {
                    if total > limits.message_bytes_max {
                        return Event::Not(Reason::TooLarge);
                    }
                    let wanted = head_len::<C>(total, limits);
                    taken += side.held.fill(&input[taken..], wanted);
                    if side.held.bytes().len() < wanted {
                        return Event::Need;
                    }
                    side.held.spend(wanted);
                    *head = Head::default();
                    return match C::head(memory, way, side.held.bytes(), head) {
                        Ok(()) => {
                            side.left = total - wanted as u64;
                            let whole = side.left == 0;
                            Event::Head { consumed: taken, len: wanted, held: true, whole }
                        }
                        Err(reason) => Event::Not(reason),
                    };
                }
            };
            taken += side.held.fill(&input[taken..], wanted);
            if side.held.bytes().len() < wanted {
                return Self::need(memory, way, side.held.bytes());
            }
        }
    }

    /// More bytes are needed, unless those that are here are none of the protocol already.
    fn need(memory: &C::Memory, way: Way, bytes: &[u8]) -> Event {
        match C::frame(memory, way, bytes) {
            Frame::Not(reason) => Event::Not(reason),
            _ => Event::Need,
        }
    }
}

impl Side {
    fn body(&mut self, available: usize) -> Event {
        match usize::try_from(self.left) {
            Ok(left) if left <= available => {
                self.left = 0;
                Event::End(left)
            }
            _ => {
                self.left -= available as u64;
                Event::Body(available)
            }
        }
    }
}

/// How much of a message is read.
fn head_len<C: FrameCodec>(total: u64, limits: &Limits) -> usize {
    size(total).min(limits.message_head_bytes_max.min(C::HEAD_BYTES_MAX) as usize)
}

impl<C: FrameCodec> Codec for Framed<C> {
    const ABOUT: &'static About = C::ABOUT;
    const EDITS: bool = C::EDITS;
    const MOVES: bool = C::MOVES;

    #[inline]
    fn advance(
        &mut self,
        way: Way,
        input: &[u8],
        asked: Option<Asked>,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        if way == Way::Response {
            C::asks(&mut self.memory, asked);
        }
        let side = match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        };
        side.held.begin(limits);
        if side.left > 0 {
            return side.body(input.len());
        }
        if !side.held.is_empty() {
            return Self::gather(&mut self.memory, side, way, input, limits, head);
        }
        let begin = &input[..input.len().min(limits.message_head_bytes_max as usize)];
        let total = match C::frame(&self.memory, way, begin) {
            Frame::Total(total) => total,
            Frame::Need(_) | Frame::Line => {
                return Self::gather(&mut self.memory, side, way, input, limits, head);
            }
            Frame::Not(reason) => return Event::Not(reason),
        };
        if total > limits.message_bytes_max {
            return Event::Not(Reason::TooLarge);
        }
        let len = head_len::<C>(total, limits);
        let Some(bytes) = input.get(..len) else {
            return Self::gather(&mut self.memory, side, way, input, limits, head);
        };
        *head = Head::default();
        match C::head(&mut self.memory, way, bytes, head) {
            Ok(()) => {
                let consumed = size(total).min(input.len());
                side.left = total - consumed as u64;
                Event::Head { consumed, len, held: false, whole: side.left == 0 }
            }
            Err(reason) => Event::Not(reason),
        }
    }

    fn passable(&self, way: Way) -> u64 {
        self.side(way).left
    }

    fn passed(&mut self, way: Way, count: u64) -> bool {
        let side = match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        };
        let was_under_way = side.left > 0;
        side.left = side.left.saturating_sub(count);
        was_under_way && side.left == 0
    }

    fn held_head(&self, way: Way) -> &[u8] {
        self.side(way).held.bytes()
    }

    fn held(&self) -> usize {
        self.request.held.len() + self.response.held.len()
    }

    fn release_memory(&mut self) {
        self.request.held.release_memory();
        self.response.held.release_memory();
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        C::value(head, bytes, key)
    }

    fn number(head: &Head, bytes: &[u8], key: Key) -> Option<u32> {
        C::number(head, bytes, key)
    }

    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        C::pairs(head, bytes, take);
    }

    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        C::name(head, bytes)
    }

    fn edit(head: &Head, bytes: &[u8], pairs: &Pairs, edits: &mut Edits) -> Result<(), CannotEdit> {
        C::edit(head, bytes, pairs, edits)
    }

    fn reply(head: &Head, bytes: &[u8], refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        C::reply(head, bytes, refusal, out)
    }

    fn leaves(head: &Head, bytes: &[u8]) -> Leaves {
        C::leaves(head, bytes)
    }
}
