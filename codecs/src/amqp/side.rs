//! One way: frames, and which of them make a message.

use super::arguments::Arguments;
use crate::codec::{Event, Held, Reason, Spot};
use crate::limits::Limits;

/// What a client begins with: the protocol and its version.
const BEGIN: &[u8; 8] = b"AMQP\0\0\x09\x01";

/// Types of frames.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Type, channel and length; and the byte that ends a frame.
const FRAME_LEN: usize = 7;
const END: u8 = 0xce;
/// Where the arguments of a method begin.
const ARGUMENTS_AT: usize = FRAME_LEN + 4;
/// Of a content's header: class, weight, bytes of the body, and what properties there are.
const CONTENT_LEN: usize = 14;
/// How much of a message is read.
const HEAD_BYTES_MAX: usize = 4096;

/// Frames of one way.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) held: Held,
    /// Bytes of the frame under way that are still to come.
    left: u64,
    flow: Flow,
    /// The message under way has content to come: its channel, and how many bytes.
    content: Option<(u16, u64)>,
}

/// What the bytes of a frame belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flow {
    /// No message.
    #[default]
    Nothing,
    /// The message under way, which goes on behind it.
    Part,
    /// The same, which ends with it.
    End,
}

/// What a message begins with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    /// The connection.
    Begin,
    Method {
        channel: u16,
        class: u16,
        method: u16,
        /// Where the properties of its content are.
        content: Option<Spot>,
    },
}

/// A head, for the event that tells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    consumed: usize,
    pub(super) len: usize,
    pub(super) held: bool,
    whole: bool,
    /// Bytes that are held beyond it.
    pub(super) behind: u8,
}

impl Told {
    pub(super) fn event(self) -> Event {
        let Self { consumed, len, held, whole, .. } = self;
        Event::Head { consumed, len, held, whole }
    }
}

/// What the next bytes are.
enum Measured {
    /// Nothing until there are so many.
    Need(usize),
    /// A message: bytes of its head that are read, bytes of its frames, bytes of its content.
    Message { start: Start, len: usize, total: u64, body: u64 },
    /// A part of some content.
    Body { channel: u16, size: u32 },
    /// What is none.
    Other { size: u32 },
}

impl Side {
    /// What the input begins with: a message, or as an event whatever else it is.
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        begins: bool,
        limits: &Limits,
    ) -> Result<(Start, Told), Event> {
        self.held.begin(limits);
        if self.left > 0 {
            return Err(self.go_on(input.len()));
        }
        if self.content.is_some() && self.held.is_empty() && input[0] == METHOD {
            // Somebody else's message comes between: that much of this one is known.
            self.content = None;
            return Err(Event::End(0));
        }
        let mut taken = 0;
        loop {
            let is_held = !self.held.is_empty();
            let bytes = if is_held { self.held.bytes() } else { input };
            let wanted = match measure(bytes, begins, limits).map_err(Event::Not)? {
                Measured::Need(wanted) => wanted,
                Measured::Message { start, len, total, body } => {
                    return Ok((start, self.begin((len, total, body), start, input, taken)));
                }
                Measured::Body { channel, size } => {
                    return Err(self.body(channel, size, input, taken));
                }
                Measured::Other { size } => {
                    // A message that is under way is not over.
                    let flow = if self.content.is_some() { Flow::Part } else { Flow::Nothing };
                    return Err(self.frame(size, flow, input, taken));
                }
            };
            taken += self.held.fill(&input[taken..], wanted);
            if self.held.bytes().len() < wanted {
                return Err(Event::Need);
            }
        }
    }

    fn begin(
        &mut self,
        (len, total, body): (usize, u64, u64),
        start: Start,
        input: &[u8],
        taken: usize,
    ) -> Told {
        let held = !self.held.is_empty();
        let here = if held { len as u64 } else { total.min(input.len() as u64) };
        self.left = total - here;
        if let Start::Method { channel, .. } = start {
            self.content = (body > 0).then_some((channel, body));
        }
        self.flow = if body > 0 { Flow::Part } else { Flow::End };
        // Of another channel's frame the beginning may be held.
        let behind = if held { self.held.spend_before(len) } else { 0 };
        let consumed = if held { taken } else { usize::try_from(here).unwrap_or(input.len()) };
        Told { consumed, len, held, whole: self.left == 0 && body == 0, behind }
    }

    fn body(&mut self, channel: u16, size: u32, input: &[u8], taken: usize) -> Event {
        let flow = match &mut self.content {
            Some((of, left)) if *of == channel => {
                let Some(rest) = left.checked_sub(size.into()) else {
                    return Event::Not(Reason::Malformed);
                };
                *left = rest;
                if rest == 0 { Flow::End } else { Flow::Part }
            }
            Some(_) => Flow::Part,
            None => Flow::Nothing,
        };
        if flow == Flow::End {
            self.content = None;
        }
        self.frame(size, flow, input, taken)
    }

    /// A frame whose bytes are not looked at.
    fn frame(&mut self, size: u32, flow: Flow, input: &[u8], taken: usize) -> Event {
        let total = u64::from(size) + FRAME_LEN as u64 + 1;
        self.flow = flow;
        if self.held.is_empty() {
            self.left = total;
            return self.go_on(input.len());
        }
        self.left = total - self.held.bytes().len() as u64;
        self.held.clear();
        self.event(taken)
    }

    fn go_on(&mut self, available: usize) -> Event {
        let count = usize::try_from(self.left).unwrap_or(available).min(available);
        self.left -= count as u64;
        self.event(count)
    }

    fn event(&self, count: usize) -> Event {
        match self.flow {
            Flow::Nothing => Event::Skip(count),
            Flow::End if self.left == 0 => Event::End(count),
            Flow::Part | Flow::End => Event::Body(count),
        }
    }

    /// What belongs to no message has to be shown, so that it is counted to none.
    pub(super) fn passable(&self) -> u64 {
        if self.flow == Flow::Nothing { 0 } else { self.left }
    }

    /// Takes note of bytes that passed; returns whether the message ended with them.
    pub(super) fn passed(&mut self, count: u64) -> bool {
        let was_under_way = self.left > 0;
        self.left = self.left.saturating_sub(count);
        was_under_way && self.left == 0 && self.flow == Flow::End
    }
}

