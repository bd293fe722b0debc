//! The methods of AMQP 0-9-1 and of RabbitMQ's extensions:
//! <https://www.rabbitmq.com/amqp-0-9-1-reference>.

use super::arguments::Arguments;
use crate::codec::{Kind, Outcome, Spot, names};

/// Numbers of classes.
pub(super) struct Class;

impl Class {
    pub(super) const CONNECTION: u16 = 10;
    pub(super) const CHANNEL: u16 = 20;
    pub(super) const EXCHANGE: u16 = 40;
    pub(super) const QUEUE: u16 = 50;
    pub(super) const BASIC: u16 = 60;
    pub(super) const CONFIRM: u16 = 85;
    pub(super) const TX: u16 = 90;
}

/// What is known of a method that clients say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    number: (u16, u16),
    pub(super) kind: Kind,
    /// Bytes before its texts, and how many of those there are.
    lead: u8,
    texts: u8,
    /// The first of them says what it is about, or if that is empty the second.
    is_named: bool,
    /// Which of the bits behind them says that no answer is wanted.
    no_wait: Option<u8>,
}

const fn plain(class: u16, method: u16, kind: Kind) -> Method {
    Method { number: (class, method), kind, lead: 0, texts: 0, is_named: false, no_wait: None }
}

/// Of a method whose texts come behind a number that means nothing.
const fn about(class: u16, method: u16, texts: u8, no_wait: Option<u8>) -> Method {
    let number = (class, method);
    Method { number, kind: Kind::Request, lead: 2, texts, is_named: true, no_wait }
}

/// The usual ones first; the first two are none.
#[rustfmt::skip]
pub(super) const METHODS: &[(&str, Method)] = &[
    ("other", plain(0, 0, Kind::Request)), ("connect", plain(0, 1, Kind::Handshake)),
    ("basic.publish", Method { kind: Kind::Oneway, ..about(Class::BASIC, 40, 2, None) }),
    ("basic.ack", plain(Class::BASIC, 80, Kind::Oneway)),
    ("basic.nack", plain(Class::BASIC, 120, Kind::Oneway)),
    ("basic.reject", plain(Class::BASIC, 90, Kind::Oneway)),
    ("basic.get", about(Class::BASIC, 70, 1, None)),
    ("basic.consume", about(Class::BASIC, 20, 2, Some(3))),
    ("basic.cancel", Method {
        lead: 0, is_named: false, ..about(Class::BASIC, 30, 1, Some(0))
    }),
    ("basic.qos", plain(Class::BASIC, 10, Kind::Request)),
    ("basic.recover", plain(Class::BASIC, 110, Kind::Request)),
    ("basic.recover-async", plain(Class::BASIC, 100, Kind::Oneway)),
    ("queue.declare", about(Class::QUEUE, 10, 1, Some(4))),
    ("queue.bind", about(Class::QUEUE, 20, 3, Some(0))),
    ("queue.unbind", about(Class::QUEUE, 50, 3, None)),
    ("queue.purge", about(Class::QUEUE, 30, 1, Some(0))),
    ("queue.delete", about(Class::QUEUE, 40, 1, Some(2))),
    ("exchange.declare", about(Class::EXCHANGE, 10, 2, Some(4))),
    ("exchange.delete", about(Class::EXCHANGE, 20, 1, Some(1))),
    ("exchange.bind", about(Class::EXCHANGE, 30, 3, Some(0))),
    ("exchange.unbind", about(Class::EXCHANGE, 40, 3, Some(0))),
    ("confirm.select", Method {
        lead: 0, is_named: false, ..about(Class::CONFIRM, 10, 0, Some(0))
    }),
    ("tx.select", plain(Class::TX, 10, Kind::Request)),
    ("tx.commit", plain(Class::TX, 20, Kind::Request)),
    ("tx.rollback", plain(Class::TX, 30, Kind::Request)),
    ("channel.open", plain(Class::CHANNEL, 10, Kind::Handshake)),
    ("channel.flow", plain(Class::CHANNEL, 20, Kind::Request)),
    ("channel.close", plain(Class::CHANNEL, 40, Kind::Handshake)),
    ("connection.start-ok", plain(Class::CONNECTION, 11, Kind::Handshake)),
    ("connection.secure-ok", plain(Class::CONNECTION, 21, Kind::Handshake)),
    ("connection.open", plain(Class::CONNECTION, 40, Kind::Handshake)),
    ("connection.update-secret", plain(Class::CONNECTION, 70, Kind::Handshake)),
    ("connection.close", plain(Class::CONNECTION, 50, Kind::Handshake)),
];

