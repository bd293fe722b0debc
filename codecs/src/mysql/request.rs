//! The way of the commands.

use super::attributes;
use super::commands::{self, Reply};
use super::session::{Phase, Session, capability};
use super::wire::{Bytes, HEAD, PacketHead};
use crate::codec::{Event, Head, Held, Kind, Reason, Spot};
use crate::limits::Limits;
use crate::sql::{Dialect, Summary};

/// Set in what a request leaves behind when it has more than one packet, so that nobody knows how
/// its answer is numbered.
pub(super) const IS_LONG: u32 = 1 << 16;

/// Set in what a request leaves behind when it asks for another database.
pub(super) const IS_DATABASE: u32 = 1 << 17;

/// The bytes of a packet before the number of a statement, and behind it.
const ID_AT: usize = HEAD + 1;
const ID_END: usize = ID_AT + 4;

/// Where in the stream of commands.
#[derive(Debug, Default)]
pub(super) struct RequestSide {
    pub(super) held: Held,
    /// What the text under way does; there is none until the first text.
    summary: Option<Box<Summary>>,
    text: Option<Text>,
    /// Bytes of the packet under way that are still to come.
    left: u32,
    /// Another packet of the same message follows.
    is_full: bool,
    /// Of a message whose head was told.
    is_within: bool,
    /// Of the head that was told last, if not its bytes as they came: what it does, then the
    /// database.
    told: Vec<u8>,
    is_told: bool,
}

/// A text that is being summed up.
#[derive(Clone, Copy, Debug)]
struct Text {
    command: u8,
    /// Bytes of it that are still to be read.
    left: u32,
    /// Whether that is all of it.
    is_whole: bool,
}

/// What the beginning of a packet says.
enum Want {
    /// Nothing until there are so many bytes.
    More(usize),
    /// Its head has so many bytes.
    Head(usize),
    /// The same, and has attributes in it.
    Kept(usize),
    /// A text begins behind so many bytes.
    Text(usize),
}

impl RequestSide {
    /// The bytes of the head that was told last.
    pub(super) fn shown(&self) -> &[u8] {
        if self.is_told { &self.told } else { self.held.bytes() }
    }

    pub(super) fn passable(&self) -> u64 {
        if self.is_within { self.left.into() } else { 0 }
    }

    /// Returns whether the message ended.
    pub(super) fn passed(&mut self, count: u64) -> bool {
        self.left = self.left.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        let is_end = self.is_within && self.left == 0 && !self.is_full;
        self.is_within &= !is_end;
        is_end
    }

    /// Gives back what is not in use.
    pub(super) fn release_memory(&mut self) {
        self.held.release_memory();
        if self.text.is_none() {
            self.summary = None;
            self.told = Vec::new();
        }
    }

    #[inline]
    pub(super) fn advance(
        &mut self,
        session: &mut Session,
        input: &[u8],
        limits: &Limits,
        out: &mut Head,
    ) -> Event {
        self.held.begin(limits);
        if self.is_within {
            return self.rest(input);
        }
        if self.text.is_some() {
            return self.read_text(session, input, 0, limits, out);
        }
        if !self.held.is_empty() {
            return self.gather(session, input, limits, out);
        }
        match want(session, input, limits) {
            Ok(Want::Head(len)) if len <= input.len() => {
                self.tell(session, (input, len), len, false, out)
            }
            Ok(Want::Text(at)) if at <= input.len() => {
                self.begin_text(input, at, limits);
                self.read_text(session, input, at, limits, out)
            }
            Ok(_) => self.gather(session, input, limits, out),
            Err(reason) => Event::Not(reason),
        }
    }

