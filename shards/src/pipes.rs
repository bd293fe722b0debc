//! The pipes of a shard, lent for as long as they hold bytes: an idle connection has none.

use crate::io::Io;
use std::io;

/// Pipes that may stay open though nobody needs them.
const OPEN_KEPT: usize = 4;

/// The number of a pipe that has been lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PipeId(u16);

/// Pipes of one shard, made when first needed.
pub(crate) struct PipePool<P> {
    pipes: Vec<Option<P>>,
    free: Vec<u16>,
    count_max: u16,
    bytes: u32,
    lent: usize,
    open: usize,
}

impl<P> PipePool<P> {
    /// At most `count_max` pipes of about `bytes`.
    pub(crate) fn new(count_max: u32, bytes: u32) -> Self {
        let count_max = u16::try_from(count_max).unwrap_or(u16::MAX);
        Self { pipes: Vec::new(), free: Vec::new(), count_max, bytes, lent: 0, open: 0 }
    }

    /// How many pipes are lent.
    pub(crate) fn lent(&self) -> usize {
        self.lent
    }

    /// Lends an empty pipe; none when the cap or the descriptor limit is reached.
    pub(crate) fn lend<I: Io<Pipe = P>>(&mut self, io: &mut I) -> Option<PipeId> {
        let id = match self.free.pop() {
            Some(id) if self.pipes[usize::from(id)].is_some() => id,
            Some(id) => self.make(io, id).ok()?,
            None => {
                let id = u16::try_from(self.pipes.len()).ok().filter(|id| *id < self.count_max)?;
                self.pipes.push(None);
                self.make(io, id).ok()?
            }
        };
        self.lent += 1;
        Some(PipeId(id))
    }

    fn make<I: Io<Pipe = P>>(&mut self, io: &mut I, id: u16) -> io::Result<u16> {
        match io.pipe(self.bytes) {
            Ok(pipe) => {
                self.pipes[usize::from(id)] = Some(pipe);
                self.open += 1;
                Ok(id)
            }
            Err(e) => {
                self.free.push(id);
                Err(e)
            }
        }
    }

    /// A lent pipe.
    pub(crate) fn get(&self, id: PipeId) -> &P {
        // A lent number always has its pipe: `lend` made it and only `give_back` takes it.
        self.pipes[usize::from(id.0)].as_ref().unwrap_or_else(|| unreachable!("a lent pipe"))
    }

    /// Takes a pipe back. One that still holds `left` bytes is closed: nobody else's bytes may
    /// ever come out of it.
    pub(crate) fn give_back(&mut self, id: PipeId, left: usize) {
        if left > 0 {
            self.pipes[usize::from(id.0)] = None;
            self.open -= 1;
        }
        self.free.push(id.0);
        self.lent -= 1;
    }

    /// More pipes are open and idle than are worth keeping.
    pub(crate) fn is_stretched(&self) -> bool {
        self.open - self.lent > OPEN_KEPT
    }

    /// Closes the pipes that are not lent, when a burst is over.
    pub(crate) fn shrink(&mut self) {
        for id in &self.free {
            if self.pipes[usize::from(*id)].take().is_some() {
                self.open -= 1;
            }
        }
    }
}
