//! HTTP/2 (RFC 9113) and HPACK (RFC 7541): reads both ways of a connection along, and puts fields
//! into requests without encoding anything anew.
//!
//! [`Http2`] says what the next bytes of a way are: the fields of a request or of a response, the
//! end of a stream, or nothing that is told of. Frames that are read (fields, settings, resets) are
//! gathered until they are whole, which delays nobody: a receiver can do nothing with a part of one.
//! Payload of DATA is not held; of gRPC its messages are counted.
//!
//! Fields are laid out as the lines of a head ([`Section`]), so that whatever reads and edits heads
//! of HTTP/1 does it here as well: the same [`HeadPatch`](crate::h1::HeadPatch) says what is to be
//! changed, and [`mend()`] does it to the block. Added fields are literal and leave nothing in the
//! table; a field is changed only if it left nothing there either.
//!
//! What is not certain (a table that is no longer known, a frame where none can be) makes the
//! connection opaque, for a [`Reason`](crate::h1::Reason).

mod connection;
mod frame;
mod huffman;
mod mend;
mod section;
mod stream;
mod table;
mod way;

pub use connection::{Http2, Scratch, ServerSettings, Step};
pub use frame::{GOAWAY, PREFACE};
pub use mend::{Mended, mend};
pub use section::Section;
pub use stream::{Carried, Stream, StreamEnd};
pub use way::Taken;
