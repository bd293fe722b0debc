//! A leg: a further upstream of a connection, in a slot of the slab that has an upstream side alone.

use super::Switch;
use crate::io::Token;
use std::net::SocketAddr;

/// What such a slot is for.
#[derive(Debug)]
pub(crate) struct Leg {
    /// The downstream side of the connection that it is a leg of.
    pub(crate) owner: Token,
    /// Its place among the legs of that one.
    pub(crate) place: u8,
    /// How far netra came with reaching it.
    pub(crate) switch: Switch,
    /// Where it leads.
    pub(crate) remote: Option<SocketAddr>,
    /// It takes over what another leg owed: no request waits for it.
    pub(crate) is_successor: bool,
    /// What its bytes are read as.
    pub(crate) protocol: &'static str,
}
