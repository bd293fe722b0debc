//! Finished spans on their way to the exporter: a bounded ring with one writer, the shard, and
//! one reader. A full ring drops and counts; the shard never waits.

use netra_codecs::trace::SpanRecord;
use rtrb::{Consumer, Producer, RingBuffer};
use std::iter;

/// The shard's end.
#[derive(Debug)]
pub struct SpanSink(Producer<SpanRecord>);

/// The exporter's end of one shard's spans.
#[derive(Debug)]
pub struct SpanSource(Consumer<SpanRecord>);

/// A ring for `spans_max` spans.
pub fn ring(spans_max: usize) -> (SpanSink, SpanSource) {
    let (producer, consumer) = RingBuffer::new(spans_max.max(1));
    (SpanSink(producer), SpanSource(consumer))
}

impl SpanSink {
    /// Hands a span over; false when there was no room.
    pub fn offer(&mut self, span: &SpanRecord) -> bool {
        let Ok(chunk) = self.0.write_chunk_uninit(1) else { return false };
        chunk.fill_from_iter(iter::once_with(|| span.clone())) == 1
    }
}

impl SpanSource {
    /// Takes what is there, at most `count_max` spans, oldest first; returns how many.
    pub fn drain(&mut self, count_max: usize, mut each: impl FnMut(&SpanRecord)) -> usize {
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
