//! What a shard hands to another thread: a bounded ring with one writer, the shard, and one reader.
//! A full ring drops and counts; the shard never waits.

use netra_codecs::trace::SpanRecord;
use rtrb::{Consumer, Producer, RingBuffer};
use std::{iter, task::Waker};

/// The shard's end. It wakes the reader once for each half of the ring, so that a reader that
/// sleeps long while there is little does not miss the beginning of a burst.
#[derive(Debug)]
pub struct Sink<T> {
    ring: Producer<T>,
    waker: Waker,
    /// Records until the reader is woken.
    until_wake: usize,
    half: usize,
}

/// The other thread's end.
#[derive(Debug)]
pub struct Source<T>(Consumer<T>);

/// Where a shard's finished spans go.
pub type SpanSink = Sink<SpanRecord>;
/// Where the exporter takes one shard's spans from.
pub type SpanSource = Source<SpanRecord>;

/// A ring for `spans_max` spans.
pub fn ring(spans_max: usize, waker: Waker) -> (SpanSink, SpanSource) {
    ring_of(spans_max, waker)
}

/// A ring for so many records. Its pages are not touched before they are used.
pub(crate) fn ring_of<T>(records_max: usize, waker: Waker) -> (Sink<T>, Source<T>) {
    let (ring, consumer) = RingBuffer::new(records_max.max(1));
    let half = records_max.div_ceil(2).max(1);
    (Sink { ring, waker, until_wake: half, half }, Source(consumer))
}

impl<T: Clone> Sink<T> {
    /// Hands a record over; false when there was no room.
    pub fn offer(&mut self, record: &T) -> bool {
        let Ok(chunk) = self.ring.write_chunk_uninit(1) else { return false };
        chunk.fill_from_iter(iter::once_with(|| record.clone()));
        self.until_wake -= 1;
        if self.until_wake == 0 {
            self.until_wake = self.half;
            self.waker.wake_by_ref();
        }
        true
    }
}

impl<T> Source<T> {
    /// Takes what is there, at most `count_max` records, oldest first; returns how many.
    pub fn drain(&mut self, count_max: usize, mut each: impl FnMut(&T)) -> usize {
        let count = self.0.slots().min(count_max);
        let Ok(chunk) = self.0.read_chunk(count) else { return 0 };
        let (first, second) = chunk.as_slices();
        first.iter().chain(second).for_each(&mut each);
        chunk.commit_all();
        count
    }

    /// The shard has ended and everything was taken.
    pub fn is_over(&self) -> bool {
        self.0.is_abandoned() && self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Wake,
    };

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_full_ring_drops_and_its_reader_is_woken_at_every_half() {
        let woken = Arc::new(Woken::default());
        let (mut sink, mut source) = ring_of(8, Arc::clone(&woken).into());
        let offered: Vec<_> = (0..10).map(|record| sink.offer(&record)).collect();
        assert_eq!(offered.iter().filter(|taken| **taken).count(), 8);
        assert_eq!(woken.0.load(Relaxed), 2);
        let mut taken = Vec::new();
        assert_eq!(source.drain(5, |record| taken.push(*record)), 5);
        assert!((10..13).all(|record| sink.offer(&record)) && !source.is_over());
        drop(sink);
        source.drain(100, |record| taken.push(*record));
        assert_eq!(taken, [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12]);
        assert!(source.is_over());
    }
}
