//! What is done for want of memory, and in which order.

use crate::{
    io::Io,
    pressure::{Pressure, SHED_ACCEPTS},
    shard::Shard,
};
use netra_codecs::{codec, h1::Reason};
use netra_perf::{Key, labels::SHED_STEPS};

/// What is done, as indexes of [`SHED_STEPS`].
const SHED_HEADS: usize = 0;
const SHED_BUFFERS: usize = 1;
const _: () = assert!(SHED_STEPS.len() == SHED_ACCEPTS + 1);

impl<I: Io> Shard<I> {
    /// Does what the pressure asks for, in this order: heads that are held go out as they came,
    /// and no further ones are held; flows hold no more than they must, and memory that waits for
    /// its next use is given back; connections wait in the kernel's queue (`accept.rs`). Nothing
    /// is cut.
    pub(crate) fn ease_memory(&mut self) {
        let is_tight = self.core.pressure() > Pressure::None;
        let begins = is_tight && !self.is_shedding;
        self.is_shedding = is_tight;
        if let Some(http) = self.core.http.as_deref_mut() {
            http.set_tight(is_tight);
        }
        self.core.taps.set_tight(is_tight);
        if !begins {
            return;
        }
        while let Some(slot) = self.heads.take_first() {
            self.core.recorder.bump(Key::shed(SHED_HEADS));
            self.let_head_go(slot, (Reason::HeldTooMuch, codec::Reason::HeldTooMuch));
        }
        self.core.recorder.bump(Key::shed(SHED_BUFFERS));
        self.core.pool.shrink();
        self.core.pipes.shrink();
    }
}
