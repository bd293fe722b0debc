//! What connections need after their flows have moved: a head that is held has a deadline, a request
//! may want another upstream, and what turned opaque gives its state back.

use crate::{
    along::Along,
    connection::Phase,
    error::End,
    gate::Gate,
    http::Http,
    io::{Close, Io, Side, Token},
    patience::{Overdue, Patience},
    shard::Shard,
    sys::Nanos,
};
use netra_codecs::{codec, h1::Reason, trace::Outcome};

/// Where heads may take for ever.
const A_YEAR_NS: Nanos = 365 * 24 * 3600 * 1_000_000_000;

impl<I: Io> Shard<I> {
    /// A connection's flows have moved.
    #[inline]
    pub(crate) fn moved(&mut self, token: Token) {
        let connection = &self.slab[token.slot as usize];
        // What is only relayed, and may be silent for ever, needs nothing.
        if connection.is_read() || connection.has_limit(&self.core.limits) {
            self.tend(token);
        }
    }

    #[inline(never)]
    fn tend(&mut self, token: Token) {
        let connection = &self.slab[token.slot as usize];
        if connection.http.is_some() {
            self.tend_http(Token { side: Side::Downstream, ..token });
        } else if let Some(tap) = &connection.tap {
            if tap.wants_nothing() && !self.looks_again {
                return self.renew_deadline(token.slot);
            }
            self.tend_tap(token);
        }
        if self.slab[token.slot as usize].patience().is_some_and(Patience::wants_alarm) {
            self.set_alarm(token.slot);
        }
        self.renew_deadline(token.slot);
    }

    /// Answers are due sooner than anybody would look.
    #[cold]
    pub(crate) fn set_alarm(&mut self, slot: u32) {
        let connection = &mut self.slab[slot as usize];
        if connection.phase != Phase::Relaying {
            return;
        }
        let Some(patience) = connection.patience_mut() else { return };
        let (before, at) = patience.set_alarm();
        before.inspect(|before| self.answers.clear(slot, *before));
        at.inspect(|at| self.answers.set(slot, *at));
    }

    /// It is no longer read: nobody looks after its answers.
    fn drop_alarm(&mut self, slot: u32) {
        let patience = self.slab[slot as usize].patience();
        if let Some(at) = patience.and_then(Patience::alarm) {
            self.answers.clear(slot, at);
        }
    }

    /// Looks at the answers of connections where some were due.
    pub(crate) fn expire_answers(&mut self) {
        while let Some(slot) = self.answers.expire(self.core.now) {
            let downstream = self.downstream_of(slot);
            let connection = &mut self.slab[slot as usize];
            let Some(patience) = connection.patience_mut() else { continue };
            patience.rang();
            match connection.look_at_answers(&mut self.core) {
                Overdue::GoOn => self.moved(downstream),
                Overdue::Leave => self.leave_legs(downstream),
                Overdue::Elsewhere => self.send_again(downstream),
                Overdue::Try(place) => self.leave_late(downstream, place),
                Overdue::Cut => self.end(downstream, End::AnswerTimeout),
            }
        }
    }

    /// What a tapped connection needs after its flows have moved.
    pub(crate) fn tend_tap(&mut self, token: Token) {
        let slot = token.slot as usize;
        if self.looks_again {
            self.look_again_at(token.slot);
        }
        if self.slab[slot].tap.as_ref().is_some_and(Along::is_gated) {
            let downstream = Token { side: Side::Downstream, ..token };
            self.tend_gate(downstream);
            if self.slab[slot].tap.as_ref().is_some_and(Along::has_copies) {
                self.tend_copies(downstream);
            }
        }
        if self.slab[slot].tap.as_ref().is_some_and(Along::is_over) {
            self.drop_alarm(token.slot);
        }
        let connection = &mut self.slab[slot];
        if let Some(tap) = connection.tap.take_if(|tap| tap.is_over()) {
            let before = self.core.observer.served();
            connection.tunnel = tap.tunnel().map(Box::new);
            tap.end(&mut self.core, Outcome::Opaque);
            connection.owes_since(&mut self.core, before);
        }
    }

