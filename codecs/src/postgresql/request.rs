//! The way of the requests.

mod startup;

use super::statements::Statements;
use super::{EARLY, EXTENDED, SYNC, Start, mark};
use crate::codec::{Event, Head, Kind, Reason, Spot, size};
use crate::limits::Limits;
use crate::sql::{self, Summary};

/// The longest name of a database.
const DATABASE_MAX: usize = 63;
/// Bytes of a told head: the database, the summary, and a trace context, of which the first byte is 0
/// where there is none.
const TOLD_LEN: usize = CONTEXT_AT + CONTEXT_LEN;
const CONTEXT_AT: usize = DATABASE_MAX + sql::SUMMARY_MAX;
const CONTEXT_LEN: usize = 55;

/// Begins the mark of a statement's name, and of a portal's.
const STATEMENT: u64 = 0xcbf2_9ce4_8422_2325;
const PORTAL: u64 = 0x8422_2325_cbf2_9ce4;

/// Where in the stream of requests.
#[derive(Debug, Default)]
pub(super) struct RequestSide {
    phase: Phase,
    start: Start,
    /// The type of the message under way, 0 between two.
    kind: u8,
    part: Part,
    /// The message under way has been told; what is left is its body.
    is_told: bool,
    /// Bytes of it that are still to come.
    left: u64,
    field: Field,
    /// Bytes of the text under way that are still looked at.
    budget: u32,
    cycle: Cycle,
    /// What one byte of the server will say yes or no to.
    pub(super) negotiation: Option<Negotiation>,
    /// The connection has begun as one of this protocol does.
    pub(super) has_begun: bool,
    /// The server has asked for the data of a `COPY` when the cycle's `Sync` was sent already,
    /// which it takes no notice of.
    pub(super) owes_sync: bool,
    /// What the server said last of the state of the transaction, 0 where it has not yet.
    pub(super) transaction: u8,
    database: Box<[u8]>,
    statements: Statements,
    texts: Option<Box<Texts>>,
}

/// What is to be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Negotiation {
    Tls,
    Gss,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// A packet without a type.
    #[default]
    Startup,
    /// The parameters of a startup.
    Parameters,
    /// The rest of a cancel.
    Cancel,
    Messages,
}

/// What a message is a part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// The request under way.
    #[default]
    Cycle,
    /// The one before, which is whole: passwords of a startup, data of a `COPY`.
    Late,
    /// Nothing.
    Nothing,
}

/// Where in the message under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field {
    /// What is left is not looked at.
    #[default]
    Rest,
    /// The name of a statement, before its text.
    Parsed(u64),
    /// The text of a statement with this name.
    Text(u64),
    /// The name of a portal, then that of the statement that it is made of.
    BoundPortal(u64),
    BoundStatement {
        portal: u64,
        statement: u64,
    },
    /// The portal that is run.
    Executed(u64),
    /// What kind of name follows.
    NamedKind,
    Named(u64),
    /// The name of a parameter: its first letters.
    Parameter {
        word: u64,
        len: u8,
    },
    /// The value of one; whether it is the database, or may be.
    Value {
        is_database: bool,
    },
}

/// What came since the last `Sync`.
#[derive(Clone, Copy, Debug, Default)]
struct Cycle {
    is_open: bool,
    /// It was told before its `Sync` had come, which ends it.
    is_told: bool,
    /// Bytes of it so far.
    bytes: u32,
    has_parse: bool,
    has_bind: bool,
    has_close: bool,
    /// The name that was described last.
    described: Option<u64>,
}

/// What is long, and what a connection that idles does without.
#[derive(Debug)]
struct Texts {
    /// Of the text under way, and then of the last one.
    text: Summary,
    /// Of all that was bound in the cycle.
    cycle: Summary,
    told: [u8; TOLD_LEN],
    database_len: usize,
}

/// What `Parse`, `Describe` and `Close` without a `Bind` are told as: by the word for them.
const OF_PROTOCOL: Spot = Spot { at: 1, len: 0 };

/// The trace context that a comment of the text carries.
pub(super) fn traceparent(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(CONTEXT_AT..).filter(|context| context.first().is_some_and(|first| *first != 0))
}

pub(super) fn is_of_protocol(head: &Head) -> bool {
    head.extra == OF_PROTOCOL
}

