//! Kafka: a length, then a call by number and version, with an id by which its answer is known.
//!
//! <https://kafka.apache.org/protocol>:
//!
//! | bytes | request | answer |
//! |---|---|---|
//! | 0-3 | bytes that follow | bytes that follow |
//! | 4-7 | api key, version | correlation id |
//! | 8-11 | correlation id | |
//! | then | id of the client; tagged fields, of a flexible version | tagged fields, likewise |
//!
//! A broker answers the calls of a connection in their order, so that the oldest open one says what
//! the layout of an answer is; another id than that one's ends the tap. `ApiVersions` comes before
//! the client knows the broker's versions: its answers never have tagged fields before the body.
//! `Produce` that wants no acknowledgement (`acks=0`) is not answered; answers to it, which
//! stand-ins for brokers give (Tansu, the mock cluster of librdkafka), are nobody's.
//!
//! Of a body the names of topic and group are read and the first error code, as far as they lie in
//! its beginning (`layout.rs`). Topics that have ids in place of names have none. Of records the
//! headers are read, for the trace that they are of (`records.rs`); keys, values and credentials are
//! never looked at. Behind the first version of `SaslHandshake` come tokens that
//! are no calls; whatever is no call there is taken for one.

mod apis;
mod errors;
mod layout;
mod records;

use crate::codec::{
    About, Asked, Convention, Correlation, Frame, FrameCodec, Framed, Head, Key, Kind, Leaves,
    Outcome, Pair, Reason, Said, Speaks, Spot, Way,
};
use apis::{API_VERSIONS, APIS, Api, OTHER, PRODUCE, SASL_AUTHENTICATE, SASL_HANDSHAKE};
use layout::{Found, Reader, walk};

/// The codec of Kafka.
pub type Kafka = Framed<KafkaFrames>;

/// How Kafka's frames are read.
#[derive(Debug)]
pub struct KafkaFrames;

/// What is remembered of a connection.
#[derive(Debug, Default)]
pub struct KafkaMemory {
    /// The call whose answer comes next.
    asked: Option<Asked>,
    /// A call has come.
    has_begun: bool,
    /// An answer had the id of its call.
    is_certain: bool,
    /// Tokens of SASL come without a head.
    has_tokens: bool,
    /// The first and the last id of calls that want no answer.
    unasked: Option<(u32, u32)>,
}

impl KafkaMemory {
    /// A call that wants no answer.
    fn put_unasked(&mut self, id: u32) {
        let (first, _) = self.unasked.unwrap_or((id, id));
        self.unasked = Some((first, id));
    }

    /// Whether a call with this id wanted no answer. Ids rise, and answers come in order.
    fn take_unasked(&mut self, id: u32) -> bool {
        let Some((first, last)) = self.unasked else { return false };
        let is_one = id.wrapping_sub(first) <= last.wrapping_sub(first);
        if is_one {
            self.unasked = (id != last).then_some((id.wrapping_add(1), last));
        }
        is_one
    }
}

/// Bytes that say length, call and version; and those of the shortest request and answer.
const START_LEN: usize = 8;
const REQUEST_LEN_MIN: u64 = 14;
const RESPONSE_LEN_MIN: u64 = 8;
/// Where the length of the client's id stands.
const CLIENT_AT: usize = 12;
/// The longest name that a topic may have.
const TOPIC_LEN_MAX: usize = 249;

/// In the note of a request: it is a call, of the key and the version that stand below.
const CALL: u32 = 1 << 16;
/// It is a token.
const TOKEN: u32 = 1 << 17;

/// The call of a note, with its version.
fn call_of(note: u32) -> Option<(u8, u8, &'static Api)> {
    let [_, flags, key, version] = note.to_be_bytes();
    let api = APIS.get(usize::from(key)).filter(|_| flags == 1)?;
    Some((key, version, api))
}

/// What the first bytes of a request ask for: key and version, where both are known or may be.
fn call(start: [u8; START_LEN]) -> Option<(u8, u8)> {
    let [_, _, _, _, 0, key, 0, version] = start else { return None };
    APIS.get(usize::from(key))?.is_plausible(version).then_some((key, version))
}

