//! A prototype, to measure with: HTTP/1 as a [`Codec`], as far as plain heads, lengths, chunks and ends of
//! messages go. What the trait cannot say turns the connection into a tunnel: a body that ends with its
//! stream, another protocol in the middle.
//!
//! With the feature of the table ([`use_table`]) the fields of the last head stay in the table that was made
//! when its end was found, one for a shard, and whoever asks for pairs gets them from there. Without it the
//! lines are walked each time, as of every other codec.

use std::cell::{Cell, RefCell};

use crate::codec::{
    About, Asked, CannotEdit, Codec, Convention, Correlation, Edits, Event, Head, Held, Key, Kind,
    Leaves, Outcome, Pair, Pairs, Reason, Seen, Speaks, Spot, Way,
};
use crate::h1::body::{Advance, BodyCursor};
use crate::h1::fields::{Fields, Lengths};
use crate::h1::framing::Framing;
use crate::h1::head::{HeadReader, RequestKind};
use crate::h1::scan::{HeadKind, HeadScan, Scanned};
use crate::limits::Limits;

thread_local! {
    /// What a shard has once.
    static READER: RefCell<HeadReader> = RefCell::new(HeadReader::new(Limits::DEFAULT));
    static HAS_TABLE: Cell<bool> = const { Cell::new(false) };
    /// Fields of the request's head that was read last, and the lengths of their names.
    static LAST: Cell<(usize, Lengths)> = const { Cell::new((0, Lengths::NONE)) };
}

/// Whether pairs come from the table.
pub fn use_table(has: bool) {
    HAS_TABLE.with(|it| it.set(has));
}