/// The names, by operation.
pub(super) const NAMES: &[&str] = &names::<_, { METHODS.len() }>(METHODS);

/// `messaging.operation.type` of methods.
pub(super) const TYPES: &[(&str, &str)] = &[
    ("basic.publish", "send"),
    ("basic.get", "receive"),
    ("basic.ack", "settle"),
    ("basic.nack", "settle"),
    ("basic.reject", "settle"),
];

pub(super) const OTHER: u8 = 0;
pub(super) const CONNECT: u8 = 1;

/// Queues that have a name for one use: of the server, and of answers.
const MADE_UP: [&[u8]; 2] = [b"amq.gen", b"amq.rabbitmq.reply-to"];

impl Method {
    /// What it is about, from its arguments; the bits behind its texts come next.
    pub(super) fn target(&self, arguments: &mut Arguments<'_>) -> Spot {
        let mut target = Spot::default();
        for _ in 0..self.lead {
            arguments.bits();
        }
        for index in 0..self.texts {
            let Some(text) = arguments.text() else { return Spot::default() };
            if target.len == 0 && self.is_named && (index == 0 || self.number == (Class::BASIC, 40))
            {
                target = text;
            }
        }
        let name = arguments.of(target);
        let is_made_up = MADE_UP.iter().any(|made_up| name.starts_with(made_up));
        if is_made_up { Spot::default() } else { target }
    }

    /// Whether the client says that it wants no answer.
    pub(super) fn is_not_to_wait(&self, arguments: &mut Arguments<'_>) -> bool {
        let Some(bit) = self.no_wait else { return false };
        arguments.bits().is_some_and(|bits| bits >> bit & 1 != 0)
    }
}

/// The operation with this number.
pub(super) fn operation(class: u16, method: u16) -> u8 {
    let place = METHODS.iter().skip(2).position(|(_, it)| it.number == (class, method));
    place.and_then(|place| u8::try_from(place + 2).ok()).unwrap_or(OTHER)
}

/// What a request leaves behind for its answer.
pub(super) fn note(class: u16, method: u16) -> u32 {
    u32::from(class) << 16 | u32::from(method)
}

/// The note of what this answers, if it is an answer.
pub(super) fn answers(class: u16, method: u16) -> Option<u32> {
    let asked = match (class, method) {
        (Class::BASIC, 72) => 70,
        (Class::EXCHANGE, 51) => 40,
        (Class::CONNECTION, 41 | 51 | 71)
        | (Class::CHANNEL, 11 | 21 | 41)
        | (Class::EXCHANGE, 11 | 21 | 31)
        | (Class::QUEUE, 11 | 21 | 31 | 41 | 51)
        | (Class::BASIC, 11 | 21 | 31 | 71 | 111)
        | (Class::CONFIRM, 11)
        | (Class::TX, 11 | 21 | 31) => method - 1,
        _ => return None,
    };
    Some(note(class, asked))
}

/// Whether content comes behind it.
pub(super) fn has_content(class: u16, method: u16) -> bool {
    class == Class::BASIC && matches!(method, 40 | 50 | 60 | 71)
}

/// What reply codes are called.
pub(super) fn error(code: u16) -> &'static str {
    match code {
        311 => "CONTENT_TOO_LARGE",
        312 => "NO_ROUTE",
        313 => "NO_CONSUMERS",
        320 => "CONNECTION_FORCED",
        402 => "INVALID_PATH",
        403 => "ACCESS_REFUSED",
        404 => "NOT_FOUND",
        405 => "RESOURCE_LOCKED",
        406 => "PRECONDITION_FAILED",
        501 => "FRAME_ERROR",
        502 => "SYNTAX_ERROR",
        503 => "COMMAND_INVALID",
        504 => "CHANNEL_ERROR",
        505 => "UNEXPECTED_FRAME",
        506 => "RESOURCE_ERROR",
        530 => "NOT_ALLOWED",
        540 => "NOT_IMPLEMENTED",
        541 => "INTERNAL_ERROR",
        _ => "error",
    }
}

/// Whether the protocol was not kept to, or the server says no.
pub(super) fn outcome(code: u16) -> Outcome {
    match code {
        501..=505 | 540 => Outcome::ProtocolError,
        _ => Outcome::AppError,
    }
}
