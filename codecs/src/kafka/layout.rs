//! Where in a message the few things lie that are wanted of it.
//!
//! A layout is the list of a body's fields, from its first to the last one that matters, written as
//! text that is read when this is compiled:
//!
//! | word | field |
//! |---|---|
//! | `4` | so many bytes |
//! | `s`, `b` | a string, bytes; perhaps null |
//! | `t`, `g` | a string: a topic's name, a consumer group's |
//! | `e` | an error code |
//! | `r` | record batches |
//! | `[` `]` | an array of what stands between |
//! | `*4`, `*t`, `*g` | an array of such a field alone |
//! | `.` | the end of what matters |
//! | `:3`, `:3+`, `:0-12` | behind a word: the versions that have it |

use crate::codec::Spot;

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    field: Field,
    from: u8,
    to: u8,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Skip(u8),
    Text,
    Bytes,
    Topic,
    Group,
    Error,
    Records,
    Open,
    Close,
    Skips(u8),
    Topics,
    Groups,
    Stop,
}

/// The layout that a text describes.
macro_rules! layout {
    ($text:literal) => {{
        const STEPS: [$crate::kafka::layout::Step; $crate::kafka::layout::count($text)] =
            $crate::kafka::layout::compile($text);
        &STEPS
    }};
}
pub(super) use layout;

/// The number of words.
pub(super) const fn count(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        count += (bytes[at] != b' ' && (at == 0 || bytes[at - 1] == b' ')) as usize;
        at += 1;
    }
    count
}

pub(super) const fn compile<const COUNT: usize>(text: &str) -> [Step; COUNT] {
    let mut steps = [Step { field: Field::Stop, from: 0, to: u8::MAX }; COUNT];
    let bytes = text.as_bytes();
    let (mut at, mut index, mut depth) = (0, 0, 0);
    while index < COUNT {
        let is_array = bytes[at] == b'*';
        at += is_array as usize;
        steps[index].field = match bytes[at] {
            b'0'..=b'9' => {
                let (number, end) = number(bytes, at);
                at = end - 1;
                if is_array { Field::Skips(number) } else { Field::Skip(number) }
            }
            b's' => Field::Text,
            b'b' => Field::Bytes,
            b't' => {
                if is_array {
                    Field::Topics
                } else {
                    Field::Topic
                }
            }
            b'g' => {
                if is_array {
                    Field::Groups
                } else {
                    Field::Group
                }
            }
            b'e' => Field::Error,
            b'r' => Field::Records,
            b'[' => {
                depth += 1;
                Field::Open
            }
            b']' => {
                depth -= 1;
                Field::Close
            }
            b'.' => Field::Stop,
            _ => panic!("no such field"),
        };
        at += 1;
        if at < bytes.len() && bytes[at] == b':' {
            (steps[index].from, at) = number(bytes, at + 1);
            steps[index].to = steps[index].from;
            if at < bytes.len() && bytes[at] == b'+' {
                steps[index].to = u8::MAX;
                at += 1;
            } else if at < bytes.len() && bytes[at] == b'-' {
                (steps[index].to, at) = number(bytes, at + 1);
            }
        }
        assert!(depth <= DEPTH_MAX && (at == bytes.len() || bytes[at] == b' '));
        at += 1;
        index += 1;
    }
    assert!(depth == 0, "an array that does not end");
    steps
}

/// A number, and where it ends.
const fn number(bytes: &[u8], mut at: usize) -> (u8, usize) {
    let mut number = 0;
    while at < bytes.len() && bytes[at].is_ascii_digit() {
        number = 10 * number + bytes[at] - b'0';
        at += 1;
    }
    (number, at)
}

