//! What every codec has to stand: captures in any pieces, cut short, damaged, in the wrong hands.
//!
//! Made for tests: whatever does not stand panics, and says where. [`stands`] is all that most need.

// Each test binary uses a part of this.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::fmt::Write as _;

use netra_codecs::Limits;
use netra_codecs::codec::{Exchange, Head, Key, Outcome, Way};
use netra_codecs::tap::{Message, Protocol, Step, Tap};

/// Small, so that tests reach them.
pub const LIMITS: Limits =
    Limits { open_max: 300, message_head_bytes_max: 2048, held_keep_bytes: 256, ..Limits::DEFAULT };

/// Bytes of one way, in the order of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub way: Way,
    pub bytes: Vec<u8>,
}

pub fn ask(bytes: impl AsRef<[u8]>) -> Part {
    Part { way: Way::Request, bytes: bytes.as_ref().to_vec() }
}

pub fn say(bytes: impl AsRef<[u8]>) -> Part {
    Part { way: Way::Response, bytes: bytes.as_ref().to_vec() }
}

/// How bytes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// As the parts are.
    Whole,
    /// So many at a time.
    Of(usize),
    /// What may pass unseen does; the rest as it is.
    Passing,
}

/// A tap, and what it said, without how the bytes were cut.
pub struct Taster {
    protocol: Protocol,
    pub tap: Tap<u32>,
    pub told: Vec<String>,
    pub limits: Limits,
    pub held_most: usize,
    steps: u64,
    number: u32,
    /// Parts that are shown, as a clock: no two have the same time.
    now_ns: u64,
}

impl Taster {
    pub fn new(protocol: Protocol, limits: Limits) -> Self {
        Self {
            protocol,
            tap: Tap::new(protocol),
            told: Vec::new(),
            limits,
            held_most: 0,
            steps: 0,
            number: 0,
            now_ns: 0,
        }
    }

    /// Shows a part as it came.
    pub fn show(&mut self, part: &Part) {
        self.now_ns += 1;
        self.show_piece(part.way, &part.bytes);
    }

    /// Shows what came at the same time as the part before.
    fn show_again(&mut self, part: &Part) {
        self.show_piece(part.way, &part.bytes);
    }

    /// Nothing comes for so long.
    pub fn wait(&mut self, ns: u64) {
        self.now_ns += ns;
    }

    /// Shows a part in pieces.
    pub fn show_in(&mut self, part: &Part, pieces: Pieces) {
        self.now_ns += 1;
        match pieces {
            Pieces::Whole => self.show_piece(part.way, &part.bytes),
            Pieces::Of(size) => {
                part.bytes.chunks(size).for_each(|piece| self.show_piece(part.way, piece));
            }
            Pieces::Passing => self.show_passing(part),
        }
    }

    /// Few bytes are shown, then as many pass as may.
    fn show_passing(&mut self, part: &Part) {
        let mut rest = &part.bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(7));
            self.show_piece(part.way, piece);
            let passable = usize::try_from(self.tap.passable(part.way)).unwrap_or(usize::MAX);
            let count = passable.min(after.len());
            // In two goes, as a pipe of the kernel would.
            for count in [count / 2, count - count / 2] {
                self.tap.passed(part.way, count as u64);
                self.show_piece(part.way, b"");
            }
            rest = &after[count..];
        }
    }

    fn show_piece(&mut self, way: Way, mut input: &[u8]) {
        let (mut head, mut has_moved) = (Head::default(), true);
        loop {
            self.steps += 1;
            let step = self.tap.step(way, input, &self.limits, self.now_ns, &mut head);
            let consumed = match step {
                Step::Need => break,
                Step::Body(count) | Step::Late(count) => {
                    // A message may turn out to have ended.
                    assert!(count > 0 || has_moved, "two steps without progress");
                    has_moved = count > 0;
                    input = &input[count..];
                    continue;
                }
                Step::Opened { consumed, message, exchange } => {
                    exchange.data = self.number;
                    self.told.push(format!("open {} {}", self.number, describe(&message)));
                    self.number += 1;
                    assert!(exchange.opened_ns <= self.now_ns);
                    consumed
                }
                Step::Answered { consumed, message, exchange } => {
                    let number = exchange.data;
                    self.told.extend(describe_answer(&message, number));
                    consumed
                }
                Step::Finished { consumed, message, exchange, error } => {
                    let number = exchange.data;
                    self.told.extend(message.and_then(|it| describe_answer(&it, number)));
                    let exchange = describe_exchange(self.protocol, &exchange, error);
                    self.told.push(format!("done {exchange}"));
                    consumed
                }
                Step::Aside { consumed, message } => {
                    self.told.push(format!("aside {}", describe(&message)));
                    consumed
                }
                Step::Tunnel(reason) => {
                    if self.told.last().is_none_or(|last| !last.starts_with("tunnel")) {
                        self.told.push(format!("tunnel {reason}"));
                    }
                    assert_eq!(self.tap.passable(way), u64::MAX);
                    break;
                }
            };
            has_moved = true;
            input = &input[consumed..];
            self.held_most = self.held_most.max(self.tap.held());
        }
        self.held_most = self.held_most.max(self.tap.held());
        assert!(self.tap.open_count() <= self.limits.open_max as usize);
    }

    /// The connection ends.
    pub fn end(&mut self) {
        for way in Way::BOTH {
            if self.tap.is_within_message(way) {
                self.told.push(format!("cut {way:?}"));
            }
        }
        let left: Vec<_> = self.tap.drain().collect();
        for (exchange, error) in left {
            let exchange = describe_exchange(self.protocol, &exchange, error.as_bytes());
            self.told.push(format!("left {exchange}"));
        }
        assert_eq!(self.tap.open_count(), 0);
    }
}