    /// A packet whose beginning came in pieces.
    #[cold]
    fn gather(
        &mut self,
        session: &mut Session,
        input: &[u8],
        limits: &Limits,
        out: &mut Head,
    ) -> Event {
        let mut taken = 0;
        loop {
            let want = match want(session, self.held.bytes(), limits) {
                Ok(want) => want,
                Err(reason) => return Event::Not(reason),
            };
            let (Want::More(len) | Want::Head(len) | Want::Kept(len) | Want::Text(len)) = want;
            taken += self.held.fill(&input[taken..], len);
            if self.held.bytes().len() < len {
                return Event::Need;
            }
            match want {
                Want::More(_) => {}
                Want::Head(_) => {
                    let held = std::mem::take(&mut self.held);
                    let event = self.tell(session, (held.bytes(), len), taken, true, out);
                    self.held = held;
                    self.held.spend(len);
                    return event;
                }
                Want::Kept(_) => return self.tell_attributed(session, len, taken, out),
                Want::Text(_) => {
                    let held = std::mem::take(&mut self.held);
                    self.begin_text(held.bytes(), len, limits);
                    self.held = held;
                    self.held.spend(0);
                    return self.read_text(session, input, taken, limits, out);
                }
            }
        }
    }

    /// The rest of a message whose head was told.
    fn rest(&mut self, input: &[u8]) -> Event {
        let mut at = 0;
        loop {
            let available = input.len() - at;
            let left = self.left as usize;
            if left > available {
                self.left -= u32::try_from(available).unwrap_or(self.left);
                return Event::Body(input.len());
            }
            at += left;
            self.left = 0;
            if !self.is_full {
                self.is_within = false;
                return Event::End(at);
            }
            let before = self.held.bytes().len();
            let taken = self.held.fill(&input[at..], HEAD);
            at += taken;
            if before + taken < HEAD {
                return Event::Body(input.len());
            }
            if let Some(packet) = PacketHead::of(self.held.bytes()) {
                (self.left, self.is_full) = (packet.len, packet.is_full());
            }
            self.held.clear();
            if self.left == 0 && !self.is_full {
                self.is_within = false;
                return Event::End(at);
            }
            if at == input.len() {
                return Event::Body(at);
            }
        }
    }

    /// A text begins behind the first `at` bytes of its packet.
    fn begin_text(&mut self, bytes: &[u8], at: usize, limits: &Limits) {
        let Some(packet) = PacketHead::of(bytes) else { return };
        let len = packet.len - u32::try_from(at - HEAD).unwrap_or(0);
        let left = len.min(limits.message_head_bytes_max);
        let is_whole = left == len && !packet.is_full();
        self.text = Some(Text { command: bytes[HEAD], left, is_whole });
        (self.left, self.is_full) = (len, packet.is_full());
        let summary = self.summary.get_or_insert_with(|| Box::new(Summary::new(Dialect::Mysql)));
        summary.clear();
    }

    /// Reads on in the text, behind the first `at` bytes of the input.
    #[inline]
    fn read_text(
        &mut self,
        session: &mut Session,
        input: &[u8],
        at: usize,
        limits: &Limits,
        out: &mut Head,
    ) -> Event {
        let (Some(text), Some(summary)) = (&mut self.text, &mut self.summary) else {
            return Event::Not(Reason::Malformed);
        };
        let rest = &input[at..];
        let count = rest.len().min(text.left as usize);
        summary.push(&rest[..count]);
        let read = u32::try_from(count).unwrap_or(text.left);
        text.left -= read;
        self.left -= read;
        if text.left > 0 {
            return Event::Need;
        }
        if text.is_whole {
            summary.end();
        }
        let command = text.command;
        self.text = None;
        let operation = commands::operation(command);
        let (summary, traceparent) = (summary.as_bytes(), summary.traceparent());
        let mut note = if self.is_full { IS_LONG } else { 0 };
        if command == commands::STMT_PREPARE {
            note |= u32::from(session.statements.ask(summary, limits.statements_max));
        }
        if let Some(name) = used(summary) {
            note |= IS_DATABASE;
            session.ask_for(name);
        }
        let head = Head { operation, note, ..Head::default() };
        let (head, mut len) = tell_of(&mut self.told, head, summary, session);
        if let Some(context) = traceparent {
            self.told.extend_from_slice(context);
            len += context.len();
        }
        self.is_told = true;
        let whole = self.begin_rest();
        *out = head;
        Event::Head { consumed: at + count, len, held: true, whole }
    }

