//! What reads a connection's bytes along with its flows, and stands in their way where it is a gate.

use crate::{
    along::Along,
    buffers::BufferId,
    core::Core,
    error::End,
    exchange::Source,
    http::{Http, UpstreamEnd},
    io::{Io, Side, Token},
    sends::Gated,
    switch::Switch,
};

/// What reads a connection's bytes along with its flows.
#[derive(Debug)]
pub(crate) enum Half<'h> {
    /// Nothing: bytes are bytes.
    None,
    /// HTTP/1: the request flow is gated, the response flow is tapped, but where answers are given
    /// something.
    Http(&'h mut Http),
    /// Another protocol: both flows are tapped.
    Tap(&'h mut Along),
}

impl Half<'_> {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The same for a call that does not keep it.
    pub(super) fn again(&mut self) -> Half<'_> {
        match self {
            Self::None => Half::None,
            Self::Http(http) => Half::Http(http),
            Self::Tap(tap) => Half::Tap(tap),
        }
    }

    /// Whether the flow from this side has a gate.
    pub(super) fn is_gated(&self, from: Side) -> bool {
        match self {
            Self::None => false,
            Self::Http(http) => from == Side::Downstream || http.cuts_answers(),
            Self::Tap(tap) => tap.is_gated(),
        }
    }

    /// What the gate's client still sends is thrown away.
    pub(super) fn gave_up(&self, from: Side) -> bool {
        from == Side::Downstream
            && match self {
                Self::None => false,
                Self::Http(http) => http.switch.gave_up(),
                Self::Tap(tap) => tap.switch().is_some_and(Switch::gave_up),
            }
    }

    /// Nothing that comes by this flow may be sent now: the upstream is being changed, a request waits,
    /// or another leg has its turn.
    pub(super) fn is_paused(&mut self, from: Token) -> bool {
        match self {
            Self::None => false,
            Self::Http(http) => from.side == Side::Downstream && http.is_switching(),
            Self::Tap(tap) => tap.is_paused(from),
        }
    }

    /// Nothing at all may be sent by this flow, be it netra's own.
    pub(super) fn is_stopped(&mut self, from: Token) -> bool {
        match self {
            Self::None => false,
            Self::Http(http) => from.side == Side::Downstream && http.is_switching(),
            Self::Tap(tap) => tap.is_stopped(from),
        }
    }

    /// What the bytes of this flow are sent to.
    pub(super) fn receiver(&self, from: Token) -> Token {
        match self {
            Self::None | Self::Http(_) => from.other(),
            Self::Tap(tap) => tap.receiver(from),
        }
    }

    /// Takes a step of the gate: sends what it carries, or else of what has been received first. None
    /// where there is nothing.
    pub(super) fn next<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        first: Option<BufferId>,
    ) -> Result<Option<Gated>, End> {
        let source = first.map(Source::Buffer);
        let to = from.other();
        match self {
            Self::None => Ok(None),
            Self::Tap(tap) => tap.next(core, from, source),
            Self::Http(http) if to.side == Side::Downstream => http.next_answer(core, to, source),
            Self::Http(http) if http.has_carry() => http.send_carry(core, to).map(Some),
            Self::Http(http) => match source {
                Some(source) => http.gate(core, to, source).map(Some),
                None if http.must_let_go() => http.gate(core, to, Source::Nothing).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Takes a step of the gate with bytes that were peeked at.
    pub(super) fn peeked<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        len: usize,
    ) -> Result<Gated, End> {
        let (source, to) = (Source::Scratch(len), from.other());
        match self {
            Self::Http(http) if to.side == Side::Downstream => {
                http.next_answer(core, to, Some(source)).map(Option::unwrap_or_default)
            }
            Self::Http(http) => http.gate(core, to, source),
            Self::Tap(tap) => tap.next(core, from, Some(source)).map(Option::unwrap_or_default),
            Self::None => Ok(Gated::default()),
        }
    }

    /// The upstream may end now, and its client need not learn of it.
    pub(super) fn outlives_upstream(&mut self) -> bool {
        match self {
            Self::Http(http) => http.upstream_end() != UpstreamEnd::Final,
            Self::Tap(tap) => tap.gate().is_some_and(|gate| gate.onward().is_some()),
            Self::None => false,
        }
    }

    /// The stream from this side has ended. Whether its gate may have something to send still.
    pub(super) fn end_way<I: Io>(&mut self, core: &mut Core<I>, from: Side) -> bool {
        match self {
            Self::None => false,
            Self::Tap(_) if self.gave_up(from) => false,
            // One of several has ended, and the others go on.
            Self::Tap(tap) if from == Side::Upstream && tap.has_legs() => false,
            Self::Tap(tap) => {
                tap.end_way(core, from);
                tap.is_gated()
            }
            Self::Http(http) if from == Side::Upstream => {
                http.end_response(core);
                http.carries_answers()
            }
            Self::Http(http) if http.switch.gave_up() => false,
            Self::Http(http) => {
                http.end_request(core);
                true
            }
        }
    }

    /// Reads along with bytes that have been sent. Returns whether a body has begun of which so
    /// much is left that splicing pays.
    pub(super) fn tap<I: Io>(&mut self, core: &mut Core<I>, from: Side, source: Source) -> bool {
        match self {
            Self::None => false,
            Self::Http(http) => http.tap(core, source),
            Self::Tap(tap) => tap.tap(core, from, source),
        }
    }

    /// Bytes that may pass unseen from here.
    pub(super) fn passable(&self, from: Token) -> u64 {
        match self {
            Self::None => u64::MAX,
            Self::Http(http) if from.side == Side::Downstream => http.request_passable(),
            Self::Http(http) => http.response_passable(),
            Self::Tap(tap) => tap.passable(from),
        }
    }

    /// So many have.
    pub(super) fn passed<I: Io>(&mut self, core: &mut Core<I>, from: Side, count: usize) {
        match self {
            Self::None => {}
            Self::Http(http) if from == Side::Downstream => {
                http.request_passed(count as u64);
            }
            Self::Http(http) => http.response_passed(core, count as u64),
            Self::Tap(tap) => tap.passed(core, from, count as u64),
        }
    }
}
