//! A connection's two ways, read along with any codec.
//!
//! The bytes that a [`Tap`] is shown have been sent on already, so that whatever it says cannot
//! disturb them: at the first doubt it says [`Step::Tunnel`] and looks at nothing any more.
//!
//! # How to drive it
//! Show each way's bytes in order: [`Tap::step`] takes a part of the input and says what it was;
//! go on with the rest until [`Step::Need`], **with an empty rest as well**. What a request asks
//! and what the answer to it says makes an [`Exchange`], which is handed out once its answer is
//! whole. Requests are to be shown before what answers them.
//!
//! | step | what happened |
//! |---|---|
//! | `Need` | all taken, more bytes please |
//! | `Body(n)` | n bytes of something that was told, or that means nothing |
//! | `Opened` | a request, and the exchange that it opened |
//! | `Answered` | the head of an answer whose body is still coming |
//! | `Finished` | an exchange is over; its answer's head comes with it unless it was `Answered` |
//! | `Aside` | a message that is part of no exchange: heartbeat, push, callback |
//! | `Late(n)` | n bytes of the answer to a request that was taken out; only where that is done |
//! | `Tunnel` | the end of it; open exchanges are in [`Tap::drain`] |
//!
//! **Long bodies** need not be shown: after a step [`Tap::passable`] bytes of the way may pass by
//! splice. Tell [`Tap::passed`] then, and take a step with an empty input to get the exchange that
//! they may have finished.
//!
//! # Example
//! ```
//! use netra_codecs::Limits;
//! use netra_codecs::codec::{Head, Way};
//! use netra_codecs::tap::{Protocol, Step, Tap};
//!
//! fn show(tap: &mut Tap<String>, way: Way, mut input: &[u8], done: &mut Vec<String>) {
//!     loop {
//!         match tap.step(way, input, &Limits::DEFAULT, 0, &mut Head::default()) {
//!             Step::Need => return,
//!             Step::Body(count) | Step::Late(count) => input = &input[count..],
//!             Step::Opened { consumed, message, exchange } => {
//!                 let name = message.name().concat();
//!                 exchange.data = String::from_utf8_lossy(&name).into_owned();
//!                 input = &input[consumed..];
//!             }
//!             Step::Answered { consumed, .. } | Step::Aside { consumed, .. } => {
//!                 input = &input[consumed..];
//!             }
//!             Step::Finished { consumed, exchange, error, .. } => {
//!                 let error = String::from_utf8_lossy(error).into_owned();
//!                 done.push([exchange.data, error].join(" "));
//!                 input = &input[consumed..];
//!             }
//!             Step::Tunnel(reason) => panic!("{reason}"),
//!         }
//!     }
//! }
//!
//! let (mut tap, mut done) = (Tap::new(Protocol::Redis), Vec::new());
//! let requests = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$4\r\nINCR\r\n$1\r\na\r\n";
//! show(&mut tap, Way::Request, requests, &mut done);
//! show(&mut tap, Way::Response, b"$1\r\nx\r\n-ERR value is not an integer\r\n", &mut done);
//! assert_eq!(done, ["GET ", "INCR ERR"]);
//! ```

mod books;
mod detect;
mod http1;
mod last_error;
mod message;
mod ports;
mod protocol;
mod step;

pub use crate::codec::{Exchange, Open};
pub use detect::{Detector, Finding, Witness};
pub use message::Message;
pub use ports::{ProtocolPorts, ProtocolPortsError};
pub use protocol::Protocol;
pub use step::{Step, Tap};
