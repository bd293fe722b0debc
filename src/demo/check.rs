//! Something that must hold, or the demo fails.

use crate::json;
use std::fmt::{self, Display};

/// A sentence and whether it is true.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) holds: bool,
}

impl Check {
    pub(super) fn json(&self) -> String {
        json::object(|object| {
            object.text("what", &self.what);
            object.raw("holds", &self.holds.to_string());
        })
    }
}

impl Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.holds { "✓" } else { "✗" }, self.what)
    }
}