impl FrameCodec for KafkaFrames {
    const ABOUT: &'static About = &About {
        name: "kafka",
        operations: apis::NAMES,
        port: 9092,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Fifo,
        keys: &[Key::Topic, Key::ConsumerGroup, Key::ClientId],
        carries_context: true,
        convention: Convention::Messaging { system: "kafka", types: apis::OPERATION_TYPES },
    };
    const MOVES: bool = true;

    const HEAD_BYTES_MAX: u32 = 1024;

    type Memory = KafkaMemory;

    fn asks(memory: &mut KafkaMemory, asked: Option<Asked>) {
        memory.asked = asked;
    }

    #[inline]
    fn frame(memory: &KafkaMemory, way: Way, bytes: &[u8]) -> Frame {
        if way == Way::Response && memory.asked.is_none() && memory.unasked.is_none() {
            return Frame::Not(match memory.has_begun {
                true => Reason::AnswerWithoutRequest,
                false => Reason::ServerFirst,
            });
        }
        if !memory.has_begun && matches!(bytes, [0x16, 0x03, ..]) {
            return Frame::Not(Reason::Tls);
        }
        // A gigabyte and more, or less than nothing: lengths are signed.
        let most = if way == Way::Request { 0x3f } else { 0x7f };
        if bytes.first().is_some_and(|first| *first > most) {
            return Frame::Not(Reason::NotThisProtocol);
        }
        let Some(len) = bytes.first_chunk() else { return Frame::Need(4) };
        let total = 4 + u64::from(u32::from_be_bytes(*len));
        let asked = memory.asked.map_or(0, |asked| asked.note);
        if way == Way::Response {
            let is_short = asked != TOKEN && total < RESPONSE_LEN_MIN;
            return if is_short { Frame::Not(Reason::Malformed) } else { Frame::Total(total) };
        }
        if memory.has_tokens {
            return Frame::Total(total);
        }
        match bytes.first_chunk() {
            None => Frame::Need(START_LEN),
            // A call that is newer than the table is one where others were before.
            Some(_) if total < REQUEST_LEN_MIN => Frame::Not(Reason::NotThisProtocol),
            Some(start) if call(*start).is_some() || memory.is_certain => Frame::Total(total),
            Some(_) => Frame::Not(Reason::NotThisProtocol),
        }
    }

    #[inline]
    fn head(
        memory: &mut KafkaMemory,
        way: Way,
        bytes: &[u8],
        head: &mut Head,
    ) -> Result<(), Reason> {
        match way {
            Way::Request => read_request(memory, bytes, head),
            Way::Response => read_response(memory, bytes, head),
        }
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        match key {
            Key::ClientId if head.note & CALL != 0 => {
                Reader::new(bytes, CLIENT_AT, false).text()?.of(bytes)
            }
            Key::Topic => topic(&found(head, bytes), bytes),
            Key::ConsumerGroup => found(head, bytes).group.of(bytes),
            _ => None,
        }
    }

    fn number(head: &Head, bytes: &[u8], key: Key) -> Option<u32> {
        let found = found(head, bytes);
        match key {
            Key::TopicCount if found.topics > 0 => Some(found.topics),
            Key::MessageCount => found.records,
            _ => None,
        }
    }

    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        if head.note & CALL == 0 || head.operation != PRODUCE {
            return;
        }
        let found = found(head, bytes);
        if let (Some(batch), Some(count)) = (found.batch.of(bytes), found.records) {
            records::pairs(batch, count, take);
        }
    }

    /// Every client asks which versions there are, and that leaves nothing behind.
    fn leaves(head: &Head, _: &[u8]) -> Leaves {
        match head.operation {
            API_VERSIONS => Leaves::Nothing,
            _ => Leaves::of(head.kind),
        }
    }

    /// `Produce orders`; of a call without a topic its name alone.
    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        if head.note == 0 {
            return [b""; 3];
        }
        let name = apis::NAMES.get(usize::from(head.operation)).copied().unwrap_or("other");
        match topic(&found(head, bytes), bytes) {
            Some(topic) => [name.as_bytes(), b" ", topic],
            None => [name.as_bytes(), b"", b""],
        }
    }
}

/// What the body of a request says; its place is in the head.
fn found(head: &Head, bytes: &[u8]) -> Found {
    match call_of(head.note) {
        Some((_, version, api)) if head.extra.at > 0 => {
            let at = head.extra.end();
            walk(api.request(version), version, api.is_flexible(version), bytes, at)
        }
        _ => Found::default(),
    }
}

/// The topic, if its name is one.
fn topic<'b>(found: &Found, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let topic = found.topic.of(bytes)?;
    let is_legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (topic.len() <= TOPIC_LEN_MAX && topic.iter().all(is_legal)).then_some(topic)
}

