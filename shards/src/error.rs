//! How connections end. An end names the side that caused it and keeps the errno; most ends are
//! not errors.

use crate::io::{Side, errno, would_block};
use netra_codecs::trace::{Fault, Flag};
use std::io;

/// Toward or from the local application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Somebody calls the local application.
    Inbound,
    /// The local application calls somebody.
    Outbound,
}

impl Direction {
    /// Its index among the label values of metrics.
    pub fn index(self) -> usize {
        match self {
            Self::Inbound => 0,
            Self::Outbound => 1,
        }
    }

    /// Its word: everywhere the same.
    pub fn name(self) -> &'static str {
        netra_perf::labels::DIRECTIONS[self.index()]
    }
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides ended their streams.
    Eof,
    /// A side reset the connection.
    Reset(Side),
    /// Moving bytes failed on a side, with this errno.
    Failed(Side, i32),
    /// The upstream refused the dial, with this errno.
    DialFailed(i32),
    /// The upstream did not answer in time.
    DialTimeout,
    /// One side had ended and the other stayed silent.
    HalfCloseLinger,
    /// Neither side moved bytes.
    IdleTimeout,
    /// The drain's deadline came first.
    DrainDeadline,
    /// A request was refused, and its client cannot be told otherwise.
    Refused,
    /// An answer took longer than a rule allows, and its client cannot be told otherwise.
    AnswerTimeout,
    /// netra drains, and it was quiet between two exchanges.
    Drained,
    /// netra itself could not go on (no memory for the socket's registration).
    Netra,
}

impl End {
    /// What an I/O error on a side means.
    pub(crate) fn of(side: Side, error: i32) -> Self {
        match error {
            libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN => {
                Self::Reset(side)
            }
            other => Self::Failed(side, other),
        }
    }

    pub(crate) fn of_error(side: Side, error: &io::Error) -> Self {
        Self::of(side, errno(error))
    }

    /// What has failed, if that is what this means.
    pub(crate) fn fault(self) -> Option<Fault> {
        Some(match self {
            Self::Eof | Self::Drained => return None,
            Self::Reset(Side::Upstream) => Fault::of(Flag::UpstreamReset),
            Self::Reset(Side::Downstream) => Fault::of(Flag::DownstreamReset),
            Self::Failed(Side::Upstream, e) => Fault::with_errno(Flag::UpstreamError, e),
            Self::Failed(Side::Downstream, e) => Fault::with_errno(Flag::DownstreamError, e),
            Self::DialFailed(e) => dial_fault(e),
            Self::DialTimeout => dial_fault(libc::ETIMEDOUT),
            Self::HalfCloseLinger => Fault::of(Flag::HalfCloseLinger),
            Self::IdleTimeout => Fault::of(Flag::IdleTimeout),
            Self::DrainDeadline => Fault::of(Flag::DrainDeadline),
            Self::Netra => Fault::of(Flag::Netra),
            Self::Refused => Fault::of(Flag::RefusedByRule),
            Self::AnswerTimeout => Fault::of(Flag::AnswerTimeout),
        })
    }

    /// Its index in [`netra_perf::labels::REASONS`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Eof => 0,
            Self::Reset(Side::Downstream) => 1,
            Self::Reset(Side::Upstream) => 2,
            Self::Failed(Side::Downstream, _) => 3,
            Self::Failed(Side::Upstream, _) => 4,
            Self::DialFailed(_) => 5,
            Self::DialTimeout => 6,
            Self::HalfCloseLinger => 7,
            Self::IdleTimeout => 8,
            Self::DrainDeadline => 9,
            Self::Netra => 10,
            Self::Refused => 11,
            Self::Drained => 12,
            Self::AnswerTimeout => 13,
        }
    }
}

/// What it means that a dial failed with this errno.
pub(crate) fn dial_fault(errno: i32) -> Fault {
    let flag = match errno {
        libc::ECONNREFUSED => Flag::UpstreamRefused,
        libc::ETIMEDOUT => Flag::DialTimeout,
        libc::EHOSTUNREACH | libc::ENETUNREACH => Flag::NoRoute,
        libc::EADDRNOTAVAIL => Flag::NoLocalPort,
        libc::EMFILE | libc::ENFILE => Flag::Limit,
        _ => Flag::DialFailed,
    };
    Fault::with_errno(flag, errno)
}

/// The index of a dial's errno in [`netra_perf::labels::ERRNOS`].
pub(crate) fn dial_errno_index(errno: i32) -> usize {
    match errno {
        libc::ECONNREFUSED => 0,
        libc::EHOSTUNREACH => 1,
        libc::ENETUNREACH => 2,
        libc::ETIMEDOUT => 3,
        libc::EADDRNOTAVAIL => 4,
        libc::EMFILE | libc::ENFILE => 5,
        _ => 6,
    }
}

/// Bytes that a send came to: none where the socket of `to` is full.
pub(crate) fn taken(sent: io::Result<usize>, to: Side) -> Result<usize, End> {
    match sent {
        Ok(sent) => Ok(sent),
        Err(e) if would_block(&e) => Ok(0),
        Err(e) => Err(End::of_error(to, &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_perf::labels::{ERRNOS, REASONS};

    #[test]
    fn ends_meet_the_reasons_they_are_counted_under() {
        for (end, reason) in [
            (End::Eof, "eof"),
            (End::of(Side::Downstream, libc::EPIPE), "downstream_reset"),
            (End::of(Side::Upstream, libc::ECONNRESET), "upstream_reset"),
            (End::of(Side::Downstream, libc::ETIMEDOUT), "downstream_error"),
            (End::of(Side::Upstream, libc::EHOSTUNREACH), "upstream_error"),
            (End::DialFailed(libc::ECONNREFUSED), "dial_failed"),
            (End::DialTimeout, "dial_timeout"),
            (End::HalfCloseLinger, "half_close_linger"),
            (End::IdleTimeout, "idle_timeout"),
            (End::DrainDeadline, "drain_deadline"),
            (End::Netra, "netra_error"),
            (End::Refused, "refused"),
            (End::Drained, "drained"),
            (End::AnswerTimeout, "answer_timeout"),
        ] {
            assert_eq!(REASONS[end.index()], reason);
        }
        assert_eq!(End::Eof.fault(), None);
        assert_eq!(End::DialTimeout.fault(), Some(dial_fault(libc::ETIMEDOUT)));
        let refused = End::DialFailed(libc::ECONNREFUSED).fault().unwrap();
        assert_eq!((refused.flag.letters(), refused.errno), ("UF", 111));
        assert_eq!(ERRNOS[dial_errno_index(libc::ECONNREFUSED)], "ECONNREFUSED");
        assert_eq!(ERRNOS[dial_errno_index(libc::EADDRNOTAVAIL)], "EADDRNOTAVAIL");
        assert_eq!(ERRNOS[dial_errno_index(libc::EINVAL)], "other");
    }
}
