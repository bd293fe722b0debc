//! Another upstream for a routed request, step by step (`switch/mod.rs` has where it stands): wait
//! until what was asked before has been answered, close the upstream, resolve, dial, go on.

mod again;
mod elsewhere;
mod gathered;
mod legs;
mod mirrors;
mod parting;
mod reaching;
mod resting;
mod settle;
mod tries;

use crate::{
    connection::{Connection, Phase},
    core::Core,
    dial,
    error::{End, dial_fault},
    exchange::target_at,
    http::{Http, UpstreamEnd},
    io::{Close, Event, Hop, Io, Side, Token, When, errno},
    resolve::{Asker, Resolved, ToResolve, Unresolved},
    shard::Shard,
    switch::{
        Stand, Switch,
        goal::{self, Addresses, Goal},
        seats::Seats,
    },
    sys::{Nanos, nanos},
    timers::Timer,
};
use netra_codecs::{
    codec::Why,
    route::{Refusal, Target},
    trace::{Fault, Flag, Outcome, RetryReason},
};
use netra_perf::Key;
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

/// How long answers may take that an upstream owes when it is to be left, of protocols where one that
/// never comes is noticed by nobody else. Then the connection ends, so that all who wait are told.
const DRAIN_NS: Nanos = 60_000_000_000;

impl<I: Io> Shard<I> {
    fn connection(&mut self, slot: u32) -> &mut Connection {
        &mut self.slab[slot as usize]
    }

    fn stand_of(&self, slot: u32) -> Option<Stand> {
        self.slab[slot as usize].switch().map(|switch| switch.stand)
    }

    fn stand(&mut self, slot: u32, stand: Stand) {
        if let Some(switch) = self.connection(slot).switch_mut() {
            switch.stand = stand;
        }
    }

    fn goal(&mut self, slot: u32) -> Option<&mut Goal> {
        self.connection(slot).switch_mut()?.goal.as_deref_mut()
    }

    /// Goes on with a change of upstream as soon as the old one has answered everything.
    pub(crate) fn begin_switch(&mut self, downstream: Token) {
        let connection = &mut self.slab[downstream.slot as usize];
        let has_ended = connection.response_is_finished();
        let is_quiet = connection.response_is_quiet();
        let Some(&Switch { stand, until, .. }) = connection.switch() else { return };
        if connection.is_sealed() && connection.is_refused() {
            // What was refused is never sent, also where nobody can be told any more.
            return self.end(downstream, End::Refused);
        }
        if let Some(until) = until {
            match (has_ended, connection.is_sealed()) {
                (_, true) => self.stay(downstream),
                (true, _) => self.strand(downstream),
                (false, false) => self.delays.set(downstream.slot, until),
            }
            return;
        }
        if stand != Stand::Draining {
            return;
        }
        if has_ended && !connection.is_sealed() {
            return self.strand(downstream);
        }
        let has_drained = connection.has_drained();
        if connection.is_sealed() {
            return self.stay(downstream);
        }
        if has_drained && is_quiet {
            self.leave_upstream(downstream);
        } else {
            self.wait_for_leg(downstream);
        }
    }

    /// What an upstream owes is waited for, and not for ever.
    fn wait_for_leg(&mut self, downstream: Token) {
        let connection = &self.slab[downstream.slot as usize];
        if connection.may_wait_for_ever() && connection.link.timer() != Some(Timer::Drain) {
            let until = self.core.now + DRAIN_NS;
            self.timers.set(&mut self.slab, downstream.slot, Timer::Drain, until);
        }
    }

    /// Closes the upstream, which owes nothing any more, or is not waited for.
    pub(crate) fn leave_upstream(&mut self, downstream: Token) {
        if self.come_back(downstream) {
            return;
        }
        let rests = self.rest(downstream);
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        if !rests {
            connection.seats().map(Seats::change);
        }
        let deadline = connection.dial_until(core);
        let mut is_parted = false;
        if let Some(switch) = connection.switch_mut() {
            is_parted = std::mem::take(&mut switch.is_parted);
            switch.is_gone &= !is_parted;
            if switch.is_deferred {
                switch.begin(core.now);
            }
            if let Some(goal) = switch.goal.as_deref_mut() {
                goal.until = deadline;
            }
        }
        let has_left = is_parted || rests;
        if !has_left {
            connection.detach(core, downstream);
            core.own_dials.forget(downstream.slot);
        }
        self.timers.set(&mut self.slab, downstream.slot, Timer::Dial, deadline);
        if has_left {
            return self.resolve(downstream);
        }
        match self.core.io.close(downstream.other(), Close::Orderly) {
            When::Now => self.resolve(downstream),
            When::Later => self.stand(downstream.slot, Stand::Closing),
        }
    }

