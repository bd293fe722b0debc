//! One way of a connection, as a stream of frames: heads and short frames are gathered until they
//! are whole, the payload of DATA and of what is not read passes.

use crate::codec::Way;
use crate::h1::Reason;
use crate::h2::frame::{FrameHead, PREFACE, Walk, Walked, flag, kind};
use crate::h2::table::Table;
use crate::limits::Limits;

/// Storage for frames in pieces that a way keeps: heads of DATA are cut now and then.
const KEPT_BYTES: usize = 64;

/// One way.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) table: Table,
    /// Frames that have not come whole.
    pub(super) held: Vec<u8>,
    walk: Walk,
    /// What is held has been told, and goes when the next step is taken.
    is_spent: bool,
    /// The client's preface is still to come.
    awaits_preface: bool,
    /// A frame has come.
    has_begun: bool,
    /// Payload of the DATA frame under way that is still to come, and the padding behind it.
    pub(super) left: u32,
    pub(super) pad: u32,
    /// The stream of that frame.
    pub(super) stream: u32,
    /// That frame ends the stream's way.
    pub(super) ends: bool,
    /// Payload of another frame, which nobody looks at.
    pub(super) skip: u32,
}

/// Bytes that a step has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// So many of the input.
    pub consumed: usize,
    /// They are the end of what [`Http2::held`](crate::h2::Http2::held) has: all of that is meant.
    pub is_held: bool,
}

/// What the next bytes of a way are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gathered {
    /// All of the input is held.
    Need,
    /// So many bytes of the input are payload.
    Payload(usize),
    /// Frames are there, as far as they are read.
    Frames(Taken),
    /// The client's preface is.
    Preface(Taken),
}

impl Frames {
    pub(super) fn new(way: Way) -> Self {
        Self {
            table: Table::new(),
            held: Vec::new(),
            walk: Walk::default(),
            is_spent: false,
            awaits_preface: way == Way::Request,
            has_begun: false,
            left: 0,
            pad: 0,
            stream: 0,
            ends: false,
            skip: 0,
        }
    }

    /// Bytes that are held and have not been told.
    pub(super) fn unsent(&self) -> &[u8] {
        if self.is_spent { &[] } else { &self.held }
    }

    /// Gives up what is held.
    pub(super) fn spend(&mut self) {
        self.is_spent = true;
    }

    /// Forgets what has been told.
    #[inline]
    pub(super) fn begin_step(&mut self) {
        if self.is_spent {
            self.forget();
        }
    }

    #[cold]
    fn forget(&mut self) {
        (self.walk, self.is_spent) = (Walk::default(), false);
        if self.held.capacity() > KEPT_BYTES {
            self.held = Vec::new();
        } else {
            self.held.clear();
        }
    }

    /// A frame of DATA is under way, or ends with the bytes before these.
    #[inline]
    pub(super) fn is_within_data(&self) -> bool {
        self.left > 0 || self.pad > 0 || self.ends
    }

    /// Within a frame, or within the preface.
    pub(super) fn is_within(&self) -> bool {
        self.is_within_data() || self.skip > 0 || !self.unsent().is_empty()
    }

    /// A frame has come.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Behind a frame, and in front of the next.
    pub(super) fn is_between(&self) -> bool {
        self.has_begun && !self.is_within()
    }

    /// Whether a frame of DATA without padding begins here, as nearly all have none; takes note of it.
    #[inline]
    pub(super) fn begins_data(&mut self, input: &[u8]) -> bool {
        let is_between = self.has_begun && self.skip == 0 && self.held.is_empty();
        let is_data = |head: &FrameHead| {
            head.kind == kind::DATA && !head.has(flag::PADDED) && head.stream != 0
        };
        let Some(head) = FrameHead::read(input).filter(|head| is_between && is_data(head)) else {
            return false;
        };
        (self.left, self.pad, self.stream) = (head.len, 0, head.stream);
        self.ends = head.has(flag::END_STREAM);
        true
    }

