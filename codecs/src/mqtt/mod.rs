//! MQTT 3.1, 3.1.1 and 5: packets that say their type and their length.
//!
//! <https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html>,
//! <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html>:
//!
//! | asked | answered by |
//! |---|---|
//! | `CONNECT` | `CONNACK` |
//! | `PUBLISH` of quality of service 0 | nothing |
//! | of 1 | `PUBACK` |
//! | of 2 | `PUBREC` that is an error, else `PUBCOMP` |
//! | `SUBSCRIBE`, `UNSUBSCRIBE` | `SUBACK`, `UNSUBACK` |
//!
//! Answers have the number of what they answer. Messages that the server sends, and what the client
//! says to them, are part of no exchange. Topics are read and the properties that users name; payloads,
//! names and passwords never are.

mod properties;
mod reasons;

use crate::codec::{
    About, Convention, Correlation, Frame, FrameCodec, Framed, Head, Key, Kind, Outcome, Pair,
    Reason, Said, Speaks, Spot, Way,
};

/// The codec of MQTT.
pub type Mqtt = Framed<MqttPackets>;

/// How packets of MQTT are read.
#[derive(Debug)]
pub struct MqttPackets;

/// What is remembered of a connection.
#[derive(Debug, Default)]
pub struct MqttMemory {
    /// The protocol's level; 0 until the client has said it.
    level: u8,
    /// The server has answered that.
    is_connected: bool,
    /// The client has said that it goes.
    is_over: bool,
}

const OPERATIONS: &[&str] = &["CONNECT", "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"];

/// Types of packets.
const CONNECT: u8 = 1;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBSCRIBE: u8 = 8;
const SUBACK: u8 = 9;
const UNSUBSCRIBE: u8 = 10;
const UNSUBACK: u8 = 11;
const PINGREQ: u8 = 12;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;
const AUTH: u8 = 15;

/// The level of MQTT 5.
const FIVE: u8 = 5;
/// The id of the connection's set-up; packets have numbers of 16 bits.
const SET_UP: u64 = 1 << 16;
/// How a connection begins, behind type and length: 3.1.1 and 5, 3.1.
const NAMES: [&[u8]; 2] = [b"\0\x04MQTT", b"\0\x06MQIsdp"];