/// Arrays within arrays.
const DEPTH_MAX: usize = 3;
/// Fields of one message that are looked at: of an answer about thousands of topics, the first.
const FIELDS_MAX: usize = 400;

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// The first topic.
    pub(super) topic: Spot,
    /// How many topics the array of it has.
    pub(super) topics: u32,
    /// The first group.
    pub(super) group: Spot,
    /// Records of all batches, where each says so.
    pub(super) records: Option<u32>,
    /// The first batch of records, to the end of what is read.
    pub(super) batch: Spot,
    /// The first error code that is one.
    pub(super) error: i16,
}

/// Goes through the fields of a body that begins at `at`; `is_flexible` is whether its version has
/// short lengths and tagged fields.
pub(super) fn walk(
    layout: &[Step],
    version: u8,
    is_flexible: bool,
    bytes: &[u8],
    at: usize,
) -> Found {
    let reader = Reader { bytes, at, is_flexible };
    let mut walk = Walk { reader, found: Found::default(), records: Some(0), is_seen: false };
    if walk.run(layout, version) == Some(End::Whole) && walk.is_seen {
        walk.found.records = walk.records;
    }
    walk.found
}

/// How far a walk went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Enough,
}

struct Walk<'b> {
    reader: Reader<'b>,
    found: Found,
    /// None once a batch does not say how many it has.
    records: Option<u32>,
    /// There are batches.
    is_seen: bool,
}

/// An array that is gone through.
#[derive(Clone, Copy, Default)]
struct Array {
    /// Its first field's place in the layout.
    begin: usize,
    count: u32,
    left: u32,
}

impl Walk<'_> {
    /// None when the bytes end before the fields do, or make no sense.
    fn run(&mut self, layout: &[Step], version: u8) -> Option<End> {
        let mut arrays = [Array::default(); DEPTH_MAX];
        let (mut depth, mut place) = (0, 0);
        for _ in 0..FIELDS_MAX {
            let Some(step) = layout.get(place) else { return Some(End::Whole) };
            place += 1;
            let applies = step.from <= version && version <= step.to;
            match step.field {
                Field::Open => {
                    let count = if applies { self.reader.count()? } else { 0 };
                    if count == 0 {
                        place = behind(layout, place);
                    } else {
                        *arrays.get_mut(depth)? = Array { begin: place, count, left: count };
                        depth += 1;
                    }
                }
                Field::Close => {
                    self.reader.skip_tags()?;
                    let array = arrays.get_mut(depth.checked_sub(1)?)?;
                    array.left -= 1;
                    if array.left > 0 {
                        place = array.begin;
                    } else {
                        depth -= 1;
                    }
                }
                _ if !applies => {}
                Field::Stop => return Some(End::Enough),
                Field::Topic => {
                    if self.found.topics == 0 {
                        self.found.topics = arrays.get(depth.checked_sub(1)?)?.count;
                    }
                    let topic = self.reader.text()?;
                    if self.found.topic.len == 0 {
                        self.found.topic = topic;
                    }
                }
                Field::Records => {
                    self.records()?;
                    // What lies behind the last of them may be beyond the bytes that are here.
                    if arrays[..depth].iter().all(|array| array.left == 1) {
                        return Some(End::Whole);
                    }
                }
                Field::Error => {
                    self.found.error = self.reader.error()?;
                    if self.found.error != 0 {
                        return Some(End::Enough);
                    }
                }
                other => self.plain(other)?,
            }
        }
        None
    }

    /// A field that has no part in where the next one is found in the layout.
    fn plain(&mut self, field: Field) -> Option<()> {
        match field {
            Field::Skip(len) => self.reader.skip(len.into()),
            Field::Skips(len) => {
                let count = self.reader.count()?;
                self.reader.skip(usize::try_from(count).ok()?.checked_mul(len.into())?)
            }
            Field::Text => self.reader.text().map(|_| ()),
            Field::Bytes => self.reader.skip_bytes(),
            Field::Group => {
                let group = self.reader.text()?;
                if self.found.group.len == 0 {
                    self.found.group = group;
                }
                Some(())
            }
            Field::Topics | Field::Groups => self.names(matches!(field, Field::Topics)),
            _ => None,
        }
    }

    /// An array of names.
    fn names(&mut self, are_topics: bool) -> Option<()> {
        let count = self.reader.count()?;
        if count > 0 {
            let first = self.reader.text()?;
            if are_topics {
                (self.found.topic, self.found.topics) = (first, count);
            } else {
                self.found.group = first;
            }
        }
        (1..count).try_for_each(|_| self.reader.text().map(|_| ()))
    }

    /// A batch as producers send it: one for each partition.
    fn records(&mut self) -> Option<()> {
        let len = self.reader.bytes_len()?;
        let batch = self.reader.bytes.get(self.reader.at..).unwrap_or_default();
        let in_batch = match (batch.get(MAGIC_AT), batch.get(RECORDS_AT..)) {
            (Some(2), Some(rest)) => rest.first_chunk().map(|count| u32::from_be_bytes(*count)),
            _ => None,
        };
        if !self.is_seen {
            self.found.batch = Spot::new(self.reader.at, len.min(batch.len()));
        }
        self.is_seen = true;
        self.records = if len == 0 {
            self.records
        } else {
            in_batch.and_then(|it| it.checked_add(self.records?))
        };
        self.reader.skip(len)
    }
}

