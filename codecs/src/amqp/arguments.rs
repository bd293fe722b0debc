//! What stands in a method and in the header of a content.

use crate::codec::{Pair, Spot};

/// Arguments of a method, one behind the other.
pub(super) struct Arguments<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Arguments<'b> {
    pub(super) fn new(bytes: &'b [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    fn take<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let taken = *self.bytes.get(self.at..)?.first_chunk()?;
        self.at += LEN;
        Some(taken)
    }

    pub(super) fn bits(&mut self) -> Option<u8> {
        self.take().map(|[bits]: [u8; 1]| bits)
    }

    pub(super) fn short(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// A text of 255 bytes or fewer.
    pub(super) fn text(&mut self) -> Option<Spot> {
        let len = usize::from(self.bits()?);
        let spot = Spot::new(self.at, len);
        self.bytes.get(self.at..self.at + len)?;
        self.at += len;
        Some(spot)
    }

    pub(super) fn of(&self, spot: Spot) -> &'b [u8] {
        spot.of(self.bytes).unwrap_or_default()
    }

    fn long_text(&mut self) -> Option<&'b [u8]> {
        let len = usize::try_from(u32::from_be_bytes(self.take()?)).ok()?;
        let text = self.bytes.get(self.at..)?.get(..len)?;
        self.at += len;
        Some(text)
    }

    /// The value of a header; empty where it is no text. Types as RabbitMQ has them:
    /// <https://www.rabbitmq.com/amqp-0-9-1-errata>.
    fn value(&mut self) -> Option<&'b [u8]> {
        let [kind] = self.take()?;
        let len = match kind {
            b'S' => return self.long_text(),
            b'A' | b'F' | b'x' => return self.long_text().map(|_| &b""[..]),
            b't' | b'b' | b'B' => 1,
            b's' | b'u' | b'U' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            b'V' => 0,
            _ => return None,
        };
        self.at += len;
        Some(b"")
    }
}

/// In the flags of properties: which of the first three there are.
const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;

/// Hands out the headers that are text, as far as they are there.
pub(super) fn headers<'b>(bytes: &'b [u8], properties: Spot, take: &mut dyn FnMut(Pair<'b>)) {
    let bytes = &bytes[..bytes.len().min(properties.end())];
    let mut arguments = Arguments::new(bytes, properties.at as usize);
    let Some(flags) = arguments.short() else { return };
    for flag in [CONTENT_TYPE, CONTENT_ENCODING] {
        if flags & flag != 0 && arguments.text().is_none() {
            return;
        }
    }
    let Some(len) = arguments.take().filter(|_| flags & HEADERS != 0) else { return };
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    let end = arguments.at.saturating_add(len);
    while arguments.at < end {
        let (Some(name), Some(value)) = (arguments.text(), arguments.value()) else { return };
        if !value.is_empty() {
            take((arguments.of(name), value));
        }
    }
}
