//! An edited head of HTTP on its way into a socket.

use crate::{
    error::End,
    io::{Io, Token},
    sends::{self, send_slices},
};
use netra_codecs::h1::HeadPatch;

/// Sends an edited head and the body behind it in one call; nothing, where they wait. Where the head is kept
/// a failure loses nothing either: the upstream's own event says in a moment that it has ended.
pub(super) fn send_head(
    io: &mut impl Io,
    to: Token,
    patch: &HeadPatch,
    (head, body): (&[u8], &[u8]),
    (waits, is_kept): (bool, bool),
) -> Result<usize, End> {
    if waits {
        return Ok(0);
    }
    let body = (!body.is_empty()).then_some(body);
    let pieces_max = patch.pieces_max() + 1;
    match send_slices(io, to, slices(patch, head).chain(body), pieces_max) {
        Err(_) if is_kept => Ok(0),
        sent => sent.map(|(_, sent)| sent),
    }
}

/// Keeps what is left of an edited head after `sent` bytes.
pub(super) fn keep_rest(carry: &mut Vec<u8>, patch: &HeadPatch, head: &[u8], sent: usize) {
    sends::keep_rest(carry, slices(patch, head), sent);
}

fn slices<'h>(patch: &'h HeadPatch, head: &'h [u8]) -> impl Iterator<Item = &'h [u8]> {
    patch.pieces(head).map(|piece| piece.bytes())
}