impl FrameCodec for MqttPackets {
    const ABOUT: &'static About = &About {
        name: "mqtt",
        operations: OPERATIONS,
        port: 1883,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Loose,
        keys: &[Key::Topic],
        carries_context: true,
        convention: Convention::Messaging { system: "mqtt", types: &[("PUBLISH", "send")] },
    };

    /// A topic, and properties.
    const HEAD_BYTES_MAX: u32 = 2048;

    type Memory = MqttMemory;

    #[inline]
    fn frame(memory: &MqttMemory, way: Way, bytes: &[u8]) -> Frame {
        match (way, bytes) {
            (_, []) => return Frame::Need(1),
            (_, [0x16 | 0x15]) if memory.level == 0 => return Frame::Need(2),
            (_, [0x16 | 0x15, 0x03, ..]) if memory.level == 0 => return Frame::Not(Reason::Tls),
            (Way::Response, _) if memory.level == 0 => return Frame::Not(Reason::ServerFirst),
            (_, [first, ..]) if !memory.may_come(way, *first) => {
                return Frame::Not(Reason::NotThisProtocol);
            }
            _ => {}
        }
        let (len, begin) = match varint(bytes, 1) {
            Varint::Is(len, begin) => (len, begin),
            Varint::Partial => return Frame::Need(bytes.len() + 1),
            Varint::Bad => return Frame::Not(Reason::NotThisProtocol),
        };
        if bytes[0] >> 4 != CONNECT {
            return Frame::Total(begin as u64 + u64::from(len));
        }
        let start = bytes.get(begin..).unwrap_or_default();
        let start = &start[..start.len().min(NAMES[1].len())];
        match NAMES.iter().find(|name| name.starts_with(start) || start.starts_with(name)) {
            Some(name) if (len as usize) < name.len() + 4 => Frame::Not(Reason::NotThisProtocol),
            Some(name) if start.len() < name.len() => Frame::Need(begin + start.len() + 1),
            Some(_) => Frame::Total(begin as u64 + u64::from(len)),
            None => Frame::Not(Reason::NotThisProtocol),
        }
    }

    fn head(
        memory: &mut MqttMemory,
        way: Way,
        bytes: &[u8],
        head: &mut Head,
    ) -> Result<(), Reason> {
        let (Some(first), Varint::Is(len, begin)) = (bytes.first(), varint(bytes, 1)) else {
            return Err(Reason::Malformed);
        };
        let end = begin.saturating_add(len as usize);
        let packet = Packet { bytes, flags: first & 15, begin, end, is_five: memory.level == FIVE };
        match (way, first >> 4) {
            (_, CONNECT) => {
                *memory = MqttMemory { level: level(&packet)?, ..MqttMemory::default() };
                (head.kind, head.id) = (Kind::Handshake, SET_UP);
            }
            (_, CONNACK) => {
                memory.is_connected = true;
                (head.kind, head.id) = (Kind::Response, SET_UP);
                came_out(head, CONNACK, &packet, begin + 1);
            }
            (Way::Request, PUBLISH) => packet.publish(head)?,
            (Way::Response, PUBLISH | PUBREL | DISCONNECT) => head.kind = Kind::Push,
            (Way::Request, kind @ (SUBSCRIBE | UNSUBSCRIBE)) => {
                head.operation = if kind == SUBSCRIBE { 2 } else { 3 };
                (head.id, head.note) = (packet.number(begin)?, u32::from(kind) + 1);
                head.method = packet.filter();
            }
            (Way::Response, kind @ (PUBACK | PUBREC | PUBCOMP | SUBACK | UNSUBACK)) => {
                packet.answer(kind, head)?;
            }
            // To messages that the server has sent.
            (Way::Request, PUBACK | PUBREC | PUBCOMP) => head.kind = Kind::Callback,
            (_, PUBREL | AUTH) => head.kind = Kind::Part,
            (Way::Request, DISCONNECT) => {
                (head.kind, memory.is_over) = (Kind::Heartbeat, true);
            }
            _ => head.kind = Kind::Heartbeat,
        }
        Ok(())
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        if key == Key::Topic { head.method.of(bytes) } else { None }
    }

    /// The properties that users name.
    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        if head.kind.opens() && head.extra.len > 0 {
            properties::pairs(bytes, head.extra, take);
        }
    }

    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        if !head.kind.opens() {
            return [b""; 3];
        }
        let name = OPERATIONS.get(usize::from(head.operation)).copied().unwrap_or_default();
        match head.method.of(bytes) {
            Some(topic) => [name.as_bytes(), b" ", topic],
            None => [name.as_bytes(), b"", b""],
        }
    }
}

impl MqttMemory {
    /// Whether a packet of this type, with these flags, may come now.
    #[inline]
    fn may_come(&self, way: Way, first: u8) -> bool {
        let (kind, flags) = (first >> 4, first & 15);
        let has_flags = match kind {
            PUBLISH => flags & 6 != 6,
            PUBREL | SUBSCRIBE | UNSUBSCRIBE => flags == 2,
            _ => flags == 0,
        };
        let is_its_way = match (way, kind) {
            (Way::Request, CONNECT) => self.level == 0 || self.is_over,
            (Way::Response, CONNACK) => !self.is_connected,
            (_, AUTH) => self.level == FIVE,
            (Way::Request, _) if self.level == 0 => false,
            (Way::Response, _) if !self.is_connected => false,
            (Way::Request, SUBSCRIBE | UNSUBSCRIBE | PINGREQ | DISCONNECT) => true,
            (Way::Response, SUBACK | UNSUBACK | PINGRESP) => true,
            (Way::Response, DISCONNECT) => self.level == FIVE,
            (_, kind) => matches!(kind, PUBLISH | PUBACK | PUBREC | PUBREL | PUBCOMP),
        };
        has_flags && is_its_way
    }
}

/// A number in groups of seven bits, the lowest first, four at most.
enum Varint {
    /// It, and the place behind it.
    Is(u32, usize),
    Partial,
    Bad,
}

#[inline]
fn varint(bytes: &[u8], at: usize) -> Varint {
    let mut value = 0;
    for (place, shift) in (at..).zip([0, 7, 14, 21]) {
        let Some(byte) = bytes.get(place) else { return Varint::Partial };
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Varint::Is(value, place + 1);
        }
    }
    Varint::Bad
}