fn describe(message: &Message<'_>) -> String {
    let mut text = format!("{} {}", message.kind().name(), show(&message.name().concat()));
    for key in [
        Key::RedisKey,
        Key::Database,
        Key::Service,
        Key::Method,
        Key::ServiceVersion,
        Key::Group,
        Key::ProtocolVersion,
        Key::Transaction,
        Key::ConsumerGroup,
        Key::ClientId,
    ] {
        if let Some(value) = message.value(key) {
            let _ = write!(text, " {}={}", key.name(), show(value));
        }
    }
    for key in [Key::TopicCount, Key::MessageCount] {
        if let Some(number) = message.number(key) {
            let _ = write!(text, " {}={number}", key.name());
        }
    }
    message.pairs(|(name, value)| {
        let _ = write!(text, " {}:{}", show(name), show(value));
    });
    text.trim_end().to_owned()
}

/// What an answer carries, if it carries anything.
fn describe_answer(message: &Message<'_>, number: u32) -> Option<String> {
    let mut text = String::new();
    message.pairs(|(name, value)| {
        let _ = write!(text, " {}:{}", show(name), show(value));
    });
    (!text.is_empty()).then(|| format!("answer {number}{text}"))
}

fn describe_exchange(protocol: Protocol, exchange: &Exchange<u32>, error: &[u8]) -> String {
    let Exchange { data, outcome, status, .. } = exchange;
    let operation = protocol.about().operations[usize::from(exchange.operation)];
    let (asked, said) = (exchange.request_bytes, exchange.response_bytes);
    let mut text = format!("{data} {} {operation} {outcome}", exchange.kind.name());
    if *status != 0 {
        let _ = write!(text, " {status}");
    }
    if !error.is_empty() {
        let _ = write!(text, " {}", show(error));
    }
    if *outcome != Outcome::Unseen {
        let _ = write!(text, " {asked}/{said}");
    }
    if let Some(first_ns) = exchange.response_first_ns {
        assert!(first_ns >= exchange.opened_ns, "{text}");
    }
    text
}

/// Short, and readable.
pub fn show(bytes: &[u8]) -> String {
    let text = bytes[..bytes.len().min(70)].escape_ascii().to_string();
    if bytes.len() > 70 { format!("{text}..{}", bytes.len()) } else { text }
}

/// What a tap says of the parts.
pub fn tell(protocol: Protocol, parts: &[Part], pieces: Pieces) -> Vec<String> {
    let mut taster = Taster::new(protocol, LIMITS);
    for part in parts {
        taster.show_in(part, pieces);
    }
    taster.end();
    taster.told
}

/// Whether a protocol says the same of a conversation however its bytes are cut: in pieces of any
/// size, at every place, and where what may pass unseen does. What it says comes back, line by
/// line: `open` a request, `done` its exchange with outcome, status and bytes of both, `aside`,
/// `tunnel` with the reason, `left` what is unanswered. Then bytes are changed, one by one: what is
/// said may be anything, and comes to an end.
///
/// # Panics
/// Where it does not stand.
pub fn stands(protocol: Protocol, parts: &[Part]) -> Vec<String> {
    let told = tell(protocol, parts, Pieces::Whole);
    for pieces in (1..40).map(Pieces::Of).chain([Pieces::Passing]) {
        assert_eq!(tell(protocol, parts, pieces), told, "{pieces:?}");
    }
    for (index, part) in parts.iter().enumerate() {
        for at in 1..part.bytes.len() {
            let (before, behind) = part.bytes.split_at(at);
            let cut = [before, behind].map(|bytes| Part { way: part.way, bytes: bytes.to_vec() });
            let mut taster = Taster::new(protocol, LIMITS);
            parts[..index].iter().for_each(|part| taster.show(part));
            // At one time, as it is one part.
            taster.show(&cut[0]);
            taster.show_again(&cut[1]);
            parts[index + 1..].iter().for_each(|part| taster.show(part));
            taster.end();
            assert_eq!(taster.told, told, "part {index} is cut at {at}");
        }
    }
    let mut chance = Chance(0x6e65_7472_6121);
    for _ in 0..500 {
        let mut damaged = parts.to_vec();
        let part = chance.below(damaged.len());
        let bytes = &mut damaged[part].bytes;
        let at = chance.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= u8::try_from(1 + chance.below(255)).unwrap_or(1);
        }
        tell(protocol, &damaged, Pieces::Of(1 + chance.below(9)));
    }
    told
}

