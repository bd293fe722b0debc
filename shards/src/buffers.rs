//! The relay buffers of a shard: one mapping, lent buffer by buffer, last returned first lent, so
//! that a quiet shard works in the same few pages. Queued buffers are linked through the pool's
//! own table: a queue costs a connection two numbers and no allocation.

use crate::sys::memory::Region;
use std::io;

/// The number of a buffer that has been lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferId(u16);

const NONE: u16 = u16::MAX;
/// Buffers that may stay resident for good: those that the kernel has, and some more.
const TOUCHED_KEPT: usize = 96;

#[derive(Clone, Copy, Debug)]
struct Lent {
    next: u16,
    /// The bytes still to be sent: from, to.
    start: u32,
    end: u32,
}

/// All relay buffers of one shard.
#[derive(Debug)]
pub(crate) struct BufferPool {
    region: Region,
    buffer_bytes: u32,
    table: Vec<Lent>,
    free: Vec<u16>,
    /// Buffers that the kernel has, to receive into.
    with_kernel: usize,
    /// Buffers that have been lent at least once since their pages were last given back.
    touched: Vec<bool>,
    touched_count: usize,
    /// The fewest buffers that were free since memory was last given back.
    free_least: usize,
}

impl BufferPool {
    /// Reserves `count` buffers of `buffer_bytes`; nothing is resident until it is used.
    pub(crate) fn new(count: u32, buffer_bytes: u32) -> io::Result<Self> {
        let count = u16::try_from(count).unwrap_or(NONE - 1).clamp(1, NONE - 1);
        let region = Region::new(usize::from(count) * buffer_bytes as usize)?;
        Ok(Self {
            region,
            buffer_bytes,
            table: vec![Lent { next: NONE, start: 0, end: 0 }; count.into()],
            free: (0..count).rev().collect(),
            with_kernel: 0,
            touched: vec![false; count.into()],
            touched_count: 0,
            free_least: count.into(),
        })
    }

    /// How many buffers there are.
    pub(crate) fn capacity(&self) -> usize {
        self.table.len()
    }

    /// How many buffers hold bytes.
    pub(crate) fn lent(&self) -> usize {
        self.table.len() - self.free.len() - self.with_kernel
    }

    /// Bytes in one buffer.
    pub(crate) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Lends a buffer; none is left when this gives none.
    pub(crate) fn lend(&mut self) -> Option<BufferId> {
        let id = self.free.pop()?;
        self.free_least = self.free_least.min(self.free.len());
        if !std::mem::replace(&mut self.touched[usize::from(id)], true) {
            self.touched_count += 1;
        }
        Some(BufferId(id))
    }

    /// Takes a buffer back.
    pub(crate) fn give_back(&mut self, id: BufferId) {
        debug_assert!(!self.free.contains(&id.0), "buffer {} came back twice", id.0);
        self.free.push(id.0);
    }

    /// Sets how many bytes of a buffer are filled, from its beginning.
    pub(crate) fn set_filled(&mut self, id: BufferId, len: u32) {
        debug_assert!(len <= self.buffer_bytes);
        self.table[usize::from(id.0)] = Lent { next: NONE, start: 0, end: len };
    }

    /// The bytes of a buffer that are still to be sent.
    pub(crate) fn bytes(&self, id: BufferId) -> &[u8] {
        let lent = self.table[usize::from(id.0)];
        self.region.bytes(self.offset(id) + lent.start as usize, (lent.end - lent.start) as usize)
    }

    /// The whole memory of a lent buffer, to fill.
    pub(crate) fn room(&mut self, id: BufferId) -> &mut [u8] {
        let offset = self.offset(id);
        self.region.bytes_mut(offset, self.buffer_bytes as usize)
    }

    /// Hands a lent buffer to the kernel: its number, address and length.
    pub(crate) fn lend_to_kernel(&mut self, id: BufferId) -> (u16, u64, u32) {
        self.with_kernel += 1;
        (id.0, self.region.address(self.offset(id)), self.buffer_bytes)
    }

    /// Takes back the buffer that the kernel names in a completion; it is lent from here on.
    pub(crate) fn take_from_kernel(&mut self, id: u16) -> BufferId {
        self.with_kernel -= 1;
        BufferId(id)
    }

    /// More memory is resident than a quiet shard works with.
    pub(crate) fn is_stretched(&self) -> bool {
        self.touched_count > TOUCHED_KEPT
    }

    /// Gives the pages of the buffers back to the kernel that were not needed since the last call:
    /// those at the bottom of the stack.
    pub(crate) fn shrink(&mut self) {
        let cold = std::mem::replace(&mut self.free_least, self.free.len());
        for index in 0..cold {
            let id = self.free[index];
            if std::mem::take(&mut self.touched[usize::from(id)]) {
                self.touched_count -= 1;
                let offset = self.offset(BufferId(id));
                self.region.give_back(offset, self.buffer_bytes as usize);
            }
        }
    }

