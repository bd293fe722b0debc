//! Another upstream for a routed request: wait until what was asked before has been answered,
//! close the upstream, resolve, dial, go on. The downstream connection stays; bytes of its client
//! wait in the flow's queue, and its reading pauses there like behind any slow receiver.
//!
//! ```text
//! Settled -> Draining -> Closing -> Resolving -> Dialling -> Settled
//!                                       |            |
//!                                       +---> 502 <--+
//! ```
//! While it drains, the old upstream may end its stream: then so does the connection. Or its
//! responses can no longer be told apart: then the connection is opaque, and the upstream stays.

use super::Waiting;
use crate::{
    dial,
    error::End,
    http::Http,
    io::{Close, Event, Hop, Io, Side, Token, When, errno},
    resolve::{Asker, Resolved, ToResolve},
    shard::Shard,
    timers::Timer,
};
use netra_codecs::{
    h1::{Reason, RequestKind},
    route::Target,
    trace::Outcome,
};
use netra_perf::Key;
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

/// Where the change of upstream stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stand {
    /// The upstream is the one that is wanted.
    #[default]
    Settled,
    /// Earlier requests are still being answered.
    Draining(Waiting),
    /// The old upstream is being closed.
    Closing,
    /// The control thread looks the name up.
    Resolving,
    /// The new upstream has not answered yet.
    Dialling,
    /// The new upstream did not answer, with this errno, and its socket is being closed.
    GivingUp(i32),
    /// The old upstream has ended before it was left, and the downstream has been told: what still
    /// comes is thrown away.
    Stranded,
    /// There is none, and the downstream has been told: what still comes is thrown away.
    GaveUp,
}

/// Which upstream a connection has, and which it wants. None is the original destination.
#[derive(Debug, Default)]
pub(super) struct Switch {
    stand: Stand,
    target: Option<Box<Target>>,
}

impl Switch {
    /// A request wants to go to `target`; true when that is elsewhere, and it has to wait.
    pub(super) fn wants(&mut self, target: Option<Target>, exchange: Waiting) -> bool {
        if self.target.as_deref() == target.as_ref() {
            return false;
        }
        self.target = target.map(Box::new);
        self.stand = Stand::Draining(exchange);
        true
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.stand != Stand::Settled
    }
}

impl Http {
    /// The connection has no upstream that could tell anything, or not one that should.
    pub(crate) fn is_detached(&self) -> bool {
        !matches!(self.switch.stand, Stand::Settled | Stand::Draining(_) | Stand::Stranded)
    }

    /// What its client still sends is thrown away.
    pub(crate) fn gave_up(&self) -> bool {
        matches!(self.switch.stand, Stand::GaveUp | Stand::Stranded)
    }

    /// The upstream's socket is the backend's to close; otherwise it is closed, or being closed.
    pub(crate) fn has_upstream(&self) -> bool {
        self.switch.stand == Stand::Dialling || !self.is_detached()
    }

    /// The backend will tell that the upstream's socket is closed.
    pub(crate) fn awaits_close(&self) -> bool {
        matches!(self.switch.stand, Stand::Closing | Stand::GivingUp(_))
    }

    /// The answer to the request that waits: nothing of a response has been sent, and nothing of
    /// the request has left.
    fn refusal(&mut self, why: &str) -> String {
        let target = match self.switch.target.as_deref() {
            Some(target) => target.to_string(),
            None => String::from("the original destination"),
        };
        let reason = format!("netra: {target}: {why}\n");
        let head = format!(
            "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            reason.len()
        );
        let front = self.exchanges.front_mut();
        let has_body = front.is_some_and(|front| {
            front.status = Some(502);
            front.kind != RequestKind::Head
        });
        head + if has_body { &reason } else { "" }
    }

    /// Everything that was asked before this request has been answered. Seals the exchanges where
    /// the upstream goes on to answer what it has not been asked.
    fn has_drained(&mut self, waiting: Waiting) -> bool {
        let is_answered = match self.exchanges.front_mut() {
            Some(front) if front.id != waiting => return false,
            Some(front) => front.status.is_some() || front.interim_count > 0,
            None => true,
        };
        if is_answered || self.response.held_len() > 0 {
            self.exchanges.seal(Reason::ResponseWithoutRequest);
            return false;
        }
        true
    }
}

