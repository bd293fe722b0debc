//! What a request carries on from the one that caused it: request id and trace context, read from
//! the pairs that travel with it and written among them.

use crate::{config::HttpConfig, correlate::Correlation, error::Direction, sys::Nanos};
use netra_codecs::{
    codec::Pairs,
    trace::{Extracted, Formats, RequestId, RequestKey, TraceContext, inject},
};

/// How trace contexts are written into messages.
#[derive(Clone, Debug)]
pub(crate) struct WritesContext {
    /// The formats.
    pub(crate) formats: Formats,
    /// The name that joins inbound and outbound requests.
    pub(crate) request_id_name: Box<[u8]>,
}

impl WritesContext {
    /// As contexts are written on HTTP ports; none where nothing is traced.
    pub(crate) fn of(config: &HttpConfig) -> Option<Self> {
        let formats = config.tracing.as_ref()?.formats;
        Some(Self { formats, request_id_name: config.request_id_name.clone() })
    }
}

/// Writes the context of one request.
#[derive(Debug)]
pub(crate) struct Writing<'w> {
    pub(crate) how: &'w WritesContext,
    /// What inbound requests have left behind; none where nobody asks for it.
    pub(crate) correlation: Option<&'w mut Correlation>,
    /// What is to travel with the request.
    pub(crate) pairs: &'w mut Pairs,
    pub(crate) direction: Direction,
    pub(crate) now: Nanos,
}

impl Writing<'_> {
    /// The request's id, which it was `given` or gets now, as the key of what is remembered; and the
    /// context that an inbound request with this id has left behind, where the request has none of its
    /// own.
    pub(crate) fn join(
        &mut self,
        given: Option<&[u8]>,
        extracted: &Extracted<'_>,
        random: &mut fastrand::Rng,
    ) -> (Option<RequestKey>, Option<TraceContext>) {
        let name = &self.how.request_id_name;
        let made;
        let id = match given {
            Some(id) => id,
            None => {
                made = RequestId::from_random(random.u128(..));
                // Where there is no room the rest is written all the same.
                let _ = self.pairs.add(name, made.as_bytes());
                &made.as_bytes()[..]
            }
        };
        let Some(correlation) = self.correlation.as_deref_mut() else { return (None, None) };
        let key = correlation.key(id);
        let is_asked = self.direction == Direction::Outbound && extracted.context.is_none();
        let remembered = match given {
            Some(_) if is_asked => correlation.context(&key, self.now),
            _ => None,
        };
        (Some(key), remembered)
    }

    /// Writes the context of the request's span, and remembers it for what it causes.
    pub(crate) fn write(&mut self, key: Option<RequestKey>, context: &TraceContext) {
        inject(context, self.how.formats, |name, value| {
            let _ = self.pairs.add(name.as_bytes(), value);
        });
        if let (Some(correlation), Some(key), Direction::Inbound) =
            (self.correlation.as_deref_mut(), key, self.direction)
        {
            correlation.remember_context(key, *context, self.now);
        }
    }
}
