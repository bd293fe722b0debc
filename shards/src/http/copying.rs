//! Which requests of HTTP/1 are copied for a mirror, and which bytes that is: what has been sent.

use super::{Http, sends::slices};
use crate::{
    copies::{COPY_MAX, Copies, Outcome},
    error::End,
    exchange::MirrorTo,
    io::{Io, Token},
    sends::{Gated, send},
};
use netra_codecs::h1::{Framing, HeadPatch, RequestHead};
use netra_perf::{Key, Recorder};

/// A request's head has gone out, edited, and so much of its body as came with it; a rule may have a copy
/// sent elsewhere.
#[inline]
pub(super) fn begin(
    copies: &mut Option<Box<Copies>>,
    to: Option<MirrorTo>,
    message: (&RequestHead<'_>, &HeadPatch, &[u8]),
    recorder: &Recorder,
) {
    if let Some(to) = to {
        copy(copies, to, message, recorder);
    }
}

#[cold]
fn copy(
    copies: &mut Option<Box<Copies>>,
    to: MirrorTo,
    (head, patch, body): (&RequestHead<'_>, &HeadPatch, &[u8]),
    recorder: &Recorder,
) {
    if head.asks_to_switch() || head.method() == b"CONNECT" {
        return recorder.bump(Key::mirrored(Outcome::Session as usize));
    }
    let len = match head.framing() {
        Framing::Length(len) => len,
        Framing::Chunked | Framing::UntilClose => 0,
    };
    if len.saturating_add(patch.patched_len(head.bytes().len()) as u64) > COPY_MAX as u64 {
        return recorder.bump(Key::mirrored(Outcome::TooLong as usize));
    }
    let copies = copies.get_or_insert_default();
    copies.begin(to);
    slices(patch, head.bytes()).for_each(|slice| copies.add(slice));
    copies.add(body);
    if matches!(head.framing(), Framing::Length(len) if len == body.len() as u64) {
        copies.finish();
    }
}

/// Sends bytes that pass as they came, of a body, or empty lines between two requests, and copies them
/// then; those that do not fit now are cleared.
#[inline]
pub(super) fn forward(
    io: &mut impl Io,
    to: Token,
    bytes: &[u8],
    http: &mut Http,
) -> Result<Gated, End> {
    let sent = send(io, to, bytes)?;
    http.cleared = (bytes.len() - sent) as u64;
    if let Some(copies) = &mut http.copies {
        copies.add(bytes);
        if !http.request.is_within_body() {
            copies.finish();
        }
    }
    Ok(Gated { taken: sent, is_full: sent < bytes.len(), is_long: false })
}
