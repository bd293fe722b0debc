//! A mirror: an upstream that copies of a connection's messages go to, in a slot of the slab that has an
//! upstream side alone. What it answers goes nowhere.

use super::Switch;
use crate::{io::Token, sys::Nanos};
use std::{collections::VecDeque, net::SocketAddr};

/// What such a slot is for.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// The downstream side of the connection whose messages are copied; none once it has ended.
    pub(crate) owner: Option<Token>,
    /// How far netra came with reaching it.
    pub(crate) switch: Switch,
    /// Where it leads.
    pub(crate) remote: Option<SocketAddr>,
    /// What it is spoken to in.
    pub(crate) protocol: &'static str,
    /// Copies that its full socket did not take, or that wait for its dial.
    pub(crate) carry: Vec<u8>,
    /// How much of each of them is to be sent still.
    pub(crate) pending: VecDeque<u32>,
    /// Its connection has ended: when it is closed at the latest.
    pub(crate) closes_at: Nanos,
}

impl Mirror {
    /// Bytes that are kept.
    pub(crate) fn kept(&self) -> usize {
        self.carry.len() + self.pending.len() * size_of::<u32>()
    }

    /// So many further bytes have been sent. Returns how many copies are sent whole with them.
    pub(crate) fn has_sent(&mut self, bytes: usize) -> u32 {
        let (mut left, mut count) = (u32::try_from(bytes).unwrap_or(u32::MAX), 0);
        while let Some(first) = self.pending.front_mut() {
            if *first > left {
                *first -= left;
                break;
            }
            (left, count) = (left - *first, count + 1);
            self.pending.pop_front();
        }
        if self.carry.is_empty() {
            // A burst leaves no storage behind.
            (self.carry, self.pending) = (Vec::new(), VecDeque::new());
        }
        count
    }
}
