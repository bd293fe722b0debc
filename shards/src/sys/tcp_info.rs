//! What TCP itself knows about a connection.

use super::Fd;
use std::{io, mem, time::Duration};

/// What TCP knows about one hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Segments that were sent again, ever.
    pub retransmits: u32,
}

/// TCP_INFO of a socket.
pub(crate) fn tcp_info(fd: Fd) -> io::Result<TcpInfo> {
    // SAFETY: tcp_info is plain integers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes into `info`, which lives for the call.
    let said = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    if said != 0 {
        return Err(io::Error::last_os_error());
    }
    let rtt = Duration::from_micros(info.tcpi_rtt.into());
    Ok(TcpInfo { rtt, retransmits: info.tcpi_total_retrans })
}
