//! One io_uring: the four operations that the data path needs, a ring of provided buffers, and the
//! one `io_uring_enter` of a turn.

use super::{Fd, memory::Region, socket};
use crate::driver::Driver;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU16, Ordering},
};

/// The one buffer group of a ring.
const GROUP: u16 = 0;
/// Submission entries; completions have eight times as many. On ENOMEM both are halved.
const ENTRIES: u32 = 256;
const ENTRIES_MIN: u32 = 32;

/// A completion as plain data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// What the operation was given.
    pub(crate) data: u64,
    /// Bytes, a descriptor, or a negative errno.
    pub(crate) result: i32,
    /// The buffer that the kernel filled.
    pub(crate) buffer: Option<u16>,
    /// The operation goes on (multishot).
    pub(crate) more: bool,
}

/// The room for a caller's address.
const LEN: libc::socklen_t = 128;
const _: () = assert!(LEN as usize == size_of::<libc::sockaddr_storage>());

/// Why a ring could not be set up: the step that the kernel refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) step: &'static str,
    pub(crate) source: io::Error,
}

/// Who has connected, as the kernel writes it.
struct Caller {
    address: libc::sockaddr_storage,
    len: libc::socklen_t,
}

/// An io_uring of one thread (SINGLE_ISSUER), with its ring of provided buffers.
pub(crate) struct Ring {
    ring: IoUring,
    driver: Driver,
    entries: Region,
    mask: u16,
    tail: u16,
    /// Submissions that found the queue full; pushed before the next enter.
    backlog: std::collections::VecDeque<squeue::Entry>,
    /// A completion that was looked at and not taken.
    ahead: Option<Completion>,
    /// One place for each accept that the kernel may hold; the ring owns the allocation.
    callers: *mut [Caller],
    /// The accepts that it holds, as bits: their places are the kernel's.
    accepting: u32,
}

