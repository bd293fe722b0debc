//! What is to be done with a message. All of it are numbers; what they stand for is in the table
//! that decided.

/// A rule of a table: the index of its [`RuleInfo`](crate::RuleInfo).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// A cluster of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub u32);

/// An endpoint of a cluster: its index in [`Cluster::endpoints`](crate::Cluster::endpoints).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u32);

/// A list of mutations of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MutationsId(pub u32);

/// When a request that is safe to repeat may be sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// How often; 0 is never.
    pub attempts: u8,
    /// Its upstream ends before anything of the answer has come.
    pub on_reset: bool,
    /// Nothing of the answer has come within [`Self::per_try_ms`].
    pub on_timeout: bool,
    /// The answer says that a gateway behind netra, or the server, cannot serve it now: 502, 503 or 504, and of other
    /// protocols what counts as a fault.
    pub on_gateway_error: bool,
    /// How long each try may take until its answer's first byte; 0 is as long as the route allows.
    pub per_try_ms: u32,
    /// The route names the operations that are safe to repeat, and the request is of one of them.
    pub is_named: bool,
}

impl Retry {
    /// Nothing is sent again.
    pub const NEVER: Self = Self {
        attempts: 0,
        on_reset: false,
        on_timeout: false,
        on_gateway_error: false,
        per_try_ms: 0,
        is_named: false,
    };

    /// Whether answers are withheld that say that nobody can serve the request now.
    pub fn withholds_answers(&self) -> bool {
        self.attempts > 0 && self.on_gateway_error
    }

    /// How long each try may take until its answer's first byte, in nanoseconds; None is as long as the
    /// route allows.
    pub fn per_try_ns(&self) -> Option<u64> {
        let is_timed = self.attempts > 0 && self.on_timeout && self.per_try_ms > 0;
        is_timed.then_some(u64::from(self.per_try_ms) * 1_000_000)
    }
}

/// What becomes of a message.
///
/// Everything beside the action holds for a message that is passed or routed; `delay_ns` holds for
/// one that is refused, too: first the delay, then the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The rule that decided; None where no rule is about the message.
    pub rule: Option<RuleId>,
    /// What is done.
    pub action: Action,
    /// Set in the request, see [`Table::mutations`](crate::Table::mutations).
    pub request: Option<MutationsId>,
    /// Set in each answer.
    pub response: Option<MutationsId>,
    /// How long to wait before anything is done; 0 is not at all.
    pub delay_ns: u64,
    /// How long the first byte of the answer may take, from when the request was sent; 0 is for
    /// ever. Not for requests that wait on purpose (`Kind::Blocking`, `Kind::Subscribe`).
    pub first_byte_ns: u64,
    /// How long an answer that has begun may stand still; 0 is for ever.
    pub idle_ns: u64,
    /// Whether, and when, a request that is safe to repeat may be sent again to another endpoint.
    pub retry: Retry,
    /// Where a copy of it goes, if one does: see [`State::mirror`](crate::State::mirror).
    pub mirror: Option<ClusterId>,
    /// The rule that would have refused the message were it not only in the shadow.
    pub shadow: Option<RuleId>,
}

impl Verdict {
    /// No rule is about the message.
    pub const NONE: Self = Self {
        rule: None,
        action: Action::Pass,
        request: None,
        response: None,
        delay_ns: 0,
        first_byte_ns: 0,
        idle_ns: 0,
        retry: Retry::NEVER,
        mirror: None,
        shadow: None,
    };
}

/// What is done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the original destination.
    Pass,
    /// To an endpoint.
    Route(Route),
    /// Nowhere: the asker is told so in the words of the protocol.
    Refuse(Refusal),
}

/// An endpoint that was chosen: see [`Table::endpoint`](crate::Table::endpoint).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The cluster.
    pub cluster: ClusterId,
    /// The endpoint of it.
    pub endpoint: EndpointId,
}

/// Why a message is refused; the text for the asker is [`Table::refusal_text`](crate::Table::refusal_text).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind.
    pub kind: RefusalKind,
    /// The status of HTTP that fits: 403, 404, 429, 503, or what a fault asks for.
    pub http_status: u16,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// Routes there are, and none is for this message.
    NoRoute,
    /// The cluster of the route has no endpoint.
    NoEndpoint,
    /// An authorization says no.
    Denied,
    /// A limit is used up.
    Limited,
    /// A fault that somebody asked for.
    Fault,
    /// The cluster has as much to do as it may.
    Overflow,
}

impl RefusalKind {
    /// Every kind, in order of declaration; the index is `kind as usize`.
    pub const ALL: &'static [Self] = &[
        Self::NoRoute,
        Self::NoEndpoint,
        Self::Denied,
        Self::Limited,
        Self::Fault,
        Self::Overflow,
    ];

    /// The word, in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoEndpoint => "no_endpoint",
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::Fault => "fault",
            Self::Overflow => "overflow",
        }
    }
}
