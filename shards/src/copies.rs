//! Copies of a connection's requests that go to mirrors as well: gathered while the requests pass, and
//! handed on as whole messages, in their order. Nothing is done here: who opens mirrors and sends to them
//! is `upstream/mirrors.rs`.
//!
//! A copy is made of what has been sent. So the gate only notes which stretches of its input are to be
//! copied ([`Copies::begin_at`], [`Copies::end_at`]), and has them copied when the input has gone out
//! ([`Copies::apply`]). A message that goes out edited is copied in its pieces.

use crate::{exchange::MirrorTo, io::Token, sys::Nanos};

/// A message that is longer has no copy; so much is kept for a mirror that takes nothing now.
pub(crate) const COPY_MAX: usize = 64 * 1024;
/// So many mirrors a connection has at a time.
pub(crate) const MIRRORS_MAX: usize = 2;
/// Storage that a connection keeps for its next copies.
const KEEP_MAX: usize = 4096;

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its last byte has been sent.
    Sent = 0,
    /// The message is longer than [`COPY_MAX`].
    TooLong = 1,
    /// It belongs to a session: elsewhere it would mean something else, or nothing.
    Session = 2,
    /// The mirror has not taken what it was sent before.
    Slow = 3,
    /// There is no mirror, or it was not reached.
    Unreachable = 4,
    /// Memory or descriptors are short, or the connection has as many mirrors as it may.
    NoRoom = 5,
    /// The connection, or the mirror, has ended in the middle of it.
    Cut = 6,
}

const OUTCOMES: usize = 7;

/// So many whole messages for one place, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) to: MirrorTo,
    pub(crate) count: u32,
}

/// A stretch of an input that is to be copied.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// A message begins with it, for this place.
    begins: Option<MirrorTo>,
    from: usize,
    to: usize,
    /// The message ends with it.
    is_whole: bool,
}

/// A mirror that was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) to: MirrorTo,
    /// The upstream side of its slot, which may be another's by now.
    pub(crate) token: Token,
}

/// The copies of one connection, and its mirrors.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Whole messages, and behind them the beginning of one that is under way.
    bytes: Vec<u8>,
    /// The whole ones.
    parts: Vec<Part>,
    /// How long each of them is.
    lens: Vec<u32>,
    whole: usize,
    /// Whose beginning it is.
    under: Option<MirrorTo>,
    marks: Vec<Mark>,
    /// The mark that is being made: what begins there, and where.
    open: Option<(Option<MirrorTo>, usize)>,
    lost: [u32; OUTCOMES],
    pub(crate) mirrors: [Option<Opened>; MIRRORS_MAX],
    /// No mirror is opened before.
    pub(crate) refused_until: Nanos,
    /// Bytes that are kept, as they are counted elsewhere.
    pub(crate) counted: usize,
}

impl Copies {
    /// A message that begins now is to be copied.
    pub(crate) fn begin(&mut self, to: MirrorTo) {
        self.cut();
        self.under = Some(to);
    }

    /// Further bytes of it; nothing happens where none is under way.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if self.under.is_none() {
            return;
        }
        if self.bytes.len() - self.whole + bytes.len() > COPY_MAX {
            return self.lose(Outcome::TooLong);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// So much of it is still to come.
    pub(crate) fn expect(&mut self, rest: u64) {
        let most = (COPY_MAX - (self.bytes.len() - self.whole)) as u64;
        if self.under.is_some() && rest != u64::MAX && rest > most {
            self.lose(Outcome::TooLong);
        }
    }

    /// It is whole.
    pub(crate) fn finish(&mut self) {
        let Some(to) = self.under else { return };
        let len = self.bytes.len() - self.whole;
        if self.whole > 0 && self.whole + len > COPY_MAX {
            // Nobody has come to hand the others on.
            return self.lose(Outcome::Slow);
        }
        self.under = None;
        self.whole += len;
        self.lens.push(u32::try_from(len).unwrap_or(u32::MAX));
        match self.parts.last_mut() {
            Some(last) if last.to == to => last.count += 1,
            _ => self.parts.push(Part { to, count: 1 }),
        }
    }

    /// It is given up.
    pub(crate) fn lose(&mut self, why: Outcome) {
        if self.under.take().is_some() {
            self.lost[why as usize] += 1;
            self.bytes.truncate(self.whole);
        }
    }

    /// What was under way ends here, whole or not.
    pub(crate) fn cut(&mut self) {
        self.lose(Outcome::Cut);
    }

    /// A message is under way that is copied: its bytes have to be shown.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under.is_some()
    }
}

/// Which stretches of an input are to be copied.
impl Copies {
    /// An input begins.
    pub(crate) fn begin_input(&mut self) {
        self.open = self.under.map(|_| (None, 0));
    }

    /// The copied message goes on at the beginning of the input, before which it has been copied.
    pub(crate) fn go_on(&mut self) {
        self.open = Some((None, 0));
    }

    /// A message begins at this place of the input.
    pub(crate) fn begin_at(&mut self, to: MirrorTo, at: usize) {
        self.open = Some((Some(to), at));
    }

    /// What is read of the input belongs to a message that is copied.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What is copied ends at this place of the input, and with it the message or not.
    pub(crate) fn end_at(&mut self, at: usize, is_whole: bool) {
        if let Some((begins, from)) = self.open.take() {
            self.marks.push(Mark { begins, from, to: at, is_whole });
        }
    }

