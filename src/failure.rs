//! What netra sends to others, when it does not arrive.

/// Why there was no answer.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
