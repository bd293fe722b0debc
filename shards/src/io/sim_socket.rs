//! A simulated socket, and a simulated pipe.

use super::sim_peer::Peer;
use crate::sys::Nanos;
use std::{cell::RefCell, collections::VecDeque};

/// One TCP socket of the shard, as its kernel sees it.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) peer: Peer,
    /// Bytes that arrived; then perhaps the end, or a reset.
    pub(crate) rx: VecDeque<u8>,
    pub(crate) rx_end: bool,
    pub(crate) rx_reset: bool,
    /// Bytes that were sent and that the peer has not read.
    pub(crate) tx: VecDeque<u8>,
    /// How often some were.
    pub(crate) sends: u32,
    /// Bytes that wait for the end to go with them.
    pub(crate) corked: Vec<u8>,
    pub(crate) tx_end: bool,
    pub(crate) tx_reset: bool,
    pub(crate) buffer: usize,
    /// When a dial is answered, and whether it was refused.
    pub(super) dial: Option<(Nanos, bool)>,
    pub(crate) closed: bool,
    /// The kernel watches it for silence.
    pub(crate) is_watched: bool,
    /// Acknowledgements wait for bytes to travel with.
    pub(crate) keeps_acknowledgements: bool,
}

impl Socket {
    pub(super) fn new(peer: Peer, buffer: usize) -> Self {
        Self {
            peer,
            rx: VecDeque::new(),
            rx_end: false,
            rx_reset: false,
            tx: VecDeque::new(),
            sends: 0,
            corked: Vec::new(),
            tx_end: false,
            tx_reset: false,
            buffer,
            dial: None,
            closed: false,
            is_watched: false,
            keeps_acknowledgements: false,
        }
    }

    pub(super) fn readable(&self) -> bool {
        !self.rx.is_empty() || self.rx_end || self.rx_reset
    }

    pub(super) fn room(&self) -> usize {
        self.buffer.saturating_sub(self.tx.len() + self.corked.len())
    }

    /// Lets go what waits for the end.
    pub(super) fn push(&mut self) {
        self.tx.extend(self.corked.drain(..));
    }
}

/// A simulated pipe: bytes, and slots that run out before the bytes do.
#[derive(Debug, Default)]
pub(crate) struct SimPipe(pub(super) RefCell<(VecDeque<u8>, usize)>);

pub(crate) const PIPE_BYTES: usize = 4096;
pub(crate) const PIPE_SLOTS: usize = 6;