    /// The old upstream has ended, and so does the connection when its client has, too.
    fn strand(&mut self, downstream: Token) {
        self.stop_draining(downstream.slot);
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        connection.strand(core);
        if let Err(end) = connection.go_on(core, downstream) {
            self.end(downstream, end);
        }
    }

    /// Nobody can tell any more when the old upstream has answered everything: the connection is
    /// opaque, and what waited goes on as it would have after that.
    fn stay(&mut self, downstream: Token) {
        self.stop_draining(downstream.slot);
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        if let Some(switch) = connection.switch_mut().filter(|it| it.is_parted) {
            switch.until = None;
            return match switch.is_deferred {
                true => self.leave_upstream(downstream),
                false => self.end(downstream, End::Reset(Side::Upstream)),
            };
        }
        connection.seats().map(Seats::stay);
        connection.settle(core);
        if let Some(switch) = connection.switch_mut() {
            switch.until = None;
        }
        match connection.go_on(core, downstream) {
            Ok(()) => self.tend_read(downstream),
            Err(end) => self.end(downstream, end),
        }
    }

    fn stop_draining(&mut self, slot: u32) {
        if self.connection(slot).link.timer() == Some(Timer::Drain) {
            self.timers.clear(&mut self.slab, slot);
        }
    }

    /// What a connection that is read needs after its flows have moved.
    fn tend_read(&mut self, downstream: Token) {
        match self.connection(downstream.slot).http.is_some() {
            true => self.tend_http(downstream),
            false => self.tend_tap(downstream),
        }
    }

    /// The upstream's socket is closed: the old one, or the new one that did not answer.
    pub(crate) fn on_upstream_closed(&mut self, downstream: Token) {
        match self.stand_of(downstream.slot) {
            Some(Stand::Closing) => self.resolve(downstream),
            Some(Stand::Parting) => self.has_parted(downstream),
            Some(Stand::GivingUp(error)) => self.dial_next(downstream, error),
            _ => debug_assert!(false, "a socket was closed that should not be"),
        }
    }

    fn resolve(&mut self, downstream: Token) {
        self.stand(downstream.slot, Stand::Resolving);
        let connection = &mut self.slab[downstream.slot as usize];
        if let Some(words) = connection.take_last_words(&mut self.core) {
            return self.answer_and_end(downstream, &words);
        }
        connection.set_remote(None);
        if let Some(http) = connection.http.as_deref_mut()
            && let Some(refused) = http.refused.take()
        {
            let answer = http.answer(refused.status, &format!("{}\n", refused.text));
            http.name_remote(&mut self.core);
            let fault = (refused.why == Why::Overflow).then_some(Fault::of(Flag::Limit));
            http.give_up_with(&mut self.core, Outcome::Refused, fault);
            return self.answer_and_end(downstream, answer.as_bytes());
        }
        let Some(target) = connection.switch().and_then(Switch::target).copied() else {
            let original_dst = connection.original_dst;
            return self.dial_original(downstream, original_dst);
        };
        if let Some(ip) = target.ip() {
            return self.dial_some(downstream, Addresses::One(ip));
        }
        let asker = Asker { slot: downstream.slot, generation: downstream.generation };
        let name = ToResolve { target, shard: self.index, asker };
        if !self.core.resolver.as_ref().is_some_and(|resolver| resolver.ask(name)) {
            self.give_up(downstream, Fault::of(Flag::Limit), TOO_MANY);
        }
    }

