//! An edited head of HTTP on its way into a socket.

use crate::{
    error::End,
    io::{Io, Token},
    sends::{keep_rest, send_slices},
};
use netra_codecs::h1::HeadPatch;

/// Sends an edited head and the body behind it in one call; nothing, where they wait. What the socket does
/// not take of the head is carried. Where the head is kept
/// a failure loses nothing either: the upstream's own event says in a moment that it has ended.
pub(super) fn send_head(
    io: &mut impl Io,
    to: Token,
    patch: &HeadPatch,
    (head, body): (&[u8], &[u8]),
    (waits, is_kept): (bool, bool),
    carry: &mut Vec<u8>,
) -> Result<usize, End> {
    let behind = (!body.is_empty()).then_some(body);
    let pieces_max = patch.pieces_max() + 1;
    let sent = match waits {
        true => Ok((0, 0)),
        false => send_slices(io, to, slices(patch, head).chain(behind), pieces_max),
    };
    let sent = match sent {
        Err(_) if is_kept => 0,
        sent => sent?.1,
    };
    if sent < patch.patched_len(head.len()) {
        keep_rest(carry, slices(patch, head), sent);
    }
    Ok(sent)
}

/// The stretches that an edited head goes out in.
pub(super) fn slices<'h>(patch: &'h HeadPatch, head: &'h [u8]) -> impl Iterator<Item = &'h [u8]> {
    patch.pieces(head).map(|piece| piece.bytes())
}
