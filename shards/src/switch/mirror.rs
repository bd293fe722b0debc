//! A mirror: an upstream that copies of a connection's messages go to, in a slot of the slab that has an
//! upstream side alone. What it answers goes nowhere.

use super::Switch;
use crate::{io::Token, sys::Nanos};
use std::net::SocketAddr;

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
    /// How many of them are not sent whole.
    pub(crate) pending: u32,
    /// Its connection has ended: when it is closed at the latest.
    pub(crate) closes_at: Nanos,
}