/// The fields of the request's head that was told last, for as long as its bytes are there: what a trait
/// with an index beside [`Head`] would have.
pub fn with_fields<R>(bytes: &[u8], look: impl FnOnce(Fields<'_>) -> R) -> R {
    READER.with_borrow(|reader| {
        let (count, lengths) = LAST.get();
        look(reader.fields(bytes, count, lengths))
    })
}

/// Both ways of a connection.
#[derive(Debug, Default)]
pub struct Http1 {
    request: Side,
    response: Side,
}

#[derive(Debug, Default)]
struct Side {
    held: Held,
    scan: HeadScan,
    body: Option<BodyCursor>,
}

static ABOUT: About = About {
    name: "http1-codec",
    operations: &["GET", "HEAD", "POST", "PUT", "DELETE", "other"],
    port: 80,
    speaks: Speaks::ClientFirst,
    correlation: Correlation::Fifo,
    keys: &[Key::Service, Key::Method],
    carries_context: true,
    convention: Convention::Rpc("http"),
};

/// Notes of requests: what their answers' framing depends on.
const PLAIN: u32 = 1;
const OF_HEAD: u32 = 2;

impl Side {
    fn body(&mut self, input: &[u8]) -> Option<Event> {
        let cursor = self.body.as_mut()?;
        Some(match cursor.advance(input) {
            Advance::More => Event::Body(input.len()),
            Advance::End(count) => {
                self.body = None;
                Event::End(count)
            }
            Advance::Bad(..) => Event::Not(Reason::Malformed),
        })
    }

    /// What follows a head of so many bytes at the beginning of the input: as much of its body as is
    /// there goes with it, where its length is known.
    fn behind(
        &mut self,
        framing: Framing,
        len: usize,
        input: &[u8],
        limits: &Limits,
    ) -> (usize, bool) {
        match framing {
            Framing::Length(body) if body <= (input.len() - len) as u64 => {
                (len + usize::try_from(body).unwrap_or(0), true)
            }
            framing => {
                let mut cursor = BodyCursor::new(framing, limits);
                let mut taken = len;
                if matches!(framing, Framing::Length(_)) {
                    cursor.pass((input.len() - len) as u64);
                    taken = input.len();
                }
                self.body = Some(cursor);
                (taken, false)
            }
        }
    }

    /// A head that comes in pieces: gathered until its end is found.
    #[cold]
    fn gather(
        &mut self,
        (way, asked): (Way, Option<Asked>),
        input: &[u8],
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        let before = self.held.bytes().len();
        self.held.append(input);
        let kind = if way == Way::Request { HeadKind::Request } else { HeadKind::Response };
        match self.scan.scan(self.held.bytes(), kind, limits) {
            Err(_) => Event::Not(Reason::NotThisProtocol),
            Ok(Scanned::Partial) => Event::Need,
            Ok(Scanned::Complete(len)) => {
                self.scan = HeadScan::default();
                self.held.spend(len);
                let framing = READER.with_borrow_mut(|reader| {
                    let bytes = self.held.bytes();
                    match way {
                        Way::Request => {
                            let read = reader.read_request(bytes).ok()?;
                            let view = read.view(bytes, reader);
                            let place = (view.method().len(), view.target().len());
                            tell_request(head, place, view.fields(), read.kind)?;
                            (!read.asks_to_switch()).then_some(read.framing)
                        }
                        Way::Response => {
                            let read = reader.read_response(bytes).ok()?;
                            let view = read.view(bytes, reader);
                            let framing = view.framing(kind_of(asked)).ok()?;
                            tell_response(head, read.status, framing)
                        }
                    }
                });
                let Some(framing) = framing else { return Event::Not(Reason::Unsupported) };
                let whole = framing == Framing::Length(0);
                self.body = (!whole).then(|| BodyCursor::new(framing, limits));
                Event::Head { consumed: len - before, len, held: true, whole }
            }
        }
    }
}

fn kind_of(asked: Option<Asked>) -> RequestKind {
    match asked {
        Some(Asked { note: OF_HEAD, .. }) => RequestKind::Head,
        _ => RequestKind::Ordinary,
    }
}

fn tell_request(
    head: &mut Head,
    (method, target): (usize, usize),
    fields: Fields<'_>,
    kind: RequestKind,
) -> Option<()> {
    LAST.set((fields.len(), fields.lengths()));
    let name = fields.head().get(..method)?;
    let known = ABOUT.operations.iter().position(|known| known.as_bytes() == name);
    *head = Head {
        kind: Kind::Request,
        operation: u8::try_from(known.unwrap_or(ABOUT.operations.len() - 1)).unwrap_or(0),
        note: if kind == RequestKind::Head { OF_HEAD } else { PLAIN },
        method: Spot::new(0, method),
        extra: Spot::new(method + 1, target),
        ..Head::default()
    };
    (kind != RequestKind::Connect).then_some(())
}

fn tell_response(head: &mut Head, status: u16, framing: Framing) -> Option<Framing> {
    let is_interim = (100..200).contains(&status);
    *head = Head {
        kind: if is_interim { Kind::Part } else { Kind::Response },
        status: status.into(),
        outcome: if status >= 500 { Outcome::ProtocolError } else { Outcome::Ok },
        ..Head::default()
    };
    // The trait has no end of a stream.
    (status != 101 && framing != Framing::UntilClose).then_some(framing)
}

/// Each line of a head, by walking it: name and value, and where the line is.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, Pair<'_>)> {
    let mut at = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
    std::iter::from_fn(move || {
        let rest = bytes.get(at..)?;
        let end = memchr::memchr(b'\n', rest)?;
        let line = rest[..end].strip_suffix(b"\r")?;
        let colon = memchr::memchr(b':', line)?;
        let begin = at;
        at += end + 1;
        Some((begin, (&line[..colon], line[colon + 1..].trim_ascii())))
    })
}

impl Codec for Http1 {
    const ABOUT: &'static About = &ABOUT;
    const EDITS: bool = true;
    const MOVES: bool = true;

