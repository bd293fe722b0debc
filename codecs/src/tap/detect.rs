//! Which protocol a connection speaks that nobody has named, seen from its first byte.
//!
//! Taps of all protocols read the bytes along, which have been sent on already; what the first
//! byte rules out is not begun. **A label takes both sides**: a request in the protocol's shape, and
//! an answer that fits it. The tap that saw them is the connection's from then on, with all that it
//! has seen: it is not read twice.
//!
//! Taps fall out at their first doubt, and the watch ends when none is left. It is bounded: 4 KiB of
//! one way that belong to no message, the limit of a head
//! ([`Limits::message_head_bytes_max`](crate::Limits::message_head_bytes_max)), two exchanges that
//! say nothing certain, a thousand requests that nobody has answered.
//!
//! | | what makes a request's shape |
//! |---|---|
//! | Redis | a command as an array of strings; words on a line, which people and health checks send, have to be answered twice |
//! | Dubbo | its magic bytes |
//! | Thrift | a version, or without one a name that could be a method's; the answer names it again |
//! | PostgreSQL | a startup of version 3 |
//! | Kafka | a call and a version that there are, and a client's id; the answer has the call's id |
//! | Memcached | a command that it has, and hardly any other server; the others have to be answered twice |
//! | MongoDB | a length and an opcode; the answer names the request |
//! | MySQL | the server greets, in version 10 |
//! | brpc, tRPC | their magic bytes |
//! | NATS | the server greets with `INFO` |
//! | MQTT | a connect packet, which has the protocol's name |
//! | ZooKeeper | a request for a session, as long as it says |
//! | AMQP | its name and version |
//! | HTTP/1 | a request line; it is recognised so that nothing else is made of it, and not tapped |

use std::mem;

use crate::codec::{ErrorText, Exchange, Head, Open, Outcome, Speaks, Way};
use crate::limits::Limits;
use crate::tap::http1::{Http1, Look};
use crate::tap::message::Message;
use crate::tap::protocol::Protocol;
use crate::tap::step::{Step, Tap};

/// Bytes of one way that belong to no message, or to one that is part of no exchange.
const SILENT_BYTES_MAX: usize = 4 * 1024;
/// Exchanges that say nothing certain.
const EXCHANGES_MAX: usize = 2;
/// Requests that nobody has answered.
const OPEN_MAX: usize = 1000;

/// What is known about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Not enough: more bytes, please.
    Watching,
    /// It speaks this, and [`Detector::take_tap`] has the tap.
    Protocol(Protocol),
    /// It speaks HTTP/1.
    Http1,
    /// Nothing that there is a codec for.
    Unknown,
}

/// Who is told of exchanges while nobody knows whether they are any.
pub trait Witness<T> {
    /// A tap has read a request.
    fn opened(&mut self, protocol: Protocol, message: &Message<'_>, exchange: &mut Open<T>);

    /// The head of an answer has come.
    fn answered(&mut self, data: &mut T);

    /// An exchange was one, and ended at this time. Said only of the protocol that it is.
    fn finished(&mut self, protocol: Protocol, done: Exchange<T>, error: &[u8], at_ns: u64);

    /// An exchange was none; perhaps one that [`opened`](Self::opened) was not told of.
    fn dropped(&mut self, data: T);
}

/// A connection's two ways, watched.
#[derive(Debug)]
pub struct Detector<T> {
    trials: [Option<Box<Trial<T>>>; Protocol::ALL.len()],
    http1: Option<Http1>,
    has_begun: bool,
    finding: Finding,
}

/// An exchange that is over, what is wrong with it, and when it ended.
type Done<T> = (Exchange<T>, ErrorText, u64);

/// A tap that may be the wrong one.
#[derive(Debug)]
struct Trial<T> {
    tap: Tap<T>,
    /// Exchanges that ended before it was certain.
    done: Vec<Done<T>>,
    /// Such bytes of each way since something was told.
    silent: [usize; 2],
    /// Every request so far can be no other protocol's.
    is_sure: bool,
}

impl<T: Default> Detector<T> {
    /// The beginning of a connection.
    pub fn new() -> Self {
        Self {
            trials: [const { None }; Protocol::ALL.len()],
            http1: None,
            has_begun: false,
            finding: Finding::Watching,
        }
    }

