//! The addresses of this host's links.

use super::{check, socket::from_raw};
use std::{ffi::CStr, io, net::IpAddr, ptr};

/// Shows every address of every link, with the link's name, until one is the one that is sought;
/// whether there was such.
pub(crate) fn any_address(mut is_sought: impl FnMut(&[u8], IpAddr) -> bool) -> io::Result<bool> {
    let mut list = ptr::null_mut();
    // SAFETY: the call stores the head of a list that it allocates in `list`.
    check(unsafe { libc::getifaddrs(&raw mut list) })?;
    let mut at = list;
    let mut found = false;
    while !at.is_null() && !found {
        // SAFETY: `at` is a node of the list, which lives until it is freed below.
        let node = unsafe { &*at };
        if !node.ifa_addr.is_null() {
            // SAFETY: getifaddrs ends names with NUL, and they live as long as the list.
            let name = unsafe { CStr::from_ptr(node.ifa_name) };
            // SAFETY: the address is as long as its family says.
            let address = unsafe { from_raw_of_family(node.ifa_addr) };
            found = address.is_some_and(|ip| is_sought(name.to_bytes(), ip));
        }
        at = node.ifa_next;
    }
    // SAFETY: it is the list that getifaddrs gave, and no reference into it is left.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// The IP address at `address`, if it is one.
///
/// # Safety
/// `address` points to as many bytes as the sockaddr of its family has.
unsafe fn from_raw_of_family(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: every sockaddr has a family.
    let len = match libc::c_int::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    let mut storage = super::socket::empty_storage();
    // SAFETY: `len` bytes are there, by their family, and fit into the storage, which is larger.
    unsafe {
        ptr::copy_nonoverlapping(address.cast::<u8>(), (&raw mut storage).cast::<u8>(), len);
    }
    from_raw(&storage).ok().map(|address| address.ip())
}
