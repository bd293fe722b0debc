//! What can go wrong, each with an exit code of its own so that scripts can tell them apart.

use std::fmt;

/// Shown at the end of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 good, 1 unexpected failure, 2 bad argument or file, 3 missing privileges, 4 missing
program or kernel feature, 5 target or port not usable, 6 requests failed or the subject died,
7 the asked rate was not reached or the generator was late, 130 interrupted (what was measured so
far is reported).";

/// Why a run ended badly.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The system refused something we had no reason to expect.
    Unexpected,
    /// An argument or a file is wrong.
    Usage,
    /// Root or a capability is missing.
    Privileges,
    /// A program or a feature of the kernel is missing.
    Tool,
    /// Nobody listens there, or the port is taken.
    Target,
    /// Requests failed, or what was measured died.
    Failed,
    /// The rate that was asked for was not reached.
    Rate,
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

impl Kind {
    /// The exit code of the program.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::Privileges => 3,
            Self::Tool => 4,
            Self::Target => 5,
            Self::Failed => 6,
            Self::Rate => 7,
            Self::Interrupted => 130,
        }
    }
}

/// A failure with a sentence for the user.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// What everything here returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// The sort of failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Says what was being done when the system refused.
pub(crate) trait Context<T> {
    /// Keeps the cause and puts `what` before it.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::new(Kind::Unexpected, format!("{}: {cause}", what())))
    }
}

impl From<std::io::Error> for Error {
    fn from(cause: std::io::Error) -> Self {
        Self::new(Kind::Unexpected, cause.to_string())
    }
}