    /// Other rules are in force: connections that have something under way hear of them when it is
    /// over, or when the shard is tended.
    pub(crate) fn look_again(&mut self) {
        self.looks_again = false;
        for slot in 0..u32::try_from(self.slab.len()).unwrap_or(u32::MAX) {
            let connection = &self.slab[slot as usize];
            if connection.phase == Phase::Relaying && !connection.is_leg() {
                let has_heard = self.look_again_at(slot);
                self.looks_again |= !has_heard;
            }
        }
        if self.looks_again {
            self.young.ask_for_tending();
        }
    }

    fn look_again_at(&mut self, slot: u32) -> bool {
        let connection = &mut self.slab[slot as usize];
        if let Some(http) = connection.http.as_deref_mut() {
            let unsent = connection.response.queued(&self.core.pool);
            return http.look_again(self.core.gates.rules.as_deref(), unsent);
        }
        let asker = self.asker_of(self.downstream_of(slot));
        let connection = &mut self.slab[slot as usize];
        let is_idle = !connection.request.holds_bytes() && !connection.response.holds_bytes();
        let Some(tap) = connection.tap.take() else { return true };
        let (tap, has_heard) = tap.look_again(asker, &self.core.gates, is_idle);
        connection.tap = Some(tap);
        has_heard
    }

    /// What a gated connection needs after its flows have moved.
    fn tend_gate(&mut self, downstream: Token) {
        while self.tend_gate_once(downstream)
            || (self.withholds_any(downstream.slot) && self.ask_elsewhere(downstream))
        {}
    }

    #[inline]
    fn withholds_any(&self, slot: u32) -> bool {
        let tap = self.slab[slot as usize].tap.as_ref();
        tap.is_some_and(|tap| matches!(tap, Along::Gated(gate) if gate.withholds_any()))
    }

    /// Whether there is more to be done: a request goes on by another leg.
    fn tend_gate_once(&mut self, downstream: Token) -> bool {
        if self.slab[downstream.slot as usize].has_legs() && !self.tend_legs(downstream) {
            return false;
        }
        let slot = downstream.slot as usize;
        let gate = |shard: &mut Self, of: fn(&mut Gate, Side) -> bool, side| {
            let tap = shard.slab[slot].tap.as_mut();
            tap.and_then(Along::gate).is_some_and(|gate| of(gate, side))
        };
        if self.slab[slot].response.is_finished()
            && gate(self, |gate, _| gate.is_broken(), Side::Upstream)
        {
            self.end(downstream, End::Reset(Side::Upstream));
            return false;
        }
        let had_ended = self.slab[slot].request.is_finished();
        for from in [downstream.other(), downstream, downstream.other()] {
            if gate(self, Gate::wants_pump, from.side)
                && let Err(end) = self.slab[slot].go_on(&mut self.core, from)
            {
                self.end(downstream, end);
                return false;
            }
        }
        // Who waited for what netra had to say has his turn now; and where the client's last message went
        // out just now, which had waited, its servers are still to be told.
        let is_last = !had_ended && self.slab[slot].request.is_finished();
        if self.slab[slot].has_legs() && (self.hear_legs(downstream) || is_last) {
            return true;
        }
        if gate(self, |gate, _| gate.wants_timing(), Side::Downstream) {
            self.time_head(downstream.slot);
        }
        let connection = &mut self.slab[slot];
        let is_idle = !connection.request.holds_bytes() && !connection.response.holds_bytes();
        let Some(gate) = connection.tap.as_mut().and_then(Along::gate) else { return false };
        if gate.switch().is_under_way() {
            match gate.switch().until {
                Some(until) => self.delays.set(downstream.slot, until),
                None if gate.may_have_legs() => return self.switch_legs(downstream),
                None => self.begin_switch(downstream),
            }
            return false;
        }
        if gate.switch().is_parted && connection.request.is_finished() {
            if !connection.has_untold() {
                self.end(downstream, End::Eof);
            }
            return false;
        }
        if is_idle && gate.may_be_tap() {
            connection.tap = connection.tap.take().map(Along::drop_gate);
        }
        false
    }

