//! An upstream that was reached, or is there again: what waits goes out.

use crate::{
    http::Http,
    io::{Io, Token},
    shard::Shard,
};

impl<I: Io> Shard<I> {
    /// The new upstream is there: what waits goes out.
    pub(super) fn settle(&mut self, downstream: Token) {
        if self.is_mirror(downstream.slot) {
            return self.settle_mirror(downstream);
        }
        if let Some(owner) = self.owner_of(downstream.slot) {
            return self.settle_leg(downstream, owner);
        }
        let repeats = self.repeats(downstream.slot);
        let connection = &mut self.slab[downstream.slot as usize];
        connection.name_remote(&mut self.core);
        let is_repeated = repeats || connection.http.as_deref().is_some_and(Http::is_repeated);
        match connection.seats() {
            Some(seats) if is_repeated => seats.settle_again(),
            Some(seats) => seats.settle(),
            None => {}
        }
        if self.take_up(downstream) {
            self.core.io.acknowledge_at_once(downstream.other());
            self.tend_read(downstream);
            self.renew_deadline(downstream.slot);
        }
    }

    /// What waits goes out. False where that was the connection's end.
    pub(super) fn take_up(&mut self, downstream: Token) -> bool {
        self.timers.clear(&mut self.slab, downstream.slot);
        let connection = &mut self.slab[downstream.slot as usize];
        connection.attach();
        connection.settle(&mut self.core);
        self.note_first_dial(downstream.slot);
        let connection = &mut self.slab[downstream.slot as usize];
        if let Some(goal) = connection.switch_mut().and_then(|it| it.goal.as_deref_mut()) {
            goal.settle();
        }
        if let Some(http) = connection.http.as_deref_mut()
            && let Some(resting) = &mut http.resting
        {
            resting.is_at(http.switch.target().copied());
        }
        for from in [downstream, downstream.other()] {
            if let Err(end) = self.slab[downstream.slot as usize].go_on(&mut self.core, from) {
                self.end(downstream, end);
                return false;
            }
        }
        true
    }
}
