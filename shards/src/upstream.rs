//! Another upstream for a routed request, step by step (`http/switch.rs` has where it stands): wait
//! until what was asked before has been answered, close the upstream, resolve, dial, go on.

use crate::{
    core::Core,
    dial,
    error::{End, dial_fault},
    http::{
        Http,
        goal::{self, Goal},
        switch::Stand,
    },
    io::{Close, Event, Hop, Io, Side, Token, When, errno},
    resolve::{Asker, Resolved, ToResolve, Unresolved},
    shard::Shard,
    sys::nanos,
    timers::Timer,
};
use netra_codecs::{
    route::{Refusal, Target},
    trace::{Fault, Flag, Outcome},
};
use netra_perf::Key;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

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
        if http.is_sealed() && http.switch.refused.is_some() {
            // What was refused is never sent, also where nobody can be told any more.
            return self.end(downstream, End::Refused);
        }
        if let Some(until) = http.switch.until {
            match (has_ended, http.is_sealed()) {
                (_, true) => self.stay(downstream),
                (true, _) => self.strand(downstream),
                (false, false) => self.delays.set(downstream.slot, until),
            }
            return;
        }
        let Stand::Draining(waiting) = http.switch.stand else { return };
        if has_ended && !http.is_sealed() {
            return self.strand(downstream);
        }
        let has_drained = http.has_drained(waiting);
        if http.is_sealed() {
            return self.stay(downstream);
        }
        if !has_drained || !is_quiet {
            return;
        }
        let deadline = core.now + nanos(core.limits.connect_timeout);
        if let Some(goal) = http.switch.goal.as_deref_mut() {
            goal.until = deadline;
        }
        connection.detach(core, downstream);
        core.own_dials.forget(downstream.slot);
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
        if let Some(http) = self.http(downstream.slot) {
            (http.switch.stand, http.switch.until) = (Stand::Settled, None);
        }
        match self.slab[downstream.slot as usize].go_on(&mut self.core, downstream) {
            Ok(()) => self.tend_http(downstream),
            Err(end) => self.end(downstream, end),
        }
    }

    /// The upstream's socket is closed: the old one, or the new one that did not answer.
    pub(crate) fn on_upstream_closed(&mut self, downstream: Token) {
        match self.http(downstream.slot).map(|http| http.switch.stand) {
            Some(Stand::Closing) => self.resolve(downstream),
            Some(Stand::GivingUp(error)) => self.dial_next(downstream, error),
            _ => debug_assert!(false, "a socket was closed that should not be"),
        }
    }

    fn resolve(&mut self, downstream: Token) {
        let connection = &mut self.slab[downstream.slot as usize];
        let original_dst = connection.original_dst;
        let Some(http) = connection.http.as_deref_mut() else { return };
        (http.switch.stand, http.remote) = (Stand::Resolving, None);
        if let Some(refused) = http.switch.refused.take() {
            let answer = http.answer(refused.status, &format!("{}\n", refused.text));
            return self.answer_and_end(downstream, &answer, Outcome::Refused, None);
        }
        let Some(target) = http.switch.target() else {
            return self.dial_original(downstream, original_dst);
        };
        let target = *target;
        if let Some(ip) = target.ip() {
            return self.dial_some(downstream, Arc::new([ip]));
        }
        let asker = Asker { slot: downstream.slot, generation: downstream.generation };
        let name = ToResolve { target, shard: self.index, asker };
        let shared = self.core.http.as_deref();
        let resolver = shared.and_then(|shared| shared.editor.config().resolver.as_ref());
        if !resolver.is_some_and(|resolver| resolver.ask(name)) {
            self.give_up(downstream, Fault::of(Flag::Limit), TOO_MANY);
        }
    }

    /// The control thread has looked a name up.
    pub(crate) fn on_resolved(&mut self, asker: Asker, resolved: Resolved) {
        let Some(connection) = self.slab.get(asker.slot as usize) else { return };
        let Some(http) = connection.http.as_deref() else { return };
        if connection.generation != asker.generation || http.switch.stand != Stand::Resolving {
            return;
        }
        let downstream = self.downstream_of(asker.slot);
        match resolved {
            Ok(addresses) => self.dial_some(downstream, addresses),
            Err(Unresolved::Unknown) => {
                self.give_up(downstream, NAME_UNKNOWN, "its name cannot be resolved");
            }
            Err(Unresolved::TooMany) => {
                self.give_up(downstream, Fault::of(Flag::Limit), TOO_MANY);
            }
        }
    }

    /// Dials the first of these addresses, of those that routes may lead to; where there is none,
    /// the request goes where it would go without its route.
    fn dial_some(&mut self, downstream: Token, addresses: Arc<[IpAddr]>) {
        let mut refusal = None;
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        let Some(goal) =
            connection.http.as_deref_mut().and_then(|it| it.switch.goal.as_deref_mut())
        else {
            return;
        };
        let (target, is_ruled) = (goal.target, goal.is_ruled);
        goal.begin(addresses, |ip| {
            let why = core.refuses(&target, ip).filter(|why| !is_ruled || *why == Refusal::OwnPort);
            refusal = refusal.or(why);
            why.is_some()
        });
        if let (true, Some(why)) = (goal.is_dead(), refusal) {
            goal.is_refused = true;
            core.recorder.bump(Key::route_refused(why as usize));
            let original_dst = connection.original_dst;
            return self.dial_original(downstream, original_dst);
        }
        if goal.has_others() {
            let step = self.core.now + goal::step(&self.core.limits);
            self.timers.set(&mut self.slab, downstream.slot, Timer::Address, step);
        }
        self.dial_next(downstream, libc::EHOSTUNREACH);
    }

    fn dial_original(&mut self, downstream: Token, to: SocketAddr) {
        if let Err(e) = self.dial_again(downstream, to) {
            dial::failed(&self.core, &e);
            self.give_up(downstream, dial_fault(errno(&e)), &why(errno(&e)));
        }
    }

    /// Dials the next address of the target; where there is none, `error` is what the last one
    /// came to.
    fn dial_next(&mut self, downstream: Token, mut error: i32) {
        let step = goal::step(&self.core.limits);
        loop {
            let now = self.core.now;
            let http = self.slab[downstream.slot as usize].http.as_deref_mut();
            let goal = http.and_then(|http| http.switch.goal.as_deref_mut());
            let Some(goal) = goal.filter(|goal| !goal.is_refused) else { break };
            let is_further = goal.is_begun();
            let Some(ip) = goal.next(now, step) else { break };
            let to = SocketAddr::new(ip, goal.target.port);
            if is_further {
                self.core.recorder.bump(Key::ROUTE_NEXT_ADDRESS);
            }
            match self.dial_again(downstream, to) {
                Ok(()) => return,
                Err(e) => {
                    dial::failed(&self.core, &e);
                    error = errno(&e);
                    self.has_failed(downstream.slot);
                }
            }
        }
        self.give_up(downstream, dial_fault(error), &why(error));
    }

    /// The address that was dialled is not to be dialled again.
    fn has_failed(&mut self, slot: u32) {
        let http = self.http(slot);
        if let Some(goal) = http.and_then(|http| http.switch.goal.as_deref_mut()) {
            goal.has_failed();
        }
    }

    fn dial_again(&mut self, downstream: Token, to: SocketAddr) -> io::Result<()> {
        // The request that waits is sent as soon as this dial is answered.
        // Its source is the kernel's choice for where it goes now, whatever the application's was.
        let hop = Hop { is_local: to.ip().is_loopback(), has_bytes: true, source: None };
        if let Some(http) = self.http(downstream.slot) {
            http.remote = Some(to);
        }
        let dialled = self.core.dial(to, hop)?;
        self.core.note_dial(downstream.slot, dialled.fd, to);
        self.stand(downstream.slot, Stand::Dialling);
        let upstream = downstream.other();
        if self.core.io.open(upstream, dialled.fd).is_err() {
            self.end(downstream, End::Netra);
            return Ok(());
        }
        self.watch_silence_of(upstream);
        if dialled.connected {
            self.settle(downstream);
        } else {
            self.core.io.watch_write(upstream);
        }
        Ok(())
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
            http.switch.goal.as_deref_mut().map(Goal::settle);
            http.name_remote(&mut self.core);
        }
        for from in [downstream, downstream.other()] {
            if let Err(end) = self.slab[downstream.slot as usize].go_on(&mut self.core, from) {
                return self.end(downstream, end);
            }
        }
        self.core.io.acknowledge_at_once(downstream.other());
        self.tend_http(downstream);
        self.renew_deadline(downstream.slot);
    }

    /// The address that was dialled does not answer, or not well.
    fn unreachable(&mut self, downstream: Token, error: &io::Error) {
        dial::failed(&self.core, error);
        self.has_failed(downstream.slot);
        self.leave(downstream, errno(error));
    }

    /// Closes the socket of a dial, and goes on with the next address.
    fn leave(&mut self, downstream: Token, error: i32) {
        self.core.own_dials.forget(downstream.slot);
        match self.core.io.close(downstream.other(), Close::Reset) {
            When::Now => self.dial_next(downstream, error),
            // Its slot is free only when the backend has told so.
            When::Later => self.stand(downstream.slot, Stand::GivingUp(error)),
        }
    }

    /// A step of the connect limit is over, and there are other addresses.
    pub(crate) fn on_address_step(&mut self, downstream: Token) {
        let now = self.core.now;
        let Some(http) = self.http(downstream.slot) else { return };
        let is_dialling = http.switch.stand == Stand::Dialling;
        let Some(goal) = http.switch.goal.as_deref_mut() else { return };
        if goal.is_over(now) {
            return self.on_switch_deadline(downstream);
        }
        let is_next = goal.step() && is_dialling;
        let step = now + goal::step(&self.core.limits);
        self.timers.set(&mut self.slab, downstream.slot, Timer::Address, step);
        if is_next {
            self.leave(downstream, libc::ETIMEDOUT);
        }
    }

    /// The switch has taken longer than a dial may.
    pub(crate) fn on_switch_deadline(&mut self, downstream: Token) {
        let Some(http) = self.http(downstream.slot) else { return };
        http.switch.goal.as_deref_mut().map(Goal::give_up);
        match http.switch.stand {
            Stand::Resolving => {
                self.give_up(downstream, NAME_UNKNOWN, "its name was not resolved in time");
            }
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
    fn give_up(&mut self, downstream: Token, fault: Fault, why: &str) {
        self.tell_of_unrouted(downstream, fault);
        self.core.recorder.bump(Key::ROUTE_UNREACHABLE);
        let Self { core, slab, .. } = self;
        let Some(http) = slab[downstream.slot as usize].http.as_deref_mut() else { return };
        if http.is_http2() {
            (http.switch.stand, http.fault) = (Stand::GaveUp, Some(fault));
            http.name_remote(core);
            http.end(core, Outcome::Unreachable);
            return self.end(downstream, End::Refused);
        }
        let answer = http.refusal(why);
        self.answer_and_end(downstream, &answer, Outcome::Unreachable, Some(fault));
    }

    /// Goes on with a request that has waited long enough.
    pub(crate) fn resume_http(&mut self, downstream: Token) {
        let Some(http) = self.http(downstream.slot) else { return };
        http.switch.until = None;
        match http.switch.stand {
            Stand::Settled => self.stay(downstream),
            _ => self.begin_switch(downstream),
        }
    }

    /// Says what the client is told, and waits for its end.
    fn answer_and_end(
        &mut self,
        downstream: Token,
        answer: &str,
        outcome: Outcome,
        fault: Option<Fault>,
    ) {
        self.timers.clear(&mut self.slab, downstream.slot);
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        let Some(http) = connection.http.as_deref_mut() else { return };
        http.switch.stand = Stand::GaveUp;
        http.name_remote(core);
        http.fault = fault;
        http.end(core, outcome);
        http.fault = None;
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

const NAME_UNKNOWN: Fault = Fault::of(Flag::NameUnknown);
const TOO_MANY: &str = "too many names are being resolved";

impl<I: Io> Core<I> {
    /// What there is against dialling this address of a target.
    fn refuses(&mut self, target: &Target, ip: IpAddr) -> Option<Refusal> {
        let routing = self.http.as_deref()?.editor.config().routing.as_ref()?;
        let why = routing.policy.refuses_address(target, ip);
        let is_own = why.is_none() && routing.policy.own_ports.contains(&target.port);
        if is_own && self.is_local(ip) { Some(Refusal::OwnPort) } else { why }
    }
}

fn why(error: i32) -> String {
    io::Error::from_raw_os_error(error).to_string()
}
