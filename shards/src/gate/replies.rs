//! What clients are told whose requests were refused, until it is their turn.

use crate::exchange::Scraps;
use netra_codecs::codec::{Replied, Why};
use std::collections::VecDeque;

/// Bytes of them at which no further request is read.
const BYTES_MAX: usize = 64 * 1024;
/// Room for so many costs a connection nothing worth mention; it keeps it.
const KEPT: usize = 8;

/// Answers of our own that wait, in the order of their requests.
#[derive(Debug, Default)]
pub(super) struct Replies {
    bytes: Vec<u8>,
    waiting: VecDeque<Reply>,
    /// The last of them is not to be told yet.
    pub(super) last_waits: bool,
}

#[derive(Clone, Copy, Debug)]
struct Reply {
    len: u32,
    why: Why,
    /// There are no words for it.
    must_close: bool,
}

/// One whose turn it is.
pub(super) struct Due {
    pub(super) why: Why,
    /// Its bytes are now at the end of what they were appended to; if not, both sides are closed.
    pub(super) is_told: bool,
}

impl Replies {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.waiting.len()
    }

    /// Adds words that are told behind the first `before`.
    pub(super) fn insert(&mut self, before: usize, why: Why, words: &[u8]) {
        let at: usize = self.waiting.iter().take(before).map(|it| it.len as usize).sum();
        self.bytes.splice(at..at, words.iter().copied());
        let len = u32::try_from(words.len()).unwrap_or(0);
        let before = before.min(self.waiting.len());
        self.waiting.insert(before, Reply { len, why, must_close: false });
    }

    /// What the last would be told, if there are words for it.
    pub(super) fn last(&self) -> Option<&[u8]> {
        let last = self.waiting.back().filter(|last| !last.must_close)?;
        self.bytes.get(self.bytes.len() - last.len as usize..)
    }

    /// The last is not to be told after all.
    pub(super) fn withdraw_last(&mut self, scraps: &mut Scraps) {
        if let Some(last) = self.waiting.pop_back() {
            self.bytes.truncate(self.bytes.len() - last.len as usize);
        }
        self.last_waits = false;
        self.give_back(scraps);
    }

    /// Of nobody waiting nothing is kept.
    fn give_back(&mut self, scraps: &mut Scraps) {
        if !self.waiting.is_empty() {
            return;
        }
        scraps.take_back(&mut self.bytes);
        self.last_waits = false;
        if self.waiting.capacity() > KEPT {
            self.waiting = VecDeque::new();
        }
    }

    /// So much waits that reading on would be too much.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BYTES_MAX
    }

    /// Bytes that are kept.
    pub(super) fn kept(&self) -> usize {
        self.bytes.len()
    }

    /// Adds what `write` writes.
    pub(super) fn add(
        &mut self,
        why: Why,
        scraps: &mut Scraps,
        write: impl FnOnce(&mut Vec<u8>) -> Replied,
    ) {
        if self.bytes.capacity() == 0 {
            self.bytes = scraps.lend();
        }
        let before = self.bytes.len();
        let must_close = write(&mut self.bytes) == Replied::MustClose;
        if must_close {
            self.bytes.truncate(before);
        }
        let len = u32::try_from(self.bytes.len() - before).unwrap_or(0);
        self.waiting.push_back(Reply { len, why, must_close });
    }

    /// Whether the first may be told.
    pub(super) fn may_go(&self) -> bool {
        self.waiting.len() > usize::from(self.last_waits)
    }

    /// Appends the first to `out`.
    pub(super) fn take(&mut self, out: &mut Vec<u8>, scraps: &mut Scraps) -> Option<Due> {
        let Reply { len, why, must_close } = self.waiting.pop_front()?;
        if out.capacity() == 0 {
            *out = scraps.lend();
        }
        out.extend(self.bytes.drain(..len as usize));
        self.give_back(scraps);
        Some(Due { why, is_told: !must_close })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_told_in_their_order() {
        let (mut replies, mut scraps) = (Replies::default(), Scraps::default());
        let mut add = |text: &[u8], why, replied| {
            replies.add(why, &mut scraps, |out| {
                out.extend_from_slice(text);
                replied
            });
        };
        add(b"one", Why::Denied, Replied::Sent);
        add(b"half", Why::Limited, Replied::MustClose);
        add(b"two", Why::NoRoute, Replied::Sent);
        replies.last_waits = true;
        let mut out = Vec::new();
        let mut told = Vec::new();
        while replies.may_go() {
            told.extend(replies.take(&mut out, &mut scraps).map(|due| (due.why, due.is_told)));
        }
        assert_eq!(told, [(Why::Denied, true), (Why::Limited, false)]);
        assert_eq!((&out[..], replies.kept(), replies.is_empty()), (&b"one"[..], 3, false));
        replies.last_waits = false;
        assert!(replies.take(&mut out, &mut scraps).is_some_and(|due| due.is_told));
        assert_eq!((&out[..], replies.kept(), replies.is_empty()), (&b"onetwo"[..], 0, true));
        replies.add(Why::Unreachable, &mut scraps, |out| {
            out.extend_from_slice(b"three");
            Replied::Sent
        });
        replies.last_waits = true;
        assert_eq!(replies.last(), Some(&b"three"[..]));
        replies.insert(0, Why::Denied, b"zero");
        assert!(replies.take(&mut out, &mut scraps).is_some_and(|due| due.why == Why::Denied));
        assert!(out.ends_with(b"zero") && !replies.may_go());
        replies.withdraw_last(&mut scraps);
        assert_eq!((replies.kept(), replies.may_go(), replies.is_empty()), (0, false, true));
    }
}