    /// The control thread has looked a name up.
    pub(crate) fn on_resolved(&mut self, asker: Asker, resolved: Resolved) {
        let Some(connection) = self.slab.get(asker.slot as usize) else { return };
        let stand = connection.switch().map(|switch| switch.stand);
        if connection.generation != asker.generation || stand != Some(Stand::Resolving) {
            return;
        }
        let downstream = self.downstream_of(asker.slot);
        match resolved {
            Ok(addresses) => self.dial_some(downstream, Addresses::OfName(addresses)),
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
    fn dial_some(&mut self, downstream: Token, addresses: Addresses) {
        let mut refusal = None;
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        let original_dst = connection.original_dst;
        let Some(goal) = connection.switch_mut().and_then(|it| it.goal.as_deref_mut()) else {
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
            self.core.recorder.bump(Key::route_refused(why as usize));
            if self.is_mirror(downstream.slot) {
                return self.give_up_mirror(downstream);
            }
            if self.is_successor(downstream.slot) {
                return self.give_up_successor(downstream);
            }
            self.leave_seat(downstream.slot);
            return self.dial_original(downstream, original_dst);
        }
        if goal.has_others() {
            let step = self.core.now + goal::step(&self.core.limits);
            self.timers.set(&mut self.slab, downstream.slot, Timer::Address, step);
        }
        self.dial_next(downstream, libc::EHOSTUNREACH);
    }

    fn dial_original(&mut self, downstream: Token, to: SocketAddr) {
        let source = self.source_of_first(downstream, to);
        if let Err(e) = self.dial_again(downstream, to, source) {
            dial::failed(&self.core, &e);
            if self.reset_undialled(downstream, errno(&e)) {
                return;
            }
            self.give_up(downstream, dial_fault(errno(&e)), &why(errno(&e)));
        }
    }

    /// Dials the next address of the target; where there is none, `error` is what the last one
    /// came to.
    fn dial_next(&mut self, downstream: Token, mut error: i32) {
        let step = goal::step(&self.core.limits);
        loop {
            let now = self.core.now;
            let goal = self.goal(downstream.slot).filter(|goal| !goal.is_refused);
            let Some(goal) = goal else { break };
            let is_further = goal.is_begun();
            let Some(ip) = goal.next(now, step) else { break };
            let to = SocketAddr::new(ip, goal.target.port);
            if is_further {
                self.core.recorder.bump(Key::ROUTE_NEXT_ADDRESS);
            }
            // Its source is the kernel's choice for where it goes now, whatever the application's was.
            match self.dial_again(downstream, to, None) {
                Ok(()) => return,
                Err(e) => {
                    dial::failed(&self.core, &e);
                    error = errno(&e);
                    self.has_failed(downstream.slot);
                }
            }
        }
        if !self.reset_undialled(downstream, error) {
            self.give_up(downstream, dial_fault(error), &why(error));
        }
    }

    /// The address that was dialled is not to be dialled again.
    fn has_failed(&mut self, slot: u32) {
        if let Some(goal) = self.goal(slot) {
            goal.has_failed();
        }
    }

    fn dial_again(
        &mut self,
        downstream: Token,
        to: SocketAddr,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        // The request that waits is sent as soon as this dial is answered.
        let hop = Hop { is_local: to.ip().is_loopback(), has_bytes: true, source };
        self.connection(downstream.slot).set_remote(Some(to));
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
        let is_dialling = self.stand_of(token.slot) == Some(Stand::Dialling);
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

    /// The message that waits goes to no endpoint of the rules.
    fn leave_seat(&mut self, slot: u32) {
        let is_leg = self.slab[slot as usize].is_leg();
        self.seats_of(slot).map(if is_leg { Seats::leave_next } else { Seats::leave });
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
        let is_dialling = self.stand_of(downstream.slot) == Some(Stand::Dialling);
        let Some(goal) = self.goal(downstream.slot) else { return };
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
        self.goal(downstream.slot).map(Goal::give_up);
        match self.stand_of(downstream.slot).unwrap_or_default() {
            Stand::Resolving => {
                self.give_up(downstream, NAME_UNKNOWN, "its name was not resolved in time");
            }
            Stand::Dialling if self.is_first_home(downstream.slot) => {
                dial::failed(&self.core, &io::Error::from_raw_os_error(libc::ETIMEDOUT));
                self.end(downstream, End::DialTimeout);
            }
            Stand::Dialling => {
                self.unreachable(downstream, &io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            Stand::Closing => self.end(downstream, End::DialTimeout),
            Stand::Settled
            | Stand::Draining
            | Stand::Reaching
            | Stand::Parting
            | Stand::GivingUp(_)
            | Stand::Stranded
            | Stand::GaveUp => {}
        }
    }

    /// Tells the client that nobody was reached, and waits for its end; where there are no words for
    /// that, ends the connection.
    fn give_up(&mut self, downstream: Token, fault: Fault, why: &str) {
        if self.is_mirror(downstream.slot) {
            return self.give_up_mirror(downstream);
        }
        if self.is_successor(downstream.slot) {
            return self.give_up_successor(downstream);
        }
        if self.try_elsewhere(downstream, fault) {
            return;
        }
        self.tell_of_unrouted(downstream, fault);
        self.core.recorder.bump(Key::ROUTE_UNREACHABLE);
        if let Some(owner) = self.owner_of(downstream.slot) {
            return self.give_up_leg(downstream, owner);
        }
        if self.repeats(downstream.slot) {
            self.stand(downstream.slot, Stand::GaveUp);
            return self.end(downstream, End::Reset(Side::Upstream));
        }
        let connection = &mut self.slab[downstream.slot as usize];
        match connection.fail(&mut self.core, why, fault) {
            Some(answer) => self.answer_and_end(downstream, &answer),
            None => {
                self.stand(downstream.slot, Stand::GaveUp);
                self.end(downstream, End::Refused);
            }
        }
    }

    /// Nobody was reached at an endpoint of the rules: the message that waits, of which nothing has
    /// been sent, goes to another one, if there is one and the budget allows it.
    fn try_elsewhere(&mut self, downstream: Token, fault: Fault) -> bool {
        use Flag::{DialFailed, DialTimeout, NameUnknown, NoRoute, UpstreamRefused};
        // What netra itself had too little of says nothing of an endpoint.
        let is_its = matches!(
            fault.flag,
            UpstreamRefused | DialTimeout | NoRoute | DialFailed | NameUnknown
        );
        let now = self.core.now;
        let original_dst = self.slab[downstream.slot as usize].original_dst;
        let seats = self.seats_of(downstream.slot).filter(|_| is_its);
        let next = seats.and_then(|seats| seats.again(now));
        let Some(target) = next.and_then(|seat| target_at(seat.address(), original_dst)) else {
            return false;
        };
        let timeout =
            self.seats_of(downstream.slot).and_then(|it| it.wanted()?.connect_timeout_ns());
        let usual = nanos(self.core.limits.connect_timeout);
        let deadline = now.saturating_add(timeout.unwrap_or(usual));
        let connection = &mut self.slab[downstream.slot as usize];
        if let Some(switch) = connection.switch_mut() {
            let mut goal = Goal::new(target, true);
            goal.until = deadline;
            switch.goal = Some(Box::new(goal));
        }
        self.core.recorder.bump(Key::TRIED_ELSEWHERE);
        self.timers.set(&mut self.slab, downstream.slot, Timer::Dial, deadline);
        self.resolve(downstream);
        true
    }

    /// An upstream has ended, or is to be left. True where that is not its connection's end: a rule lets what was asked be
    /// asked again, or nothing was.
    pub(crate) fn goes_on(&mut self, token: Token) -> bool {
        let downstream = Token { side: Side::Downstream, ..token };
        let now = self.core.now;
        let connection = &mut self.slab[token.slot as usize];
        if connection.http.as_deref().is_some_and(Http::is_leaving) {
            self.send_again(downstream);
            return true;
        }
        let is_moving = connection.response.holds_bytes() || connection.request.is_under_way();
        if connection.phase != Phase::Relaying || is_moving || connection.request.is_finished() {
            return false;
        }
        let Some(http) = connection.http.as_deref_mut() else {
            return self.gate_goes_on(downstream, RetryReason::Reset);
        };
        match http.upstream_end() {
            UpstreamEnd::Final => false,
            UpstreamEnd::Between => {
                self.part(downstream);
                true
            }
            UpstreamEnd::Unanswered => {
                let goes_on = http.goes_elsewhere(RetryReason::Reset, now);
                if goes_on {
                    self.send_again(downstream);
                }
                goes_on
            }
        }
    }

    /// Goes on with a request of HTTP that has waited long enough.
    pub(crate) fn resume_http(&mut self, downstream: Token) {
        let Some(switch) = self.connection(downstream.slot).switch_mut() else { return };
        switch.until = None;
        match switch.stand {
            Stand::Settled => self.stay(downstream),
            _ => self.begin_switch(downstream),
        }
    }

    /// Says what the client is told, and waits for its end.
    fn answer_and_end(&mut self, downstream: Token, answer: &[u8]) {
        self.timers.clear(&mut self.slab, downstream.slot);
        let Self { core, slab, .. } = self;
        slab[downstream.slot as usize].answer(core, downstream, answer);
        for from in [downstream.other(), downstream] {
            let connection = &mut self.slab[downstream.slot as usize];
            if let Err(end) = connection.go_on(&mut self.core, from) {
                return self.end(downstream, end);
            }
        }
        self.renew_deadline(downstream.slot);
    }
}

impl Connection {
    /// When a dial that begins now has taken too long.
    fn dial_until<I: Io>(&mut self, core: &Core<I>) -> Nanos {
        let own = self.seats().and_then(|seats| seats.now()?.connect_timeout_ns());
        core.now.saturating_add(own.unwrap_or(nanos(core.limits.connect_timeout)))
    }
}

const NAME_UNKNOWN: Fault = Fault::of(Flag::NameUnknown);
const TOO_MANY: &str = "too many names are being resolved";

impl<I: Io> Core<I> {
    /// What there is against dialling this address of a target.
    fn refuses(&mut self, target: &Target, ip: IpAddr) -> Option<Refusal> {
        let routing = self.http.as_deref().and_then(|it| it.editor.config().routing.as_ref());
        let policy = routing.map(|routing| &routing.policy);
        let why = policy.and_then(|policy| policy.refuses_address(target, ip));
        let is_own_port = target.port == self.port
            || policy.is_some_and(|policy| policy.own_ports.contains(&target.port));
        let is_own = why.is_none() && is_own_port;
        if is_own && self.is_local(ip) { Some(Refusal::OwnPort) } else { why }
    }
}

fn why(error: i32) -> String {
    io::Error::from_raw_os_error(error).to_string()
}