    /// Copies what was noted of the input.
    pub(crate) fn apply(&mut self, input: &[u8]) {
        let mut marks = std::mem::take(&mut self.marks);
        for Mark { begins, from, to, is_whole } in marks.drain(..) {
            if let Some(place) = begins {
                self.begin(place);
            }
            self.add(input.get(from..to).unwrap_or_default());
            if is_whole {
                self.finish();
            }
        }
        self.marks = marks;
    }
}

/// What whoever hands copies on needs of them.
impl Copies {
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// How long each whole message is.
    pub(crate) fn lens(&self) -> &[u32] {
        &self.lens
    }

    /// All whole messages, one behind the other.
    pub(crate) fn whole(&self) -> &[u8] {
        &self.bytes[..self.whole]
    }

    /// They have been handed on.
    pub(crate) fn handed_on(&mut self) {
        self.bytes.drain(..std::mem::take(&mut self.whole));
        self.parts.clear();
        self.lens.clear();
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP_MAX {
            self.bytes = Vec::new();
        }
        if self.parts.capacity() * size_of::<Part>() > KEEP_MAX {
            self.parts = Vec::new();
        }
        if self.lens.capacity() * size_of::<u32>() > KEEP_MAX {
            self.lens = Vec::new();
        }
        if self.marks.capacity() * size_of::<Mark>() > KEEP_MAX {
            self.marks = Vec::new();
        }
    }

    /// Bytes that are kept.
    pub(crate) fn kept(&self) -> usize {
        self.bytes.len() + self.lens.len() * size_of::<u32>()
    }

    /// How many were lost since somebody last asked, and why.
    pub(crate) fn take_lost(&mut self) -> impl Iterator<Item = (usize, u32)> {
        let lost = std::mem::take(&mut self.lost);
        lost.into_iter().enumerate().filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_perf::labels::MIRROR_OUTCOMES;
    use netra_rules::ClusterId;

    fn to(cluster: u32) -> MirrorTo {
        MirrorTo { table: 1, cluster: ClusterId(cluster) }
    }

    fn lost(copies: &mut Copies) -> Vec<(&'static str, u32)> {
        copies.take_lost().map(|(why, count)| (MIRROR_OUTCOMES[why], count)).collect()
    }

    #[test]
    fn stretches_of_inputs_become_whole_messages() {
        let mut copies = Copies::default();
        copies.begin_input();
        // "aa" is not copied, "bbb" is, and so is what begins with "cc".
        copies.begin_at(to(1), 2);
        copies.end_at(5, true);
        copies.begin_at(to(1), 5);
        copies.end_at(7, false);
        copies.apply(b"aabbbcc");
        assert_eq!((copies.whole(), copies.is_under_way()), (&b"bbb"[..], true));
        copies.begin_input();
        copies.end_at(2, true);
        copies.begin_at(to(2), 2);
        copies.end_at(3, true);
        copies.apply(b"ccde");
        assert_eq!(copies.whole(), b"bbbccccd");
        let part = |to, count| Part { to, count };
        assert_eq!(copies.parts(), [part(to(1), 2), part(to(2), 1)]);
        assert_eq!(copies.lens(), [3, 4, 1]);
        copies.handed_on();
        assert_eq!((copies.kept(), copies.parts().len(), lost(&mut copies).len()), (0, 0, 0));
    }

    #[test]
    fn what_is_too_long_or_cut_leaves_nothing_behind() {
        let mut copies = Copies::default();
        let long = vec![1; COPY_MAX];
        copies.begin(to(1));
        copies.add(&long);
        copies.finish();
        assert_eq!(copies.whole().len(), COPY_MAX, "the longest there may be");
        copies.handed_on();
        for rest in [&long[..], &[1]] {
            copies.begin(to(1));
            copies.add(b"head");
            copies.add(&long[..COPY_MAX - 4]);
            copies.add(rest);
            copies.finish();
        }
        copies.begin(to(1));
        copies.expect(COPY_MAX as u64);
        assert!(copies.is_under_way());
        copies.add(b"a");
        copies.expect(COPY_MAX as u64);
        assert!(!copies.is_under_way());
        copies.begin(to(1));
        copies.expect(u64::MAX);
        copies.add(b"half");
        copies.begin(to(1));
        copies.add(b"whole");
        copies.finish();
        assert_eq!((copies.whole(), copies.kept()), (&b"whole"[..], 5 + 4));
        assert_eq!(lost(&mut copies), [("too_long", 3), ("cut", 1)]);
    }

    #[test]
    fn no_more_is_gathered_than_there_may_be() {
        let mut copies = Copies::default();
        for _ in 0..3 {
            copies.begin(to(1));
            copies.add(&[1; COPY_MAX / 2]);
            copies.finish();
        }
        assert_eq!(copies.kept(), COPY_MAX + 2 * 4);
        assert_eq!(lost(&mut copies), [("slow", 1)]);
        copies.handed_on();
        assert_eq!(copies.bytes.capacity(), 0, "a burst leaves no storage behind");
    }

    #[test]
    fn outcomes_meet_their_labels() {
        use Outcome::{Cut, NoRoom, Sent, Session, Slow, TooLong, Unreachable};
        let all = [Sent, TooLong, Session, Slow, Unreachable, NoRoom, Cut];
        let names = all.map(|it| MIRROR_OUTCOMES[it as usize]);
        assert_eq!(names, MIRROR_OUTCOMES);
        let words = all.map(|it| format!("{it:?}").to_ascii_lowercase());
        assert_eq!(words, MIRROR_OUTCOMES.map(|it| it.replace('_', "")));
    }
}