impl RequestSide {
    #[inline]
    pub(super) fn advance(&mut self, input: &[u8], limits: &Limits, head: &mut Head) -> Event {
        if self.phase != Phase::Messages {
            return self.advance_startup(input, head);
        }
        if self.is_told {
            return self.body(input.len());
        }
        let mut at = 0;
        loop {
            if self.kind == 0 {
                match self.begin(input, at, limits) {
                    Ok(taken) => at += taken,
                    Err(event) => return event,
                }
            }
            at += self.read(&input[at..], limits);
            if let Some(told) = self.told_by_itself() {
                *head = told;
                self.is_told = self.left > 0;
                self.kind = if self.is_told { self.kind } else { 0 };
                return head_event(at, !self.is_told);
            }
            if self.is_due(limits) {
                *head = self.tell_cycle(EARLY);
                self.cycle.is_told = true;
                self.kind = if self.left > 0 { self.kind } else { 0 };
                return head_event(at, false);
            }
            if self.left > 0 {
                return self.gone(at, false, at == input.len());
            }
            if let Some(event) = self.end_message(at, head) {
                return event;
            }
        }
    }

    /// So many bytes are no more than a part of something; whether they are all that there are.
    fn gone(&self, count: usize, whole: bool, is_all: bool) -> Event {
        match self.part {
            Part::Cycle if is_all && !self.cycle.is_told => Event::Need,
            Part::Cycle => Event::Body(count),
            Part::Late => Event::Late { count, whole },
            Part::Nothing => Event::Skip(count),
        }
    }

    fn body(&mut self, available: usize) -> Event {
        let count = size(self.left).min(available);
        if self.passed(count as u64) { Event::End(count) } else { Event::Body(count) }
    }

    /// The first bytes of a message at `at`; returns how many they are, or the event of those
    /// before it.
    #[inline]
    fn begin(&mut self, input: &[u8], at: usize, limits: &Limits) -> Result<usize, Event> {
        let first = match input.get(at) {
            None => return Err(self.gone(at, true, true)),
            Some(_) if self.start.len > 0 => self.start.bytes[0],
            Some(first) => *first,
        };
        let part = match first {
            b'P' | b'B' | b'D' | b'E' | b'C' | b'Q' | b'F' => Part::Cycle,
            b'H' | b'd' | b'c' | b'f' if self.cycle.is_open => Part::Cycle,
            b'S' if !self.owes_sync => Part::Cycle,
            b'S' | b'p' | b'd' | b'c' | b'f' => Part::Late,
            b'H' | b'X' => Part::Nothing,
            _ => return Err(Event::Not(Reason::Malformed)),
        };
        if at > 0 && part != self.part {
            return Err(self.gone(at, true, false));
        }
        self.part = part;
        let taken = self.start.fill(&input[at..], 5);
        let (kind, left) = match self.start.take(limits) {
            None => return Err(self.gone(at + taken, false, true)),
            Some(Err(reason)) => return Err(Event::Not(reason)),
            Some(Ok(known)) => known,
        };
        if matches!(kind, b'S' | b'H' | b'X' | b'c') && left > 0 {
            return Err(Event::Not(Reason::Malformed));
        }
        (self.kind, self.left) = (kind, left);
        self.field = match kind {
            b'Q' => Field::Text(STATEMENT),
            b'P' => Field::Parsed(STATEMENT),
            b'B' => Field::BoundPortal(PORTAL),
            b'E' => Field::Executed(PORTAL),
            b'D' | b'C' => Field::NamedKind,
            _ => Field::Rest,
        };
        if self.part == Part::Cycle {
            self.cycle.is_open = true;
            self.cycle.bytes = self.cycle.bytes.saturating_add(5);
        }
        if matches!(kind, b'Q' | b'P') {
            self.budget = limits.message_head_bytes_max;
            self.texts().text.clear();
        }
        Ok(taken)
    }

    /// Goes through as much of the message as there is.
    #[inline]
    fn read(&mut self, input: &[u8], limits: &Limits) -> usize {
        let mut count = size(self.left).min(input.len());
        if self.is_cycle() && !self.cycle.is_told {
            // It is told by as much of it however its bytes were cut.
            count =
                count.min(limits.message_head_bytes_max.saturating_sub(self.cycle.bytes) as usize);
            self.cycle.bytes += u32::try_from(count).unwrap_or(0);
        }
        let mut rest = &input[..count];
        while !rest.is_empty() && self.field != Field::Rest {
            let taken = match self.field {
                Field::Text(statement) => self.read_text(rest, statement),
                _ => self.read_name(rest),
            };
            rest = &rest[taken..];
        }
        self.left -= count as u64;
        count
    }

    fn read_text(&mut self, bytes: &[u8], statement: u64) -> usize {
        let window = &bytes[..bytes.len().min(self.budget as usize)];
        let end = memchr::memchr(0, window);
        let count = end.unwrap_or(window.len());
        self.texts().text.push(&window[..count]);
        self.budget -= u32::try_from(count).unwrap_or(self.budget);
        if end.is_some() {
            self.texts().text.end();
        }
        if end.is_some() || self.budget == 0 {
            self.field = Field::Rest;
            if self.kind == b'P' {
                self.remember(statement);
            }
        }
        count + usize::from(end.is_some())
    }

