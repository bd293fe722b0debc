//! Which requests of a gate are copied for a mirror, and which bytes of its input that is.

use super::{
    Gate, again,
    outgoing::Edited,
    requests::{Aims, Judged, Run},
};
use crate::{
    copies::{Copies, Outcome},
    exchange::{MirrorTo, Taps},
    tap::Tapped,
};
use netra_codecs::{
    codec::{Kind, Leaves, Way},
    tap::{Message, Tap},
};
use netra_perf::{Key, Recorder};

impl Gate {
    pub(crate) fn copies_mut(&mut self) -> &mut Option<Box<Copies>> {
        &mut self.copies
    }

    /// It has copies, or mirrors.
    #[inline]
    pub(crate) fn has_copies(&self) -> bool {
        self.copies.is_some()
    }

    /// There will be no further copies.
    pub(crate) fn copies_are_over(&self) -> bool {
        self.tapped.is_over() || !self.wants.decides
    }

    /// What comes is copied.
    pub(super) fn is_copying(&self) -> bool {
        self.copies.as_deref().is_some_and(Copies::is_under_way)
    }
}

impl Judged<'_> {
    /// A rule has a copy of this request sent elsewhere. Not of what means something at its own server
    /// alone.
    #[cold]
    pub(super) fn copy(
        &mut self,
        to: MirrorTo,
        (message, kind): (&Message<'_>, Kind),
        recorder: &Recorder,
    ) {
        let is_call = matches!(kind, Kind::Request | Kind::Oneway | Kind::Quiet);
        if !is_call || message.leaves() != Leaves::Nothing || self.left.stays().is_some() {
            return recorder.bump(Key::mirrored(Outcome::Session as usize));
        }
        self.aims.begins = Some(to);
    }
}

impl Run<'_> {
    /// A run of requests, of a connection that may have copies, or keeps some.
    pub(super) fn begun<'c>(
        copies: &'c mut Option<Box<Copies>>,
        tapped: &mut Tapped,
        taps: &Taps,
    ) -> Run<'c> {
        if let Some(copies) = copies {
            copies.begin_input();
        }
        let aims = Aims { again: again::lend(tapped, taps), ..Aims::default() };
        Run { copies: Some(copies), aims, ..Run::default() }
    }

    /// What is to be read next of the input. Where a request ends that is copied, nothing more is copied.
    #[inline]
    pub(super) fn rest<'i, T: Default>(&mut self, input: &'i [u8], tap: &Tap<T>) -> &'i [u8] {
        if let Some(Some(copies)) = &mut self.copies
            && copies.is_open()
            && !tap.is_within_message(Way::Request)
        {
            copies.end_at(self.at, true);
        }
        self.end_kept(input, tap);
        &input[self.at..]
    }

    /// A request goes out as it came, which begins at this place of the input: what is held is its
    /// beginning, where that is the first.
    #[inline]
    pub(super) fn copy_in_place(&mut self, at: usize, held: &[u8]) {
        if let Some(to) = self.aims.begins.take() {
            self.mark(to, at, held);
        }
        if self.aims.keeps != 0 {
            self.keep_in_place(at, held);
        }
    }

    #[cold]
    fn mark(&mut self, to: MirrorTo, at: usize, held: &[u8]) {
        let Some(copies) = &mut self.copies else { return };
        let copies = copies.get_or_insert_default();
        if at > 0 || held.is_empty() {
            return copies.begin_at(to, at);
        }
        copies.begin(to);
        copies.add(held);
        copies.go_on();
    }

    /// A request has gone out, or is kept to go out, apart from those before it: edited, or as its own
    /// bytes are.
    #[inline]
    pub(super) fn copy_apart(
        &mut self,
        input: &[u8],
        own: [&[u8]; 2],
        message: Option<Edited<'_>>,
    ) {
        if let Some(to) = self.aims.begins.take() {
            self.add_apart(to, input, own, message);
        }
        if self.aims.keeps != 0 {
            self.keep_apart(own, message);
        }
    }

    #[cold]
    fn add_apart(
        &mut self,
        to: MirrorTo,
        input: &[u8],
        own: [&[u8]; 2],
        message: Option<Edited<'_>>,
    ) {
        let Some(copies) = &mut self.copies else { return };
        let copies = copies.get_or_insert_default();
        copies.apply(input);
        copies.begin(to);
        match message {
            Some(message) => message.slices().for_each(|slice| copies.add(slice)),
            None => own.into_iter().for_each(|slice| copies.add(slice)),
        }
    }

    /// The input has been sent as far as it was read: copies what is to be copied of it.
    #[inline]
    pub(super) fn copy<T: Default>(&mut self, input: &[u8], tap: &Tap<T>) {
        let at = self.at;
        if let Some(Some(copies)) = &mut self.copies {
            copy(copies, input, at, tap);
        }
    }
}

#[cold]
fn copy<T: Default>(copies: &mut Copies, input: &[u8], at: usize, tap: &Tap<T>) {
    let is_whole = !tap.is_within_message(Way::Request);
    copies.end_at(at, is_whole);
    copies.apply(input);
    match is_whole {
        true => copies.finish(),
        false => copies.expect(tap.passable(Way::Request)),
    }
}