impl<I: Io> Shard<I> {
    fn http(&mut self, slot: u32) -> Option<&mut Http> {
        self.slab[slot as usize].http.as_deref_mut()
    }

    fn stand(&mut self, slot: u32, stand: Stand) {
        if let Some(http) = self.http(slot) {
            http.switch.stand = stand;
        }
    }

    /// Goes on with a change of upstream as soon as the old one has answered everything.
    pub(crate) fn begin_switch(&mut self, downstream: Token) {
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        let has_ended = connection.response_is_finished();
        let is_quiet = connection.response_is_quiet();
        let Some(http) = connection.http.as_deref_mut() else { return };
        let Stand::Draining(waiting) = http.switch.stand else { return };
        if has_ended && http.exchanges.sealed().is_none() {
            return self.strand(downstream);
        }
        let has_drained = http.has_drained(waiting);
        if http.exchanges.sealed().is_some() {
            return self.stay(downstream);
        }
        if !has_drained || !is_quiet {
            return;
        }
        connection.detach(core, downstream);
        let deadline = self.core.now + crate::connection::nanos(self.core.limits.connect_timeout);
        self.timers.set(&mut self.slab, downstream.slot, Timer::Dial, deadline);
        match self.core.io.close(downstream.other(), Close::Orderly) {
            When::Now => self.resolve(downstream),
            When::Later => self.stand(downstream.slot, Stand::Closing),
        }
    }

    /// The old upstream has ended, and so does the connection when its client has, too.
    fn strand(&mut self, downstream: Token) {
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        if let Some(http) = connection.http.as_deref_mut() {
            http.switch.stand = Stand::Stranded;
            http.end(core, Outcome::UpstreamGone);
        }
        if let Err(end) = connection.go_on(core, downstream) {
            self.end(downstream, end);
        }
    }

    /// Nobody can tell any more when the old upstream has answered everything: the connection is
    /// opaque, and what waited goes on as it would have after that.
    fn stay(&mut self, downstream: Token) {
        self.stand(downstream.slot, Stand::Settled);
        match self.slab[downstream.slot as usize].go_on(&mut self.core, downstream) {
            Ok(()) => self.tend_http(downstream),
            Err(end) => self.end(downstream, end),
        }
    }

    /// The upstream's socket is closed: the old one, or the new one that did not answer.
    pub(crate) fn on_upstream_closed(&mut self, downstream: Token) {
        match self.http(downstream.slot).map(|http| http.switch.stand) {
            Some(Stand::Closing) => self.resolve(downstream),
            Some(Stand::GivingUp(error)) => self.give_up(downstream, &why(error)),
            _ => debug_assert!(false, "a socket was closed that should not be"),
        }
    }

    fn resolve(&mut self, downstream: Token) {
        let connection = &mut self.slab[downstream.slot as usize];
        let original_dst = connection.original_dst;
        let Some(http) = connection.http.as_deref_mut() else { return };
        (http.switch.stand, http.remote) = (Stand::Resolving, None);
        let Some(target) = http.switch.target.as_deref() else {
            return self.dial_again(downstream, original_dst);
        };
        if let Some(ip) = target.ip() {
            let address = SocketAddr::new(ip, target.port);
            return self.dial_again(downstream, address);
        }
        let asker = Asker { slot: downstream.slot, generation: downstream.generation };
        let name = ToResolve { target: *target, shard: self.index, asker };
        let shared = self.core.http.as_deref();
        let routing = shared.and_then(|shared| shared.editor.config().routing.as_ref());
        if !routing.is_some_and(|routing| routing.resolver.ask(name)) {
            self.give_up(downstream, "too many names are being resolved");
        }
    }

    /// The control thread has looked a name up.
    pub(crate) fn on_resolved(&mut self, asker: Asker, address: Resolved) {
        let Some(connection) = self.slab.get(asker.slot as usize) else { return };
        let Some(http) = connection.http.as_deref() else { return };
        if connection.generation != asker.generation || http.switch.stand != Stand::Resolving {
            return;
        }
        let downstream = self.downstream_of(asker.slot);
        match address {
            Some(address) => self.dial_again(downstream, address),
            None => self.give_up(downstream, "its name cannot be resolved"),
        }
    }