    /// Shows bytes of the way that have been sent on; `now_ns` is when they came. The bytes behind
    /// those that told are read as well: they belong to the tap.
    pub fn show(
        &mut self,
        way: Way,
        input: &[u8],
        limits: &Limits,
        now_ns: u64,
        witness: &mut impl Witness<T>,
    ) -> Finding {
        if self.finding != Finding::Watching {
            return self.finding;
        }
        if !self.has_begun {
            let Some(first) = input.first() else { return Finding::Watching };
            self.has_begun = true;
            self.begin(way, *first);
        }
        for place in 0..self.trials.len() {
            let Some(trial) = &mut self.trials[place] else { continue };
            match trial.show((way, input), limits, now_ns, witness) {
                Said::Maybe => {}
                Said::No => self.drop_trial(place, witness),
                Said::Yes => {
                    let others = (0..self.trials.len()).filter(|other| *other != place);
                    others.for_each(|other| self.drop_trial(other, witness));
                    self.finding = Finding::Protocol(Protocol::ALL[place]);
                    return self.finding;
                }
            }
        }
        if let Some(http1) = &mut self.http1 {
            match http1.look(way, input) {
                Look::More => {}
                Look::IsNot => self.http1 = None,
                Look::Is => {
                    self.end(witness);
                    self.finding = Finding::Http1;
                    return self.finding;
                }
            }
        }
        if self.http1.is_none() && self.trials.iter().all(Option::is_none) {
            self.finding = Finding::Unknown;
        }
        self.finding
    }

    /// Begins the taps that a connection's first byte leaves, and who sent it.
    fn begin(&mut self, way: Way, first: u8) {
        for (trial, protocol) in self.trials.iter_mut().zip(Protocol::ALL) {
            let is_its_way = match protocol.about().speaks {
                Speaks::ClientFirst => way == Way::Request,
                Speaks::ServerFirst => way == Way::Response,
            };
            *trial = (is_its_way && may_begin(*protocol, first)).then(|| {
                let tap = Tap::new(*protocol);
                Box::new(Trial { tap, done: Vec::new(), silent: [0; 2], is_sure: true })
            });
        }
        self.http1 = (way == Way::Request && first.is_ascii_uppercase()).then(Http1::new);
    }

    fn drop_trial(&mut self, place: usize, witness: &mut impl Witness<T>) {
        if let Some(mut trial) = self.trials[place].take() {
            trial.done.drain(..).for_each(|(done, ..)| witness.dropped(done.data));
            trial.tap.drain().for_each(|(open, _)| witness.dropped(open.data));
        }
    }

    /// The connection has ended, or is no longer watched.
    pub fn end(&mut self, witness: &mut impl Witness<T>) {
        (0..self.trials.len()).for_each(|place| self.drop_trial(place, witness));
        self.http1 = None;
    }

    /// How many bytes of the way may pass from here without being shown.
    pub fn passable(&self, way: Way) -> u64 {
        if !self.has_begun || self.http1.is_some_and(|http1| http1.wants(way)) {
            return 0;
        }
        self.trials.iter().flatten().map(|trial| trial.tap.passable(way)).min().unwrap_or(u64::MAX)
    }

    /// Takes note of bytes that passed without being shown, at most [`passable`](Self::passable).
    /// Show it an empty input after it.
    pub fn passed(&mut self, way: Way, count: u64) {
        self.trials.iter_mut().flatten().for_each(|trial| trial.tap.passed(way, count));
    }

    /// Bytes that are held on the heap, beside the taps themselves.
    pub fn held(&self) -> usize {
        self.trials.iter().flatten().map(|trial| trial.tap.held()).sum()
    }

    /// Hands out the tap of the protocol that was found, once.
    pub fn take_tap(&mut self) -> Option<Tap<T>> {
        let Finding::Protocol(protocol) = self.finding else { return None };
        self.trials.get_mut(protocol.index())?.take().map(|trial| trial.tap)
    }
}

impl<T: Default> Default for Detector<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a trial says of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Maybe,
    Yes,
    No,
}

