//! The two ways to move bytes without keeping them: splice and peek.

use super::{CALM_BYTES, CALM_FILLS, Counted, Flow, Half, Reading};
use crate::{
    core::Core,
    error::{End, taken},
    exchange::Source,
    io::{Io, Token, would_block},
};
use netra_perf::Key;

/// What a flow has come upon that it looked at by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// There is nothing yet, or the end.
    Nothing,
    /// Bytes, which have been passed on as far as they went.
    Some,
    /// The same, and a long body begins with them.
    Long,
}

impl Flow {
    /// One round of splicing: source to pipe, pipe to receiver.
    pub(super) fn splice<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        counted: Counted,
        mut half: Half<'_>,
    ) -> Result<(), End> {
        let passable = half.passable(from);
        if passable == 0 && self.in_pipe == 0 {
            // What comes next is a head, or a chunk's: to be looked at. By hand, as who receives again
            // at once is given all that has come, the next body as well.
            self.return_pipe(core);
            if self.look(core, from, counted, half)? != Seen::Long {
                self.copy_again();
            }
            return Ok(());
        }
        let Some(pipe) = self.pipe.or_else(|| core.pipes.lend(&mut core.io)) else {
            core.recorder.bump(Key::PIPE_STARVED);
            self.copy_again();
            return Ok(());
        };
        self.pipe = Some(pipe);
        let room = I::pipe_capacity(core.pipes.get(pipe)).saturating_sub(self.in_pipe);
        let room = usize::try_from(passable).unwrap_or(usize::MAX).min(room as usize);
        if room > 0 {
            match core.io.fill(from, core.pipes.get(pipe), room) {
                Ok(0) => self.reading = Reading::Over,
                Ok(n) => {
                    self.in_pipe += u32::try_from(n).unwrap_or(u32::MAX);
                    self.woken_for_nothing = false;
                    self.moved(core, counted, n);
                    core.recorder.add(Key::SPLICE_BYTES, n as u64);
                    self.calm = if n < CALM_BYTES { self.calm.saturating_add(1) } else { 0 };
                    self.drain_pipe(core, from)?;
                    half.passed(core, from.side, n);
                    return Ok(());
                }
                // With bytes in the pipe EAGAIN may mean that its slots are used up.
                Err(e) if would_block(&e) && self.in_pipe == 0 => {
                    self.return_pipe(core);
                    // splice(2) never passes an urgent mark (it says EAGAIN for ever); receives do.
                    if self.calm >= CALM_FILLS || self.woken_for_nothing {
                        self.copy_again();
                    } else {
                        self.reading = Reading::Watching;
                        core.io.watch_read(from);
                    }
                    return Ok(());
                }
                Err(e) if would_block(&e) => {}
                Err(e) => return Err(End::of_error(from.side, &e)),
            }
        }
        self.drain_pipe(core, from)
    }

    /// Moves what is in the pipe to the receiver.
    pub(super) fn drain_pipe<I: Io>(&mut self, core: &mut Core<I>, from: Token) -> Result<(), End> {
        let to = from.other();
        while let (Some(pipe), true) = (self.pipe, self.in_pipe > 0) {
            match core.io.drain(to, core.pipes.get(pipe), self.in_pipe as usize) {
                Ok(n) if n > 0 => {
                    self.last_moved = core.now;
                    self.in_pipe -= u32::try_from(n).unwrap_or(0).min(self.in_pipe);
                }
                Err(e) if !would_block(&e) => return Err(End::of_error(to.side, &e)),
                _ => {
                    self.await_room(core, to);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One round of peeking: look, send, take what was sent.
    pub(super) fn peek<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        counted: Counted,
        half: Half<'_>,
    ) -> Result<(), End> {
        if !core.pool_is_scarce() {
            self.copy_again();
            return Ok(());
        }
        let seen = self.look(core, from, counted, half)?;
        if seen == Seen::Nothing && self.reading != Reading::Over {
            self.reading = Reading::Watching;
            core.io.watch_read(from);
        }
        Ok(())
    }

    /// Looks at what there is, sends it, and takes as much as went.
    fn look<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        counted: Counted,
        mut half: Half<'_>,
    ) -> Result<Seen, End> {
        let seen = match core.io.peek(from, &mut core.scratch) {
            Ok(0) => {
                self.reading = Reading::Over;
                return Ok(Seen::Nothing);
            }
            Ok(n) => n,
            Err(e) if would_block(&e) => return Ok(Seen::Nothing),
            Err(e) => return Err(End::of_error(from.side, &e)),
        };
        let (sent, is_full, is_long) = match half.is_gated(from.side) {
            true if half.gave_up(from.side) => (seen, false, false),
            true => {
                let gated = half.peeked(core, from, seen)?;
                (gated.taken, gated.is_full, gated.is_long)
            }
            false => {
                let to = from.other();
                let sent = taken(core.io.send(to, &core.scratch[..seen]), to.side)?;
                let is_long = half.tap(core, from.side, Source::Scratch(sent));
                (sent, sent < seen, is_long)
            }
        };
        core.io.take(from, sent).map_err(|e| End::of_error(from.side, &e))?;
        self.moved(core, counted, sent);
        if is_full {
            self.await_room(core, half.receiver(from));
        }
        Ok(if is_long { Seen::Long } else { Seen::Some })
    }
}
