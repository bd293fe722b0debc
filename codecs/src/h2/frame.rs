//! Heads of frames (RFC 9113 §4.1), and which frames belong to one block of fields.

use crate::h1::Reason;

/// What a client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a server says that will take no further streams, and finishes those that there are
/// (RFC 9113 §6.8): a frame of GOAWAY without an error, of which every stream so far is below.
pub const GOAWAY: &[u8; 17] = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0";

/// Bytes of the head of a frame.
pub(super) const HEAD_BYTES: usize = 9;
/// The longest payload that a receiver has to take (RFC 9113 §4.2).
pub(super) const PAYLOAD_BYTES_DEFAULT: u32 = 16_384;
/// Frames that one block may be spread over.
const BLOCK_FRAMES_MAX: u32 = 64;

/// Types of frames.
pub(super) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(super) mod flag {
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 32;
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) len: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHead {
    /// Reads the nine bytes that `bytes` begins with.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        let [a, b, c, kind, flags, s @ ..] = *head;
        let len = u32::from_be_bytes([0, a, b, c]);
        Some(Self { len, kind, flags, stream: u32::from_be_bytes(s) & 0x7fff_ffff })
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Where the reading of frames that have to be whole stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walk {
    /// Where the last frame begins.
    pub(super) at: u32,
    frames: u32,
}

/// What is known of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// So many more are needed, at least.
    More(usize),
    /// So many belong together.
    Whole(usize),
}

impl Walk {
    /// How much of the frames that `bytes` begins with belongs together: of most frames the head,
    /// of those that are read all of it, of a block of fields all frames.
    #[inline]
    pub(super) fn whole(&mut self, bytes: &[u8], block_max: u32) -> Result<Walked, Reason> {
        loop {
            let at = self.at as usize;
            let Some(head) = FrameHead::read(&bytes[at..]) else {
                return Ok(Walked::More(at + HEAD_BYTES - bytes.len()));
            };
            let is_first = self.frames == 0;
            let wanted = match head.kind {
                kind::CONTINUATION if !is_first && head.stream == first_stream(bytes) => head.len,
                _ if !is_first => return Err(Reason::Http2Frame),
                kind::CONTINUATION => return Err(Reason::Http2Frame),
                kind::DATA => u32::from(head.has(flag::PADDED)),
                kind::HEADERS | kind::PUSH_PROMISE => head.len,
                // A setting, an error and a last stream are short; what else a GOAWAY says is text.
                kind::SETTINGS | kind::RST_STREAM | kind::GOAWAY
                    if head.len <= PAYLOAD_BYTES_DEFAULT =>
                {
                    head.len
                }
                kind::SETTINGS | kind::RST_STREAM | kind::GOAWAY => return Err(Reason::Http2Frame),
                _ => 0,
            };
            let end = at + HEAD_BYTES + wanted as usize;
            if end > block_max as usize {
                return Err(Reason::HeadTooLong);
            }
            if bytes.len() < end {
                return Ok(Walked::More(end - bytes.len()));
            }
            let is_block = matches!(head.kind, kind::HEADERS | kind::PUSH_PROMISE) || !is_first;
            if !is_block || head.has(flag::END_HEADERS) {
                return Ok(Walked::Whole(end));
            }
            self.frames += 1;
            if self.frames > BLOCK_FRAMES_MAX {
                return Err(Reason::Http2Continuations);
            }
            // No more than `block_max`.
            self.at = u32::try_from(end).unwrap_or(u32::MAX);
        }
    }
}

fn first_stream(bytes: &[u8]) -> u32 {
    FrameHead::read(bytes).map_or(0, |head| head.stream)
}

/// The payload of a frame without padding (RFC 9113 §6.1), and of HEADERS without priority.
pub(super) fn fragment(head: FrameHead, payload: &[u8]) -> Option<(usize, &[u8])> {
    let (mut skip, mut pad) = (0, 0);
    if head.has(flag::PADDED) && head.kind != kind::CONTINUATION {
        (skip, pad) = (1, usize::from(*payload.first()?));
    }
    skip += match head.kind {
        kind::HEADERS if head.has(flag::PRIORITY) => 5,
        kind::PUSH_PROMISE => 4,
        _ => 0,
    };
    let end = payload.len().checked_sub(pad)?;
    Some((skip, payload.get(skip..end)?))
}
