//! Bytes and time in, decisions out: HTTP/1, trace context and routes, without any I/O.
//!
//! Nothing here opens a socket, reads a clock, draws a random number or starts a thread: all of
//! that is an argument. Nothing here panics on what a peer sends, and nothing grows on a peer's
//! wish past [`Limits`].
//!
//! - [`ports`]: which connections are HTTP/1 at all.
//! - [`h1`]: heads, framing, bodies, patches, exchanges, and the two halves of a connection.
//! - [`trace`]: trace context in headers, the map that carries it from a service's inbound request
//!   to its outbound ones, request ids.
//! - [`route`]: which backend a request asks for.
#![deny(unsafe_code)]

pub mod h1;
pub mod limits;
pub mod ports;
pub mod route;
#[allow(unsafe_code)]
mod sys;
pub mod trace;

pub use limits::Limits;
pub use ports::{PortSet, PortSetError, Protocol};
