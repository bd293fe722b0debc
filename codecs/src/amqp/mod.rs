//! AMQP 0-9-1, as RabbitMQ speaks it: frames of channels, and methods with or without content.
//!
//! <https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf>,
//! <https://www.rabbitmq.com/docs/specification>. A frame has a type, a channel, a length, a payload
//! and a last byte. A message is a method's frame; of one with content, its header's and its body's
//! frames as well. The head of a message is the first or the first two of them.
//!
//! | asked | answered by |
//! |---|---|
//! | a method that has an answer, unless it says `no-wait` | the answer on its channel, or the end of that |
//! | `basic.publish` on a channel that confirms | `basic.ack` or `basic.nack` of its number, perhaps with all before it |
//! | `basic.publish` on another, `basic.ack`, `nack` and `reject` of the client | nothing |
//!
//! What the server delivers, returns and says unasked is part of no exchange. Names of exchanges and
//! queues are read, and the headers of messages; bodies, arguments, texts of errors and credentials
//! never are.

mod arguments;
mod methods;
mod side;

use crate::codec::{
    About, Asked, Codec, Convention, Correlation, Event, Head, Key, Kind, Outcome, Pair, Reason,
    Said, Speaks, Way,
};
use crate::limits::Limits;
use arguments::Arguments;
use methods::{Class, METHODS, NAMES, OTHER};
use side::{Side, Start};

/// The codec of AMQP 0-9-1.
#[derive(Debug, Default)]
pub struct Amqp {
    request: Side,
    response: Side,
    session: Session,
}

/// What both sides have agreed on.
#[derive(Debug, Default)]
struct Session {
    /// The client has begun.
    has_begun: bool,
    /// It may begin again.
    is_over: bool,
    /// Channels that confirm, with how much was published on each.
    confirming: Vec<(u16, u64)>,
}

/// Channels of one connection whose confirms are followed.
const CONFIRMING_MAX: usize = 64;

/// The id of what is confirmed: this, its channel, its number. All others are those of channels.
const CONFIRMED: u64 = 1 << 63;
const NUMBER_BITS: u32 = 40;
const NUMBERS: u64 = (1 << NUMBER_BITS) - 1;

impl Codec for Amqp {
    const ABOUT: &'static About = &About {
        name: "amqp",
        operations: NAMES,
        port: 5672,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Loose,
        keys: &[Key::Topic],
        carries_context: true,
        convention: Convention::Messaging { system: "rabbitmq", types: methods::TYPES },
    };

    #[inline]
    fn advance(
        &mut self,
        way: Way,
        input: &[u8],
        _: Option<Asked>,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        let Self { request, response, session } = self;
        let side = match way {
            Way::Request => request,
            Way::Response if !session.has_begun => {
                let is_tls = matches!(input, [0x15 | 0x16, ..]);
                return Event::Not(if is_tls { Reason::Tls } else { Reason::ServerFirst });
            }
            Way::Response => response,
        };
        let begins = way == Way::Request && (!session.has_begun || session.is_over);
        match side.advance(input, begins, limits) {
            Err(event) => event,
            Ok((start, told)) => {
                let bytes = if told.held { side.held.bytes() } else { &input[..told.len] };
                *head = Head { behind: told.behind, ..Head::default() };
                match session.read(way, start, bytes, head) {
                    Ok(()) => told.event(),
                    Err(reason) => Event::Not(reason),
                }
            }
        }
    }

    fn passable(&self, way: Way) -> u64 {
        self.side(way).passable()
    }

    fn passed(&mut self, way: Way, count: u64) -> bool {
        match way {
            Way::Request => self.request.passed(count),
            Way::Response => self.response.passed(count),
        }
    }

    fn held_head(&self, way: Way) -> &[u8] {
        self.side(way).held.bytes()
    }

    fn held(&self) -> usize {
        let confirming = self.session.confirming.len() * size_of::<(u16, u64)>();
        self.request.held.len() + self.response.held.len() + confirming
    }

    fn release_memory(&mut self) {
        self.request.held.release_memory();
        self.response.held.release_memory();
        if self.session.confirming.is_empty() {
            self.session.confirming = Vec::new();
        }
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        if key == Key::Topic { head.method.of(bytes) } else { None }
    }

    /// The headers of a message that are text.
    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        if head.kind.opens() && head.extra.len > 0 {
            arguments::headers(bytes, head.extra, take);
        }
    }

    /// The method, and the exchange or queue.
    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        if !head.kind.opens() {
            return [b""; 3];
        }
        let name = NAMES.get(usize::from(head.operation)).copied().unwrap_or_default();
        match head.method.of(bytes) {
            Some(target) => [name.as_bytes(), b" ", target],
            None => [name.as_bytes(), b"", b""],
        }
    }
}

impl Amqp {
    fn side(&self, way: Way) -> &Side {
        match way {
            Way::Request => &self.request,
            Way::Response => &self.response,
        }
    }
}