fn read_request(memory: &mut KafkaMemory, bytes: &[u8], head: &mut Head) -> Result<(), Reason> {
    let call = bytes.first_chunk().and_then(|start| call(*start));
    if memory.has_tokens && call.is_none() {
        (head.kind, head.operation, head.note) = (Kind::Handshake, SASL_AUTHENTICATE, TOKEN);
        return Ok(());
    }
    memory.has_tokens = false;
    let id = bytes.get(8..).and_then(|id| id.first_chunk()).ok_or(Reason::Malformed)?;
    let id = u32::from_be_bytes(*id);
    (head.operation, head.id) = (OTHER, id.into());
    head.note = CALL | u32::from(OTHER) << 8;
    let Some((key, version)) = call else { return Ok(()) };
    (head.kind, head.operation) = (apis::kind(key), key);
    head.note = CALL | u32::from(key) << 8 | u32::from(version);
    head.extra = body(memory, bytes, key, version)?;
    if key == PRODUCE {
        produce(memory, head, bytes, version, id)?;
    }
    memory.has_tokens = key == SASL_HANDSHAKE && version == 0;
    memory.has_begun = true;
    Ok(())
}

/// Where the body of a request begins; nowhere when that is further behind than is read.
fn body(memory: &KafkaMemory, bytes: &[u8], key: u8, version: u8) -> Result<Spot, Reason> {
    let wrong = if memory.is_certain { Reason::Malformed } else { Reason::NotThisProtocol };
    let client = bytes.get(CLIENT_AT..).and_then(|len| len.first_chunk()).ok_or(wrong)?;
    let len = i16::from_be_bytes(*client);
    let total = bytes.first_chunk().map_or(0, |len| 4 + u64::from(u32::from_be_bytes(*len)));
    if len < -1 || CLIENT_AT as u64 + 2 + u64::from(len.max(0).unsigned_abs()) > total {
        return Err(wrong);
    }
    let mut reader = Reader::new(bytes, CLIENT_AT, false);
    let Some(client) = reader.text() else { return Ok(Spot::default()) };
    let is_text = client.of(bytes).is_none_or(|id| !id.iter().any(u8::is_ascii_control));
    if !memory.is_certain && !is_text {
        return Err(wrong);
    }
    let is_flexible = APIS.get(usize::from(key)).is_some_and(|api| api.is_flexible(version));
    let mut reader = Reader::new(bytes, reader.at(), is_flexible);
    Ok(reader.skip_tags().map(|()| Spot::new(reader.at(), 0)).unwrap_or_default())
}

/// Whether the client wants an answer.
fn produce(
    memory: &mut KafkaMemory,
    head: &mut Head,
    bytes: &[u8],
    version: u8,
    id: u32,
) -> Result<(), Reason> {
    if head.extra.at == 0 {
        return Err(Reason::Unsupported);
    }
    let is_flexible = call_of(head.note).is_some_and(|(_, version, api)| api.is_flexible(version));
    let mut reader = Reader::new(bytes, head.extra.end(), is_flexible);
    if version >= 3 {
        // The transaction.
        reader.text().ok_or(Reason::Unsupported)?;
    }
    let acks = reader.error().ok_or(Reason::Unsupported)?;
    // Other protocols begin with such numbers as well: ZooKeeper.
    if !memory.is_certain
        && version < apis::PRODUCE_BY_ID
        && topic(&found(head, bytes), bytes).is_none()
    {
        return Err(Reason::NotThisProtocol);
    }
    if acks != 0 {
        return Ok(());
    }
    head.kind = Kind::Oneway;
    memory.put_unasked(id);
    Ok(())
}

fn read_response(memory: &mut KafkaMemory, bytes: &[u8], head: &mut Head) -> Result<(), Reason> {
    head.kind = Kind::Response;
    if memory.asked.is_some_and(|asked| asked.note == TOKEN) {
        return Ok(());
    }
    let id = bytes.get(4..).and_then(|id| id.first_chunk()).ok_or(Reason::Malformed)?;
    let id = u32::from_be_bytes(*id);
    let Some(asked) = memory.asked.filter(|asked| asked.id == id.into()) else {
        head.kind = Kind::Stray;
        return if memory.take_unasked(id) { Ok(()) } else { Err(Reason::AnswerWithoutRequest) };
    };
    memory.is_certain = true;
    let Some((key, version, api)) = call_of(asked.note) else { return Ok(()) };
    let is_flexible = api.is_flexible(version);
    let mut reader = Reader::new(bytes, START_LEN, is_flexible && key != API_VERSIONS);
    if reader.skip_tags().is_none() {
        return Ok(());
    }
    let error = walk(api.response(version), version, is_flexible, bytes, reader.at()).error;
    if error != 0 {
        (head.status, head.outcome) = (error.into(), errors::outcome(error));
        if head.outcome != Outcome::Ok {
            head.said = Said::Word(errors::name(error));
        }
    }
    Ok(())
}
