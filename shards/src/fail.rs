//! How the end of a connection is told of: what failed goes to the list of failures and to the
//! access log, with what is known of the request; what ended as it should and was not read goes to
//! the access log alone.

use crate::{
    access::{ConnectionRecord, Known, unix_ns_before},
    along::Along,
    buffers::BufferId,
    classify::{Classified, Refused},
    connection::{Connection, Phase},
    core::Core,
    error::{Direction, End},
    exchange::Source,
    http::{Http, outcome_of},
    io::{Io, Side, Token},
    shard::Shard,
    sys::{Fd, unix_ns},
};
use netra_codecs::trace::Fault;
use netra_perf::labels::{PROTOCOLS, REASONS};
use std::time::Duration;

/// What there is to say of a connection that has ended.
fn record_of<I: Io>(
    core: &Core<I>,
    connection: &Connection,
    token: Token,
    end: &'static str,
) -> ConnectionRecord {
    let age = core.now.saturating_sub(connection.accepted_at);
    let is_outbound = connection.direction == Direction::Outbound;
    let routed = connection.remote().filter(|_| is_outbound);
    let tunnel = connection.tunnel.as_deref();
    ConnectionRecord {
        direction: Some(connection.direction),
        protocol: tunnel.map_or_else(|| connection.protocol(), |it| it.protocol),
        tunnel: tunnel.map(|it| it.reason),
        peer: core.io.peer_addr(Token { side: Side::Downstream, ..token }).ok(),
        original_dst: Some(connection.original_dst),
        dialled: routed.or(Some(connection.original_dst)),
        end,
        fault: None,
        known: None,
        start_unix_ns: unix_ns_before(age),
        duration: Duration::from_nanos(age),
        bytes: connection.bytes(),
        overhead_ns: connection.overhead_ns(),
    }
}

impl<I: Io> Shard<I> {
    /// Tells of a connection that ends.
    pub(crate) fn tell_of_end(&mut self, token: Token, end: End) {
        if end.fault().is_some() && self.slab[token.slot as usize].phase == Phase::Dialling {
            self.hear_undialled(Token { side: Side::Downstream, ..token });
        }
        let Self { core, slab, .. } = self;
        let connection = &mut slab[token.slot as usize];
        let is_opaque = connection.tap.as_ref().is_none_or(Along::is_opaque);
        let mut known = None;
        let mut fault = end.fault();
        if let Some(http) = connection.http.as_deref_mut() {
            // What failed first is why.
            fault = http.fault.or(fault);
            http.fault = fault;
            if fault.is_some() {
                known = http.cut.take().or_else(|| http.oldest(&mut core.observer));
            }
        }
        // One that has not sent all that was held still has its reader.
        let reader = (connection.http.as_deref(), connection.tap.as_ref());
        let tunnel = match reader {
            (Some(http), _) => http.tunnel(),
            (None, tap) => tap.and_then(Along::tunnel),
        };
        if let Some(tunnel) = tunnel {
            connection.tunnel = Some(Box::new(tunnel));
        }
        let is_bytes = connection.http.is_none() && is_opaque || connection.tunnel.is_some();
        let end = REASONS[end.index()];
        if fault.is_some() {
            let record = record_of(core, connection, token, end);
            core.fail(&ConnectionRecord { fault, known, ..record });
        } else if is_bytes && core.logs_next() {
            let record = record_of(core, connection, token, end);
            core.log(&record);
        }
    }

    /// Its upstream was not reached: on an HTTP port there may be a request to tell of.
    fn hear_undialled(&mut self, downstream: Token) {
        let early = self.slab[downstream.slot as usize].request.take_early(&self.core.pool);
        if let Some(mut http) = self.http_of(downstream) {
            let source = early.map_or_else(
                || {
                    let Core { io, scratch, .. } = &mut self.core;
                    Source::Scratch(io.peek(downstream, scratch).unwrap_or(0))
                },
                Source::Buffer,
            );
            http.hear(&mut self.core, source);
            self.slab[downstream.slot as usize].http = Some(http);
        }
        early.inspect(|buffer| self.core.pool.give_back(*buffer));
    }

    /// Tells of an accepted connection whose upstream could not even be dialled.
    pub(crate) fn tell_of_undialled(
        &mut self,
        fd: Fd,
        to: &Classified,
        early: Option<BufferId>,
        end: End,
    ) {
        let core = &mut self.core;
        let fault = end.fault();
        let mut known: Option<Box<Known>> = None;
        if core.is_http(to.original_dst) {
            let is_inbound = to.direction == Direction::Inbound;
            let remote = if is_inbound { to.caller } else { Some(to.original_dst) };
            let source = early.map_or_else(
                || Source::Scratch(core.io.receive_early(fd, &mut core.scratch).unwrap_or(0)),
                Source::Buffer,
            );
            let mut http = Http::new(to.direction, remote, None);
            http.fault = fault;
            http.hear(core, source);
            known = http.oldest(&mut core.observer);
            http.end(core, outcome_of(end));
        }
        early.inspect(|buffer| core.pool.give_back(*buffer));
        core.fail(&ConnectionRecord {
            direction: Some(to.direction),
            protocol: PROTOCOLS[core.protocol_index(to.original_dst)],
            peer: to.caller,
            original_dst: Some(to.original_dst),
            dialled: Some(to.original_dst),
            end: REASONS[end.index()],
            fault,
            known,
            start_unix_ns: unix_ns(),
            ..ConnectionRecord::default()
        });
    }

    /// Tells of an accepted connection that netra has no business with.
    pub(crate) fn tell_of_refused(&mut self, refused: &Refused) {
        self.core.fail(&ConnectionRecord {
            protocol: PROTOCOLS[0],
            peer: refused.caller,
            original_dst: refused.original_dst,
            end: refused.flag.word(),
            fault: Some(Fault::of(refused.flag)),
            start_unix_ns: unix_ns(),
            ..ConnectionRecord::default()
        });
    }

    /// Tells of a routed request that could not be sent where it was to go; its connection lives.
    pub(crate) fn tell_of_unrouted(&mut self, downstream: Token, fault: Fault) {
        let dialled = self.slab[downstream.slot as usize].remote();
        let downstream = self.owner_of(downstream.slot).unwrap_or(downstream);
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        let http = connection.http.as_deref_mut();
        let known = http.and_then(|http| http.oldest(&mut core.observer));
        let record = record_of(core, connection, downstream, fault.flag.word());
        core.fail(&ConnectionRecord { fault: Some(fault), known, dialled, ..record });
    }
}
