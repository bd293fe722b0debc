//! The two directions of an HTTP/1 connection as state machines.
//!
//! [`RequestHalf`] gates heads and nothing else; [`ResponseHalf`] is a tap. Both are given the
//! bytes of their direction in any pieces and say what to do with them. See the
//! [module above](crate::h1) for how to drive them.

mod request;
mod response;

pub use request::{RequestHalf, RequestStep};
pub use response::{ResponseHalf, ResponseStep};

use crate::h1::reason::Reason;
use crate::h1::scan::{HeadKind, HeadScan, Scanned};
use crate::limits::Limits;

/// The beginning of a head that has not come whole.
///
/// A head that lies in one input is used where it is. Only one that comes in pieces is gathered
/// here, so that the shard can give its buffers back.
#[derive(Debug, Default)]
struct HeldHead {
    bytes: Vec<u8>,
    scan: HeadScan,
    /// The head was handed out whole: its bytes are in use until the next step.
    spent: bool,
}

/// Where the end of a head was found.
enum Fed {
    /// Nowhere yet: all of the input is held.
    Partial,
    /// In the input, which holds the whole head: its length.
    Input(usize),
    /// The held bytes are now the whole head: how much of the input went into it.
    Held(usize),
}

impl HeldHead {
    /// Forgets a head that was handed out, and gives back storage beyond what is to be kept.
    fn begin_step(&mut self, limits: &Limits) {
        if self.spent {
            *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
            self.bytes.clear();
            if self.bytes.capacity() > limits.held_keep_bytes as usize {
                self.bytes = Vec::new();
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Goes on looking for the end of the head. On an error the held bytes are what they were
    /// before, and none of `input` is among them.
    fn feed(&mut self, input: &[u8], kind: HeadKind, limits: &Limits) -> Result<Fed, Reason> {
        if self.bytes.is_empty() {
            return match self.scan.scan(input, kind, limits)? {
                Scanned::Complete(len) => {
                    self.scan = HeadScan::default();
                    Ok(Fed::Input(len))
                }
                Scanned::Partial => {
                    self.bytes.extend_from_slice(input);
                    Ok(Fed::Partial)
                }
            };
        }
        let before = self.bytes.len();
        let room = limits.head_bytes_max as usize - before;
        self.bytes.extend_from_slice(&input[..input.len().min(room)]);
        match self.scan.scan(&self.bytes, kind, limits) {
            Ok(Scanned::Complete(len)) => {
                self.bytes.truncate(len);
                self.spent = true;
                Ok(Fed::Held(len - before))
            }
            Ok(Scanned::Partial) => Ok(Fed::Partial),
            Err(reason) => {
                self.bytes.truncate(before);
                Err(reason)
            }
        }
    }

    /// Undoes the last [`feed`](Self::feed), which took `taken` bytes of the input into a whole
    /// head.
    fn unfeed(&mut self, taken: usize) {
        self.bytes.truncate(self.bytes.len() - taken);
        self.spent = false;
    }

    /// The held bytes for the last time: the next step forgets them.
    fn surrender(&mut self) -> &[u8] {
        self.spent = true;
        &self.bytes
    }

    fn release_memory(&mut self) {
        if self.spent || self.bytes.is_empty() {
            *self = Self::default();
        }
    }
}