    /// Goes on with those requests that have waited long enough.
    pub(crate) fn expire_delays(&mut self) {
        while let Some(slot) = self.delays.expire(self.core.now) {
            let downstream = self.downstream_of(slot);
            let connection = &mut self.slab[slot as usize];
            if connection.http.is_some() {
                self.resume_http(downstream);
            } else if let Some(gate) = connection.tap.as_mut().and_then(Along::gate) {
                gate.resume(self.core.now);
                self.moved(downstream);
            }
        }
    }

    /// What an HTTP connection needs after its flows have moved.
    pub(crate) fn tend_http(&mut self, downstream: Token) {
        let connection = &mut self.slab[downstream.slot as usize];
        let Some(http) = connection.http.as_deref_mut() else { return };
        if http.wants_nothing() {
            return;
        }
        if http.copies.is_some() {
            self.tend_copies(downstream);
        }
        let Some(http) = self.slab[downstream.slot as usize].http.as_deref_mut() else { return };
        if http.wants_timing() {
            self.time_head(downstream.slot);
        }
        let connection = &mut self.slab[downstream.slot as usize];
        let Some(http) = connection.http.as_deref_mut() else { return };
        if http.is_switching() {
            return self.begin_switch(downstream);
        }
        if http.must_let_go()
            && let Err(end) = connection.go_on(&mut self.core, downstream)
        {
            return self.end(downstream, end);
        }
        if connection.http.as_deref().is_some_and(Http::is_switching) {
            // What was let go has nobody yet to go to.
            return self.begin_switch(downstream);
        }
        if connection.http.as_deref().is_some_and(Http::carries_answers)
            && let Err(end) = connection.go_on(&mut self.core, downstream.other())
        {
            return self.end(downstream, end);
        }
        if self.slab[downstream.slot as usize].http.as_ref().is_some_and(|http| http.is_over()) {
            self.end_resting(downstream, Close::Orderly);
            self.drop_alarm(downstream.slot);
        }
        let connection = &mut self.slab[downstream.slot as usize];
        if let Some(http) = connection.http.take_if(|http| http.is_over()) {
            let before = self.core.observer.served();
            connection.tunnel = http.tunnel().map(Box::new);
            http.into_opaque(&mut self.core);
            connection.owes_since(&mut self.core, before);
            self.heads.clear(downstream.slot);
        }
    }

    /// Sets the deadline of the head that a connection holds now, or clears it.
    pub(crate) fn time_head(&mut self, slot: u32) {
        let connection = &mut self.slab[slot as usize];
        let (holds_head, timeout) = if let Some(http) = connection.http.as_deref_mut() {
            let shared = self.core.http.as_deref();
            (http.time_head(), shared.and_then(|shared| shared.head_timeout_ns))
        } else if let Some(gate) = connection.tap.as_mut().and_then(Along::gate) {
            (gate.time_head(), self.core.taps.head_timeout_ns)
        } else {
            return;
        };
        if holds_head {
            let timeout = timeout.unwrap_or(A_YEAR_NS);
            self.heads.set(slot, self.core.now + timeout);
        } else {
            self.heads.clear(slot);
        }
    }

    /// Lets those heads go that were not whole in time.
    pub(crate) fn expire_heads(&mut self) {
        while let Some(slot) = self.heads.expire(self.core.now) {
            self.let_head_go(slot, (Reason::HeadTooSlow, codec::Reason::HeadTooSlow));
        }
    }

    /// The connection turns opaque: it is served on.
    pub(crate) fn let_head_go(&mut self, slot: u32, reason: (Reason, codec::Reason)) {
        let connection = &mut self.slab[slot as usize];
        if connection.phase != Phase::Relaying {
            return;
        }
        if let Some(http) = connection.http.as_deref_mut() {
            http.let_go(&mut self.core, reason.0);
        } else if let Some(gate) = connection.tap.as_mut().and_then(Along::gate) {
            gate.let_go(reason.1, &self.core.recorder);
        }
        self.moved(self.downstream_of(slot));
    }
}
