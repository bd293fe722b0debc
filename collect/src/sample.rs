//! One thing that was done, as figures have it.

/// How long it took, and how it came out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) duration_ns: u64,
    pub(crate) is_error: bool,
}
