//! What is read of bodies, in passing: that a response flows, how long it took to begin and how much
//! came of it; and, where it is asked for, what a client of the Model Context Protocol calls. Nothing
//! is held for it, and what is not in the first bytes that come is not known.

use crate::{
    editor::{self, Done, Open},
    error::Direction,
    exchange::Observer,
    sys::Nanos,
};
use netra_codecs::{
    h1::{Exchange, ExchangeId, Exchanges, Framing},
    mcp,
    trace::{Outcome, SpanText},
};
use netra_perf::Recorder;

/// A method and a name, with a blank between.
const CALL_BYTES_MAX: usize = 192;

/// The head of a response has been sent: of one whose end nobody knows yet, when.
pub(super) fn head_sent(
    exchanges: &mut Exchanges<Open>,
    id: ExchangeId,
    now: Nanos,
    observer: &mut Observer,
) {
    let Some(exchange) = exchanges.get_mut(id).filter(|exchange| flows(exchange)) else { return };
    if let Some(open) = exchange.data.span {
        let flow = of_flow(now.saturating_sub(exchange.opened_ns), 0);
        observer.record_mut(open).put(SpanText::Flow, &flow);
    }
}

/// The exchange is over: tells how much has flowed, counts it and hands its span over.
pub(super) fn finish(
    done: &Done,
    outcome: Outcome,
    direction: Direction,
    now: Nanos,
    (observer, recorder): (&mut Observer, &Recorder),
) {
    if let Some(open) = done.data.span.filter(|_| flows(done)) {
        let span = observer.record_mut(open);
        let first = span.text(SpanText::Flow).and_then(|flow| flow.first_chunk().copied());
        if let Some(first) = first.map(u64::from_le_bytes) {
            span.put_again(SpanText::Flow, &of_flow(first, done.response_body_bytes));
        }
    }
    editor::finish(done, outcome, direction, now, (observer, recorder));
}

fn of_flow(first_ns: u64, bytes: u64) -> [u8; 16] {
    let mut flow = [0; 16];
    flow[..8].copy_from_slice(&first_ns.to_le_bytes());
    flow[8..].copy_from_slice(&bytes.to_le_bytes());
    flow
}

fn flows(exchange: &Exchange<Open>) -> bool {
    matches!(exchange.response_framing, Some(Framing::Chunked | Framing::UntilClose))
}

/// Reads the beginning of a request's body. Returns the exchange whose body is still to come.
pub(super) fn look(
    body: &[u8],
    exchanges: &mut Exchanges<Open>,
    id: ExchangeId,
    observer: &mut Observer,
) -> Option<ExchangeId> {
    let exchange = exchanges.get_mut(id).filter(|exchange| exchange.data.may_call)?;
    if body.is_empty() {
        return Some(id);
    }
    exchange.data.may_call = false;
    let (open, call) = (exchange.data.span?, mcp::call(body)?);
    let mut text = [0; CALL_BYTES_MAX];
    let mut len = 0;
    let pieces = [call.method.as_bytes(), b" ", call.name.unwrap_or_default()];
    for piece in &pieces[..if call.name.is_some() { 3 } else { 1 }] {
        let end = (len + piece.len()).min(CALL_BYTES_MAX);
        text[len..end].copy_from_slice(&piece[..end - len]);
        len = end;
    }
    observer.record_mut(open).put(SpanText::Operation, &text[..len]);
    None
}
