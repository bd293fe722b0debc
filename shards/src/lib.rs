//! The data path of netra: one pinned loop per core that accepts redirected connections, asks the
//! kernel for their original destination, dials it and relays both ways.
//!
//! A connection reads top to bottom in `serve`: accept, original destination, guard and direction
//! (`classify`), dial, two flows, record. What bytes mean is read beside the flows: `http` gates
//! and taps HTTP/1, `tap` reads any other protocol along. Modules stand on one another in one
//! order: `core` (what connections share), `http` and `tap`, `flow`, `connection`, `shard` (the
//! loop), and what it does: `accept`, `serve`, `dial`, `tend`, `upstream`, `shed`, `views`. All of
//! it runs against the `Io` face, which has three backends: io_uring, epoll, and a simulated
//! kernel for tests.
#![deny(unsafe_code)]

mod accept;
mod access;
mod again;
mod along;
#[cfg(test)]
mod answers_simulation;
#[cfg(test)]
mod balance_simulation;
mod buffers;
mod classify;
mod config;
mod connection;
mod copies;
mod core;
mod correlate;
#[cfg(test)]
mod cost;
mod defer;
#[cfg(test)]
mod defer_simulation;
mod descriptors;
mod dial;
mod drain;
mod driver;
mod editor;
mod error;
mod exchange;
mod fail;
mod failures;
mod flow;
mod gate;
#[cfg(test)]
mod gate_simulation;
#[cfg(test)]
mod held_simulation;
mod host;
mod http;
#[cfg(test)]
mod http_simulation;
mod io;
mod joins;
#[cfg(test)]
mod late_simulation;
#[cfg(test)]
mod legs_cases;
#[cfg(test)]
mod legs_simulation;
mod links;
mod look;
#[cfg(test)]
mod mirror_simulation;
#[cfg(test)]
mod moves_simulation;
mod own_dials;
mod patience;
mod pipes;
mod polling;
mod pressure;
mod probe;
mod remembered;
mod resolve;
#[cfg(test)]
mod route_simulation;
mod sends;
mod serve;
mod set;
mod shard;
mod shed;
#[cfg(test)]
mod simulation;
mod sources;
mod spans;
#[cfg(test)]
mod successor_simulation;
mod switch;
#[cfg(test)]
mod switch_simulation;
mod sys;
mod tap;
#[cfg(test)]
mod tap_simulation;
mod tend;
mod timers;
#[cfg(test)]
mod tries_simulation;
#[cfg(test)]
mod two_simulation;
mod upstream;
mod views;
mod young;

pub use accept::connections_for;
pub use access::{AccessSource, ConnectionRecord, Known};
pub use config::{
    AccessLogConfig, DriverChoice, HttpConfig, JoinLevel, Limits, MemoryWatch, RoutingConfig,
    ShardConfig, StartError, TracingConfig, io_uring_hint,
};
pub use driver::Driver;
pub use error::Direction;
pub use failures::{DESTINATIONS_COUNTED, Destination, FAILURES_KEPT, FailuresView};
pub use io::Side;
pub use links::LinkNames;
pub use look::{
    ConnectionDetails, ConnectionId, ConnectionView, StreamView, TimeLine, Turn, Viewer,
};
pub use resolve::{Resolved, Resolver, ToResolve, Unresolved};
pub use set::{ShardSet, choose_driver, raise_descriptor_limit};
pub use shard::{CutConnection, DrainReport};
pub use spans::{Sink, Source, SpanSink, SpanSource, ring as span_ring};
pub use switch::goal::ADDRESSES_MAX;
pub use sys::{TcpInfo, code::release_start_code, monotonic_ns};
