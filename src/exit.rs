//! How the process ends: one number for each kind of failure (sysexits.h), so that a supervisor can
//! tell a bad setting from a taken port without reading logs.

use std::process::ExitCode;

/// The number with which the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    /// Drained, checked, or shown.
    pub(crate) const DONE: Self = Self(0);
    /// Something is not as it was asked to be (`netra inject --check`).
    pub(crate) const DIFFERS: Self = Self(1);
    /// A setting or a flag is not what is allowed.
    pub(crate) const CONFIG: Self = Self(64);
    /// A port is taken, or may not be listened on.
    pub(crate) const UNAVAILABLE: Self = Self(69);
    /// A fault of netra itself.
    pub(crate) const INTERNAL: Self = Self(70);
    /// The kernel refused what netra needs.
    pub(crate) const OS: Self = Self(71);

    /// Ended by a signal, as a shell counts it.
    pub(crate) const fn signalled(number: u8) -> Self {
        Self(128 + number)
    }

    /// Ends the process here, whatever its threads do.
    pub(crate) fn now(self) -> ! {
        std::process::exit(self.0.into())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// The codes as `--help` shows them.
pub(crate) const HELP: &str = "\
Exit codes:
   0  drained after SIGTERM or SIGINT; --check-config and --print-config found nothing wrong
  64  a setting or a flag is bad (each one is named, with its value and what is allowed)
  69  a port is taken, or may not be listened on
  70  a fault of netra itself
  71  the kernel refused what is needed (io_uring with NETRA_IO=io_uring, descriptors)
 130  SIGINT while draining: ended at once
 143  SIGTERM while draining: ended at once";
