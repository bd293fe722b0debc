//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112): heads, framing, bodies, patches, exchanges, halves.
//!
//! # The two halves
//! A connection on an HTTP port has a [`RequestHalf`] and a [`ResponseHalf`], one for each
//! direction, and one [`Exchanges`] between them. The caller owns sockets, buffers and time; it
//! shows each half the bytes of its direction and does what the steps say:
//!
//! | | [`RequestHalf`]: a gate for heads | [`ResponseHalf`]: a tap |
//! |---|---|---|
//! | before the step | nothing has been sent | all bytes have been sent |
//! | `Need` | all taken, more bytes please | the same |
//! | `Forward(n)` / `Body(n)` | send the next n bytes as they are | n bytes were body |
//! | `Head` | send the head with a [`HeadPatch`] | note status and time |
//! | `Finish` | | the exchange is done: write its span |
//! | `Opaque` | send what is held, then relay | relay; step the request half once |
//!
//! A step takes a part of the input; call again with the rest until `Need`. Steps depend on the
//! bytes alone, not on how they were cut, and a step never waits for time. A pipeline is a
//! sequence of steps on one buffer.
//!
//! **Long bodies** need not be shown. After a step, `passable()` says how many bytes may go by
//! splice from here: all of a body with a length, the rest of a chunk, `u64::MAX` until the
//! server closes and once opaque. Tell `passed(n)` afterwards, and take a response step with an
//! empty input to get the exchange that those bytes may have finished.
//!
//! **Opaque** is for ever, for both directions, counted by [`Reason`]: once per connection, when
//! [`Exchanges::sealed`] first has one. When the request half found the reason, the requests
//! before it are in order all the same: the tap finishes their exchanges, then leaves. When the
//! tap found it, open exchanges stay open; [`Exchanges::drain`] takes them.
//!
//! **A switch of protocols** (`Upgrade`, CONNECT) is decided by the answer. After such a request
//! the gate parses nothing until the tap has seen it. 101, or 2xx to CONNECT, makes the
//! connection opaque; with any other answer HTTP goes on. Bytes that the client sends in between
//! may be the next request or the new protocol already: they are sent on at once, as they came,
//! and since nobody can say which they were, the connection is opaque from there on
//! ([`Reason::EarlyAfterUpgrade`]). A request body is not in between.
//!
//! **The end of a stream** is told to `end()`: the gate gives back the beginning of a head that
//! it holds, the tap the exchange whose response ended by it. What is open after the server's end
//! has been cut short.
//!
//! # Example
//! Both directions as a shard drives them; `client` and `server` stand for its two sockets.
//!
//! ```
//! use netra_codecs::Limits;
//! use netra_codecs::h1::*;
//!
//! /// Once for a shard.
//! struct Shared {
//!     reader: HeadReader,
//!     patch: HeadPatch,
//! }
//!
//! /// Once for a connection. `Exchanges<T>` carries anything per request; here its target.
//! struct Connection {
//!     request: RequestHalf,
//!     response: ResponseHalf,
//!     exchanges: Exchanges<String>,
//! }
//!
//! impl Connection {
//!     /// A buffer was received from the client: what goes to the server.
//!     fn from_client(&mut self, mut input: &[u8], now_ns: u64, shared: &mut Shared) -> Vec<u8> {
//!         let mut server = Vec::new();
//!         loop {
//!             let Shared { reader, patch } = shared;
//!             match self.request.step(input, reader, &mut self.exchanges, now_ns) {
//!                 RequestStep::Need => return server,
//!                 RequestStep::Forward(count) => {
//!                     server.extend_from_slice(&input[..count]);
//!                     input = &input[count..];
//!                 }
//!                 RequestStep::Head { head, consumed, exchange, .. } => {
//!                     patch.clear();
//!                     patch.set(head.fields(), b"X-Source", b"netra").expect("room for one line");
//!                     // A shard gathers the pieces for writev.
//!                     for piece in patch.pieces(head.bytes()) {
//!                         server.extend_from_slice(piece.bytes());
//!                     }
//!                     let open = self.exchanges.get_mut(exchange).expect("opened by this step");
//!                     open.data = String::from_utf8_lossy(head.target()).into_owned();
//!                     input = &input[consumed..];
//!                 }
//!                 // From now on steps say `Forward` for everything; the half may as well go.
//!                 RequestStep::Opaque { held, .. } => server.extend_from_slice(held),
//!             }
//!         }
//!     }
//!
//!     /// A buffer was received from the server and has been sent to the client. Returns what is
//!     /// to be sent to the server now, which is nothing unless the connection turns opaque.
//!     fn from_server(
//!         &mut self,
//!         mut input: &[u8],
//!         now_ns: u64,
//!         shared: &mut Shared,
//!         spans: &mut Vec<(String, u16, u64)>,
//!     ) -> Vec<u8> {
//!         let mut server = Vec::new();
//!         loop {
//!             match self.response.step(input, &mut shared.reader, &mut self.exchanges) {
//!                 ResponseStep::Need => return server,
//!                 ResponseStep::Body(count) => input = &input[count..],
//!                 ResponseStep::Head { consumed, .. } => input = &input[consumed..],
//!                 ResponseStep::Finish(done) => {
//!                     let status = done.status.expect("finished by a response");
//!                     spans.push((done.data, status, now_ns - done.opened_ns));
//!                 }
//!                 ResponseStep::Opaque(_) => server.extend(self.from_client(&[], now_ns, shared)),
//!             }
//!         }
//!     }
//! }
//!
//! let mut shared = Shared { reader: HeadReader::new(Limits::DEFAULT), patch: HeadPatch::new() };
//! let mut connection = Connection {
//!     request: RequestHalf::new(),
//!     response: ResponseHalf::new(),
//!     exchanges: Exchanges::new(),
//! };
//! let mut spans = Vec::new();
//!
//! // The head comes in two pieces, a body of 100,000 bytes begins in the second.
//! let start = b"POST /up HTTP/1.1\r\nHost: a\r\nCont";
//! assert_eq!(connection.from_client(start, 10, &mut shared), b"");
//! let rest = b"ent-Length: 100000\r\n\r\nabc";
//! let sent = connection.from_client(rest, 20, &mut shared);
//! let head = "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\nX-Source: netra\r\n\r\n";
//! assert_eq!(sent, [head, "abc"].concat().as_bytes());
//! // The rest of the body may be spliced.
//! assert_eq!(connection.request.passable(), 99_997);
//! connection.request.passed(99_997, &mut connection.exchanges);
//!
//! let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
//! connection.from_server(interim, 60, &mut shared, &mut spans);
//! let response = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok";
//! connection.from_server(response, 120, &mut shared, &mut spans);
//! assert_eq!(spans, [("/up".to_owned(), 201, 100)]);
//! ```
//!
//! # Towards other protocols
//! The halves are not yet behind the trait that all codecs will share, but have its shape: pure on the input, offsets out, edits as ranges of the original, `Need` for its
//! `NeedMore`, `Head` for `Frame`, `passable` for `Opaque(n)`, `Opaque` for `Tunnel`.

pub mod body;
pub mod exchange;
pub mod fields;
pub mod framing;
pub mod half;
pub mod head;
pub mod patch;
mod plain;
mod reason;
pub mod scan;
pub mod target;
mod words;

pub use body::{Advance, BodyCursor};
pub use exchange::{Exchange, ExchangeId, Exchanges};
pub use fields::{FieldRange, Fields};
pub(crate) use fields::{Lengths, LineOffsets};
pub use framing::Framing;
pub use half::{RequestHalf, RequestStep, ResponseHalf, ResponseStep};
pub use head::{HeadReader, RequestHead, RequestKind, ResponseHead, Version};
pub use patch::{HeadPatch, PatchError, Piece, Pieces, check_field};
pub use reason::Reason;
pub use scan::{HeadKind, HeadScan, Scanned};
pub use target::RequestTarget;
pub(crate) use words::lower;
