//! Both ways of the binary protocol: a head of 24 bytes, then a body whose length it says.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | 0x80 request, 0x81 answer |
//! | 1 | opcode |
//! | 2-3 | bytes of the key |
//! | 4 | bytes of the extras |
//! | 6-7 | of an answer, how it came out: 0 is good |
//! | 8-11 | bytes of the body: extras, key and value |
//! | 12-15 | any number, which the answer repeats |
//!
//! <https://github.com/memcached/memcached/wiki/BinaryProtocolRevamped>

use super::commands;
use super::tail::{Tail, Walked};
use crate::codec::{
    Asked, Event, Head, Held, Kind, Outcome, Reason, Refusal, Replied, Said, Way, Why,
};
use crate::limits::Limits;

const HEAD_LEN: usize = 24;
pub(super) const REQUEST: u8 = 0x80;
const ANSWER: u8 = 0x81;
const STAT: u8 = 0x10;
const QUIT_QUIETLY: u8 = 0x17;

/// Statuses that say no.
const NO_ACCESS: u16 = 0x24;
const INTERNAL_ERROR: u16 = 0x84;
const BUSY: u16 = 0x85;

/// The answer to a request that is refused.
pub(super) fn reply(bytes: &[u8], refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
    let (Some(opcode), Some(opaque)) = (bytes.get(1), bytes.get(12..16)) else {
        return Replied::MustClose;
    };
    let status = match refusal.why {
        Why::Denied => NO_ACCESS,
        Why::Limited | Why::Overflow => BUSY,
        Why::NoRoute | Why::Aborted | Why::Unreachable | Why::TimedOut => INTERNAL_ERROR,
    };
    out.extend([ANSWER, *opcode, 0, 0, 0, 0]);
    out.extend(status.to_be_bytes());
    out.extend(u32::try_from(refusal.line().count()).unwrap_or(0).to_be_bytes());
    out.extend(opaque);
    out.extend([0; 8]);
    out.extend(refusal.line());
    Replied::Sent
}

/// One way.
#[derive(Debug, Default)]
pub(super) struct BinarySide {
    pub(super) held: Held,
    pub(super) tail: Tail,
    /// Further messages belong to the same answer.
    is_listing: bool,
}

/// What a head says.
struct Packet {
    opcode: u8,
    has_key: bool,
    status: u16,
    opaque: u32,
    body: u64,
}

impl BinarySide {
    #[inline]
    pub(super) fn advance(
        &mut self,
        way: Way,
        input: &[u8],
        asked: Option<Asked>,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        if self.is_listing {
            return self.list(input, limits);
        }
        if let Some(event) = self.tail.go_on(input) {
            return event;
        }
        let (taken, held) = match self.take_head(input) {
            Some(taken) => (taken, !self.held.is_empty()),
            None => return self.need(way),
        };
        let bytes = if held { self.held.bytes() } else { &input[..HEAD_LEN] };
        let packet = match Packet::read(bytes, way, limits) {
            Ok(packet) => packet,
            Err(reason) => return Event::Not(reason),
        };
        match way {
            Way::Request => *head = request(&packet),
            Way::Response => match answer(&packet, asked) {
                Ok(answer) => *head = answer,
                Err(reason) => return Event::Not(reason),
            },
        }
        if held {
            self.held.spend(HEAD_LEN);
        }
        self.is_listing = way == Way::Response && is_listing(&packet);
        self.tail = Tail::body(packet.body);
        let (consumed, whole) = match self.tail.run(&input[taken..]) {
            Walked::End(count) => (taken + count, !self.is_listing),
            Walked::More | Walked::Bad(_) => (input.len(), false),
        };
        Event::Head { consumed, len: HEAD_LEN, held, whole }
    }

    /// Takes note of bytes that passed; returns whether the message ended with them.
    pub(super) fn pass(&mut self, count: u64) -> bool {
        let was_under_way = !self.tail.is_done();
        self.tail.pass(count);
        was_under_way && self.tail.is_done() && !self.is_listing
    }

    /// Bytes of the input that belong to the head, once it is there: held, or at the beginning of
    /// the input.
    #[inline]
    fn take_head(&mut self, input: &[u8]) -> Option<usize> {
        if self.held.is_empty() && input.len() >= HEAD_LEN {
            return Some(HEAD_LEN);
        }
        let taken = self.held.fill(input, HEAD_LEN);
        (self.held.bytes().len() == HEAD_LEN).then_some(taken)
    }

    fn need(&self, way: Way) -> Event {
        match self.held.bytes() {
            [0x15 | 0x16, ..] if way == Way::Response => Event::Not(Reason::Tls),
            [first, ..] if *first != magic(way) => Event::Not(Reason::NotThisProtocol),
            _ => Event::Need,
        }
    }

