//! Messages read by a description.

use super::description::{Counts, Description, Place, number};
use super::protobuf;
use crate::codec::{
    About, Convention, Correlation, Frame, FrameCodec, Head, Key, Kind, Outcome, Pair, Reason,
    Speaks, Spot, Way, size,
};

/// The codec of all descriptions; which one is in its memory.
#[derive(Debug)]
pub(super) struct Described;

impl FrameCodec for Described {
    /// Nobody asks for it: each description has its own.
    const ABOUT: &'static About = &About {
        name: "private",
        operations: &["other"],
        port: 0,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Fifo,
        keys: &[],
        carries_context: false,
        convention: Convention::Rpc("private"),
    };

    type Memory = Option<&'static Description>;

    fn frame(memory: &Self::Memory, _: Way, bytes: &[u8]) -> Frame {
        memory.map_or(Frame::Not(Reason::Unsupported), |it| it.frame(bytes))
    }

    fn head(
        memory: &mut Self::Memory,
        way: Way,
        bytes: &[u8],
        head: &mut Head,
    ) -> Result<(), Reason> {
        memory.ok_or(Reason::Unsupported)?.head(way, bytes, head)
    }

    fn value<'b>(_: &Head, _: &'b [u8], _: Key) -> Option<&'b [u8]> {
        None
    }

    fn pairs<'b>(_: &Head, _: &'b [u8], _: &mut dyn FnMut(Pair<'b>)) {}

    fn name<'b>(_: &Head, _: &'b [u8]) -> [&'b [u8]; 3] {
        [b"", b"", b""]
    }
}

impl Description {
    /// How long the message is that begins so.
    pub(super) fn frame(&self, bytes: &[u8]) -> Frame {
        if let Some((at, magic)) = &self.magic {
            let there = bytes.get(*at as usize..).unwrap_or_default();
            let count = there.len().min(magic.len());
            if there[..count] != magic[..count] {
                return Frame::Not(Reason::NotThisProtocol);
            }
        }
        let header = self.header as usize;
        if bytes.len() < header {
            return Frame::Need(header);
        }
        let mut total = u64::from(self.length.trailer);
        for part in &self.length.parts {
            let value = part.number.of(bytes, self.order).unwrap_or(u64::MAX);
            total = total.saturating_add(value.saturating_mul(part.times.into()));
        }
        total = total.saturating_add(self.uncounted());
        match total {
            total if total < header as u64 => Frame::Not(Reason::Malformed),
            total if total > self.length.max => Frame::Not(Reason::TooLarge),
            total => Frame::Total(total),
        }
    }

    /// Bytes of the message that its length does not count.
    pub(super) fn uncounted(&self) -> u64 {
        match self.length.counts {
            Counts::Message => 0,
            Counts::Body => self.header.into(),
            Counts::Rest => {
                let ends = self.length.parts.iter().map(|part| part.number);
                ends.map(|it| u64::from(it.at) + u64::from(it.width)).max().unwrap_or(0)
            }
        }
    }

    /// What the head of a message says.
    pub(super) fn head(&self, way: Way, bytes: &[u8], head: &mut Head) -> Result<(), Reason> {
        head.kind = match &self.kinds {
            None if way == Way::Request => Kind::Request,
            None => Kind::Response,
            Some(kinds) => {
                let said =
                    kinds.number.of(bytes, self.order).ok_or(Reason::Malformed)? & kinds.mask;
                let found = kinds.values.iter().find(|(value, _)| *value == said);
                let kind = found.map(|(_, kind)| *kind).ok_or(Reason::Malformed)?;
                // Where answers look like requests, the way tells.
                let tells = kinds.values.iter().any(|(_, kind)| *kind == Kind::Response);
                if !tells && way == Way::Response && kind.opens() { Kind::Response } else { kind }
            }
        };
        let is_answer = head.kind == Kind::Response;
        if is_answer != (way == Way::Response) && (is_answer || head.kind.opens()) {
            // The server calls, or the client answers it.
            head.kind = Kind::Callback;
        }
        head.id = self.id.and_then(|id| id.of(bytes, self.order)).unwrap_or(0);
        if head.kind.opens() {
            head.service = self.spot(bytes, Key::Service);
            head.method = self.spot(bytes, Key::Method);
            head.operation = self.operation(bytes, head.method.of(bytes));
        }
        if let Some(status) = self.status.as_ref().filter(|_| is_answer) {
            let value = status.number.of(bytes, self.order).ok_or(Reason::Malformed)?;
            // What does not fit is told as the greatest number.
            head.status = i32::try_from(value).unwrap_or(i32::MAX);
            if !status.ok.contains(&value) {
                head.outcome = Outcome::AppError;
            }
        }
        Ok(())
    }

    /// The value of a field, as far as it lies in these bytes.
    pub(super) fn value<'b>(&self, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        self.spot(bytes, key).of(bytes)
    }

    fn spot(&self, bytes: &[u8], key: Key) -> Spot {
        let found = self.fields.iter().position(|field| field.key == key);
        found.and_then(|index| self.place(bytes, index)).unwrap_or_default()
    }

    fn place(&self, bytes: &[u8], index: usize) -> Option<Spot> {
        let spot_of = |part: &[u8]| {
            // Both are of the same bytes.
            Spot::new(part.as_ptr() as usize - bytes.as_ptr() as usize, part.len())
        };
        match &self.fields.get(index)?.place {
            Place::Fixed { at, len } => {
                let part = bytes.get(*at as usize..)?.get(..*len as usize)?;
                Some(Spot::new(*at as usize, trimmed(part).len()))
            }
            Place::Prefixed { at, width } => self.prefixed(bytes, *at as usize, *width),
            // Each names one of those before it.
            Place::Behind { field, width } if *field < index => {
                let before = self.place(bytes, *field)?;
                self.prefixed(bytes, before.end(), *width)
            }
            Place::Behind { .. } => None,
            Place::Tagged { at, tag_width, length_width, tag } => {
                let mut rest = bytes.get(*at as usize..)?;
                let (tag_width, length_width) =
                    (usize::from(*tag_width), usize::from(*length_width));
                loop {
                    let (head, behind) = rest.split_at_checked(tag_width + length_width)?;
                    let (found, len) = head.split_at(tag_width);
                    let len = size(number(len, self.order));
                    let (value, next) = behind.split_at_checked(len)?;
                    if number(found, self.order) == *tag {
                        return Some(spot_of(value));
                    }
                    rest = next;
                }
            }
            Place::Protobuf { at, len, path } => {
                let mut message = bytes.get(*at as usize..)?;
                if let Some(len) = len {
                    let len = size(len.of(bytes, self.order)?);
                    message = message.get(..len.min(message.len()))?;
                }
                Some(spot_of(protobuf::find(message, path)?))
            }
        }
    }

    fn prefixed(&self, bytes: &[u8], at: usize, width: u8) -> Option<Spot> {
        let from = at.checked_add(width.into())?;
        let len = size(number(bytes.get(at..from)?, self.order));
        bytes.get(from..from.checked_add(len)?)?;
        Some(Spot::new(from, len))
    }
}

/// Without the zeroes and blanks at its end.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let is_some = |byte: &u8| *byte != 0 && !byte.is_ascii_whitespace();
    let end = bytes.iter().rposition(is_some).map_or(0, |last| last + 1);
    &bytes[..end]
}