/// The level of the protocol that a client begins with. Bridges set its highest bit.
fn level(packet: &Packet<'_>) -> Result<u8, Reason> {
    let name = packet.text(packet.begin).ok_or(Reason::Malformed)?;
    match packet.bytes.get(name.end()).map(|level| level & 0x7f) {
        Some(level @ 3..=FIVE) => Ok(level),
        _ => Err(Reason::Unsupported),
    }
}

/// A packet, of which perhaps only the beginning is there.
struct Packet<'b> {
    bytes: &'b [u8],
    flags: u8,
    begin: usize,
    end: usize,
    is_five: bool,
}

impl Packet<'_> {
    /// The number that a packet has at this place.
    fn number(&self, at: usize) -> Result<u64, Reason> {
        if at + 2 > self.end {
            return Err(Reason::Malformed);
        }
        let number = self.bytes.get(at..).and_then(|it| it.first_chunk());
        number.map(|number| u16::from_be_bytes(*number).into()).ok_or(Reason::TooLarge)
    }

    /// The text at this place, as far as it is there.
    fn text(&self, at: usize) -> Option<Spot> {
        let len = usize::try_from(self.number(at).ok()?).ok()?;
        let end = at + 2 + len;
        (end <= self.end && end <= self.bytes.len()).then(|| Spot::new(at + 2, len))
    }

    /// Where properties lie, of MQTT 5, and the place behind them.
    fn properties(&self, at: usize) -> Option<(Spot, usize)> {
        if !self.is_five || at >= self.end {
            return Some((Spot::default(), at));
        }
        let Varint::Is(len, begin) = varint(self.bytes, at) else { return None };
        let end = begin.checked_add(len as usize).filter(|end| *end <= self.end)?;
        Some((Spot::new(begin, len as usize), end))
    }

    fn publish(&self, head: &mut Head) -> Result<(), Reason> {
        head.operation = 1;
        let len = usize::try_from(self.number(self.begin)?).unwrap_or(0);
        let mut behind = self.begin + 2 + len;
        if behind > self.end {
            return Err(Reason::Malformed);
        }
        head.method = self.text(self.begin).unwrap_or_default();
        match self.flags >> 1 & 3 {
            0 => head.kind = Kind::Oneway,
            quality => {
                head.id = self.number(behind)?;
                head.note = u32::from(if quality == 1 { PUBACK } else { PUBCOMP });
                behind += 2;
            }
        }
        if let Some((spot, _)) = self.properties(behind) {
            head.extra = spot;
        }
        Ok(())
    }

    /// The first filter that a client is for.
    fn filter(&self) -> Spot {
        let behind = self.properties(self.begin + 2).map(|(_, behind)| behind);
        behind.and_then(|at| self.text(at)).unwrap_or_default()
    }

    fn answer(&self, kind: u8, head: &mut Head) -> Result<(), Reason> {
        head.kind = Kind::Response;
        head.id = self.number(self.begin)?;
        head.note = u32::from(if kind == PUBREC { PUBCOMP } else { kind });
        let codes = match kind {
            SUBACK | UNSUBACK => self.properties(self.begin + 2).map(|(_, behind)| behind),
            _ => Some(self.begin + 2),
        };
        if let Some(at) = codes {
            came_out(head, kind, self, at);
        }
        if kind == PUBREC && head.outcome == Outcome::Ok {
            // The exchange goes on.
            (head.kind, head.id, head.note) = (Kind::Part, 0, 0);
        }
        Ok(())
    }
}

/// How it came out, by the codes at this place: one, or of a list the first that is an error.
fn came_out(head: &mut Head, kind: u8, packet: &Packet<'_>, at: usize) {
    let end = packet.end.min(packet.bytes.len());
    let codes = packet.bytes.get(at..end).unwrap_or_default();
    let count = if matches!(kind, SUBACK | UNSUBACK) { codes.len() } else { 1 };
    let is_old = kind == CONNACK && !packet.is_five;
    let is_error = |code: &&u8| if is_old { **code > 0 } else { **code >= 0x80 };
    let Some(code) = codes.iter().take(count).find(is_error) else { return };
    let word = if is_old { reasons::refused(*code) } else { reasons::name(*code) };
    head.status = (*code).into();
    (head.outcome, head.said) = (reasons::outcome(*code), Said::Word(word));
}
