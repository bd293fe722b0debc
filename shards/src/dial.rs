//! The dial: begun at accept, before any byte of the client, because the server may speak first; where
//! rules route it is deferred (`defer.rs`).

use crate::{
    connection::Phase,
    core::Core,
    error::{End, dial_errno_index},
    io::{Dialled, Hop, Io, Side, Token, errno},
    shard::Shard,
    sys::{Fd, Nanos, nanos},
    timers::Timer,
};
use netra_perf::{Key, Stage};
use std::{io, net::SocketAddr};

/// Counts a dial that failed and says how the connection ends.
pub(crate) fn failed<I: Io>(core: &Core<I>, error: &io::Error) -> End {
    core.recorder.bump(Key::connect_failure(dial_errno_index(errno(error))));
    End::DialFailed(errno(error))
}

/// Records how long the upstream took to answer.
pub(crate) fn record<I: Io>(core: &Core<I>, began: Nanos) {
    core.recorder.record_ns(Stage::Dial, core.io.now().saturating_sub(began));
}

impl<I: Io> Core<I> {
    /// Begins to connect.
    pub(crate) fn dial(&mut self, to: SocketAddr, hop: Hop) -> io::Result<Dialled> {
        let spare = if hop.is_local { self.sources.spare(to, self.now) } else { None };
        let hop = Hop { source: hop.source.or(spare), ..hop };
        let dialled = match self.io.dial(to, hop) {
            Err(e) if errno(&e) == libc::EADDRNOTAVAIL => self.dial_from_elsewhere(to, hop, e),
            dialled => dialled,
        }?;
        if spare.is_some() {
            self.recorder.bump(Key::SPARE_SOURCE);
        }
        Ok(dialled)
    }

    /// Notes a dial as netra's own, if it is time to.
    #[inline]
    pub(crate) fn note_dial(&mut self, slot: u32, fd: Fd, to: SocketAddr) {
        if self.own_dials.is_due(self.now)
            && let Ok(local) = self.io.local_addr(fd)
        {
            self.own_dials.note(slot, local, to);
        }
    }

    /// There are no ports left, where the upstream is on this host because netra has only one
    /// address for all clients.
    #[cold]
    fn dial_from_elsewhere(
        &mut self,
        to: SocketAddr,
        hop: Hop,
        mut error: io::Error,
    ) -> io::Result<Dialled> {
        if !hop.is_local || !self.is_local(to.ip()) {
            return Err(error);
        }
        let mut source = hop.source;
        while errno(&error) == libc::EADDRNOTAVAIL
            && let Some(next) = self.sources.next(source, to, self.now)
        {
            source = Some(next);
            match self.io.dial(to, Hop { source, ..hop }) {
                Ok(dialled) => {
                    if hop.source.is_none() {
                        self.recorder.bump(Key::SPARE_SOURCE);
                    }
                    return Ok(dialled);
                }
                Err(e) => error = e,
            }
        }
        Err(error)
    }
}

impl<I: Io> Shard<I> {
    /// Waits for the upstream's answer.
    pub(crate) fn await_dial(&mut self, downstream: Token) {
        self.core.io.watch_write(downstream.other());
        let deadline = self.core.now + nanos(self.core.limits.connect_timeout);
        self.timers.set(&mut self.slab, downstream.slot, Timer::Dial, deadline);
    }

    /// The upstream's socket can be written: it has answered, one way or the other.
    pub(crate) fn on_dial_answer(&mut self, token: Token) {
        debug_assert_eq!(token.side, Side::Upstream);
        let downstream = token.other();
        match self.core.io.dial_outcome(token) {
            Ok(()) => {
                let until = self.slab[downstream.slot as usize].link.at();
                let began = until.saturating_sub(nanos(self.core.limits.connect_timeout));
                self.relay(downstream, began);
            }
            Err(e) => {
                let end = failed(&self.core, &e);
                self.end(downstream, end);
            }
        }
    }

    /// The upstream has not answered in time.
    pub(crate) fn on_dial_deadline(&mut self, downstream: Token) {
        if self.slab[downstream.slot as usize].phase == Phase::Relaying {
            return self.on_switch_deadline(downstream);
        }
        if self.slab[downstream.slot as usize].phase == Phase::Dialling {
            let timed_out = io::Error::from_raw_os_error(libc::ETIMEDOUT);
            failed(&self.core, &timed_out);
            self.end(downstream, End::DialTimeout);
        }
    }
}