    /// The messages of a list, the last of which has no key.
    fn list(&mut self, input: &[u8], limits: &Limits) -> Event {
        let mut at = 0;
        loop {
            match self.tail.run(&input[at..]) {
                Walked::End(count) => at += count,
                Walked::More | Walked::Bad(_) => return Event::Body(input.len()),
            }
            if !self.is_listing {
                return Event::End(at);
            }
            if at == input.len() {
                return Event::Body(at);
            }
            let Some(taken) = self.take_head(&input[at..]) else {
                return match self.need(Way::Response) {
                    Event::Need => Event::Body(input.len()),
                    event => event,
                };
            };
            let held = !self.held.is_empty();
            let bytes = if held { self.held.bytes() } else { &input[at..] };
            let packet = match Packet::read(bytes, Way::Response, limits) {
                Ok(packet) if packet.opcode == STAT => packet,
                Ok(_) => return Event::Not(Reason::Malformed),
                Err(reason) => return Event::Not(reason),
            };
            if held {
                self.held.spend(0);
                self.held.begin(limits);
            }
            at += taken;
            self.is_listing = is_listing(&packet);
            self.tail = Tail::body(packet.body);
        }
    }
}

fn magic(way: Way) -> u8 {
    if way == Way::Request { REQUEST } else { ANSWER }
}

/// Whether another message of the same answer follows.
fn is_listing(packet: &Packet) -> bool {
    packet.opcode == STAT && packet.status == 0 && packet.has_key
}

impl Packet {
    #[inline]
    fn read(bytes: &[u8], way: Way, limits: &Limits) -> Result<Self, Reason> {
        let Some(head) = bytes.first_chunk::<HEAD_LEN>() else { return Err(Reason::Malformed) };
        if head[0] != magic(way) {
            let is_tls = way == Way::Response && matches!(head[0], 0x15 | 0x16);
            return Err(if is_tls { Reason::Tls } else { Reason::NotThisProtocol });
        }
        let key = u16::from_be_bytes([head[2], head[3]]);
        let body = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        if body < u32::from(key) + u32::from(head[4]) {
            return Err(Reason::Malformed);
        }
        if u64::from(body) > limits.message_bytes_max {
            return Err(Reason::TooLarge);
        }
        Ok(Self {
            opcode: head[1],
            has_key: key > 0,
            status: u16::from_be_bytes([head[6], head[7]]),
            opaque: u32::from_be_bytes([head[12], head[13], head[14], head[15]]),
            body: body.into(),
        })
    }
}

#[inline]
fn request(packet: &Packet) -> Head {
    let (operation, is_quiet) = commands::of_opcode(packet.opcode);
    let kind = match packet.opcode {
        QUIT_QUIETLY => Kind::Oneway,
        _ if is_quiet => Kind::Quiet,
        0x20..=0x22 => Kind::Handshake,
        _ => Kind::Request,
    };
    Head { kind, operation, note: packet.opaque, ..Head::default() }
}

#[inline]
fn answer(packet: &Packet, asked: Option<Asked>) -> Result<Head, Reason> {
    let (operation, is_quiet) = commands::of_opcode(packet.opcode);
    let is_other =
        asked.is_some_and(|asked| asked.operation != operation || asked.note != packet.opaque);
    if is_other && !is_quiet {
        return Err(Reason::AnswerWithoutRequest);
    }
    let (outcome, said) = status(packet.status);
    let head = Head { outcome, said, status: packet.status.into(), ..Head::default() };
    Ok(match is_quiet {
        true => Head { kind: Kind::Quiet, operation, note: packet.opaque, ..head },
        false => Head { kind: Kind::Response, ..head },
    })
}

/// A key that is not there, or is there already, is an answer and no error.
fn status(status: u16) -> (Outcome, Said) {
    let app = |word| (Outcome::AppError, Said::Word(word));
    match status {
        0 | 0x01 | 0x02 | 0x05 | 0x21 => (Outcome::Ok, Said::Nothing),
        0x03 => app("too_large"),
        0x04 => app("invalid_arguments"),
        0x06 => app("non_numeric"),
        0x07 => app("wrong_vbucket"),
        0x20 => app("auth_error"),
        0x81 => (Outcome::ProtocolError, Said::Word("unknown_command")),
        0x82 => app("out_of_memory"),
        0x83 => (Outcome::ProtocolError, Said::Word("not_supported")),
        0x84 => app("internal_error"),
        0x85 => app("busy"),
        0x86 => app("temporary_failure"),
        _ => app("unknown"),
    }
}
