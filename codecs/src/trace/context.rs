//! The context of a span.

/// Identity of a span and what was decided about its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace, never 0; 64-bit traces have an upper half of 0.
    pub trace_id: u128,
    /// The span.
    pub span_id: u64,
    /// The span's parent, 0 for a root.
    pub parent_id: u64,
    /// Sampling and debugging.
    pub flags: TraceFlags,
    /// W3C Trace Context level 2: the trace id is random in at least its lower 56 bits.
    pub random: bool,
}

impl TraceContext {
    /// The context of a root span; its ids are the caller's random numbers.
    pub fn root(trace_id: u128, span_id: u64, flags: TraceFlags) -> Self {
        Self { trace_id, span_id, parent_id: 0, flags, random: false }
    }

    /// The context of a span whose parent is this one: same trace, same decisions.
    pub fn child(&self, span_id: u64) -> Self {
        Self { span_id, parent_id: self.span_id, ..*self }
    }

    /// Whether the span is to be reported.
    pub fn is_sampled(&self) -> bool {
        self.flags.contains(TraceFlags::SAMPLED)
    }
}

/// The flags of `uber-trace-id`. Bits that netra does not know are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceFlags(pub u8);

impl TraceFlags {
    /// Nothing: not sampled.
    pub const NONE: Self = Self(0);
    /// The trace is reported.
    pub const SAMPLED: Self = Self(1);
    /// The trace is reported whatever samplers say.
    pub const DEBUG: Self = Self(2);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other` as well.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_keeps_the_trace_and_names_its_parent() {
        let flags = TraceFlags::SAMPLED.with(TraceFlags::DEBUG);
        let root = TraceContext { random: true, ..TraceContext::root(5, 7, flags) };
        let child = root.child(9);
        assert_eq!((child.trace_id, child.span_id, child.parent_id), (5, 9, 7));
        assert!(child.is_sampled() && child.random && child.flags.contains(TraceFlags::DEBUG));
        assert!(!TraceContext::root(1, 1, TraceFlags::DEBUG).is_sampled());
    }
}
