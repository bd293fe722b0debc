//! The requests of one read of a connection that has legs: each leg gets its own in one call, however often
//! they go by another leg than the one before. Answers that legs owe by turns go to the client in one call,
//! too. When a step is over nothing is gathered any more: what is carried then is what a full socket did
//! not take.

use super::{
    Gate,
    legs::{Leg, Legs, Standing},
    outgoing::{Edited, Outgoing, slices},
};
use crate::{
    core::Core,
    error::End,
    exchange::{Scraps, Source},
    io::{Io, Token},
    sends::{Gated, keep_rest, send, send_slices},
    switch::Stand,
};

/// So many bytes are gathered for a leg: longer ones are not copied. Storage that has grown so far is lent
/// again (`exchange/scraps.rs`).
const GATHERED_MAX: usize = 4096;

impl Gate {
    /// Sends the requests of one read.
    pub(super) fn gather_requests<I: Io>(
        &mut self,
        core: &mut Core<I>,
        source: Source,
    ) -> Result<Gated, End> {
        let len = source.bytes(&core.pool, &core.scratch).len();
        let mut all = Gated::default();
        self.request.begin_to_gather(&mut core.gates.scraps);
        let passed = loop {
            let Some(to) = self.legs.as_deref().map(Legs::current_token) else { break Ok(()) };
            let one = match self.pass_requests(core, (to, all.taken), source) {
                Ok(one) => one,
                Err(end) => break Err(end),
            };
            all.taken += one.taken;
            (all.is_full, all.is_long) = (one.is_full, one.is_long);
            let may_go_on = one.taken > 0 && !one.is_full && !one.is_long;
            let goes_on = may_go_on && (!self.is_moving() || self.hop_at_once(core));
            if !goes_on || all.taken == len || !self.takes_more() {
                break Ok(());
            }
        };
        self.request.stop_to_gather(&mut core.gates.scraps);
        passed?;
        all.is_full |= self.send_gathered(core, all.is_full)?;
        Ok(all)
    }

    /// Nothing is in the way of the next request.
    fn takes_more(&self) -> bool {
        let is_between = !self.drops && self.request.cleared == 0;
        is_between && !self.tapped.is_over() && !self.holds_requests()
    }

    /// The request that waits goes by a leg that is there and has room: requests go by that one from
    /// here on. False where more is to be done for it.
    fn hop_at_once<I: Io>(&mut self, core: &mut Core<I>) -> bool {
        let is_plain = self.switch.stand == Stand::Draining && self.switch.until.is_none();
        let Some(legs) = self.legs.as_deref() else { return false };
        if !is_plain || self.tapped.is_over() || self.request.is_dead {
            return false;
        }
        let wanted = self.switch.goal.as_deref().map(|goal| goal.target);
        let Some(place) = legs.open_to(wanted, self.old_goal.as_deref()) else { return false };
        let leg = &legs.all[usize::from(place)];
        if leg.is_blocked || leg.is_broken {
            return false;
        }
        let was_paused = self.was_paused;
        self.hop(core, place, false);
        // Nobody has to see to it that requests go on.
        self.was_paused = was_paused;
        true
    }

    /// Sends each leg what was gathered for it. Whether the one is full that requests go by now, which it
    /// may be known to be.
    fn send_gathered<I: Io>(&mut self, core: &mut Core<I>, is_full: bool) -> Result<bool, End> {
        let Some(legs) = self.legs.as_deref_mut() else { return Ok(false) };
        legs.send_gathered(&mut core.io, &mut core.gates.scraps);
        let to = legs.current_token();
        // A request that waits for its time is carried, and all before it was sent.
        let waits = self.switch.until.is_some() && !self.is_moving();
        if self.request.carry.is_empty() || is_full || waits {
            return Ok(false);
        }
        Ok(!self.request.send_carry(&mut core.io, to, &mut core.gates.scraps)?)
    }
}

/// Answers of several legs.
impl Gate {
    /// Keeps what legs say from here on, where they speak one after the other.
    pub(crate) fn begin_to_gather<I: Io>(&mut self, core: &mut Core<I>) {
        if self.legs.is_some() && self.is_in_order() && self.response.carry.is_empty() {
            self.response.begin_to_gather(&mut core.gates.scraps);
        }
    }

    /// What comes now may go behind what is gathered.
    pub(super) fn gathers_answers(&self) -> bool {
        self.response.gathers && self.response.cleared == 0 && !self.must_close
    }