/// Where a record batch says its version, and how many records it has:
/// <https://kafka.apache.org/documentation/#recordbatch>.
const MAGIC_AT: usize = 16;
const RECORDS_AT: usize = 57;

/// The place behind the array whose first field is at `place`.
fn behind(layout: &[Step], mut place: usize) -> usize {
    let mut depth = 1;
    while let Some(step) = layout.get(place).filter(|_| depth > 0) {
        match step.field {
            Field::Open => depth += 1,
            Field::Close => depth -= 1,
            _ => {}
        }
        place += 1;
    }
    place
}

/// Reads fields.
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    is_flexible: bool,
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8], at: usize, is_flexible: bool) -> Self {
        Self { bytes, at, is_flexible }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn take<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let taken = *self.bytes.get(self.at..)?.first_chunk()?;
        self.at += LEN;
        Some(taken)
    }

    fn skip(&mut self, len: usize) -> Option<()> {
        self.at = self.at.checked_add(len)?;
        Some(())
    }

    /// An unsigned number in groups of seven bits, the lowest first.
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).ok();
            }
        }
        None
    }

    /// The number of elements; of null, none.
    fn count(&mut self) -> Option<u32> {
        if self.is_flexible {
            return Some(self.varint()?.saturating_sub(1));
        }
        let count = i32::from_be_bytes(self.take()?);
        if count == -1 { Some(0) } else { u32::try_from(count).ok() }
    }

    pub(super) fn error(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    /// A string; null is an empty one.
    pub(super) fn text(&mut self) -> Option<Spot> {
        let len = if self.is_flexible {
            usize::try_from(self.varint()?).ok()?.saturating_sub(1)
        } else {
            match i16::from_be_bytes(self.take()?) {
                -1 => 0,
                len => usize::try_from(len).ok()?,
            }
        };
        let spot = Spot::new(self.at, len);
        self.bytes.get(self.at..self.at + len)?;
        self.at += len;
        Some(spot)
    }

    fn bytes_len(&mut self) -> Option<usize> {
        usize::try_from(self.count()?).ok()
    }

    fn skip_bytes(&mut self) -> Option<()> {
        let len = self.bytes_len()?;
        self.skip(len)
    }

    /// The tagged fields at the end of every structure of a flexible version.
    pub(super) fn skip_tags(&mut self) -> Option<()> {
        if !self.is_flexible {
            return Some(());
        }
        let count = self.varint()?;
        for _ in 0..count {
            self.varint()?;
            let len = usize::try_from(self.varint()?).ok()?;
            self.skip(len)?;
        }
        Some(())
    }
}
