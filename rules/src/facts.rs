//! What the caller knows of a message.

use crate::{
    balance::Seat,
    key::{Key, Protocol},
};
use std::net::{IpAddr, SocketAddr};

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Somebody calls the local application.
    Inbound,
    /// The local application calls somebody.
    Outbound,
}

/// A request, and the connection that it came on. What is asked for each message is asked for a few
/// times at most; values only where a rule wants them.
pub trait Facts {
    /// Where its connection goes.
    fn direction(&self) -> Direction;

    /// The original destination of its connection.
    fn destination(&self) -> SocketAddr;

    /// Who asks, where that is known.
    fn source(&self) -> Option<IpAddr>;

    /// A number of the connection's, the same for all its messages. Where nothing else says which
    /// endpoint is meant, a connection stays with one.
    fn connection(&self) -> u64;

    /// Where the messages of its connection go now, if that is an endpoint.
    fn seat(&self) -> Option<&Seat> {
        None
    }

    /// Another endpoint that its connection sits at, where it has several upstreams: one that is it.
    fn other_seat(&self, is_it: impl Fn(&Seat) -> bool) -> Option<&Seat> {
        let _ = is_it;
        None
    }

    /// The protocol.
    fn protocol(&self) -> Protocol;

    /// The value of a key; None when the message has none, or when it lies further behind than is
    /// read.
    fn value(&self, key: &Key) -> Option<&[u8]>;
}
