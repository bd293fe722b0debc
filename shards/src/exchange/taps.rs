//! What the connections of a shard share whose bytes are read along.

use super::ports::SeenPorts;
use crate::sys::Nanos;
use netra_codecs::tap::{Protocol, ProtocolPorts};
use netra_perf::ProtocolTable;
use std::net::SocketAddr;

/// A protocol that is read, as the port of a connection names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) protocol: Protocol,
    /// Its place among those that the recorder has cells for.
    pub(crate) row: u8,
}

/// What is read where, as settings say it, and what else may be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    pub(crate) ports: ProtocolPorts,
    /// Connections on ports that nothing names are watched.
    pub(crate) detects: bool,
    /// Protocols of which rules may say that they are spoken somewhere.
    pub(crate) told: Vec<Protocol>,
}

impl Reads {
    /// What is read on these ports, and nothing else.
    #[cfg(test)]
    pub(crate) fn on(ports: &ProtocolPorts) -> Self {
        Self { ports: ports.clone(), ..Self::default() }
    }

    /// What the recorder has to have cells for, in the order of the protocols.
    pub(crate) fn tables(&self) -> Vec<ProtocolTable> {
        let table = |protocol: Protocol| {
            let about = protocol.about();
            ProtocolTable { name: about.name, operations: about.operations }
        };
        self.protocols().map(table).collect()
    }

    /// The protocols that may be read, each once, in their order.
    fn protocols(&self) -> impl Iterator<Item = Protocol> {
        let is_read = |protocol: &Protocol| {
            self.detects
                || self.told.contains(protocol)
                || self.ports.protocols().any(|named| named == *protocol)
        };
        let built_in = Protocol::ALL.iter().copied().filter(is_read);
        let is_private = |protocol: &Protocol| matches!(protocol, Protocol::Private(_));
        let told = self.told.iter().copied();
        let told = told.filter(|told| self.ports.protocols().all(|named| named != *told));
        built_in.chain(self.ports.protocols().chain(told).filter(is_private))
    }
}

/// What a shard has for all its tapped connections.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    reads: Reads,
    /// The protocols of it, by row.
    rows: Box<[Protocol]>,
    /// What they turned out to be.
    pub(crate) seen: SeenPorts,
    pub(crate) limits: netra_codecs::Limits,
    /// Bytes of heads that have not come whole, of all tapped connections.
    pub(crate) held_bytes: usize,
    pub(crate) held_bytes_max: usize,
    /// Memory is short: no further heads are held.
    pub(crate) is_tight: bool,
    /// How long a head may come in pieces that somebody decides about; none is for ever.
    pub(crate) head_timeout_ns: Option<Nanos>,
}

impl Taps {
    pub(crate) fn new(reads: Reads, limits: netra_codecs::Limits, held_bytes_max: usize) -> Self {
        let rows = reads.protocols().collect();
        let seen = SeenPorts::default();
        Self {
            reads,
            rows,
            seen,
            limits,
            held_bytes: 0,
            held_bytes_max,
            is_tight: false,
            head_timeout_ns: None,
        }
    }

    /// The protocol that settings say is read there.
    pub(crate) fn named(&self, to: SocketAddr) -> Option<Named> {
        self.named_as(self.reads.ports.get(to)?)
    }

    /// Whether one is.
    pub(crate) fn is_named(&self, to: SocketAddr) -> bool {
        self.reads.ports.get(to).is_some()
    }

    /// A protocol that is read somewhere.
    pub(crate) fn named_as(&self, protocol: Protocol) -> Option<Named> {
        let row = self.rows.iter().position(|known| *known == protocol)?;
        Some(Named { protocol, row: u8::try_from(row).ok()? })
    }

    /// Whether a connection on this port, which nothing names, is watched.
    pub(crate) fn watches(&self, port: u16, now: Nanos) -> bool {
        self.reads.detects && self.seen.is_worth_it(port, now)
    }

    /// More is held than may be.
    pub(crate) fn holds_too_much(&self) -> bool {
        self.is_tight || self.held_bytes > self.held_bytes_max
    }

    /// Whether so much more may be kept of what goes to mirrors: of what heads may take, half is left to
    /// them.
    pub(crate) fn has_room_for_copies(&self, more: usize) -> bool {
        !self.is_tight && self.held_bytes + more <= self.held_bytes_max / 2
    }

    /// Whether memory is short.
    pub(crate) fn set_tight(&mut self, is_tight: bool) {
        self.is_tight = is_tight;
    }

    /// Bytes of heads that are held now.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}
