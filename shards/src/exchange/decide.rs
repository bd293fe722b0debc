//! Who decides about messages, and what is decided.

use crate::{error::Direction, patience::Allowed, sys::Nanos};
use netra_codecs::{
    codec::{Pairs, Refusal},
    route::Target,
    tap::Message,
};
use netra_rules::{ClusterId, Retry, Route, Seat};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Whose message it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) direction: Direction,
    /// Where its connection wanted to go.
    pub(crate) original_dst: SocketAddr,
    /// Who asks, where that is known.
    pub(crate) source: Option<IpAddr>,
    /// A number of the connection's, the same for all its messages.
    pub(crate) connection: u64,
}

/// What is done with a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ruling<'t> {
    /// It is not passed on, and this is what its client is told.
    pub(crate) refusal: Option<Refusal<'t>>,
    /// Where it is to go.
    pub(crate) to: Routed,
    /// The name of the rule that decided, empty where none did.
    pub(crate) rule: &'t str,
    /// How long it waits before anything is done; 0 is not at all.
    pub(crate) delay_ns: Nanos,
    /// What [`Decide::answer`] is asked for when the answer comes; 0 is nothing.
    pub(crate) answer: u32,
    /// How long its answer may take.
    pub(crate) allowed: Allowed<'t>,
    /// Whether, and when, it may be sent again.
    pub(crate) retry: Retry,
    /// Where a copy of it goes, if one does.
    pub(crate) mirror: Option<MirrorTo>,
}

/// Where copies go: a cluster of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MirrorTo {
    /// The table's generation.
    pub(crate) table: u64,
    pub(crate) cluster: ClusterId,
}

/// Where a request is to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Routed {
    /// To the original destination.
    #[default]
    Home,
    /// To an endpoint.
    To(Place),
}

/// An endpoint of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The table's generation.
    pub(crate) table: u64,
    pub(crate) route: Route,
}

/// Where a message goes, as rules say it.
#[derive(Debug, Default)]
pub(crate) enum Seating {
    /// To no endpoint of theirs.
    #[default]
    None,
    /// To the endpoint of the one before it.
    Same,
    /// To another.
    New(Seat),
}

/// Where the messages of a connection go: now, and by its other upstreams, which have a number each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sits<'s> {
    pub(crate) now: Option<&'s Seat>,
    pub(crate) others: &'s [(u8, Seat)],
}

/// Decides about messages; one for a shard. It neither blocks nor allocates for a message.
pub(crate) trait Decide: fmt::Debug + Send {
    /// Whether it has anything to say about a connection: asked once for each.
    fn concerns(&self, asker: &Asker, protocol: netra_codecs::tap::Protocol) -> bool;

    /// Whether messages of the application that are for this place may be sent elsewhere: asked once for
    /// each connection.
    fn leads(&self, _to: SocketAddr, _protocol: netra_rules::Protocol) -> bool {
        false
    }

    /// What is done with a request of a connection that sits there; pairs that are to travel with it
    /// are added to `pairs`. `random` is chance.
    fn decide(
        &mut self,
        message: &Message<'_>,
        asked: (&Asker, Sits<'_>),
        pairs: &mut Pairs,
        now: Nanos,
        random: u64,
    ) -> Ruling<'_>;

    /// Where an endpoint is that was just decided for, of a connection that wanted to go to
    /// `original`; None is there.
    fn target(&self, place: Place, original: SocketAddr) -> Option<Target>;

    /// The seat there of a connection that sits at `now`.
    fn seat(&self, _place: Place, _now: Option<&Seat>) -> Seating {
        Seating::None
    }

    /// Somebody there, by chance; `original` is where the connection wanted to go.
    fn mirror(&self, _to: MirrorTo, _original: SocketAddr, _random: u64) -> Option<Target> {
        None
    }

    /// Whether this is somebody there.
    fn has_mirror(&self, _to: MirrorTo, _target: &Target, _original: SocketAddr) -> bool {
        false
    }

    /// What travels with the answer to a request, by the number that it was decided with.
    fn answer(&self, number: u32, pairs: &mut Pairs);
}
