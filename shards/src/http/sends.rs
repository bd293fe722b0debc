//! An edited head of HTTP on its way into a socket.

use crate::{
    error::End,
    io::{Io, Token},
    sends::{self, send_slices},
};
use netra_codecs::h1::HeadPatch;

/// Sends an edited head and the body behind it in one call.
pub(super) fn send_head(
    io: &mut impl Io,
    to: Token,
    patch: &HeadPatch,
    head: &[u8],
    body: &[u8],
) -> Result<usize, End> {
    let body = (!body.is_empty()).then_some(body);
    let pieces_max = patch.pieces_max() + 1;
    let (_, sent) = send_slices(io, to, slices(patch, head).chain(body), pieces_max)?;
    Ok(sent)
}

/// Keeps what is left of an edited head after `sent` bytes.
pub(super) fn keep_rest(carry: &mut Vec<u8>, patch: &HeadPatch, head: &[u8], sent: usize) {
    sends::keep_rest(carry, slices(patch, head), sent);
}

fn slices<'h>(patch: &'h HeadPatch, head: &'h [u8]) -> impl Iterator<Item = &'h [u8]> {
    patch.pieces(head).map(|piece| piece.bytes())
}