impl Session {
    fn read(
        &mut self,
        way: Way,
        start: Start,
        bytes: &[u8],
        head: &mut Head,
    ) -> Result<(), Reason> {
        let Start::Method { channel, class, method, content } = start else {
            (self.has_begun, self.is_over) = (true, false);
            self.confirming.clear();
            (head.kind, head.operation) = (Kind::Handshake, methods::CONNECT);
            head.note = methods::note(Class::CONNECTION, 10);
            return Ok(());
        };
        head.id = channel.into();
        let mut arguments = side::arguments(bytes);
        match way {
            Way::Request => {
                self.request((class, method), &mut arguments, channel, head);
                head.extra = content.unwrap_or_default();
                Ok(())
            }
            Way::Response => self.response((class, method), &mut arguments, head),
        }
    }

    fn request(
        &mut self,
        (class, method): (u16, u16),
        arguments: &mut Arguments<'_>,
        channel: u16,
        head: &mut Head,
    ) {
        let operation = methods::operation(class, method);
        (head.operation, head.note) = (operation, methods::note(class, method));
        let Some((_, known)) = METHODS.get(usize::from(operation)).filter(|_| operation != OTHER)
        else {
            // What nobody knows, and what the client says to what the server has said.
            let is_answer = methods::answers(class, method).is_some();
            head.kind = if is_answer { Kind::Callback } else { Kind::Part };
            self.is_over |= (class, method) == (Class::CONNECTION, 51);
            return;
        };
        head.kind = known.kind;
        head.method = known.target(arguments);
        if known.is_not_to_wait(arguments) {
            head.kind = Kind::Oneway;
        }
        match (class, method) {
            // Both are answered by the next step of the same agreement.
            (Class::CONNECTION, 11 | 21) => head.note = methods::note(Class::CONNECTION, 11),
            (Class::CHANNEL, 10 | 40) => self.confirming.retain(|(of, _)| *of != channel),
            (Class::CONFIRM, 10) => self.confirm(channel),
            (Class::BASIC, 40) => {
                if let Some((_, count)) = self.confirming.iter_mut().find(|(of, _)| *of == channel)
                {
                    *count += 1;
                    (head.kind, head.note) = (Kind::Request, 0);
                    head.id = id_of(channel, *count);
                }
            }
            _ => {}
        }
    }

    /// From here on what is published on the channel is confirmed.
    fn confirm(&mut self, channel: u16) {
        let is_known = self.confirming.iter().any(|(of, _)| *of == channel);
        if !is_known && self.confirming.len() < CONFIRMING_MAX {
            self.confirming.push((channel, 0));
        }
    }

    fn response(
        &mut self,
        (class, method): (u16, u16),
        arguments: &mut Arguments<'_>,
        head: &mut Head,
    ) -> Result<(), Reason> {
        head.kind = Kind::Response;
        match (class, method) {
            (Class::CONNECTION, 10) => head.note = methods::note(Class::CONNECTION, 10),
            (Class::CONNECTION, 20 | 30) => head.note = methods::note(Class::CONNECTION, 11),
            (Class::CONNECTION, 50) | (Class::CHANNEL, 40) => {
                let code = arguments.short().ok_or(Reason::Malformed)?;
                arguments.text().ok_or(Reason::Malformed)?;
                let failed = (arguments.short(), arguments.short());
                self.is_over |= class == Class::CONNECTION;
                if let (Class::CHANNEL, (Some(class), Some(method))) = (class, failed) {
                    head.note = methods::note(class, method);
                    let channel = u16::try_from(head.id).unwrap_or(0);
                    self.confirming.retain(|(of, _)| *of != channel);
                }
                head.status = code.into();
                (head.outcome, head.said) =
                    (methods::outcome(code), Said::Word(methods::error(code)));
            }
            (Class::BASIC, 80 | 120) => {
                let number = arguments.long().ok_or(Reason::Malformed)?;
                let is_multiple = arguments.bits().ok_or(Reason::Malformed)? & 1 != 0;
                let channel = u16::try_from(head.id).unwrap_or(0);
                head.upto = is_multiple;
                // Of all, none is named.
                let number = if is_multiple && number == 0 { NUMBERS } else { number };
                head.id = id_of(channel, number);
                if method == 120 {
                    (head.outcome, head.said) = (Outcome::AppError, Said::Word("nack"));
                }
            }
            _ => match methods::answers(class, method) {
                Some(note) => {
                    head.note = note;
                    self.is_over |= (class, method) == (Class::CONNECTION, 51);
                }
                None => head.kind = Kind::Push,
            },
        }
        Ok(())
    }
}

/// The id of a message that is to be confirmed. Those of a channel lie beside each other, and begin
/// at a multiple of two to the fortieth.
fn id_of(channel: u16, number: u64) -> u64 {
    CONFIRMED | u64::from(channel) << NUMBER_BITS | number & NUMBERS
}

const _: () = assert!(1 << NUMBER_BITS == crate::codec::UPTO);