    fn remember(&mut self, statement: u64) {
        if let Some(texts) = &self.texts {
            self.statements.put(statement, texts.text.as_bytes(), texts.text.operation());
        }
    }

    /// Names are told apart by their mark, which each byte goes into.
    fn read_name(&mut self, bytes: &[u8]) -> usize {
        if self.field == Field::NamedKind {
            self.field = match bytes[0] {
                b'S' => Field::Named(STATEMENT),
                b'P' => Field::Named(PORTAL),
                _ => Field::Rest,
            };
            return 1;
        }
        let end = memchr::memchr(0, bytes);
        let name = &bytes[..end.unwrap_or(bytes.len())];
        let of = |begin: u64| name.iter().fold(begin, |so_far, byte| mark(so_far, *byte));
        self.field = match self.field {
            Field::Parsed(statement) => Field::Parsed(of(statement)),
            Field::BoundPortal(portal) => Field::BoundPortal(of(portal)),
            Field::BoundStatement { portal, statement } => {
                Field::BoundStatement { portal, statement: of(statement) }
            }
            Field::Executed(portal) => Field::Executed(of(portal)),
            Field::Named(name) => Field::Named(of(name)),
            other => other,
        };
        match end {
            Some(end) => {
                self.end_name();
                end + 1
            }
            None => bytes.len(),
        }
    }

    fn end_name(&mut self) {
        self.field = match self.field {
            Field::Parsed(statement) => {
                self.cycle.has_parse = true;
                Field::Text(statement)
            }
            Field::BoundPortal(portal) => Field::BoundStatement { portal, statement: STATEMENT },
            Field::BoundStatement { portal, statement } => {
                self.bind(statement);
                if portal != PORTAL
                    && let Some(summed) = self.statements.get(statement)
                {
                    self.statements.put(portal, summed.text(), summed.operation);
                }
                Field::Rest
            }
            Field::Executed(portal) => {
                if portal != PORTAL && !self.cycle.has_bind {
                    self.bind(portal);
                }
                Field::Rest
            }
            Field::Named(name) if self.kind == b'D' => {
                self.cycle.described = Some(name);
                Field::Rest
            }
            Field::Named(name) => {
                self.cycle.has_close = true;
                self.statements.remove(name);
                Field::Rest
            }
            _ => Field::Rest,
        };
    }

    /// The cycle does what this statement or portal does.
    fn bind(&mut self, name: u64) {
        self.cycle.has_bind = true;
        if let Some(summed) = self.statements.get(name) {
            self.texts().cycle.add(summed.text(), summed.operation);
        }
    }

    /// A message of an extended cycle is under way.
    fn is_cycle(&self) -> bool {
        self.part == Part::Cycle && !matches!(self.kind, b'Q' | b'F')
    }

    /// A cycle has been told whose `Sync` has not come.
    pub(super) fn is_within_cycle(&self) -> bool {
        self.cycle.is_told
    }

    /// A cycle is to be told before its `Sync`: its client may wait for what it has asked so far, or
    /// no more of it is looked at.
    #[inline]
    fn is_due(&self, limits: &Limits) -> bool {
        let is_flush = self.kind == b'H' && self.left == 0;
        let is_long = self.cycle.bytes >= limits.message_head_bytes_max;
        (is_flush || is_long) && self.is_cycle() && self.kind != b'S' && !self.cycle.is_told
    }

    /// What is told before its message is whole: as much of its text as is looked at has come.
    #[inline]
    fn told_by_itself(&mut self) -> Option<Head> {
        match self.kind {
            _ if self.cycle.is_told => None,
            b'Q' if self.field == Field::Rest || self.left == 0 => {
                let operation = self.texts().text.operation();
                self.clear_cycle();
                Some(self.tell(Kind::Request, operation, Which::Text))
            }
            b'F' => {
                self.clear_cycle();
                Some(self.tell(Kind::Request, sql::operation("CALL"), Which::None))
            }
            _ => None,
        }
    }

    /// A message is whole behind `at`; returns what is to be told of it.
    #[inline]
    fn end_message(&mut self, at: usize, head: &mut Head) -> Option<Event> {
        match std::mem::take(&mut self.kind) {
            b'S' if self.part == Part::Late => {
                self.owes_sync = false;
                None
            }
            // A query without it ends a cycle as well.
            b'S' | b'Q' | b'F' if self.cycle.is_told => {
                self.clear_cycle();
                Some(Event::End(at))
            }
            b'S' => {
                *head = self.tell_cycle(0);
                self.clear_cycle();
                Some(head_event(at, true))
            }
            b'X' => {
                self.end_connection();
                Some(Event::Skip(at))
            }
            _ => None,
        }
    }

