//! Leaving: nobody new is accepted, and what is there comes to its end. A connection that is read as
//! HTTP need not wait for its peers' idea of an end: where it is quiet it is closed between two
//! exchanges, and where it is busy a request asks, in time, for an answer that is the last. Of HTTP/2
//! the client is told that it should begin no further streams (GOAWAY), between two frames of the
//! server, before its connection is closed or when it is time. So no request is cut.

use crate::{
    connection::Phase,
    copies::Outcome,
    error::End,
    http::GOODBYE,
    io::{Close, Event, Io, Token, would_block},
    shard::{CutConnection, Shard},
    sys::{Nanos, nanos},
};
use netra_codecs::h2::GOAWAY;
use netra_perf::Key;
use std::time::Duration;

/// How often quiet connections are looked for.
const LOOK_NS: Nanos = 20_000_000;
/// How long a connection is silent before it is quiet: the next request of a client that is busy
/// comes sooner, and is answered. Near the deadline it need not be that long.
const QUIET_NS: Nanos = 500_000_000;
/// Cut connections that are listed by name.
const CUT_LISTED: usize = 64;

impl<I: Io> Shard<I> {
    /// Accepts nobody new; what is left after so long is cut.
    pub(crate) fn begin_drain(&mut self, deadline: Duration) {
        self.accept_again_at = None;
        self.core.io.close_listener(self.descriptors.room());
        self.finished_before = self.core.finished;
        self.drain_until = Some(self.core.now + nanos(deadline));
        if self.core.http.is_some() {
            self.quiet_look_at = Some(self.core.now);
            self.last_asked_at = self.core.now + nanos(deadline) / 2;
        }
    }

    /// Closes connections that are quiet between two exchanges.
    pub(crate) fn close_quiet(&mut self) {
        let (Some(at), Some(until)) = (self.quiet_look_at, self.drain_until) else { return };
        let now = self.core.now;
        if now < at {
            return;
        }
        self.quiet_look_at = Some(now + LOOK_NS);
        // Not before: while rules are in place, who is asked to come again is refused.
        let is_time = now >= self.last_asked_at;
        self.core.http.as_deref_mut().into_iter().for_each(|http| http.asks_for_last = is_time);
        let quiet = QUIET_NS.min(until.saturating_sub(now) / 4);
        for slot in 0..u32::try_from(self.slab.len()).unwrap_or(u32::MAX) {
            let connection = &self.slab[slot as usize];
            let moved_at = connection.last_moved().max(connection.accepted_at);
            let is_quiet = now.saturating_sub(moved_at) >= quiet;
            let is_relayed = connection.phase == Phase::Relaying && !connection.is_leg();
            if !is_relayed || !(is_quiet || is_time) {
                continue;
            }
            let downstream = self.downstream_of(slot);
            if self.slab[slot as usize].may_say_goodbye() {
                self.say_goodbye(downstream);
                continue;
            }
            let may_close = is_quiet && self.slab[slot as usize].is_between_exchanges();
            let has_upstream = !self.slab[slot as usize].is_detached();
            let is_silent = |shard: &mut Self, of| may_close && shard.is_silent(of);
            if is_silent(self, downstream) && (!has_upstream || is_silent(self, downstream.other()))
            {
                self.end(downstream, End::Drained);
            }
        }
    }

    /// Tells a client of HTTP/2 that there will be no further streams, as its server would: as bytes
    /// of the server's that have come. Later, where no buffer is left.
    fn say_goodbye(&mut self, downstream: Token) {
        let Some(buffer) = self.core.pool.lend() else { return };
        self.core.pool.room(buffer)[..GOAWAY.len()].copy_from_slice(GOAWAY);
        self.core.pool.set_filled(buffer, u32::try_from(GOAWAY.len()).unwrap_or(0));
        self.core.recorder.bump(Key::http2(GOODBYE));
        self.on_event(Event::Received(downstream.other(), buffer));
    }

    /// Nothing has come that is not seen yet.
    pub(crate) fn is_silent(&mut self, token: Token) -> bool {
        let scratch = &mut self.core.scratch[..1];
        self.core.io.peek(token, scratch).is_err_and(|error| would_block(&error))
    }

    /// Cuts what has not finished when the drain's deadline comes.
    pub(crate) fn cut_at_deadline(&mut self) {
        let Some(until) = self.drain_until.filter(|until| self.core.now >= *until) else { return };
        for slot in 0..u32::try_from(self.slab.len()).unwrap_or(u32::MAX) {
            let connection = &self.slab[slot as usize];
            if connection.is_mirror() {
                self.end_mirror(slot, Outcome::Cut, Close::Reset);
                continue;
            }
            if !connection.phase.lives() || connection.is_leg() {
                continue;
            }
            let token = self.downstream_of(slot);
            if connection.phase == Phase::Relaying && connection.is_between_exchanges() {
                self.end(token, End::Drained);
                continue;
            }
            self.report.cut_total += 1;
            if self.report.cut.len() < CUT_LISTED {
                self.report.cut.push(CutConnection {
                    peer: self.core.io.peer_addr(token).ok(),
                    original_dst: connection.original_dst,
                    direction: connection.direction,
                    age: Duration::from_nanos(self.core.now - connection.accepted_at),
                });
            }
            self.end(token, End::DrainDeadline);
        }
        // Completions of what was cut are still to come; look again shortly.
        self.drain_until = Some(until.max(self.core.now) + 1_000_000);
    }
}
