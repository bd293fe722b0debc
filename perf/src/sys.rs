//! The door to unsafe code of this crate: what only the allocator itself can tell.
#![allow(unsafe_code)]

use std::ptr::null_mut;

/// What the allocator holds. Zero where the process uses another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocator {
    /// Bytes that it has from the kernel.
    pub committed: Option<u64>,
    /// The most it ever had.
    pub committed_max: Option<u64>,
}

/// Asks mimalloc.
pub fn allocator() -> Allocator {
    let (mut committed, mut committed_max) = (0usize, 0usize);
    // SAFETY: mi_process_info(3) writes through the pointers that are not null and keeps none of
    // them; both point to live integers of this frame.
    unsafe {
        libmimalloc_sys::mi_process_info(
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            &raw mut committed,
            &raw mut committed_max,
            null_mut(),
        );
    }
    let bytes = |n: usize| u64::try_from(n).ok();
    Allocator { committed: bytes(committed), committed_max: bytes(committed_max) }
}

/// Gives memory that nobody uses back to the kernel, after something that needed a lot.
pub fn collect() {
    // SAFETY: mi_collect takes no pointer and may be called by any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