impl Ring {
    /// Sets up a ring for the calling thread: DEFER_TASKRUN where the kernel has it (6.1), else
    /// COOP_TASKRUN (5.19). A ring without either is slower than epoll (measured: 36 % fewer
    /// requests) and is never used. `buffers_max` is how many buffers may be provided at a time,
    /// `accepts_max` how many accepts may be held.
    pub(crate) fn new(buffers_max: u16, accepts_max: u32) -> Result<Self, Refused> {
        let (ring, driver) = setup()?;
        let count = buffers_max.next_power_of_two();
        let bytes = usize::from(count) * size_of::<types::BufRingEntry>();
        let entries =
            Region::new(bytes).map_err(|source| Refused { step: "buffer ring memory", source })?;
        // SAFETY: the region has room for `count` entries, is page-aligned, zeroed, and lives
        // until `drop` has unregistered the group.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.address(0), count, GROUP, 0)
        }
        .map_err(|source| Refused { step: "io_uring_register(PBUF_RING)", source })?;
        let callers = (0..accepts_max).map(|_| Caller { address: socket::empty_storage(), len: 0 });
        Ok(Self {
            ring,
            driver,
            entries,
            mask: count - 1,
            tail: 0,
            backlog: std::collections::VecDeque::new(),
            ahead: None,
            callers: Box::into_raw(callers.collect()),
            accepting: 0,
        })
    }

    /// Which rung of the ladder this ring stands on.
    pub(crate) fn driver(&self) -> Driver {
        self.driver
    }

    /// Provides a buffer to receives. The caller gives up the memory until a completion names it.
    pub(crate) fn provide(&mut self, id: u16, address: u64, len: u32) {
        let base = self.entries.address(0) as *mut types::BufRingEntry;
        let slot = usize::from(self.tail & self.mask);
        // SAFETY: `slot` is within the registered ring, whose memory we own; the kernel reads an
        // entry only after the tail has passed it, which the release store below does.
        unsafe {
            let entry = &mut *base.add(slot);
            entry.set_addr(address);
            entry.set_len(len);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `base` is the first entry of the registered ring; its tail field is two aligned
        // bytes that only this thread writes and the kernel reads.
        let tail = unsafe { AtomicU16::from_ptr(types::BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Accepts one connection on `listener`. (A multishot accept takes the whole queue in one
    /// call, far beyond the descriptors there are.) `place` is below `accepts_max`, and no other
    /// accept has it until [`Ring::accepted`].
    pub(crate) fn accept(&mut self, listener: Fd, place: u32, data: u64) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        assert!((place as usize) < self.callers.len() && self.accepting & 1 << place == 0);
        self.accepting |= 1 << place;
        // SAFETY: `place` is within the allocation, which lives as long as the ring, and longer
        // where accepts are held then (see `drop`). Nobody else has this place until its accept
        // has completed, and no reference to it exists meanwhile.
        let (address, len) = unsafe {
            let caller = self.callers.cast::<Caller>().add(place as usize);
            (&raw mut (*caller).len).write(LEN);
            (&raw mut (*caller).address, &raw mut (*caller).len)
        };
        let accept = opcode::Accept::new(types::Fd(listener), address.cast(), len).flags(flags);
        self.push(accept.build(), data);
    }

    /// The accept that was given `place` has completed: who has connected, if anybody has.
    pub(crate) fn accepted(&mut self, place: u32) -> Option<SocketAddr> {
        if self.accepting & 1 << place == 0 {
            return None;
        }
        self.accepting &= !(1 << place);
        // SAFETY: the place is within the allocation (`accept` has seen to that), and its accept
        // has completed, so that the kernel writes to it no more.
        let address = unsafe { (*self.callers.cast::<Caller>().add(place as usize)).address };
        socket::from_raw(&address).ok()
    }

    /// Receives from `fd` into provided buffers until it is cancelled or the stream ends.
    pub(crate) fn receive_multi(&mut self, fd: Fd, data: u64) {
        self.push(opcode::RecvMulti::new(types::Fd(fd), GROUP).build(), data);
    }

    /// Completes once when `fd` can be read (or its peer has ended).
    pub(crate) fn poll_read(&mut self, fd: Fd, data: u64) {
        let mask = (libc::POLLIN | libc::POLLRDHUP).cast_unsigned();
        self.push(opcode::PollAdd::new(types::Fd(fd), mask.into()).build(), data);
    }

    /// Completes once when `fd` has an error or both its streams have ended: those are always
    /// polled for.
    pub(crate) fn poll_error(&mut self, fd: Fd, data: u64) {
        self.push(opcode::PollAdd::new(types::Fd(fd), 0).build(), data);
    }

    /// Completes once when `fd` can be written (or its dial has failed).
    pub(crate) fn poll_write(&mut self, fd: Fd, data: u64) {
        let mask = libc::POLLOUT.cast_unsigned();
        self.push(opcode::PollAdd::new(types::Fd(fd), mask.into()).build(), data);
    }

    /// Cancels the operation that was given `target`. It may have completed already, or complete
    /// before it is cancelled: its own last completion tells.
    pub(crate) fn cancel(&mut self, target: u64, data: u64) {
        self.push(opcode::AsyncCancel::new(target).build(), data);
    }

    fn push(&mut self, entry: squeue::Entry, data: u64) {
        let entry = entry.user_data(data);
        if !self.backlog.is_empty() {
            self.backlog.push_back(entry);
            return;
        }
        // SAFETY: the operations above name descriptors that their owner closes only after the
        // last completion, and no memory of ours: receives use provided buffers.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// Submits what was pushed and runs deferred work, without waiting. No system call when there
    /// is nothing to do.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        loop {
            let queue = self.ring.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                return Ok(());
            }
            drop(queue);
            forgive(self.ring.submitter().submit().map(|_| ()))?;
            if !self.refill() {
                return Ok(());
            }
        }
    }

    /// Submits what was pushed and waits for a completion, at most `timeout_ns`.
    pub(crate) fn submit_and_wait(&mut self, timeout_ns: Option<u64>) -> io::Result<()> {
        if !self.backlog.is_empty() {
            self.submit()?;
        }
        let submitter = self.ring.submitter();
        let waited = match timeout_ns {
            None => submitter.submit_and_wait(1).map(|_| ()),
            Some(ns) => {
                #[allow(clippy::cast_possible_truncation)]
                let time = types::Timespec::new()
                    .sec(ns / 1_000_000_000)
                    .nsec((ns % 1_000_000_000) as u32);
                let args = types::SubmitArgs::new().timespec(&time);
                submitter.submit_with_args(1, &args).map(|_| ())
            }
        };
        forgive(waited)
    }

    /// Pushes what found the queue full; false when there was nothing, or again no room.
    fn refill(&mut self) -> bool {
        let before = self.backlog.len();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
        self.backlog.len() < before
    }

    /// Whether a completion is there, or would be after a [`Ring::submit`]: memory reads only.
    pub(crate) fn has_work(&mut self) -> bool {
        let is_empty = self.ahead.is_none() && self.ring.completion().is_empty();
        !is_empty || self.ring.submission().taskrun()
    }

    /// The next completion, which stays.
    pub(crate) fn peek(&mut self) -> Option<Completion> {
        if self.ahead.is_none() {
            self.ahead = self.take();
        }
        self.ahead
    }

    /// Takes the next completion.
    pub(crate) fn pop(&mut self) -> Option<Completion> {
        self.ahead.take().or_else(|| self.take())
    }

    fn take(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        Some(Completion {
            data: entry.user_data(),
            result: entry.result(),
            buffer: cqueue::buffer_select(entry.flags()),
            more: cqueue::more(entry.flags()),
        })
    }

    /// Makes completions of this ring signal `eventfd`, for a host that waits elsewhere.
    #[cfg(feature = "glommio")]
    pub(crate) fn signal(&self, eventfd: Fd) -> io::Result<()> {
        self.ring.submitter().register_eventfd(eventfd)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Afterwards no receive can take a buffer, so the pool's memory may go. An error leaves
        // the group to the kernel's own clean-up of the ring.
        let _ = self.ring.submitter().unregister_buf_ring(GROUP);
        // An accept that the kernel still holds may write to its place until the ring's descriptor
        // is gone and some time after: the places are left to it.
        if self.accepting == 0 {
            // SAFETY: it was made by `Box::into_raw`, and nobody refers to it any more.
            drop(unsafe { Box::from_raw(self.callers) });
        }
    }
}

/// A wait that ended for its timeout, a signal, or completions that are to be taken first is fine.
fn forgive(entered: io::Result<()>) -> io::Result<()> {
    match entered {
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// The ladder of ring flags; ENOMEM (a small locked-memory limit) halves the rings.
fn setup() -> Result<(IoUring, Driver), Refused> {
    let mut refused = None;
    for driver in [Driver::IoUringDefer, Driver::IoUringCoop] {
        let mut entries = ENTRIES;
        while entries >= ENTRIES_MIN {
            let mut builder = IoUring::builder();
            builder.setup_cqsize(entries * 8).setup_submit_all().setup_coop_taskrun();
            builder.setup_taskrun_flag();
            if driver == Driver::IoUringDefer {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
            match builder.build(entries) {
                Ok(ring) => return Ok((ring, driver)),
                Err(source) => {
                    let small = source.raw_os_error() == Some(libc::ENOMEM);
                    refused = Some(Refused { step: "io_uring_setup", source });
                    if !small {
                        break;
                    }
                    entries /= 2;
                }
            }
        }
    }
    Err(refused.unwrap_or_else(|| Refused {
        step: "io_uring_setup",
        source: io::Error::from_raw_os_error(libc::EINVAL),
    }))
}
