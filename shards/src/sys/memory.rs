//! Anonymous memory for relay buffers: reserved at once, touched page by page, given back to the
//! kernel when a burst is over.

use std::{io, ptr::NonNull, slice};

/// A private anonymous mapping, page-aligned, zeroed lazily by the kernel.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is plain memory; whichever thread owns the
// value may use it.
unsafe impl Send for Region {}

impl Region {
    /// Reserves `len` bytes of address space; none is resident until it is touched.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mmap gave null"))?;
        // SAFETY: the range is the mapping made above. Huge pages would make every touched buffer
        // cost 2 MiB; a kernel that does not know the advice is no error.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_NOHUGEPAGE) };
        Ok(Self { base, len })
    }

    /// The address of a byte, for handing memory to the kernel.
    pub(crate) fn address(&self, offset: usize) -> u64 {
        debug_assert!(offset < self.len);
        self.base.as_ptr() as u64 + offset as u64
    }

    /// `len` bytes from `offset`.
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: the range lies within the mapping (asserted); it is initialised (the kernel
        // zeroes it). The pool hands a buffer either to the kernel or to one owner, never both,
        // so nobody writes it while this borrow lives.
        unsafe { slice::from_raw_parts(self.base.as_ptr().add(offset), len) }
    }

    /// `len` bytes from `offset`, to write.
    pub(crate) fn bytes_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: as in `bytes`, and `&mut self` excludes every other borrow.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) }
    }

    /// Gives the pages of a range back to the kernel; they read as zero when touched again.
    pub(crate) fn give_back(&mut self, offset: usize, len: usize) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: the range lies within the mapping, which is private and anonymous, and
        // `&mut self` excludes every borrow of it.
        unsafe {
            libc::madvise(self.base.as_ptr().add(offset).cast(), len, libc::MADV_DONTNEED);
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and is not used after this.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
