//! Edited heads and bodies on their way into a socket.

use crate::{
    error::{End, taken},
    io::{Io, Token},
};
use netra_codecs::h1::HeadPatch;
use std::io::IoSlice;

/// Pieces of an edited head that are sent in one call, and the body behind it.
const PIECES_MAX: usize = 2 * netra_codecs::h1::patch::EDITS_MAX + 2;
/// As many as nearly all have: what need not be cleared costs nothing.
const PIECES_USUAL: usize = 6;

/// Sends what the socket takes of `bytes`.
pub(super) fn send(io: &mut impl Io, to: Token, bytes: &[u8]) -> Result<usize, End> {
    if bytes.is_empty() {
        return Ok(0);
    }
    taken(io.send(to, bytes), to.side)
}

/// Sends an edited head and the body behind it in one call.
pub(super) fn send_head(
    io: &mut impl Io,
    to: Token,
    patch: &HeadPatch,
    head: &[u8],
    body: &[u8],
) -> Result<usize, End> {
    if patch.pieces_max() < PIECES_USUAL {
        send_pieces::<PIECES_USUAL>(io, to, patch, head, body)
    } else {
        send_pieces::<PIECES_MAX>(io, to, patch, head, body)
    }
}

fn send_pieces<const MAX: usize>(
    io: &mut impl Io,
    to: Token,
    patch: &HeadPatch,
    head: &[u8],
    body: &[u8],
) -> Result<usize, End> {
    let mut pieces = [IoSlice::new(&[]); MAX];
    let mut count = 0;
    for piece in patch.pieces(head) {
        pieces[count] = IoSlice::new(piece.bytes());
        count += 1;
    }
    if !body.is_empty() {
        pieces[count] = IoSlice::new(body);
        count += 1;
    }
    taken(io.send_pieces(to, &pieces[..count]), to.side)
}

/// Keeps what is left of an edited head after `sent` bytes.
pub(super) fn keep_rest(carry: &mut Vec<u8>, patch: &HeadPatch, head: &[u8], sent: usize) {
    let mut skip = sent;
    for piece in patch.pieces(head) {
        let bytes = piece.bytes();
        let from = skip.min(bytes.len());
        skip -= from;
        carry.extend_from_slice(&bytes[from..]);
    }
}
