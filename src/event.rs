//! What the control thread hears: signals, what pages ask and order, and answers for the shards.

use crate::{exit::Exit, rules::Good};
use netra_codecs::trace::SamplerPlan;
use netra_shards::{ConnectionId, Resolved, ShardSet, TimeLine, ToResolve, Viewer};
use std::sync::Arc;

/// What the control thread waits for.
#[derive(Debug)]
pub(crate) enum Event {
    Signal(Signal),
    /// Somebody asks for something, or orders it.
    Asked(Request),
    /// Another rule of the sampling manager.
    Sample(Arc<SamplerPlan>),
    /// What became of documents of rules that have changed.
    Rules(Result<Good, Vec<String>>),
    /// The addresses of a name that a shard asked for.
    Resolved(Box<ToResolve>, Resolved),
}

impl Event {
    /// Why the shards are to drain, if that is what this means.
    pub(crate) fn begins_drain(&self) -> Option<&'static str> {
        match self {
            Self::Signal(signal) if *signal != Signal::Hangup => Some(signal.name()),
            Self::Asked(Request::Drain) => Some("POST /drain"),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Hangup,
    Interrupt,
    Terminate,
}

impl Signal {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The exit code of a process that this signal ended.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Self::Hangup => Exit::signalled(1),
            Self::Interrupt => Exit::signalled(2),
            Self::Terminate => Exit::signalled(15),
        }
    }
}

/// Something for the control thread.
#[derive(Debug)]
pub(crate) enum Request {
    /// A slice of a shard's connections.
    Connections { shard: usize, from: u32, viewer: Arc<dyn Viewer> },
    /// What the kernel knows about some.
    Details { shard: usize, of: Vec<ConnectionId>, viewer: Arc<dyn Viewer> },
    /// What has failed on a shard.
    Failures { shard: usize, viewer: Arc<dyn Viewer> },
    /// A shard's turns.
    NoteTurns { shard: usize, line: Arc<TimeLine> },
    /// As SIGTERM.
    Drain,
    /// As a second one.
    Quit,
}

impl Request {
    /// Passes a question on to its shard.
    pub(crate) fn ask(self, set: &ShardSet) {
        match self {
            Self::Connections { shard, from, viewer } => set.connections(shard, from, viewer),
            Self::Details { shard, of, viewer } => set.details(shard, of, viewer),
            Self::Failures { shard, viewer } => set.failures(shard, viewer),
            Self::NoteTurns { shard, line } => set.note_turns(shard, line),
            Self::Drain | Self::Quit => {}
        }
    }
}
