//! Bytes and time in, decisions out: protocols, trace context and routes, without any I/O.
//!
//! Nothing here opens a socket, reads a clock, draws a random number or starts a thread: all of
//! that is an argument. Nothing here panics on what a peer sends, and nothing grows on a peer's
//! wish past [`Limits`].
//!
//! - [`ports`]: which connections are HTTP/1 at all.
//! - [`h1`]: heads, framing, bodies, patches, exchanges, and the two halves of a connection.
//! - [`h2`]: HTTP/2 likewise: frames, fields, streams, and what is put into a request's fields.
//! - [`codec`]: what a protocol is, and what becomes of its messages; [`tap`] reads any of them along.
//! - [`redis`], [`dubbo`], [`thrift`], [`postgresql`] and so on: each protocol; [`sql`]: what a text
//!   of it does.
//! - [`ping`]: how a server is asked whether it is well.
//! - [`private`]: protocols that are not built in.
//! - [`trace`]: trace context in headers, the map that carries it from a service's inbound request
//!   to its outbound ones, request ids.
//! - [`route`]: which backend a request asks for.
#![deny(unsafe_code)]

// The kit names it as tests do.
#[cfg(feature = "kit")]
extern crate self as netra_codecs;

pub mod amqp;
pub mod brpc;
pub mod codec;
pub mod dubbo;
pub mod h1;
pub mod h2;
pub mod kafka;
#[cfg(feature = "kit")]
#[path = "../tests/kit/mod.rs"]
pub mod kit;
pub mod limits;
pub mod mcp;
pub mod memcached;
pub mod mongodb;
pub mod mqtt;
pub mod mysql;
pub mod nats;
mod network;
pub mod ping;
pub mod ports;
pub mod postgresql;
pub mod private;
mod protobuf;
mod reasons;
pub mod redis;
pub mod route;
pub mod sql;
#[allow(unsafe_code)]
mod sys;
pub mod tap;
pub mod thrift;
pub mod trace;
pub mod trpc;
pub mod zookeeper;

pub use limits::Limits;
pub use ports::{PortSet, PortSetError};
pub use sys::ascii;