/// A connection that was recorded: lines `> bytes` and `< bytes`, escaped, and behind each what the
/// tap is to say of it, `= `.
pub struct Capture {
    pub name: &'static str,
    pub protocol: Protocol,
    /// Where it comes from.
    title: String,
    pub parts: Vec<Part>,
    pub told: Vec<String>,
}

macro_rules! captures {
    ($($name:literal $protocol:ident,)*) => {
        /// All of them.
        pub fn captures() -> Vec<Capture> {
            vec![$(Capture::read(
                $name,
                Protocol::$protocol,
                include_str!(concat!("../data/", $name, ".txt")),
            ),)*]
        }
    };
}

captures! {
    "redis-resp2" Redis,
    "redis-resp3" Redis,
    "redis-channels" Redis,
    "dubbo-java" Dubbo,
    "thrift-framed-binary" Thrift,
    "thrift-framed-lax" Thrift,
    "thrift-framed-compact" Thrift,
    "thrift-plain-binary" Thrift,
    "thrift-plain-lax" Thrift,
    "thrift-plain-compact" Thrift,
    "thrift-header-binary" Thrift,
    "thrift-header-compact" Thrift,
    "mysql-libmariadb" Mysql,
    "mysql-connector-python" Mysql,
    "mysql-pymysql" Mysql,
    "mysql-libmysqlclient" Mysql,
    "postgresql-psql" Postgresql,
    "postgresql-psycopg" Postgresql,
    "postgresql-asyncpg" Postgresql,
    "kafka-aiokafka" Kafka,
    "kafka-librdkafka" Kafka,
    "kafka-python" Kafka,
    "kafka-group" Kafka,
    "memcached-text" Memcached,
    "memcached-meta" Memcached,
    "memcached-binary" Memcached,
    "memcached-suite" Memcached,
    "memcached-suite-binary" Memcached,
    "mongodb-nx" Mongodb,
    "mongodb-odd" Mongodb,
    "mongodb-compressed" Mongodb,
    "brpc-cpp" Brpc,
    "trpc-go" Trpc,
    "trpc-go-stream" Trpc,
    "nats-py" Nats,
    "nats-verbose" Nats,
    "mqtt-paho" Mqtt,
    "mqtt-paho-5" Mqtt,
    "zookeeper-kazoo" Zookeeper,
    "amqp-pika" Amqp,
    "amqp-refused" Amqp,
}

impl Capture {
    fn read(name: &'static str, protocol: Protocol, text: &str) -> Self {
        let (title, text) = text.split_once('\n').expect("a title");
        assert!(title.starts_with("# "), "{name}: {title}");
        let (mut parts, mut told) = (Vec::new(), Vec::new());
        for line in text.lines() {
            match line.split_once(' ') {
                Some((">", bytes)) => parts.push(ask(unescape(bytes))),
                Some(("<", bytes)) => parts.push(say(unescape(bytes))),
                Some(("=", line)) => told.push(line.to_owned()),
                _ => panic!("{name}: {line}"),
            }
        }
        assert!(parts.len() > 1, "{name}");
        Self { name, protocol, title: title.to_owned(), parts, told }
    }

    /// As the parts of its file, with what was said behind each.
    pub fn write(&self) -> String {
        let mut taster = Taster::new(self.protocol, LIMITS);
        let mut text = format!("{}\n", self.title);
        let mut written = 0;
        for part in &self.parts {
            let sign = if part.way == Way::Request { '>' } else { '<' };
            let _ = writeln!(text, "{sign} {}", part.bytes.escape_ascii());
            taster.show(part);
            for line in &taster.told[written..] {
                let _ = writeln!(text, "= {line}");
            }
            written = taster.told.len();
        }
        taster.end();
        for line in &taster.told[written..] {
            let _ = writeln!(text, "= {line}");
        }
        text
    }
}

/// Undoes `escape_ascii`.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (byte, taken) = match after {
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b't', ..] => (b'\t', 1),
            [b'x', high, low, ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("hex digits");
                (u8::from_str_radix(digits, 16).expect("hex digits"), 3)
            }
            [other, ..] => (*other, 1),
            [] => panic!("{text}"),
        };
        bytes.push(byte);
        rest = &after[taken..];
    }
    bytes
}

/// A small generator of numbers, the same ones each time.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}