    /// Reads on. With a reason comes how many bytes of the input are held.
    #[inline]
    pub(super) fn gather(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Gathered, (Reason, usize)> {
        if self.skip > 0 {
            let count = (self.skip as usize).min(input.len());
            self.skip -= u32::try_from(count).unwrap_or(self.skip);
            return Ok(Gathered::Payload(count));
        }
        if !self.held.is_empty() || self.awaits_preface {
            return self.gather_held(input, limits);
        }
        let mut walk = Walk::default();
        match walk.whole(input, limits.head_bytes_max).map_err(|reason| (reason, 0))? {
            Walked::Whole(consumed) => Ok(Gathered::Frames(Taken { consumed, is_held: false })),
            Walked::More(_) => {
                self.walk = walk;
                self.held.extend_from_slice(input);
                Ok(Gathered::Need)
            }
        }
    }

    /// The same, where the beginning is held already.
    #[cold]
    fn gather_held(&mut self, input: &[u8], limits: &Limits) -> Result<Gathered, (Reason, usize)> {
        let mut consumed = 0;
        loop {
            let more = if self.awaits_preface {
                let len = self.held.len().min(PREFACE.len());
                if self.held[..len] != PREFACE[..len] {
                    return Err((Reason::NotHttp, consumed));
                }
                if len == PREFACE.len() {
                    self.awaits_preface = false;
                    return Ok(Gathered::Preface(Taken { consumed, is_held: true }));
                }
                PREFACE.len() - len
            } else {
                let held_max = limits.head_bytes_max;
                let walked = self.walk.whole(&self.held, held_max);
                match walked.map_err(|reason| (reason, consumed))? {
                    Walked::Whole(_) => {
                        return Ok(Gathered::Frames(Taken { consumed, is_held: true }));
                    }
                    Walked::More(more) => more,
                }
            };
            let rest = &input[consumed..];
            let count = more.min(rest.len());
            self.held.extend_from_slice(&rest[..count]);
            consumed += count;
            if count < more {
                return Ok(Gathered::Need);
            }
        }
    }

    /// Takes note of the frame that has come; its head.
    #[inline]
    pub(super) fn begin_frame(&mut self, bytes: &[u8]) -> Result<FrameHead, Reason> {
        let head = FrameHead::read(bytes).ok_or(Reason::Http2Frame)?;
        if !self.has_begun {
            // RFC 9113 §3.4: the first frame of either side. What answers the preface in HTTP/1
            // has none there.
            if head.kind != kind::SETTINGS || head.has(flag::ACK) || head.stream != 0 {
                return Err(Reason::Http2Frame);
            }
            self.has_begun = true;
        }
        match head.kind {
            kind::DATA => {
                let is_padded = head.has(flag::PADDED);
                let pad = if is_padded { u32::from(bytes[9]) } else { 0 };
                let left = head.len.checked_sub(pad + u32::from(is_padded));
                self.left = left.filter(|_| head.stream != 0).ok_or(Reason::Http2Frame)?;
                (self.pad, self.stream) = (pad, head.stream);
                self.ends = head.has(flag::END_STREAM);
            }
            kind::HEADERS | kind::PUSH_PROMISE | kind::RST_STREAM if head.stream == 0 => {
                return Err(Reason::Http2Frame);
            }
            kind::HEADERS | kind::PUSH_PROMISE => {}
            kind::RST_STREAM if head.len != 4 => return Err(Reason::Http2Frame),
            kind::SETTINGS if head.len % 6 != 0 || head.stream != 0 => {
                return Err(Reason::Http2Frame);
            }
            kind::GOAWAY if head.len < 8 => return Err(Reason::Http2Frame),
            kind::SETTINGS | kind::RST_STREAM | kind::GOAWAY => {}
            _ => self.skip = head.len,
        }
        Ok(head)
    }

    /// Bytes of storage, tables included.
    pub(super) fn storage(&self) -> usize {
        self.table.held() + self.held.capacity()
    }
}