    /// What is left of the packet is to follow; returns whether nothing is.
    fn begin_rest(&mut self) -> bool {
        let whole = self.left == 0 && !self.is_full;
        self.is_within = !whole;
        whole
    }

    /// Tells a message by its head, the first `len` of the bytes.
    #[inline]
    fn tell(
        &mut self,
        session: &mut Session,
        (bytes, len): (&[u8], usize),
        consumed: usize,
        held: bool,
        out: &mut Head,
    ) -> Event {
        let Some(packet) = PacketHead::of(bytes) else { return Event::Not(Reason::Malformed) };
        let mut told = match read(session, packet, &bytes[..len]) {
            Ok(told) => told,
            Err(reason) => return Event::Not(reason),
        };
        let (mut held, mut shown_len) = (held, len);
        self.is_told = told.head.kind.opens() && !told.has_database;
        if self.is_told {
            let text = told.statement.map_or(&b""[..], |place| session.statements.text(place));
            (told.head, shown_len) = tell_of(&mut self.told, told.head, text, session);
            held = true;
        }
        self.left = packet.len - u32::try_from(len - HEAD).unwrap_or(packet.len);
        // Each packet of a file stands for itself.
        self.is_full = packet.is_full() && !told.is_file;
        if self.is_full {
            told.head.note |= IS_LONG;
        }
        let whole = self.begin_rest();
        if told.is_file {
            return Event::Late { count: consumed, whole };
        }
        *out = told.head;
        Event::Head { consumed, len: shown_len, held, whole }
    }

    /// A text behind attributes, in a head of `len` bytes. Its summary is put behind them.
    fn tell_attributed(
        &mut self,
        session: &Session,
        len: usize,
        consumed: usize,
        out: &mut Head,
    ) -> Event {
        let bytes = self.held.bytes();
        let Some(packet) = PacketHead::of(bytes) else { return Event::Not(Reason::Malformed) };
        let operation = commands::operation(bytes[HEAD]);
        let summary = self.summary.get_or_insert_with(|| Box::new(Summary::new(Dialect::Mysql)));
        summary.clear();
        self.left = packet.len - u32::try_from(len - HEAD).unwrap_or(packet.len);
        self.is_full = packet.is_full();
        if let Some(text) = attributes::text_at(bytes).and_then(|at| bytes.get(at..)) {
            summary.push(text);
            if self.left == 0 && !self.is_full {
                summary.end();
            }
        }
        let (summary, traceparent) = (summary.as_bytes(), summary.traceparent());
        let head = Head {
            operation,
            note: if self.is_full { IS_LONG } else { 0 },
            method: Spot::new(len, summary.len()),
            service: Spot::new(len + summary.len(), session.database.as_bytes().len()),
            extra: Spot::new(0, len),
            ..Head::default()
        };
        self.held.append(summary);
        self.held.append(session.database.as_bytes());
        self.held.append(traceparent.unwrap_or_default());
        let len = head.service.end() + traceparent.map_or(0, <[u8]>::len);
        self.held.spend(len);
        self.is_told = false;
        let whole = self.begin_rest();
        *out = head;
        Event::Head { consumed, len, held: true, whole }
    }
}

/// Puts what a head is told of behind one another: what is done, and in which database.
fn tell_of(told: &mut Vec<u8>, head: Head, text: &[u8], session: &Session) -> (Head, usize) {
    let database = session.database.as_bytes();
    told.clear();
    told.extend_from_slice(text);
    told.extend_from_slice(database);
    let method = Spot::new(0, text.len());
    let service = Spot::new(text.len(), database.len());
    (Head { method, service, ..head }, told.len())
}

