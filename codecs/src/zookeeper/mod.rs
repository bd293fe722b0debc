//! ZooKeeper: a length, then the number and the kind of a request, answered in order.
//!
//! <https://github.com/apache/zookeeper/blob/master/zookeeper-jute/src/main/resources/zookeeper.jute>:
//!
//! | bytes | request | answer |
//! |---|---|---|
//! | 0-3 | bytes that follow | bytes that follow |
//! | 4-7 | number | number |
//! | 8-11 | what it asks for | |
//! | 8-15 | | transaction of the server |
//! | 16-19 | | error, 0 is none |
//!
//! The first request and its answer have no number: they agree on a session. A few numbers are less
//! than 0, and what has them comes when it comes: -1 are events of watches, -2 pings, -4 who the
//! client says it is. Paths, data and credentials are never looked at.

mod operations;

use crate::codec::{
    About, Asked, Convention, Correlation, Frame, FrameCodec, Framed, Head, Key, Kind, Pair,
    Reason, Said, Speaks, Way,
};
use operations::{CLOSE, CONNECT, EXISTS, MULTI, NAMES};

/// The codec of ZooKeeper.
pub type Zookeeper = Framed<ZookeeperFrames>;

/// How frames of ZooKeeper are read.
#[derive(Debug)]
pub struct ZookeeperFrames;

/// What is remembered of a connection.
#[derive(Debug, Default)]
pub struct ZookeeperMemory {
    /// The request whose answer comes next.
    asked: Option<Asked>,
    /// A session was asked for, and is not to be closed.
    has_begun: bool,
    /// Something ever was asked.
    has_asked: bool,
}

/// Numbers of what is no request of an order.
const EVENT: i32 = -1;
const PING: i32 = -2;
const AUTH: i32 = -4;

/// Bytes in front of the session's password, of the first request and of its answer.
const CONNECT_LEN: usize = 32;
const CONNECTED_LEN: usize = 24;
/// Of a request and of an answer with numbers.
const REQUEST_LEN: usize = 12;
const ANSWER_LEN: usize = 20;
/// The longest message: servers take 1 MiB unless told otherwise.
const LEN_MAX: i32 = 1 << 28;

impl FrameCodec for ZookeeperFrames {
    const ABOUT: &'static About = &About {
        name: "zookeeper",
        operations: NAMES,
        port: 2181,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Fifo,
        keys: &[],
        carries_context: false,
        convention: Convention::Db("zookeeper"),
    };

    /// Numbers, and of what is done together the first results.
    const HEAD_BYTES_MAX: u32 = 512;

    type Memory = ZookeeperMemory;

    fn asks(memory: &mut ZookeeperMemory, asked: Option<Asked>) {
        memory.asked = asked;
    }

    #[inline]
    fn frame(memory: &ZookeeperMemory, way: Way, bytes: &[u8]) -> Frame {
        match (way, bytes) {
            (_, [0x16, 0x03, ..]) => return Frame::Not(Reason::Tls),
            (Way::Response, _) if !memory.has_asked => return Frame::Not(Reason::ServerFirst),
            _ => {}
        }
        let Some(len) = int(bytes, 0) else { return Frame::Need(4) };
        let total = 4 + u64::from(len.unsigned_abs());
        let is_new = way == Way::Request && !memory.has_begun;
        if is_new && bytes[..4].iter().all(u8::is_ascii_lowercase) {
            // `ruok` and other words of four letters.
            return Frame::Not(Reason::Unsupported);
        }
        let is_welcome = way == Way::Response && memory.awaits_session();
        let least = match way {
            Way::Request if is_new => CONNECT_LEN,
            Way::Response if is_welcome => CONNECTED_LEN,
            Way::Request => REQUEST_LEN,
            Way::Response => ANSWER_LEN,
        };
        if !(0..=LEN_MAX).contains(&len) || total < least as u64 {
            return Frame::Not(Reason::NotThisProtocol);
        }
        if !is_new && !is_welcome {
            return Frame::Total(total);
        }
        // What agrees on a session is of the protocol's version 0, and as long as its password says.
        match (int(bytes, 4), int(bytes, least - 4)) {
            (Some(0), Some(password)) => {
                let rest = total - least as u64;
                let password = u64::from(password.max(0).unsigned_abs());
                let is_whole = rest == password || rest == password + 1;
                if is_whole { Frame::Total(total) } else { Frame::Not(Reason::NotThisProtocol) }
            }
            (Some(0) | None, None) => Frame::Need(if bytes.len() < 8 { 8 } else { least }),
            _ => Frame::Not(Reason::NotThisProtocol),
        }
    }

    fn head(
        memory: &mut ZookeeperMemory,
        way: Way,
        bytes: &[u8],
        head: &mut Head,
    ) -> Result<(), Reason> {
        match way {
            Way::Request => memory.request(bytes, head),
            Way::Response => memory.response(bytes, head),
        }
    }

    fn value<'b>(_: &Head, _: &'b [u8], _: Key) -> Option<&'b [u8]> {
        None
    }

    fn pairs<'b>(_: &Head, _: &'b [u8], _: &mut dyn FnMut(Pair<'b>)) {}

    fn name<'b>(head: &Head, _: &'b [u8]) -> [&'b [u8]; 3] {
        let name = NAMES.get(usize::from(head.operation)).filter(|_| head.kind.opens());
        [name.map_or(&b""[..], |name| name.as_bytes()), b"", b""]
    }
}

