//! What can go wrong, sorted by who has to act: each kind has its own exit code.

use crate::capability;
use std::fmt;
use std::io;

/// Result of everything fallible in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Who has to act on an error. The exit code is part of the interface of `netra-init`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A flag or variable has a value that is not allowed.
    Usage,
    /// A capability is missing.
    Capability,
    /// Somebody else holds a lock.
    Lock,
    /// The kernel or a helper binary lacks what the rules need.
    Kernel,
    /// Traffic does not take the way the rules promise.
    Verify,
    /// The rules in the kernel are not the wanted ones.
    Drift,
}

impl Kind {
    /// Exit code of the process for this kind.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Capability => 3,
            Self::Lock => 4,
            Self::Kernel => 5,
            Self::Verify => 6,
            Self::Drift => 7,
        }
    }

    /// Name of the kind in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Capability => "capability",
            Self::Lock => "lock",
            Self::Kernel => "kernel",
            Self::Verify => "verify",
            Self::Drift => "drift",
        }
    }
}

/// An error: its kind and one line for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Error {
    /// Who has to act.
    pub kind: Kind,
    /// One line, no newline at its end.
    pub message: String,
}

impl Error {
    /// Makes an error of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A bad value: names the flag or variable, the value and what is allowed.
    pub fn bad_value(name: &str, value: &str, allowed: &str) -> Self {
        Self::new(Kind::Usage, format!("{name}: bad value \"{value}\": {allowed}"))
    }

    /// An error of the kernel while doing `what`; missing privileges are told apart.
    pub fn kernel(what: &str, source: &io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::missing_net_admin(what),
            Some(libc::EBUSY | libc::EAGAIN) => Self::new(
                Kind::Lock,
                format!("{what}: {source}: another program changes the rules"),
            ),
            _ => Self::new(Kind::Kernel, format!("{what}: {source}{}", hint(source))),
        }
    }

    /// The one line about CAP_NET_ADMIN.
    pub fn missing_net_admin(what: &str) -> Self {
        Self::new(
            Kind::Capability,
            format!(
                "{what}: need CAP_NET_ADMIN in this network namespace ({})",
                capability::remedy()
            ),
        )
    }

    /// The one line about CAP_NET_RAW.
    pub fn missing_net_raw() -> Self {
        let message = "iptables-legacy: need CAP_NET_RAW besides CAP_NET_ADMIN (docker: --cap-add \
                       NET_RAW; kubernetes: securityContext.capabilities.add), or --backend=auto";
        Self::new(Kind::Capability, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The likely cause behind an errno of nf_tables: nearly always a module that is not there.
fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
            ": likely a kernel module is missing (nf_tables nft_chain_nat nft_redir nft_fib_inet \
             nft_numgen nf_nat) or the kernel is older than 5.2, the first with nat in inet tables"
        }
        Some(libc::EINVAL) => {
            ": likely the kernel is built without nf_tables or older than 5.2, the first with nat \
             in inet tables"
        }
        _ => "",
    }
}
