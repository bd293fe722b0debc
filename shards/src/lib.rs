//! The data path of netra: one pinned loop per core that accepts redirected connections, asks the
//! kernel for their original destination, dials it and relays both ways.
//!
//! A connection reads top to bottom: `accept` -> `connection` (original destination, guard,
//! direction) -> `dial` -> `flow` (twice) -> record. All of it runs against the `Io` face, which
//! has three backends: io_uring, epoll, and a simulated kernel for tests.
#![deny(unsafe_code)]

mod accept;
mod access;
mod buffers;
mod config;
mod connection;
mod correlate;
#[cfg(test)]
mod cost;
mod dial;
mod error;
mod flow;
mod host;
mod http;
#[cfg(test)]
mod http_simulation;
mod io;
mod look;
mod pipes;
mod polling;
mod probe;
mod resolve;
#[cfg(test)]
mod route_simulation;
mod set;
mod shard;
#[cfg(test)]
mod simulation;
mod spans;
#[cfg(test)]
mod switch_simulation;
mod sys;
mod timers;
mod young;

pub use access::{AccessLogConfig, AccessSource, ConnectionRecord};
pub use config::{
    Driver, DriverChoice, HttpConfig, Limits, RoutingConfig, ShardConfig, StartError,
    TracingConfig, io_uring_hint,
};
pub use error::Direction;
pub use io::Side;
pub use look::{ConnectionDetails, ConnectionId, ConnectionView, TcpInfo, TimeLine, Turn, Viewer};
pub use resolve::{Resolved, Resolver, ToResolve};
pub use set::{ShardSet, choose_driver, raise_descriptor_limit};
pub use shard::{CutConnection, DrainReport};
pub use spans::{Sink, Source, SpanSink, SpanSource, ring as span_ring};
pub use sys::code::release_start_code;
