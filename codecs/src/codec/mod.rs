//! What every codec is made of, and knows of nothing else: no protocol and no kernel.
//!
//! A **codec** reads along both ways of one connection, bytes that have been sent on already, and
//! says where messages begin and end. There are two ways to write one:
//! - [`FrameCodec`]: the messages say their own length. [`Framed`] does everything else: heads that
//!   come in pieces, long bodies, many messages in one input.
//! - [`Codec`]: all other protocols, which have to be walked through.
//!
//! Neither keeps exchanges: [`Ledger`] does, for all of them.

mod about;
mod carry;
mod edits;
mod error_text;
mod event;
mod framed;
mod held;
mod ledger;
mod names;
mod reason;
mod refusal;
mod stays;

pub(crate) use carry::Seen;
pub(crate) use names::names;

pub use about::{About, Convention, Correlation, Key, Kind, Outcome, Speaks, Way};
pub use carry::{CannotEdit, Pairs};
pub use edits::{EDITS_MAX, EditError, Edits, Piece, Pieces, TEXT_BYTES_MAX, Text};
pub use error_text::ErrorText;
pub use event::{Asked, Codec, Event, Head, Pair, Said, Spot, UPTO};
pub use framed::{Frame, FrameCodec, Framed};
pub use held::Held;
pub use ledger::{Answer, Exchange, Ledger, Open};
pub use reason::Reason;
pub use refusal::{Refusal, Replied, Why};
pub use stays::{Leaves, Left, Stays};

/// A number of bytes that a message says, as a size: what does not fit is as much as there can be.
pub(crate) fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