    /// Tells the cycle as far as it has come: with its `Sync`, or early.
    fn tell_cycle(&mut self, note: u32) -> Head {
        let Cycle { has_parse, has_bind, has_close, described, .. } = self.cycle;
        let described = described.and_then(|name| self.statements.get(name));
        let texts = self.texts();
        let cycle_operation = texts.cycle.operation();
        let mut head = if has_bind {
            self.tell(Kind::Request, cycle_operation, Which::Cycle)
        } else if has_parse && note == EARLY {
            // It is to be executed next.
            let operation = texts.text.operation();
            self.tell(Kind::Request, operation, Which::Text)
        } else if has_parse {
            Head { extra: OF_PROTOCOL, ..self.tell(Kind::Request, PREPARE, Which::Text) }
        } else if let Some(summed) = described {
            texts.cycle.add(summed.text(), summed.operation);
            Head { extra: OF_PROTOCOL, ..self.tell(Kind::Request, DESCRIBE, Which::Cycle) }
        } else {
            let operation = match (self.cycle.described, has_close) {
                (Some(_), _) => DESCRIBE,
                (None, true) => sql::operation("DEALLOCATE"),
                (None, false) => SYNC,
            };
            self.tell(Kind::Request, operation, Which::None)
        };
        head.note = EXTENDED | note;
        head
    }

    fn clear_cycle(&mut self) {
        self.cycle = Cycle::default();
        if let Some(texts) = &mut self.texts {
            texts.cycle.clear();
        }
    }

    fn tell(&mut self, kind: Kind, operation: u8, which: Which) -> Head {
        // Of what was prepared before, the text is another request's.
        let has_text = self.kind == b'Q' || self.cycle.has_parse;
        let texts = self.texts();
        match texts.text.traceparent().filter(|_| has_text) {
            Some(context) => texts.told[CONTEXT_AT..].copy_from_slice(context),
            None => texts.told[CONTEXT_AT] = 0,
        }
        let summary = match which {
            Which::Text => texts.text.as_bytes(),
            Which::Cycle => texts.cycle.as_bytes(),
            Which::None => b"",
        };
        texts.told[DATABASE_MAX..DATABASE_MAX + summary.len()].copy_from_slice(summary);
        Head {
            kind,
            operation,
            service: Spot::new(0, texts.database_len),
            method: Spot::new(DATABASE_MAX, summary.len()),
            status: self.transaction.into(),
            ..Head::default()
        }
    }

    fn texts(&mut self) -> &mut Texts {
        self.texts.get_or_insert_with(|| Texts::new(&self.database))
    }

    /// Nothing follows `Terminate`; if it does, it is another connection's.
    fn end_connection(&mut self) {
        self.statements.clear();
        self.clear_cycle();
        *self = Self {
            has_begun: self.has_begun,
            database: std::mem::take(&mut self.database),
            statements: std::mem::take(&mut self.statements),
            texts: self.texts.take(),
            ..Self::default()
        };
    }

    pub(super) fn passable(&self) -> u64 {
        let is_known = self.part != Part::Cycle || self.cycle.is_told;
        let is_rest = self.kind != 0 && self.field == Field::Rest && is_known;
        let is_passed_over = self.is_told || is_rest;
        if is_passed_over && self.phase == Phase::Messages { self.left } else { 0 }
    }

    /// Returns whether a message that the books know of ended.
    pub(super) fn passed(&mut self, count: u64) -> bool {
        let was_under_way = self.left > 0;
        self.left = self.left.saturating_sub(count);
        if self.left > 0 || !was_under_way {
            return false;
        }
        self.kind = 0;
        std::mem::take(&mut self.is_told) || self.part == Part::Late
    }

    pub(super) fn told(&self) -> &[u8] {
        self.texts.as_ref().map_or(&[], |texts| &texts.told)
    }

    pub(super) fn held(&self) -> usize {
        self.statements.held()
    }

    pub(super) fn release_memory(&mut self) {
        self.statements.release_memory();
        let is_idle = self.kind == 0 && self.phase != Phase::Parameters;
        if is_idle && !self.cycle.is_open {
            self.texts = None;
        }
        if self.phase == Phase::Startup {
            self.database = Box::default();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Text,
    Cycle,
    None,
}

impl Texts {
    #[cold]
    fn new(database: &[u8]) -> Box<Self> {
        let mut told = [0; TOLD_LEN];
        let database_len = database.len().min(DATABASE_MAX);
        told[..database_len].copy_from_slice(&database[..database_len]);
        Box::new(Self { text: Summary::default(), cycle: Summary::default(), told, database_len })
    }
}

#[inline]
fn head_event(consumed: usize, whole: bool) -> Event {
    Event::Head { consumed, len: TOLD_LEN, held: true, whole }
}

const PREPARE: u8 = sql::operation("PREPARE");
const DESCRIBE: u8 = sql::operation("DESCRIBE");
