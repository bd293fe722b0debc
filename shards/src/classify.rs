//! What an accepted connection is: where it was going, which way, and whether netra has any
//! business with it.

use crate::{core::Core, error::Direction, io::Io, sys::Fd};
use netra_codecs::trace::Flag;
use netra_perf::Key;
use std::net::{IpAddr, SocketAddr};

/// A connection that is to be relayed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Classified {
    pub(crate) original_dst: SocketAddr,
    pub(crate) direction: Direction,
    /// Who made it.
    pub(crate) caller: Option<SocketAddr>,
}

/// A connection that is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    /// How it is counted.
    pub(crate) key: Key,
    pub(crate) flag: Flag,
    pub(crate) original_dst: Option<SocketAddr>,
    pub(crate) caller: Option<SocketAddr>,
}

/// Whether an accepted connection is to be relayed, where to, and which way it goes; else why not.
pub(crate) fn classify<I: Io>(core: &mut Core<I>, fd: Fd) -> Result<Classified, Refused> {
    let caller = core.io.caller_of(fd).ok();
    let refused = |key, flag, original_dst| Err(Refused { key, flag, original_dst, caller });
    let local = core.io.local_addr(fd);
    let Ok((local, original)) =
        local.and_then(|local| Ok((local, core.io.original_dst(fd, local)?)))
    else {
        return refused(Key::NO_ORIGINAL_DST, Flag::NoOriginalDst, None);
    };
    // Dialled directly, or a destination that would lead back here by whatever address.
    if original.port() == core.port
        && (original.ip() == local.ip() || core.io.is_local(original.ip()))
    {
        return refused(Key::LOOP_REJECTED, Flag::Loop, Some(original));
    }
    if caller.is_some_and(|caller| core.own_dials.is_own(caller, original)) {
        return refused(Key::OWN_DIAL_REJECTED, Flag::OwnDial, Some(original));
    }
    // REDIRECT gives what came from outside the address of the interface it came in by, and what
    // was sent from here the loopback address (nf_nat_redirect.c).
    let from_outside = !local.ip().is_loopback();
    if from_outside && original.ip() != local.ip() && !may_enter(core, local.ip(), original.ip()) {
        return refused(Key::FOREIGN_DESTINATION, Flag::ForeignDestination, Some(original));
    }
    let inbound = from_outside || original.ip() == local.ip() || core.is_local(original.ip());
    let direction = if inbound { Direction::Inbound } else { Direction::Outbound };
    Ok(Classified { original_dst: original, direction, caller })
}

/// Whether the kernel would have let in what came to the link with the address `link` and was for
/// `original`. It was redirected before the kernel could judge: what is for the loopback address it
/// drops, and what is for others it does not forward, unless the link is one of guests, whose
/// traffic was redirected because it was going through here.
fn may_enter<I: Io>(core: &mut Core<I>, link: IpAddr, original: IpAddr) -> bool {
    !original.is_loopback() && (core.is_local(original) || core.is_guest_link(link))
}
