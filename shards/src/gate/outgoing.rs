//! What waits to be sent on one way of a gated connection, and how it is sent.

use crate::{
    error::End,
    exchange::Scraps,
    io::{Io, Token},
    sends::{keep_rest, send, send_slices},
};
use netra_codecs::codec::Edits;

/// One way's bytes that have been received and not sent.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// The beginning of a message whose head is not known yet, as it came.
    pub(crate) held: Vec<u8>,
    /// What has passed and a full socket did not take, to be sent before anything else.
    pub(crate) carry: Vec<u8>,
    /// Bytes at the source that have passed: they may be sent as they are.
    pub(crate) cleared: u64,
    /// Where what it is sent to breaks, the connection goes on.
    pub(crate) survives: bool,
    /// That has broken: what is sent goes nowhere.
    pub(crate) is_dead: bool,
    /// What is sent is kept instead, up to so much: more may follow that goes in the same call.
    pub(crate) gathers: bool,
}

/// A message as it is to go out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edited<'m> {
    /// Its head, as it came.
    pub(super) head: &'m [u8],
    /// What is put into it.
    pub(super) edits: &'m Edits,
    /// What came behind its head.
    pub(super) tail: [&'m [u8]; 2],
}

impl<'m> Edited<'m> {
    /// The message that is `held` and `input`, and begins with `head`; None where it does not, or
    /// where there is nothing to edit.
    pub(super) fn of(
        head: &'m [u8],
        edits: &'m Edits,
        held: &'m [u8],
        input: &'m [u8],
    ) -> Option<Self> {
        let from_held = head.len().min(held.len());
        let from_input = head.len() - from_held;
        let begins = held[..from_held] == head[..from_held]
            && input.get(..from_input) == Some(&head[from_held..]);
        let tail = [&held[from_held..], input.get(from_input..)?];
        (begins && !edits.is_empty()).then_some(Self { head, edits, tail })
    }

    /// The stretches that it goes out in.
    pub(super) fn slices(self) -> impl Iterator<Item = &'m [u8]> {
        let head = self.edits.pieces(self.head).map(|piece| piece.bytes());
        head.chain(self.tail.into_iter().filter(|tail| !tail.is_empty()))
    }
}

impl Outgoing {
    /// Bytes that are kept.
    pub(crate) fn kept(&self) -> usize {
        self.held.len() + self.carry.len()
    }

    /// Sends what is carried; whether all of it went.
    pub(crate) fn send_carry(
        &mut self,
        io: &mut impl Io,
        to: Token,
        scraps: &mut Scraps,
    ) -> Result<bool, End> {
        let sent = match self.is_dead {
            true => Ok((0, 0)),
            false => send(io, to, &self.carry).map(|sent| (0, sent)),
        };
        let (_, sent) = self.what_went(sent, 0)?;
        self.carry.drain(..sent);
        if self.is_dead {
            self.carry.clear();
        }
        if self.carry.is_empty() {
            scraps.take_back(&mut self.carry);
        }
        Ok(self.carry.is_empty())
    }

    /// How much was offered and went; all, where that does not matter any more.
    #[inline]
    pub(super) fn what_went(
        &mut self,
        sent: Result<(usize, usize), End>,
        offered: usize,
    ) -> Result<(usize, usize), End> {
        match sent {
            Err(_) if self.survives => {
                self.is_dead = true;
                Ok((offered, offered))
            }
            sent => sent,
        }
    }

    /// Sends bytes that have passed, or all of them; returns how many went.
    pub(crate) fn send_cleared(
        &mut self,
        io: &mut impl Io,
        to: Token,
        input: &[u8],
        is_tunnel: bool,
    ) -> Result<usize, End> {
        let most = if is_tunnel { u64::MAX } else { self.cleared };
        let len = input.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let sent = match self.is_dead {
            true => Ok((len, len)),
            false => send(io, to, &input[..len]).map(|sent| (len, sent)),
        };
        let (_, sent) = self.what_went(sent, len)?;
        self.cleared = self.cleared.saturating_sub(sent as u64);
        Ok(sent)
    }

    /// Sends what is held, `plain` behind it, and then the message; keeps in the carry what does not
    /// go. Returns how many bytes were offered, and how many went.
    pub(super) fn send(
        &mut self,
        io: &mut impl Io,
        to: Token,
        plain: &[u8],
        message: Option<Edited<'_>>,
    ) -> Result<(usize, usize), End> {
        let held = std::mem::take(&mut self.held);
        self.send_all(io, to, [&held, plain], message)
    }

    /// As [`send`](Self::send), without what is held: the message has it.
    pub(super) fn send_all(
        &mut self,
        io: &mut impl Io,
        to: Token,
        plain: [&[u8]; 2],
        message: Option<Edited<'_>>,
    ) -> Result<(usize, usize), End> {
        if self.gathers && !self.is_dead {
            return self.gather(io, to, plain, message);
        }
        self.send_at_once(io, to, plain, message)
    }

    /// Sends all of this, whatever may follow; nothing is carried before it.
    pub(super) fn send_at_once(
        &mut self,
        io: &mut impl Io,
        to: Token,
        plain: [&[u8]; 2],
        message: Option<Edited<'_>>,
    ) -> Result<(usize, usize), End> {
        let pieces_max = 4 + message.map_or(0, |it| it.edits.pieces_max());
        let sent = match self.is_dead {
            true => Ok((0, 0)),
            false => send_slices(io, to, slices(plain, message), pieces_max),
        };
        let (offered, sent) = self.what_went(sent, 0)?;
        if sent < offered {
            keep_rest(&mut self.carry, slices(plain, message), sent);
        }
        Ok((offered, sent))
    }

    /// Keeps a message that is not to be sent yet.
    pub(super) fn keep<'m>(&mut self, slices: impl Iterator<Item = &'m [u8]>) {
        keep_rest(&mut self.carry, slices, 0);
    }
}

pub(super) fn slices<'m>(
    plain: [&'m [u8]; 2],
    message: Option<Edited<'m>>,
) -> impl Iterator<Item = &'m [u8]> {
    let plain = plain.into_iter().filter(|slice| !slice.is_empty());
    plain.chain(message.into_iter().flat_map(Edited::slices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_wherever_its_head_is_cut() {
        let whole = b"head and body";
        let mut edits = Edits::new();
        edits.replace(0..1, &[b"bigH"]).unwrap();
        for cut in 0..whole.len() {
            let (held, input) = whole.split_at(cut);
            let message = Edited::of(b"head", &edits, held, input).unwrap();
            let out: Vec<u8> = message.slices().flatten().copied().collect();
            assert_eq!(out, b"bigHead and body", "{cut}");
            assert!(Edited::of(b"heap", &edits, held, input).is_none());
            assert!(Edited::of(b"head", &Edits::new(), held, input).is_none());
        }
    }
}
