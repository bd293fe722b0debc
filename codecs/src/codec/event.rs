//! What a codec says of the bytes that it is shown.

use crate::codec::about::{About, Key, Kind, Outcome, Way};
use crate::codec::carry::{CannotEdit, Pairs};
use crate::codec::edits::Edits;
use crate::codec::reason::Reason;
use crate::codec::refusal::{Refusal, Replied};
use crate::codec::stays::Leaves;
use crate::limits::Limits;

/// A place in the bytes of a head; none when its length is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// Where it begins.
    pub at: u32,
    /// How long it is.
    pub len: u32,
}

impl Spot {
    /// From `at` on, `len` bytes. Heads are short, see
    /// [`Limits::message_head_bytes_max`]; what does not fit is nowhere.
    pub fn new(at: usize, len: usize) -> Self {
        match (u32::try_from(at), u32::try_from(len)) {
            (Ok(at), Ok(len)) => Self { at, len },
            _ => Self::default(),
        }
    }

    /// The bytes at the place.
    pub fn of(self, bytes: &[u8]) -> Option<&[u8]> {
        let at = self.at as usize;
        if self.len == 0 { None } else { bytes.get(at..at + self.len as usize) }
    }

    /// The place behind it, to the end of the head.
    pub fn end(self) -> usize {
        self.at as usize + self.len as usize
    }
}

/// What an answer says is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Said {
    /// Nothing.
    #[default]
    Nothing,
    /// Words from a list.
    Word(&'static str),
    /// The bytes at a place of the head.
    Spot(Spot),
}

/// Where ids of requests begin that may be answered together, see [`Head::upto`].
pub const UPTO: u64 = 1 << 40;

/// What the head of a message says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    /// What the message is for.
    pub kind: Kind,
    /// Index of the operation in [`About::operations`]; of a request.
    pub operation: u8,
    /// How it came out; of an answer.
    pub outcome: Outcome,
    /// Whether further answers to the same request follow behind this one.
    pub more: bool,
    /// Whether it answers all open requests with ids from the multiple of [`UPTO`] on that lies below
    /// its own, up to that.
    pub upto: bool,
    /// Bytes that were taken and held beyond it, and begin the next message: where only they said that
    /// it ends here.
    pub behind: u8,
    /// What the request leaves behind for its answer; what the codec compares of an answer.
    pub note: u32,
    /// The number that the protocol has for how it came out, 0 where it has none.
    pub status: i32,
    /// Which request and answer belong together, where the protocol says so.
    pub id: u64,
    /// The service.
    pub service: Spot,
    /// The method or command.
    pub method: Spot,
    /// A place of the codec's own.
    pub extra: Spot,
    /// What is wrong, of an answer.
    pub said: Said,
}

/// What the next bytes of a way are.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub enum Event {
    /// All of the input has been read and belongs to a message that is not known yet.
    Need,
    /// So many bytes of the input belong to no message.
    Skip(usize),
    /// So many bytes of the input belong to the message that is under way.
    Body(usize),
    /// So many bytes of the input belong to the request that was told last, though it was whole:
    /// data that the server asked for. Whether a message of them ends there.
    Late {
        /// The bytes.
        count: usize,
        /// Whether what is under way is whole; if not, [`Body`](Self::Body) or more of this follows.
        whole: bool,
    },
    /// The message that is under way ends behind so many bytes of the input.
    End(usize),
    /// The head of a message is known, and written where the caller said.
    Head {
        /// Bytes of the input that belong to it, and to as much of its body as was read with it.
        consumed: usize,
        /// How long it is.
        len: usize,
        /// Whether its bytes are those of [`Codec::held_head`]; if not they begin the input.
        held: bool,
        /// Whether the message ends there.
        whole: bool,
    },
    /// The connection is not, or no longer, of the protocol.
    Not(Reason),
}

/// What is known of the request whose answer comes next.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What it was for.
    pub kind: Kind,
    /// Its operation.
    pub operation: u8,
    /// What it left behind.
    pub note: u32,
    /// Its id.
    pub id: u64,
}

/// Name and value of what travels with a message beside its content.
pub type Pair<'b> = (&'b [u8], &'b [u8]);

/// Both ways of one connection, read along.
///
/// What it says depends on the bytes alone, not on how they were cut. It is shown each way's bytes
/// in order; when an event took a part of the input, it is shown the rest next.
pub trait Codec: Default {
    /// What it says about itself.
    const ABOUT: &'static About;

    /// Whether some of its messages can be given pairs: [`edit`](Self::edit).
    const EDITS: bool = false;

    /// Whether requests of a connection may go to different servers, message by message, as far as
    /// [`leaves`](Self::leaves) says nothing else.
    const MOVES: bool = false;

    /// What the next bytes are. `input` is never empty; `asked` is the oldest open request, where
    /// answers come in order. What a head says goes into `head`.
    fn advance(
        &mut self,
        way: Way,
        input: &[u8],
        asked: Option<Asked>,
        limits: &Limits,
        head: &mut Head,
    ) -> Event;

    /// How many bytes of the way may pass from here without being shown.
    fn passable(&self, way: Way) -> u64;

    /// Takes note of bytes that passed, at most [`passable`](Self::passable). Returns whether the
    /// message under way ended with them.
    fn passed(&mut self, way: Way, count: u64) -> bool;

    /// The bytes of the head that was told last, when they were held.
    fn held_head(&self, way: Way) -> &[u8];

    /// Bytes that are held on the heap.
    fn held(&self) -> usize;

    /// Gives back storage that is not in use.
    fn release_memory(&mut self);

    /// The value of a key in a head that the codec told, with the head's bytes.
    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]>;

    /// The number of a key that has one, as [`value`](Self::value).
    fn number(_: &Head, _: &[u8], _: Key) -> Option<u32> {
        None
    }

    /// What travels with the message, handed to `take` pair by pair. What is behind the bytes that
    /// were held is not found.
    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>));

    /// The parts of the operation's name, to be written one behind the other.
    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3];

    /// Edits a head that the codec told so that these pairs travel with its message, in the place of
    /// those that have their names, of any case; lengths around them are mended as well. `edits` has
    /// none before, and is of no use after an error.
    ///
    /// # Errors
    /// [`CannotEdit`].
    fn edit(_: &Head, _: &[u8], _: &Pairs, _: &mut Edits) -> Result<(), CannotEdit> {
        Err(CannotEdit::Never)
    }

    /// Writes the answer to a request that is refused behind `out`: one that its client understands
    /// and goes on behind. The request is not passed on, and is of a kind that is answered.
    fn reply(_: &Head, _: &[u8], _: &Refusal<'_>, _: &mut Vec<u8>) -> Replied {
        Replied::MustClose
    }

    /// Whether requests of this operation change nothing, so that they may be sent twice; None where
    /// operations of the protocol do not say it.
    fn is_read(_: u8) -> Option<bool> {
        None
    }

    /// What a request leaves behind at its server for those after it.
    fn leaves(head: &Head, _: &[u8]) -> Leaves {
        Leaves::of(head.kind)
    }
}
