//! Protocols that are not built in: described by data, or read by a codec of somebody else's.
//!
//! A [`Private`] protocol stands where one that is built in does: it names ports, has series, spans
//! and lines of the access log of its own. Its connections pay for that with one box each and a
//! call by pointer for each message; those of protocols that are built in pay nothing.
//! - [`Private::coded`]: a [`Codec`] of a crate of one's own; [`Framed`] makes one of a
//!   [`FrameCodec`](crate::codec::FrameCodec).
//! - [`Private::described`]: a [`Description`], for protocols whose messages have a header of fixed
//!   size that says how long they are.

mod described;
mod description;
mod protobuf;
mod reply;

pub use description::{
    Counts, Description, Field, Kinds, Length, LengthPart, Number, Operations, Order, Place,
    Status, Unfit,
};
pub use reply::{Reply, TextPlace};

use crate::codec::{
    About, Asked, CannotEdit, Codec, Edits, Event, Framed, Head, Key, Leaves, Pair, Pairs, Refusal,
    Replied, Way,
};
use crate::limits::Limits;
use described::Described;
use std::fmt;
use std::marker::PhantomData;

/// Protocols that are not built in, of one process.
pub const PRIVATE_MAX: usize = 4;

/// A protocol that is not built in.
#[derive(Debug)]
pub struct Private {
    about: About,
    replies: bool,
    reader: Box<dyn Reader>,
}

impl Private {
    /// One that a codec reads.
    pub fn coded<C: Codec + fmt::Debug + Send + 'static>() -> Self {
        Self { about: *C::ABOUT, replies: true, reader: Box::new(Coded::<C>(PhantomData)) }
    }

    /// One that is described. It lives as long as the process, as do its names.
    ///
    /// # Errors
    /// What of it contradicts itself.
    pub fn described(description: Description) -> Result<Self, Unfit> {
        description.check()?;
        let (about, replies) = (description.about(), description.reply.is_some());
        Ok(Self { about, replies, reader: Box::new(&*Box::leak(Box::new(description))) })
    }

    /// Whether the client of a refused request may be told so; else both sides are closed.
    pub fn replies(&self) -> bool {
        self.replies
    }

    /// What it says about itself.
    pub fn about(&'static self) -> &'static About {
        &self.about
    }

    pub(crate) fn open(&self) -> Box<dyn Opened> {
        self.reader.open()
    }

    pub(crate) fn reader(&self) -> &dyn Reader {
        &*self.reader
    }
}

/// What reads the messages of a protocol; see [`Codec`] for each.
pub(crate) trait Reader: fmt::Debug + Send + Sync {
    fn open(&self) -> Box<dyn Opened>;
    fn value<'b>(&self, head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]>;
    fn number(&self, head: &Head, bytes: &[u8], key: Key) -> Option<u32>;
    fn pairs<'b>(&self, head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>));
    fn name<'b>(&self, head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3];

    fn edits(&self) -> bool {
        false
    }

    fn edit(&self, _: &Head, _: &[u8], _: &Pairs, _: &mut Edits) -> Result<(), CannotEdit> {
        Err(CannotEdit::Never)
    }

    fn reply(&self, _: &Head, _: &[u8], _: &Refusal<'_>, _: &mut Vec<u8>) -> Replied {
        Replied::MustClose
    }

    fn moves(&self) -> bool;

    fn leaves(&self, head: &Head, _: &[u8]) -> Leaves {
        Leaves::of(head.kind)
    }
}

/// A connection of a protocol that is not built in; see [`Codec`] for each.
pub(crate) trait Opened: fmt::Debug + Send {
    fn advance(
        &mut self,
        way: Way,
        input: &[u8],
        asked: Option<Asked>,
        limits: &Limits,
        head: &mut Head,
    ) -> Event;
    fn passable(&self, way: Way) -> u64;
    fn passed(&mut self, way: Way, count: u64) -> bool;
    fn held_head(&self, way: Way) -> &[u8];
    fn held(&self) -> usize;
    fn release_memory(&mut self);
}

impl<C: Codec + fmt::Debug + Send> Opened for C {
    fn advance(
        &mut self,
        way: Way,
        input: &[u8],
        asked: Option<Asked>,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        Codec::advance(self, way, input, asked, limits, head)
    }

    fn passable(&self, way: Way) -> u64 {
        Codec::passable(self, way)
    }

    fn passed(&mut self, way: Way, count: u64) -> bool {
        Codec::passed(self, way, count)
    }

    fn held_head(&self, way: Way) -> &[u8] {
        Codec::held_head(self, way)
    }

    fn held(&self) -> usize {
        Codec::held(self)
    }

    fn release_memory(&mut self) {
        Codec::release_memory(self);
    }
}

/// The codec of a crate of one's own.
struct Coded<C>(PhantomData<fn() -> C>);

impl<C: Codec> fmt::Debug for Coded<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(C::ABOUT.name)
    }
}

impl<C: Codec + fmt::Debug + Send + 'static> Reader for Coded<C> {
    fn open(&self) -> Box<dyn Opened> {
        Box::new(C::default())
    }

    fn value<'b>(&self, head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        C::value(head, bytes, key)
    }

    fn number(&self, head: &Head, bytes: &[u8], key: Key) -> Option<u32> {
        C::number(head, bytes, key)
    }

    fn pairs<'b>(&self, head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        C::pairs(head, bytes, take);
    }

    fn name<'b>(&self, head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        C::name(head, bytes)
    }

    fn edits(&self) -> bool {
        C::EDITS
    }

    fn edit(
        &self,
        head: &Head,
        bytes: &[u8],
        pairs: &Pairs,
        edits: &mut Edits,
    ) -> Result<(), CannotEdit> {
        C::edit(head, bytes, pairs, edits)
    }

    fn reply(&self, head: &Head, bytes: &[u8], why: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        C::reply(head, bytes, why, out)
    }

    fn moves(&self) -> bool {
        C::MOVES
    }

    fn leaves(&self, head: &Head, bytes: &[u8]) -> Leaves {
        C::leaves(head, bytes)
    }
}

impl Reader for &'static Description {
    fn open(&self) -> Box<dyn Opened> {
        let mut codec = Framed::<Described>::default();
        *codec.memory_mut() = Some(self);
        Box::new(codec)
    }

    fn value<'b>(&self, _: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        Description::value(self, bytes, key)
    }

    fn number(&self, _: &Head, _: &[u8], _: Key) -> Option<u32> {
        None
    }

    fn pairs<'b>(&self, _: &Head, _: &'b [u8], _: &mut dyn FnMut(Pair<'b>)) {}

    fn name<'b>(&self, head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        self.name_of(head, bytes)
    }

    fn moves(&self) -> bool {
        true
    }

    fn reply(&self, _: &Head, bytes: &[u8], why: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        Description::reply(self, bytes, why, out)
    }
}