    #[inline]
    fn advance(
        &mut self,
        way: Way,
        input: &[u8],
        asked: Option<Asked>,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        let side = match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        };
        side.held.begin(limits);
        if let Some(event) = side.body(input) {
            return event;
        }
        if !side.held.is_empty() {
            return side.gather((way, asked), input, limits, head);
        }
        let told = READER.with_borrow_mut(|reader| match way {
            Way::Request => {
                let (len, read) = reader.plain_request(input)?;
                let view = read.view(&input[..len], reader);
                let place = (view.method().len(), view.target().len());
                let told = tell_request(head, place, view.fields(), read.kind);
                Some((len, told.filter(|()| !read.asks_to_switch()).map(|()| read.framing)))
            }
            Way::Response => {
                let (len, read) = reader.plain_response(input)?;
                let framing = read.plain_framing(kind_of(asked))?;
                Some((len, tell_response(head, read.status, framing)))
            }
        });
        match told {
            None => side.gather((way, asked), input, limits, head),
            Some((_, None)) => Event::Not(Reason::Unsupported),
            Some((len, Some(framing))) => {
                let (consumed, whole) = side.behind(framing, len, input, limits);
                Event::Head { consumed, len, held: false, whole }
            }
        }
    }

    fn passable(&self, way: Way) -> u64 {
        let side = if way == Way::Request { &self.request } else { &self.response };
        side.body.as_ref().map_or(0, BodyCursor::passable)
    }

    fn passed(&mut self, way: Way, count: u64) -> bool {
        let side = if way == Way::Request { &mut self.request } else { &mut self.response };
        let Some(cursor) = &mut side.body else { return false };
        cursor.pass(count);
        let is_end = cursor.is_end();
        if is_end {
            side.body = None;
        }
        is_end
    }

    fn held_head(&self, way: Way) -> &[u8] {
        let side = if way == Way::Request { &self.request } else { &self.response };
        side.held.bytes()
    }

    fn held(&self) -> usize {
        self.request.held.len() + self.response.held.len()
    }

    fn release_memory(&mut self) {
        self.request.held.release_memory();
        self.response.held.release_memory();
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        match key {
            Key::Method => head.extra.of(bytes),
            Key::Service => named(bytes, b"host"),
            Key::ClientId => named(bytes, b"user-agent"),
            _ => None,
        }
    }

    fn pairs<'b>(_: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        if HAS_TABLE.with(Cell::get) {
            return READER.with_borrow(|reader| {
                (0..LAST.get().0).for_each(|index| take(reader.pair(index, bytes)));
            });
        }
        lines(bytes).for_each(|(_, pair)| take(pair));
    }

    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        [head.method.of(bytes).unwrap_or_default(), b"", b""]
    }

    fn edit(_: &Head, bytes: &[u8], pairs: &Pairs, edits: &mut Edits) -> Result<(), CannotEdit> {
        let mut seen = Seen::default();
        let mut set = |begin: usize, name: &[u8], end: usize| {
            let Some(place) = pairs.find(name) else { return Ok(()) };
            seen.note(place);
            let value = pairs.iter().nth(place).map_or(&b""[..], |(_, value)| value);
            edits.replace(begin + name.len() + 1..end, &[b" ", value])
        };
        if HAS_TABLE.with(Cell::get) {
            READER.with_borrow(|reader| {
                let count = LAST.get().0;
                (0..count).try_for_each(|index| {
                    let (begin, name, end) = reader.line(index, count, bytes);
                    set(begin, name, end)
                })
            })?;
        } else {
            for (begin, (name, _)) in lines(bytes) {
                let end = memchr::memchr(b'\r', &bytes[begin..]).map_or(begin, |at| begin + at);
                set(begin, name, end)?;
            }
        }
        let at = bytes.len() - 2;
        for (place, (name, value)) in pairs.iter().enumerate() {
            if !seen.has(place) {
                edits.replace(at..at, &[name, b": ", value, b"\r\n"])?;
            }
        }
        Ok(())
    }

    fn leaves(_: &Head, _: &[u8]) -> Leaves {
        Leaves::Nothing
    }
}

fn named<'b>(bytes: &'b [u8], wanted: &[u8]) -> Option<&'b [u8]> {
    if HAS_TABLE.with(Cell::get) {
        return READER.with_borrow(|reader| reader.find(wanted, LAST.get(), bytes));
    }
    let mut all = lines(bytes).map(|(_, pair)| pair);
    all.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
}
