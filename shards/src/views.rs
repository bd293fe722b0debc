//! How a shard answers who looks: a slice of the slab at a time, so that no turn grows long.

use crate::{
    along::Along,
    connection::Phase,
    http::Http,
    io::{Io, Side, Token},
    look::{ConnectionDetails, ConnectionId, ConnectionView, Look, Turn},
    shard::Shard,
    switch::Switch,
    sys::Nanos,
};
use std::time::Duration;

/// Slots of the slab that are looked at in one turn: some tens of microseconds.
const SLICE_SLOTS: u32 = 2048;

impl<I: Io> Shard<I> {
    pub(crate) fn on_look(&self, look: Look) {
        match look {
            Look::Connections(from, viewer) => {
                let (seen, next) = self.views(from);
                viewer.connections(self.index, seen, next);
            }
            Look::Details(ids, viewer) => {
                let seen = ids.into_iter().filter_map(|id| self.details(id)).collect();
                viewer.details(self.index, seen);
            }
            Look::Failures(viewer) => viewer.failures(self.index, self.core.failures.view()),
        }
    }

    fn views(&self, from: u32) -> (Vec<ConnectionView>, Option<u32>) {
        let end = u32::try_from(self.slab.len()).unwrap_or(u32::MAX);
        let until = from.saturating_add(SLICE_SLOTS).min(end);
        let seen = (from..until).filter_map(|slot| self.view(slot)).collect();
        (seen, (until < end).then_some(until))
    }

    fn view(&self, slot: u32) -> Option<ConnectionView> {
        let connection = &self.slab[slot as usize];
        let is_dialling = match connection.phase {
            Phase::Dialling => true,
            Phase::Hearing | Phase::Relaying => false,
            Phase::Free | Phase::Closing(_) => return None,
        };
        let since = |at: Nanos| Duration::from_nanos(self.core.now.saturating_sub(at));
        Some(ConnectionView {
            id: ConnectionId { slot, generation: connection.generation },
            direction: connection.direction,
            original_dst: connection.original_dst,
            protocol: connection.protocol(),
            is_deferred: connection.is_deferred(),
            is_dialling: is_dialling || (connection.is_leg() && !connection.is_settled()),
            is_leg: connection.is_leg(),
            is_mirror: connection.is_mirror(),
            upstream: connection.remote(),
            age: since(connection.accepted_at),
            idle: since(connection.last_moved().max(connection.accepted_at)),
            bytes: connection.bytes(),
            overhead: Duration::from_nanos(connection.overhead_ns()),
            stalled: connection.stalled(),
        })
    }

    fn details(&self, id: ConnectionId) -> Option<ConnectionDetails> {
        let connection = self.slab.get(id.slot as usize)?;
        if !connection.phase.lives() || connection.generation != id.generation {
            return None;
        }
        let token = |side| Token { slot: id.slot, generation: id.generation, side };
        let http = connection.http.as_deref();
        let has_upstream = connection.phase != Phase::Hearing
            && connection.switch().is_none_or(Switch::has_upstream);
        let is_whole = !connection.is_leg();
        let owner = connection.tap.as_ref().and_then(Along::owner);
        let tcp = |side| self.core.io.tcp_info(token(side)).ok();
        Some(ConnectionDetails {
            id,
            peer: self.core.io.peer_addr(owner.unwrap_or(token(Side::Downstream))).ok(),
            tcp: [
                is_whole.then(|| tcp(Side::Downstream)).flatten(),
                has_upstream.then(|| tcp(Side::Upstream)).flatten(),
            ],
            streams: http.map_or_else(Vec::new, |http| http.streams(&self.core)),
            stream_count: http.map_or(0, Http::stream_count),
        })
    }

    /// A turn has ended; it is noted if a time line is being taken.
    #[cold]
    pub(crate) fn note_turn(&mut self, turn: Turn) {
        if self.time_line.as_ref().is_some_and(|line| !line.note(turn)) {
            self.time_line = None;
        }
    }
}