/// The trace context that a comment of the text carries: it is told behind all else.
pub(super) fn traceparent<'b>(head: &Head, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let has_text =
        matches!(commands::number(head.operation), commands::QUERY | commands::STMT_PREPARE);
    bytes.get(head.service.end()..).filter(|context| has_text && !context.is_empty())
}

/// The database that a text asks for, as its summary says.
fn used(summary: &[u8]) -> Option<&[u8]> {
    let name = match summary.split_at_checked(4)? {
        (word, name) if word.eq_ignore_ascii_case(b"use ") => name,
        _ => return None,
    };
    let quoted = name.strip_prefix(b"`").and_then(|name| name.strip_suffix(b"`"));
    Some(quoted.unwrap_or(name)).filter(|name| !name.contains(&b'`') && !name.contains(&b' '))
}

/// What a message is, and the statement that it is about.
struct Told {
    head: Head,
    statement: Option<u16>,
    /// Its own bytes have the name of the database.
    has_database: bool,
    /// It is data of a file.
    is_file: bool,
}

impl From<Head> for Told {
    fn from(head: Head) -> Self {
        Self { head, statement: None, has_database: false, is_file: false }
    }
}

/// How much of a packet is to be read, as its first bytes say.
#[inline]
fn want(session: &Session, bytes: &[u8], limits: &Limits) -> Result<Want, Reason> {
    if session.phase == Phase::Greeting {
        return before_greeting(bytes);
    }
    let Some(packet) = PacketHead::of(bytes) else { return Ok(Want::More(HEAD)) };
    let (len, head_max) = (packet.len as usize, limits.message_head_bytes_max as usize);
    if session.phase == Phase::Login {
        if matches!(bytes, [0x16, 3, 1..=4, ..]) {
            return Err(Reason::Tls);
        }
        if packet.sequence != 1 || len < 4 || HEAD + len > head_max {
            return Err(Reason::NotThisProtocol);
        }
        return Ok(Want::Head(HEAD + len));
    }
    if session.is_sending_file || packet.sequence != 0 {
        let is_expected = session.is_sending_file || session.is_asked;
        return if is_expected { Ok(Want::Head(HEAD)) } else { Err(Reason::Malformed) };
    }
    if len == 0 || session.has_quit {
        return Err(Reason::Malformed);
    }
    let Some(command) = bytes.get(HEAD) else { return Ok(Want::More(HEAD + 1)) };
    match *command {
        commands::QUERY if session.has(capability::QUERY_ATTRIBUTES) && len > 2 => {
            match bytes.get(HEAD + 1) {
                None => Ok(Want::More(HEAD + 2)),
                // No attribute, once.
                Some(0) => Ok(Want::Text(HEAD + 3)),
                Some(_) => Ok(Want::Kept((HEAD + len).min(head_max))),
            }
        }
        commands::QUERY | commands::STMT_PREPARE => Ok(Want::Text(HEAD + 1)),
        commands::INIT_DB | commands::CHANGE_USER => Ok(Want::Head((HEAD + len).min(head_max))),
        commands::STMT_EXECUTE
        | commands::STMT_SEND_LONG_DATA
        | commands::STMT_CLOSE
        | commands::STMT_RESET
        | commands::STMT_FETCH
        | commands::STMT_BULK_EXECUTE => {
            if HEAD + len < ID_END {
                return Err(Reason::Malformed);
            }
            Ok(Want::Head(ID_END))
        }
        _ => Ok(Want::Head(HEAD + 1)),
    }
}

/// A client that does not wait for the greeting is of another protocol.
#[cold]
fn before_greeting(bytes: &[u8]) -> Result<Want, Reason> {
    match bytes {
        [] => Ok(Want::More(1)),
        [0x16] => Ok(Want::More(2)),
        [0x16, 3, ..] => Err(Reason::Tls),
        _ => Err(Reason::NotThisProtocol),
    }
}

