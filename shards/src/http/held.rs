//! Heads that come in pieces: how long one may take, and letting them go as they came, when they
//! have taken too long or memory is wanted.

use super::Http;
use crate::{
    core::Core,
    error::End,
    io::{Io, Side, Token},
    sends::{Gated, send},
};
use netra_codecs::{codec::Way, h1::Reason};

impl Http {
    /// The flows have moved, and there is nothing to do but that.
    #[inline]
    pub(crate) fn wants_nothing(&self) -> bool {
        let sends = self.must_let_go() || self.carries_answers();
        let copies = self.copies.is_some();
        !self.wants_timing() && !self.is_switching() && !sends && !copies && !self.is_over()
    }

    /// A head is held that has no deadline, or a deadline is set that is not of the head that is
    /// held now.
    pub(crate) fn wants_timing(&self) -> bool {
        match self.timed {
            None => self.held_bytes > 0 && self.holds_head(),
            timed => !self.holds_head() || timed != Some(self.heads),
        }
    }

    /// The head that is held now is the one that is timed. False where none is held.
    pub(crate) fn time_head(&mut self) -> bool {
        let holds_head = self.holds_head();
        self.timed = holds_head.then_some(self.heads);
        holds_head
    }

    fn holds_head(&self) -> bool {
        match &self.two {
            Some(two) => two.held_len(Way::Request) + two.held_len(Way::Response) > 0,
            None => self.request.held_len() + self.response.held_len() > 0,
        }
    }

    /// Stops to hold: what is held goes out as it came, by the next step.
    pub(crate) fn let_go<I: Io>(&mut self, core: &mut Core<I>, reason: Reason) {
        self.timed = None;
        let Core { http: Some(shared), recorder, .. } = core else { return };
        self.seal(reason);
        self.settle_change(shared, recorder);
    }

    /// Sends what was held of a head that is none.
    #[cold]
    pub(super) fn send_held(
        &mut self,
        io: &mut impl Io,
        to: Token,
        held: &[u8],
    ) -> Result<Gated, End> {
        if self.switch.is_deferred {
            self.switch.needs_any();
            self.carry.extend_from_slice(held);
            self.request.release_memory();
            return Ok(Gated::default());
        }
        if self.switch.is_parted {
            return Err(End::Reset(Side::Upstream));
        }
        let sent = send(io, to, held)?;
        self.carry.extend_from_slice(&held[sent..]);
        // The response may not come for long, and only then the state goes.
        self.request.release_memory();
        Ok(Gated { taken: 0, is_full: sent < held.len(), is_long: false })
    }
}
