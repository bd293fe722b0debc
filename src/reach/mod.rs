//! How a receiver is reached that is not to be reached in the clear: whom netra trusts there, who it
//! says that it is, and by which proxy.
//!
//! Files are read when they are needed and read again when they have changed, because certificates
//! and tokens are renewed under a process that runs on. Nothing here is read, and no root of trust is
//! kept, where every receiver is spoken to over plain HTTP.

mod headers;
mod pem;
mod proxy;
mod tls;

pub(crate) use headers::Headers;
pub(crate) use proxy::{Proxy, choose};
pub(crate) use tls::{Tls, why};

use std::{fs, os::unix::fs::MetadataExt};

/// What the settings say for every receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReachSettings {
    pub(crate) tls: TlsSettings,
    pub(crate) https_proxy: String,
    pub(crate) no_proxy: String,
    /// A file with headers for whoever takes spans or metrics.
    pub(crate) headers_file: String,
}

/// Paths of files in PEM; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The file that a setting names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) setting: &'static str,
    pub(crate) path: String,
}

/// How one receiver is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Whom netra trusts; none is the roots of this machine.
    pub(crate) ca: Option<Named>,
    /// Who netra says that it is: a certificate and its key.
    pub(crate) identity: Option<(Named, Named)>,
    pub(crate) proxy: Option<Proxy>,
}

impl Reach {
    /// Looks at the files: what is wrong with them is better said at the start than at the first
    /// span. The error is a setting and what is allowed there.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        tls::check(self)
    }
}

/// Tells whether a file is still the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// None where the file cannot be looked at: reading it will say why.
    fn of(path: &str) -> Option<Self> {
        let about = fs::metadata(path).ok()?;
        let changed = (about.mtime(), about.mtime_nsec());
        Some(Self { inode: about.ino(), bytes: about.len(), changed })
    }
}

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