impl ZookeeperMemory {
    /// The answer that comes next is that to the first request.
    fn awaits_session(&self) -> bool {
        self.asked.is_some_and(|asked| asked.operation == CONNECT)
    }

    fn request(&mut self, bytes: &[u8], head: &mut Head) -> Result<(), Reason> {
        self.has_asked = true;
        if !self.has_begun {
            self.has_begun = true;
            (head.kind, head.operation) = (Kind::Handshake, CONNECT);
            return Ok(());
        }
        let (Some(number), Some(kind)) = (int(bytes, 4), int(bytes, 8)) else {
            return Err(Reason::Malformed);
        };
        (head.kind, head.operation) = match number {
            PING => (Kind::Heartbeat, operations::OTHER),
            AUTH => (Kind::Part, operations::OTHER),
            _ => (operations::kind(kind), operations::operation(kind)),
        };
        head.id = number.unsigned_abs().into();
        self.has_begun = head.operation != CLOSE;
        Ok(())
    }

    fn response(&mut self, bytes: &[u8], head: &mut Head) -> Result<(), Reason> {
        head.kind = Kind::Response;
        if self.awaits_session() {
            // Of a session that is over, no time is left.
            if int(bytes, 8).is_none_or(|time| time <= 0) {
                fail(head, -112);
            }
            return Ok(());
        }
        let (Some(number), Some(error)) = (int(bytes, 4), int(bytes, 16)) else {
            return Err(Reason::Malformed);
        };
        match number {
            EVENT => head.kind = Kind::Push,
            PING => head.kind = Kind::Heartbeat,
            AUTH => head.kind = Kind::Part,
            _ => {
                let id = u64::from(number.unsigned_abs());
                let asked = self.asked.filter(|asked| asked.id == id);
                let asked = asked.ok_or(Reason::AnswerWithoutRequest)?;
                let error = match asked.operation {
                    // That it is not there is an answer.
                    EXISTS if error == operations::NO_NODE => 0,
                    MULTI if error == 0 => first_error(bytes),
                    _ => error,
                };
                if error != 0 {
                    fail(head, error);
                }
            }
        }
        Ok(())
    }
}

fn fail(head: &mut Head, error: i32) {
    head.status = error;
    (head.outcome, head.said) = (operations::outcome(error), Said::Word(operations::name(error)));
}

/// Of what was to be done together and was not, the error that is to blame: what came before has
/// 0, what came behind -2.
fn first_error(bytes: &[u8]) -> i32 {
    const RESULT_LEN: usize = 13;
    const NOT_REACHED: i32 = -2;
    let mut first = 0;
    for at in (20..bytes.len()).step_by(RESULT_LEN) {
        // A kind of -1 is an error's, which has its number twice.
        let (Some(-1), Some(error)) = (int(bytes, at), int(bytes, at + 5)) else { break };
        if !matches!(error, 0 | NOT_REACHED) {
            return error;
        }
        first = if first == 0 { error } else { first };
    }
    first
}

/// The number at a place.
#[inline]
fn int(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().map(|number| i32::from_be_bytes(*number))
}