impl<T: Default> Trial<T> {
    fn show(
        &mut self,
        (way, input): (Way, &[u8]),
        limits: &Limits,
        now_ns: u64,
        witness: &mut impl Witness<T>,
    ) -> Said {
        let protocol = self.tap.protocol();
        let (mut rest, mut said, mut head) = (input, Said::Maybe, Head::default());
        while !rest.is_empty() || self.tap.has_ended(way) {
            let is_body = self.tap.is_within_message(way);
            match self.tap.step(way, rest, limits, now_ns, &mut head) {
                // A head that is under way has a limit of its own.
                Step::Need => break,
                Step::Body(count) | Step::Late(count) => {
                    rest = &rest[count..];
                    if !is_body {
                        self.silent[way as usize] += count;
                    }
                }
                Step::Aside { consumed, .. } => {
                    rest = &rest[consumed..];
                    self.silent[way as usize] += consumed;
                }
                Step::Opened { consumed, message, exchange } => {
                    rest = &rest[consumed..];
                    match shape(protocol, &message) {
                        Said::No if said == Said::Maybe => return Said::No,
                        Said::Maybe => self.is_sure = false,
                        _ => {}
                    }
                    witness.opened(protocol, &message, exchange);
                    self.silent[way as usize] = 0;
                }
                Step::Answered { consumed, exchange, .. } => {
                    rest = &rest[consumed..];
                    witness.answered(&mut exchange.data);
                    self.silent[way as usize] = 0;
                }
                Step::Finished { consumed, message, mut exchange, error } => {
                    rest = &rest[consumed..];
                    if message.is_some() {
                        witness.answered(&mut exchange.data);
                    }
                    self.silent[way as usize] = 0;
                    if said == Said::Yes {
                        witness.finished(protocol, exchange, error, now_ns);
                        continue;
                    }
                    let error = ErrorText::new(error);
                    said = self.weigh((exchange, error, now_ns), witness);
                    if said == Said::No {
                        return said;
                    }
                }
                // What was found stays so: the caller sees that its tap has given up.
                Step::Tunnel(_) if said == Said::Yes => break,
                Step::Tunnel(_) => return Said::No,
            }
        }
        let is_silent = self.silent[way as usize] > SILENT_BYTES_MAX;
        let is_too_much = is_silent || self.tap.open_count() > OPEN_MAX;
        if said == Said::Maybe && is_too_much { Said::No } else { said }
    }

    /// What an exchange that is over says, with those before it.
    fn weigh(&mut self, done: Done<T>, witness: &mut impl Witness<T>) -> Said {
        let unanswered = [Outcome::Sent, Outcome::Unanswered, Outcome::Unseen];
        let is_answered = !unanswered.contains(&done.0.outcome);
        self.done.push(done);
        if is_answered && (self.is_sure || self.done.len() == EXCHANGES_MAX) {
            for (done, error, at_ns) in mem::take(&mut self.done) {
                witness.finished(self.tap.protocol(), done, error.as_bytes(), at_ns);
            }
            return Said::Yes;
        }
        if self.done.len() >= EXCHANGES_MAX { Said::No } else { Said::Maybe }
    }
}

/// Whether a connection of the protocol may begin so.
fn may_begin(protocol: Protocol, first: u8) -> bool {
    match protocol {
        Protocol::Redis => matches!(first, b'*' | b'a'..=b'z' | b'A'..=b'Z' | b'\r' | b'\n'),
        Protocol::Dubbo => first == 0xda,
        Protocol::Thrift => matches!(first, 0..=0x3f | 0x80 | 0x82),
        // The length of what a connection begins with, which is short.
        Protocol::Postgresql | Protocol::Zookeeper => first == 0,
        Protocol::Kafka => matches!(first, 0..=0x3f),
        Protocol::Memcached => matches!(first, b'a'..=b'z' | 0x80),
        // The lowest byte of a length.
        Protocol::Mongodb => true,
        // The length of a greeting.
        Protocol::Mysql => matches!(first, 0x30..=0xc0),
        Protocol::Brpc => first == b'P',
        Protocol::Trpc => first == 0x09,
        Protocol::Nats => matches!(first, b'I' | b'i'),
        Protocol::Mqtt => first == 0x10,
        Protocol::Amqp => first == b'A',
        // What is not built in is not looked for.
        Protocol::Private(_) => false,
    }
}

/// Whether a request can be another protocol's, too.
fn shape(protocol: Protocol, message: &Message<'_>) -> Said {
    let is_good = match protocol {
        Protocol::Redis => message.bytes().first() == Some(&b'*'),
        Protocol::Dubbo
        | Protocol::Postgresql
        | Protocol::Kafka
        | Protocol::Mongodb
        | Protocol::Mysql
        | Protocol::Brpc
        | Protocol::Trpc
        | Protocol::Nats
        | Protocol::Mqtt
        | Protocol::Zookeeper
        | Protocol::Amqp
        | Protocol::Private(_) => true,
        Protocol::Memcached => message.bytes().first() == Some(&0x80) || !is_plain_word(message),
        Protocol::Thrift => return thrift_shape(message),
    };
    if is_good { Said::Yes } else { Said::Maybe }
}

/// Whether other servers know the word as well, or many might answer it.
fn is_plain_word(message: &Message<'_>) -> bool {
    matches!(message.name()[0], b"stats" | b"shutdown" | b"quit")
}

/// Without a version, little but the name tells Thrift from other protocols of lengths.
fn thrift_shape(message: &Message<'_>) -> Said {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.:-$/".contains(byte);
    let mut name = message.name().into_iter().flatten().peekable();
    let is_name = name.peek().is_some() && name.all(is_part);
    if is_name { Said::Yes } else { Said::No }
}
