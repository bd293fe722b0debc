//! How bytes that somebody has looked at go out, of whatever protocol: an edited head in its pieces and
//! what is around it in one call, and what a full socket did not take is kept.

use crate::{
    error::{End, taken},
    io::{Io, Token},
};
use netra_codecs::codec::EDITS_MAX;
use std::io::IoSlice;

/// Pieces that are sent in one call: what is gathered, what is held, what goes as it came, an edited head,
/// and what is behind it in two pieces.
const PIECES_MAX: usize = 2 * EDITS_MAX + 1 + 5;
/// As many as nearly all have: what need not be cleared costs nothing.
const PIECES_USUAL: usize = 8;

/// What a gate did with the bytes it was shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gated {
    /// So many have been sent, or are held.
    pub(crate) taken: usize,
    /// The receiver took less than it was offered.
    pub(crate) is_full: bool,
    /// A body has begun of which so much is left that splicing pays.
    pub(crate) is_long: bool,
}

/// A body that is long enough for splicing from its beginning.
pub(crate) fn is_long(passable: u64, splice_from_bytes: u32) -> bool {
    splice_from_bytes > 0 && passable != u64::MAX && passable >= splice_from_bytes.into()
}

/// Sends what the socket takes of `bytes`.
pub(crate) fn send(io: &mut impl Io, to: Token, bytes: &[u8]) -> Result<usize, End> {
    if bytes.is_empty() {
        return Ok(0);
    }
    taken(io.send(to, bytes), to.side)
}

/// Sends these in one call, of which there are `pieces_max` at most; returns how many bytes were
/// offered, and how many went.
#[inline]
pub(crate) fn send_slices<'m>(
    io: &mut impl Io,
    to: Token,
    slices: impl Iterator<Item = &'m [u8]>,
    pieces_max: usize,
) -> Result<(usize, usize), End> {
    if pieces_max <= PIECES_USUAL {
        send_pieces::<PIECES_USUAL>(io, to, slices)
    } else {
        send_pieces::<PIECES_MAX>(io, to, slices)
    }
}

fn send_pieces<'m, const MAX: usize>(
    io: &mut impl Io,
    to: Token,
    slices: impl Iterator<Item = &'m [u8]>,
) -> Result<(usize, usize), End> {
    let mut pieces = [IoSlice::new(&[]); MAX];
    let (mut count, mut offered) = (0, 0);
    for (piece, slice) in pieces.iter_mut().zip(slices) {
        *piece = IoSlice::new(slice);
        (count, offered) = (count + 1, offered + slice.len());
    }
    let sent = match &pieces[..count] {
        [] => 0,
        [one] => taken(io.send(to, one), to.side)?,
        pieces => taken(io.send_pieces(to, pieces), to.side)?,
    };
    Ok((offered, sent))
}

/// Keeps what is left of these after `sent` bytes.
pub(crate) fn keep_rest<'m>(
    carry: &mut Vec<u8>,
    slices: impl Iterator<Item = &'m [u8]>,
    sent: usize,
) {
    let mut skip = sent;
    for slice in slices {
        let from = skip.min(slice.len());
        skip -= from;
        carry.extend_from_slice(&slice[from..]);
    }
}

/// Sends what is carried, and gives its storage back when all of it went.
pub(crate) fn send_carry(carry: &mut Vec<u8>, io: &mut impl Io, to: Token) -> Result<(), End> {
    let sent = send(io, to, carry)?;
    carry.drain(..sent);
    if carry.is_empty() {
        *carry = Vec::new();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_begins_where_the_socket_stopped() {
        for sent in 0..=6 {
            let mut carry = Vec::new();
            keep_rest(&mut carry, [&b"ab"[..], b"c", b"def"].into_iter(), sent);
            assert_eq!(carry, &b"abcdef"[sent..]);
        }
    }
}
