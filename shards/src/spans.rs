//! What a shard hands to another thread: a bounded ring with one writer, the shard, and one reader.
//! A full ring drops and counts; the shard never waits.

use netra_codecs::trace::SpanRecord;
use rtrb::{Consumer, Producer, RingBuffer};
use std::iter;

/// The shard's end.
#[derive(Debug)]
pub struct Sink<T>(Producer<T>);

/// The other thread's end.
#[derive(Debug)]
pub struct Source<T>(Consumer<T>);

/// Where a shard's finished spans go.
pub type SpanSink = Sink<SpanRecord>;
/// Where the exporter takes one shard's spans from.
pub type SpanSource = Source<SpanRecord>;

/// A ring for `spans_max` spans.
pub fn ring(spans_max: usize) -> (SpanSink, SpanSource) {
    ring_of(spans_max)
}

/// A ring for so many records. Its pages are not touched before they are used.
pub(crate) fn ring_of<T>(records_max: usize) -> (Sink<T>, Source<T>) {
    let (producer, consumer) = RingBuffer::new(records_max.max(1));
    (Sink(producer), Source(consumer))
}

impl<T: Clone> Sink<T> {
    /// Hands a record over; false when there was no room.
    pub fn offer(&mut self, record: &T) -> bool {
        let Ok(chunk) = self.0.write_chunk_uninit(1) else { return false };
        chunk.fill_from_iter(iter::once_with(|| record.clone())) == 1
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
