//! Values of settings as they are in effect: where each came from, and how one is refused.

use crate::{mask, setting::Setting, texts::whole};
use std::fmt;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// This variable.
    Environment(&'static str),
    /// The flag.
    Flag,
}

/// A setting as it is in effect.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    pub(crate) setting: &'static Setting,
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

impl Effective {
    /// Whether somebody set it.
    pub(crate) fn is_set(&self) -> bool {
        self.origin != Origin::Default
    }

    /// What to blame, as the person wrote it.
    pub(crate) fn source(&self) -> String {
        match self.origin {
            Origin::Default => self.setting.name.into(),
            Origin::Environment(variable) => variable.into(),
            Origin::Flag => format!("--{}", self.setting.flag()),
        }
    }

    pub(crate) fn refused(&self, allowed: impl Into<String>) -> Refused {
        let shown = self.setting.shown(&self.text);
        let what = format!("{}={}", self.source(), mask::line(&shown));
        Refused { what, allowed: allowed.into() }
    }
}

/// A value that is not allowed: one line that names variable or flag, value, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    what: String,
    allowed: String,
}

impl Refused {
    /// `what` is what somebody has written, or has not.
    pub(crate) fn new(what: String, allowed: String) -> Self {
        Self { what, allowed }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: allowed is {}", self.what, self.allowed)
    }
}

/// All values, for checks that look at more than one.
pub(crate) struct Values<'v>(pub(crate) &'v [Effective]);

impl<'v> Values<'v> {
    /// The setting called `name`; it is in the table, which a test makes sure of.
    pub(crate) fn get(&self, name: &str) -> &'v Effective {
        let found = self.0.iter().find(|value| value.setting.name == name);
        found.unwrap_or_else(|| unreachable!("{name} is not in the table"))
    }

    pub(crate) fn number(&self, name: &str) -> u32 {
        whole(&self.get(name).text, 0, u32::MAX).unwrap_or_default()
    }
}