    /// Sends what they said. Whether the client takes no more now.
    pub(crate) fn send_answers<I: Io>(
        &mut self,
        core: &mut Core<I>,
        client: Token,
    ) -> Result<bool, End> {
        let scraps = &mut core.gates.scraps;
        if !self.response.gathers {
            return Ok(false);
        }
        self.response.stop_to_gather(scraps);
        let Some(legs) = self.legs.as_deref_mut() else { return Ok(false) };
        if self.response.carry.is_empty() || legs.is_full() {
            return Ok(false);
        }
        let is_full = !self.response.send_carry(&mut core.io, client, scraps)?;
        legs.note_full(is_full);
        self.settle(&mut core.taps, &core.recorder);
        Ok(is_full)
    }
}

impl Legs {
    fn current_token(&self) -> Token {
        self.all[usize::from(self.current)].token
    }

    /// Sends what was gathered for those that requests do not go by now.
    fn send_gathered(&mut self, io: &mut impl Io, scraps: &mut Scraps) {
        for (place, leg) in self.all.iter_mut().enumerate() {
            let waits = leg.is_blocked || leg.is_broken || leg.standing != Standing::Open;
            if place == usize::from(self.current) || waits {
                continue;
            }
            if leg.carry.is_empty() {
                scraps.take_back(&mut leg.carry);
            } else {
                leg.send_gathered(io, scraps);
            }
        }
    }
}

impl Leg {
    fn send_gathered(&mut self, io: &mut impl Io, scraps: &mut Scraps) {
        match send(io, self.token, &self.carry) {
            Ok(sent) => drop(self.carry.drain(..sent)),
            Err(_) => {
                self.is_broken = true;
                self.carry.clear();
            }
        }
        if self.carry.is_empty() {
            scraps.take_back(&mut self.carry);
        } else {
            self.is_blocked = true;
            io.watch_write(self.token);
        }
    }
}

impl Outgoing {
    fn begin_to_gather(&mut self, scraps: &mut Scraps) {
        self.gathers = true;
        if self.carry.capacity() == 0 {
            self.carry = scraps.lend();
        }
    }

    fn stop_to_gather(&mut self, scraps: &mut Scraps) {
        self.gathers = false;
        if self.carry.is_empty() {
            scraps.take_back(&mut self.carry);
        }
    }

    /// So many bytes would be kept, or go behind what is.
    #[inline]
    pub(super) fn would_gather(&self, len: usize) -> bool {
        self.gathers && (len <= GATHERED_MAX || !self.carry.is_empty())
    }

    /// Keeps this behind what is gathered; or sends it with that, where it is much.
    pub(super) fn gather(
        &mut self,
        io: &mut impl Io,
        to: Token,
        plain: [&[u8]; 2],
        message: Option<Edited<'_>>,
    ) -> Result<(usize, usize), End> {
        let len: usize = slices(plain, message).map(<[u8]>::len).sum();
        if self.carry.len() + len > GATHERED_MAX {
            return self.send_behind(io, to, plain, message);
        }
        keep_rest(&mut self.carry, slices(plain, message), 0);
        Ok((len, len))
    }

    /// Sends what is before a message that may wait for its time, and be carried: nothing is gathered then.
    pub(super) fn send_before_wait(
        &mut self,
        io: &mut impl Io,
        to: Token,
        plain: [&[u8]; 2],
    ) -> Result<(usize, usize), End> {
        match self.carry.is_empty() {
            true => self.send_at_once(io, to, plain, None),
            false => self.send_behind(io, to, plain, None),
        }
    }

    /// Sends what is gathered and this behind it in one call.
    fn send_behind(
        &mut self,
        io: &mut impl Io,
        to: Token,
        plain: [&[u8]; 2],
        message: Option<Edited<'_>>,
    ) -> Result<(usize, usize), End> {
        let carry = std::mem::take(&mut self.carry);
        let all = || std::iter::once(&carry[..]).chain(slices(plain, message));
        let pieces_max = 5 + message.map_or(0, |it| it.edits.pieces_max());
        let sent = send_slices(io, to, all().filter(|it| !it.is_empty()), pieces_max);
        let (offered, sent) = self.what_went(sent, 0)?;
        if sent < offered {
            keep_rest(&mut self.carry, all(), sent);
        }
        Ok((offered, sent))
    }
}