    fn dial_again(&mut self, downstream: Token, to: SocketAddr) {
        if to.port() == self.core.port && self.leads_here(to.ip()) {
            self.core.recorder.bump(Key::LOOP_REJECTED);
            return self.give_up(downstream, "it is this sidecar itself");
        }
        // The request that waits is sent as soon as this dial is answered.
        let hop = Hop { is_local: to.ip().is_loopback(), has_bytes: true };
        if let Some(http) = self.http(downstream.slot) {
            http.remote = Some(to);
        }
        let dialled = match self.core.io.dial(to, hop) {
            Ok(dialled) => dialled,
            Err(e) => return self.unreachable(downstream, &e),
        };
        self.stand(downstream.slot, Stand::Dialling);
        let upstream = downstream.other();
        if self.core.io.open(upstream, dialled.fd).is_err() {
            return self.end(downstream, End::Netra);
        }
        self.watch_silence_of(upstream);
        if dialled.connected {
            self.settle(downstream);
        } else {
            self.core.io.watch_write(upstream);
        }
    }

    fn leads_here(&mut self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.core.is_local(ip)
    }

    /// An event of an upstream that is being reached: only the answer to its dial matters.
    pub(crate) fn on_switch_event(&mut self, token: Token, event: &Event) {
        let downstream = Token { side: Side::Downstream, ..token };
        let is_dialling =
            self.http(token.slot).is_some_and(|http| http.switch.stand == Stand::Dialling);
        match event {
            Event::Received(_, buffer) => self.core.pool.give_back(*buffer),
            Event::Writable(_) if is_dialling => match self.core.io.dial_outcome(token) {
                Ok(()) => self.settle(downstream),
                Err(e) => self.unreachable(downstream, &e),
            },
            Event::Failed(_, error) if is_dialling => {
                self.unreachable(downstream, &io::Error::from_raw_os_error(*error));
            }
            _ => {}
        }
    }

    /// The new upstream is there: what waits goes out.
    fn settle(&mut self, downstream: Token) {
        self.timers.clear(&mut self.slab, downstream.slot);
        let connection = &mut self.slab[downstream.slot as usize];
        connection.attach();
        if let Some(http) = connection.http.as_deref_mut() {
            http.switch.stand = Stand::Settled;
            http.name_remote(&mut self.core);
        }
        for from in [downstream, downstream.other()] {
            if let Err(end) = self.slab[downstream.slot as usize].go_on(&mut self.core, from) {
                return self.end(downstream, end);
            }
        }
        self.tend_http(downstream);
        self.renew_deadline(downstream.slot);
    }

    fn unreachable(&mut self, downstream: Token, error: &io::Error) {
        dial::failed(&self.core, error);
        let Some(http) = self.http(downstream.slot) else { return };
        if http.switch.stand == Stand::Dialling
            && self.core.io.close(downstream.other(), Close::Reset) == When::Later
        {
            // Its slot is free only when the backend has told so.
            self.stand(downstream.slot, Stand::GivingUp(errno(error)));
            return;
        }
        self.give_up(downstream, &why(errno(error)));
    }

    /// The switch has taken longer than a dial may.
    pub(crate) fn on_switch_deadline(&mut self, downstream: Token) {
        let Some(http) = self.http(downstream.slot) else { return };
        match http.switch.stand {
            Stand::Resolving => self.give_up(downstream, "its name was not resolved in time"),
            Stand::Dialling => {
                self.unreachable(downstream, &io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            Stand::Closing => self.end(downstream, End::DialTimeout),
            Stand::Settled
            | Stand::Draining(_)
            | Stand::GivingUp(_)
            | Stand::Stranded
            | Stand::GaveUp => {}
        }
    }

    /// Says 502 and waits for the client's end.
    fn give_up(&mut self, downstream: Token, why: &str) {
        self.timers.clear(&mut self.slab, downstream.slot);
        self.core.recorder.bump(Key::ROUTE_UNREACHABLE);
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        let Some(http) = connection.http.as_deref_mut() else { return };
        let answer = http.refusal(why);
        http.switch.stand = Stand::GaveUp;
        http.name_remote(core);
        http.end(core, Outcome::Unreachable);
        connection.answer(core, downstream, answer.as_bytes());
        for from in [downstream.other(), downstream] {
            let connection = &mut self.slab[downstream.slot as usize];
            if let Err(end) = connection.go_on(&mut self.core, from) {
                return self.end(downstream, end);
            }
        }
        self.renew_deadline(downstream.slot);
    }
}

fn why(error: i32) -> String {
    io::Error::from_raw_os_error(error).to_string()
}