/// The arguments of a method, as far as they are there.
pub(super) fn arguments(bytes: &[u8]) -> Arguments<'_> {
    let size = bytes.get(3..).and_then(|it| it.first_chunk());
    let size = size.map_or(0, |size| u32::from_be_bytes(*size) as usize);
    Arguments::new(&bytes[..bytes.len().min(size + FRAME_LEN)], ARGUMENTS_AT)
}

/// The numbers that a frame begins with.
fn frame(bytes: &[u8], limits: &Limits) -> Result<Option<(u8, u16, u32)>, Reason> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    if !matches!(*kind, METHOD | HEADER | BODY | HEARTBEAT) {
        return Err(Reason::NotThisProtocol);
    }
    let Some([kind, a, b, size @ ..]) = bytes.first_chunk::<FRAME_LEN>() else { return Ok(None) };
    let size = u32::from_be_bytes(*size);
    if u64::from(size) > limits.message_bytes_max {
        return Err(Reason::TooLarge);
    }
    Ok(Some((*kind, u16::from_be_bytes([*a, *b]), size)))
}

fn measure(bytes: &[u8], begins: bool, limits: &Limits) -> Result<Measured, Reason> {
    if begins {
        match bytes {
            [b'A', ..] => return begin(bytes),
            [0x16, 0x03, ..] => return Err(Reason::Tls),
            [] | [0x16] => return Ok(Measured::Need(bytes.len() + 1)),
            _ => {}
        }
    }
    if bytes.starts_with(b"A") {
        // The version that the server has, where it does not have this one.
        return Err(Reason::Unsupported);
    }
    let Some((kind, channel, size)) = frame(bytes, limits)? else {
        return Ok(Measured::Need(FRAME_LEN));
    };
    match kind {
        METHOD => method(bytes, channel, size, limits),
        BODY => Ok(Measured::Body { channel, size }),
        _ => Ok(Measured::Other { size }),
    }
}

/// The beginning of a connection.
fn begin(bytes: &[u8]) -> Result<Measured, Reason> {
    let shown = &bytes[..bytes.len().min(BEGIN.len())];
    let name = shown.len().min(4);
    match shown {
        _ if shown[..name] != BEGIN[..name] => Err(Reason::NotThisProtocol),
        // Another version.
        _ if !BEGIN.starts_with(shown) => Err(Reason::Unsupported),
        _ if shown.len() < BEGIN.len() => Ok(Measured::Need(shown.len() + 1)),
        _ => {
            let total = BEGIN.len() as u64;
            Ok(Measured::Message { start: Start::Begin, len: BEGIN.len(), total, body: 0 })
        }
    }
}

/// A method; of one that has content, with its header if that comes next.
fn method(bytes: &[u8], channel: u16, size: u32, limits: &Limits) -> Result<Measured, Reason> {
    if size < 4 {
        return Err(Reason::Malformed);
    }
    let Some(numbers) = bytes.get(FRAME_LEN..).and_then(|it| it.first_chunk::<4>()) else {
        return Ok(Measured::Need(ARGUMENTS_AT));
    };
    let [a, b, c, d] = *numbers;
    let (class, method) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let most = HEAD_BYTES_MAX.min(limits.message_head_bytes_max as usize);
    let alone = FRAME_LEN as u64 + u64::from(size) + 1;
    let end = usize::try_from(alone).unwrap_or(usize::MAX);
    let len = end.min(most);
    if bytes.len() < len {
        return Ok(Measured::Need(len));
    }
    if len == end && bytes[end - 1] != END {
        return Err(Reason::Malformed);
    }
    let start = Start::Method { channel, class, method, content: None };
    let has_content = super::methods::has_content(class, method);
    if !has_content || end + FRAME_LEN + CONTENT_LEN > most {
        return Ok(Measured::Message { start, len, total: alone, body: 0 });
    }
    let rest = &bytes[end..];
    if rest.first().is_some_and(|kind| *kind != HEADER) {
        // Whatever that is, it is told behind this.
        return Ok(Measured::Message { start, len, total: alone, body: 0 });
    }
    let Some((_, of, size)) = frame(rest, limits)? else {
        return Ok(Measured::Need(end + FRAME_LEN));
    };
    if of != channel {
        return Ok(Measured::Message { start, len, total: alone, body: 0 });
    }
    if (size as usize) < CONTENT_LEN {
        return Err(Reason::Malformed);
    }
    let total = alone + FRAME_LEN as u64 + u64::from(size) + 1;
    let len = usize::try_from(total).unwrap_or(usize::MAX).min(most);
    if bytes.len() < len {
        return Ok(Measured::Need(len));
    }
    let body = rest.get(FRAME_LEN + 4..).and_then(|it| it.first_chunk());
    let body = body.map_or(0, |body| u64::from_be_bytes(*body));
    if body > limits.message_bytes_max {
        return Err(Reason::TooLarge);
    }
    let flags = end + FRAME_LEN + CONTENT_LEN - 2;
    let content = Some(Spot::new(flags, size as usize + 2 - CONTENT_LEN));
    let start = Start::Method { channel, class, method, content };
    Ok(Measured::Message { start, len, total, body })
}