    fn offset(&self, id: BufferId) -> usize {
        usize::from(id.0) * self.buffer_bytes as usize
    }
}

/// Buffers that wait for their receiver, in order. Idle it is six bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    head: u16,
    tail: u16,
    len: u16,
}

impl Default for Queue {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, len: 0 }
    }
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Buffers in the queue.
    pub(crate) fn len(&self) -> u32 {
        self.len.into()
    }

    /// The buffer at the front.
    pub(crate) fn first(&self) -> Option<BufferId> {
        (self.len > 0).then_some(BufferId(self.head))
    }

    /// Appends a buffer, of which `skip` bytes have been sent.
    pub(crate) fn push(&mut self, pool: &mut BufferPool, id: BufferId, skip: usize) {
        let lent = &mut pool.table[usize::from(id.0)];
        lent.start += u32::try_from(skip).unwrap_or(u32::MAX).min(lent.end - lent.start);
        lent.next = NONE;
        if self.len == 0 {
            self.head = id.0;
        } else {
            pool.table[usize::from(self.tail)].next = id.0;
        }
        self.tail = id.0;
        self.len += 1;
    }

    /// The buffers in order.
    pub(crate) fn iter<'a>(
        &self,
        pool: &'a BufferPool,
    ) -> impl Iterator<Item = BufferId> + use<'a> {
        let mut at = self.head;
        let mut left = self.len;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let id = at;
            at = pool.table[usize::from(id)].next;
            left -= 1;
            Some(BufferId(id))
        })
    }

    /// Takes `sent` bytes off the front; buffers sent whole go back to the pool.
    pub(crate) fn advance(&mut self, pool: &mut BufferPool, mut sent: usize) {
        while sent > 0 && self.len > 0 {
            let lent = &mut pool.table[usize::from(self.head)];
            let here = (lent.end - lent.start) as usize;
            if sent < here {
                lent.start += u32::try_from(sent).unwrap_or(0);
                return;
            }
            sent -= here;
            self.pop(pool);
        }
        debug_assert_eq!(sent, 0, "more was sent than was queued");
    }

    /// Returns every buffer to the pool.
    pub(crate) fn clear(&mut self, pool: &mut BufferPool) {
        while self.len > 0 {
            self.pop(pool);
        }
    }

    /// Takes the buffer at the front; it stays lent.
    pub(crate) fn take(&mut self, pool: &BufferPool) -> Option<BufferId> {
        let id = self.first()?;
        self.head = pool.table[usize::from(id.0)].next;
        self.len -= 1;
        Some(id)
    }

    fn pop(&mut self, pool: &mut BufferPool) {
        if let Some(id) = self.take(pool) {
            pool.give_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pool: &mut BufferPool, text: &[u8]) -> BufferId {
        let id = pool.lend().unwrap();
        pool.room(id)[..text.len()].copy_from_slice(text);
        pool.set_filled(id, u32::try_from(text.len()).unwrap());
        id
    }

    fn all(queue: &Queue, pool: &BufferPool) -> Vec<u8> {
        queue.iter(pool).flat_map(|id| pool.bytes(id).to_vec()).collect()
    }

    #[test]
    fn a_queue_keeps_order_across_partial_sends() {
        let mut pool = BufferPool::new(4, 4096).unwrap();
        let mut queue = Queue::default();
        for (text, skip) in [(&b"hello "[..], 2), (b"brave ", 0), (b"world", 0)] {
            let id = filled(&mut pool, text);
            queue.push(&mut pool, id, skip);
        }
        assert_eq!(all(&queue, &pool), b"llo brave world");
        queue.advance(&mut pool, 1);
        assert_eq!(all(&queue, &pool), b"lo brave world");
        queue.advance(&mut pool, 5);
        assert_eq!((all(&queue, &pool).as_slice(), pool.lent()), (&b"ave world"[..], 2));
        queue.advance(&mut pool, 9);
        assert!(queue.is_empty());
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn a_pool_lends_no_more_than_it_has_and_the_last_returned_first() {
        let mut pool = BufferPool::new(2, 4096).unwrap();
        let (one, two) = (pool.lend().unwrap(), pool.lend().unwrap());
        assert_eq!(pool.lend(), None);
        pool.give_back(one);
        pool.give_back(two);
        assert_eq!(pool.lend(), Some(two));
    }

    #[test]
    fn shrinking_forgets_only_what_was_not_needed_since() {
        let mut pool = BufferPool::new(2, 4096).unwrap();
        let (hot, cold) = (filled(&mut pool, b"hot"), filled(&mut pool, b"cold"));
        pool.give_back(cold);
        pool.give_back(hot);
        pool.shrink();
        assert_eq!(&pool.room(cold)[..4], b"cold", "both were needed since the beginning");
        let hot = filled(&mut pool, b"hot");
        pool.give_back(hot);
        pool.shrink();
        assert_eq!(&pool.room(hot)[..3], b"hot");
        assert_eq!(&pool.room(cold)[..4], [0; 4]);
    }
}
