//! Spans in the making: a bounded slab of records, filled in when the request goes, handed over
//! when its response has gone.

use netra_codecs::trace::{SpanKind, SpanRecord, TraceContext};

/// A span in the making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenSpan(u32);

impl OpenSpan {
    /// Its place among them.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// All spans in the making of a shard. Grows as it is needed up to its cap, then refuses.
#[derive(Debug)]
pub(crate) struct OpenSpans {
    records: Vec<SpanRecord>,
    free: Vec<u32>,
    open_max: usize,
}

impl OpenSpans {
    pub(crate) fn new(open_max: usize) -> Self {
        Self { records: Vec::new(), free: Vec::new(), open_max }
    }

    /// Begins a span, unless too many are open.
    pub(crate) fn open(
        &mut self,
        context: TraceContext,
        kind: SpanKind,
        start_unix_ns: u64,
    ) -> Option<(OpenSpan, &mut SpanRecord)> {
        if let Some(index) = self.free.pop() {
            let record = &mut self.records[index as usize];
            record.begin_again(context, kind, start_unix_ns);
            return Some((OpenSpan(index), record));
        }
        if self.records.len() >= self.open_max {
            return None;
        }
        let index = u32::try_from(self.records.len()).ok()?;
        self.records.push(SpanRecord::begin(context, kind, start_unix_ns));
        Some((OpenSpan(index), self.records.last_mut()?))
    }

    /// The span.
    pub(crate) fn get(&self, span: OpenSpan) -> &SpanRecord {
        &self.records[span.0 as usize]
    }

    /// The same, to be written to.
    pub(crate) fn get_mut(&mut self, span: OpenSpan) -> &mut SpanRecord {
        &mut self.records[span.0 as usize]
    }

    /// The span has been handed over.
    pub(crate) fn close(&mut self, span: OpenSpan) {
        debug_assert!(!self.free.contains(&span.0), "closed twice");
        self.free.push(span.0);
    }

    /// Spans that are open.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_codecs::trace::TraceFlags;

    #[test]
    fn no_more_than_the_cap_and_places_are_used_again() {
        let mut spans = OpenSpans::new(2);
        let mut open = |id| {
            let context = TraceContext::root(1, id, TraceFlags::SAMPLED);
            Some(spans.open(context, SpanKind::Server, 0)?.0)
        };
        let (one, two) = (open(1).unwrap(), open(2).unwrap());
        assert_eq!(open(3), None);
        spans.close(one);
        let context = TraceContext::root(1, 4, TraceFlags::SAMPLED);
        assert_eq!(spans.open(context, SpanKind::Server, 0).unwrap().0, one);
        assert_eq!(spans.get_mut(two).context.span_id, 2);
        assert_eq!(spans.get_mut(one).context.span_id, 4);
        assert_eq!(spans.len(), 2);
    }
}
