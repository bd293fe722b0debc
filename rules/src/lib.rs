//! Rules of traffic: documents become one immutable [`Table`], and [`decide()`] says what it means
//! for a message.
//!
//! Nothing here opens a file, reads a clock, draws a random number or takes a lock, and nothing
//! allocates for a message: time and chance are arguments, texts are read by who compiles.
//!
//! - [`Facts`]: what the caller knows of a message; values are pulled by [`Key`], only those that
//!   a rule asks for.
//! - [`Table`]: what all documents say together. Shards share it; nobody ever changes it.
//! - [`State`]: what deciding needs to remember, one for each shard, made by who compiled the table
//!   and thrown away with it; [`Process`] is what the shards of a process share of it.
//! - [`Verdict`]: plain numbers that name things of the table that decided. Whoever keeps a verdict
//!   keeps the table.
#![deny(unsafe_code)]

mod ask;
mod balance;
mod choice;
mod compile;
mod crd;
mod decide;
mod document;
mod example;
mod expect;
mod explain;
mod facts;
mod hash;
mod key;
mod kinds;
mod landing;
mod limit;
mod locality;
mod matcher;
mod near;
mod pattern;
mod schema;
mod shape;
mod spec;
mod srv;
mod state;
mod table;
mod trouble;
mod verdict;
mod yaml;

pub use balance::{
    Balancer, Breakers, CheckView, Checked, Cluster, ClusterView, Ejected, Endpoint,
    EndpointAddress, EndpointView, Full, HealthCheck, Heard, Outlier, Retries, Seat, Standing,
    SuccessRate, TRIES_MAX, TrafficPolicy, Unwell, Warmup,
};
pub use compile::{Compiled, Context, Documents, RouterLanding};
pub use crd::{Crds, crds};
pub use decide::decide;
pub use document::{Source, TEXT_BYTES_MAX};
pub use example::Example;
pub use expect::{Expectations, Tested};
pub use explain::{explain, in_words, may_act};
pub use facts::{Direction, Facts};
pub use key::{Key, Protocol};
pub use limit::{Bucket, Process};
pub use locality::{Locality, is_label};
pub use near::distance;
pub use schema::schema;
pub use srv::{ServiceRecord, is_service_name};
pub use state::{Hits, RuleHits, State};
pub use table::{Concern, Mutation, RuleInfo, Table};
pub use trouble::{Place, Trouble, Troubles};
pub use verdict::{
    Action, ClusterId, EndpointId, MutationsId, Refusal, RefusalKind, Retry, Route, RuleId, Verdict,
};