/// What a message is, and what it changes.
#[inline]
fn read(session: &mut Session, packet: PacketHead, bytes: &[u8]) -> Result<Told, Reason> {
    if session.phase == Phase::Login {
        let own = session.agree(&bytes[HEAD..])?;
        let kind = Kind::Handshake;
        let service = login_database(own, bytes);
        let note = ask_for(session, service, bytes);
        let head = Head { kind, operation: commands::LOGIN, note, service, ..Head::default() };
        return Ok(Told { has_database: true, ..head.into() });
    }
    if session.is_sending_file {
        session.is_sending_file = packet.len > 0;
        return Ok(Told { is_file: true, ..Head::default().into() });
    }
    if packet.sequence != 0 {
        return Ok(Head { kind: Kind::Callback, ..Head::default() }.into());
    }
    let command = bytes[HEAD];
    let operation = commands::operation(command);
    let mut head = Head { operation, ..Head::default() };
    match commands::reply(operation) {
        Reply::Nothing => head.kind = Kind::Oneway,
        Reply::Login => head.kind = Kind::Handshake,
        Reply::Replication => return Err(Reason::Replication),
        Reply::Unread => return Err(Reason::Unsupported),
        _ => {}
    }
    let (mut statement, mut has_database) = (None, false);
    match command {
        commands::INIT_DB => {
            head.service = Spot::new(HEAD + 1, bytes.len() - HEAD - 1);
            head.note = ask_for(session, head.service, bytes);
            has_database = true;
        }
        commands::CHANGE_USER => {
            head.service = changed_database(session, bytes);
            head.note = ask_for(session, head.service, bytes);
            has_database = true;
            session.is_asked = true;
            session.statements.clear();
        }
        commands::QUIT => {
            session.has_quit = true;
            session.statements.clear();
        }
        commands::RESET_CONNECTION => session.statements.clear(),
        commands::STMT_EXECUTE
        | commands::STMT_SEND_LONG_DATA
        | commands::STMT_CLOSE
        | commands::STMT_RESET
        | commands::STMT_FETCH
        | commands::STMT_BULK_EXECUTE => {
            let id = Bytes::new(bytes, ID_AT).number(4).and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or(Reason::Malformed)?;
            statement = session.statements.find(id);
            if command == commands::STMT_CLOSE {
                session.statements.close(id);
            }
        }
        _ => {}
    }
    Ok(Told { head, statement, has_database, is_file: false })
}

/// The client asks for the database at a place of the head.
fn ask_for(session: &mut Session, place: Spot, bytes: &[u8]) -> u32 {
    session.ask_for(place.of(bytes).unwrap_or_default());
    IS_DATABASE
}

/// Where in what the client says of itself the name of the database is. Behind its capabilities
/// and a filler come a name, and a proof that is never looked at.
fn login_database(own: u64, bytes: &[u8]) -> Spot {
    let find = || {
        if own & capability::CONNECT_WITH_DB == 0 {
            return None;
        }
        let mut rest = Bytes::new(bytes, HEAD + 4 + 4 + 1 + 23);
        rest.text()?;
        if own & capability::LENENC_AUTH != 0 {
            rest.string()?;
        } else if own & capability::SECURE_CONNECTION != 0 {
            let len = rest.number(1)?;
            rest.take(crate::codec::size(len))?;
        } else {
            rest.text()?;
        }
        let at = rest.at();
        Some(Spot::new(at, rest.text()?.len()))
    };
    find().unwrap_or_default()
}

fn changed_database(session: &Session, bytes: &[u8]) -> Spot {
    let find = || {
        let mut rest = Bytes::new(bytes, HEAD + 1);
        rest.text()?;
        if session.has(capability::SECURE_CONNECTION) {
            let len = rest.number(1)?;
            rest.take(crate::codec::size(len))?;
        } else {
            rest.text()?;
        }
        let at = rest.at();
        Some(Spot::new(at, rest.text()?.len()))
    };
    find().unwrap_or_default()
}
