//! Requests that are answered here, in the words of their protocol.

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Whoever asks may not.
    Denied,
    /// More was asked than the limit allows.
    Limited,
    /// No rule says where to.
    NoRoute,
    /// A fault that was asked for.
    Aborted,
    /// Nobody answers where it was to go.
    Unreachable,
    /// Where it was to go there is as much to do as may be.
    Overflow,
    /// It was passed on, and the answer has not come in the time that it may take.
    TimedOut,
}

impl Why {
    /// Every reason, in order of declaration; the index is `why as usize`.
    pub const ALL: &'static [Self] = &[
        Self::Denied,
        Self::Limited,
        Self::NoRoute,
        Self::Aborted,
        Self::Unreachable,
        Self::Overflow,
        Self::TimedOut,
    ];

    /// The label value, in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::NoRoute => "no_route",
            Self::Aborted => "aborted",
            Self::Unreachable => "unreachable",
            Self::Overflow => "overflow",
            Self::TimedOut => "timed_out",
        }
    }
}

/// What a client is told instead of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'t> {
    /// Why.
    pub why: Why,
    /// For people to read; of it no more is said than the protocol has room for, in one line.
    pub text: &'t str,
    /// Nothing that was asked before it on the connection waits for its answer: what the server said
    /// last is how things stand.
    pub is_alone: bool,
}

/// Bytes of its text that a client is told at most.
const TEXT_BYTES_MAX: usize = 512;

impl<'t> Refusal<'t> {
    /// Its text as one line of printable ASCII: what a line of any protocol may have.
    pub(crate) fn line(&self) -> impl Iterator<Item = u8> + Clone + 't {
        let plain = |byte: u8| if byte.is_ascii_graphic() { byte } else { b' ' };
        self.text.bytes().take(TEXT_BYTES_MAX).map(plain)
    }
}

/// Whether a refusal could be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Replied {
    /// It was written.
    Sent,
    /// The protocol has no words for it, or none at this point: both sides are to be closed.
    MustClose,
}
