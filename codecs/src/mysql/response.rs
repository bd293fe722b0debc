//! The way of the answers.

use super::commands::{self, Reply};
use super::request::{IS_DATABASE, IS_LONG};
use super::results::{Expect, Is, Packet, Seen, see};
use super::session::{Phase, Session, status};
use super::wire::{HEAD, PacketHead};
use crate::codec::{Asked, Event, Head, Held, Kind, Outcome, Reason, Said, Spot};

/// Bytes of a packet that are read: of OK a zero, two numbers, and the status.
const READ_MAX: usize = 1 + 9 + 9 + 2;
/// What is noted of an answer's status.
const IN_TRANSACTION: u32 = 1;
const NO_TRANSACTION: u32 = 2;
/// The longest greeting; real ones have about a hundred bytes.
const GREETING_MAX: u32 = 1024;

/// Where in the stream of answers.
#[derive(Debug, Default)]
pub(super) struct ResponseSide {
    pub(super) held: Held,
    /// Bytes of the packet under way that are still to come.
    left: u32,
    /// The next packet continues this one.
    is_full: bool,
    /// The packet under way is the last of its message.
    is_last: bool,
    /// The head of the answer under way was told.
    is_told: bool,
    /// The number of the next packet, if it is known.
    sequence: Option<u8>,
    /// What the next packet is; None where no answer is under way.
    expect: Option<Expect>,
    reply: Reply,
    /// The number of the statement that is being prepared.
    statement: u16,
    /// Another database is in use if all goes well.
    is_database: bool,
}

impl ResponseSide {
    pub(super) fn passable(&self) -> u64 {
        self.left.into()
    }

    /// Returns whether the message ended.
    pub(super) fn passed(&mut self, count: u64) -> bool {
        let was_under_way = self.left > 0;
        self.left = self.left.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        was_under_way && self.ends()
    }

    /// Whether the message ends here.
    fn ends(&mut self) -> bool {
        self.left == 0 && std::mem::take(&mut self.is_last)
    }

    #[inline]
    pub(super) fn advance(
        &mut self,
        session: &mut Session,
        input: &[u8],
        asked: Option<Asked>,
        limits: &crate::Limits,
        out: &mut Head,
    ) -> Event {
        self.held.begin(limits);
        if self.left > 0 {
            let at = self.skip(input, 0);
            if self.ends() {
                return Event::End(at);
            }
            return self.walk(session, input, at, asked, out);
        }
        if !self.held.is_empty() {
            return self.gather(session, input, asked, out);
        }
        self.walk(session, input, 0, asked, out)
    }

    /// Over the payload of a packet; returns where that, or the input, ends.
    #[inline]
    fn skip(&mut self, input: &[u8], at: usize) -> usize {
        let available = input.len() - at;
        let left = self.left as usize;
        if left > available {
            self.left -= u32::try_from(available).unwrap_or(self.left);
            return input.len();
        }
        self.left = 0;
        at + left
    }

    /// From packet to packet, from a place of the input on.
    #[inline]
    fn walk(
        &mut self,
        session: &mut Session,
        input: &[u8],
        mut at: usize,
        asked: Option<Asked>,
        out: &mut Head,
    ) -> Event {
        // A head that is told together with what follows it.
        let mut first: Option<(Head, usize)> = None;
        let was_told = self.is_told;
        let mut whole = false;
        while at < input.len() && !whole {
            let bytes = &input[at..];
            let seen = match self.wanted(session, bytes, asked) {
                Ok(len) if len <= bytes.len() => {
                    let packet = Packet::of(&bytes[..len]);
                    self.begin(session, packet, asked).and_then(|seen| match seen {
                        Some(seen) => Ok((seen, packet)),
                        None => Ok((self.see(session, packet)?, packet)),
                    })
                }
                Ok(_) if at == 0 => return self.gather(session, input, asked, out),
                Ok(_) => break,
                Err(reason) => Err(reason),
            };
            let (seen, packet) = match seen {
                Ok(seen) => seen,
                // What came before is told by itself.
                Err(_) if at > 0 => break,
                Err(reason) => return Event::Not(reason),
            };
            let len = HEAD + packet.payload.len();
            match (&mut first, seen.is) {
                // Both in one.
                (Some((head, _)), Is::End) => head.note = note_of(&seen),
                (None, Is::End) if was_told => first = Some((head_of(&seen, packet), 0)),
                _ if !self.tells(&seen) => {}
                _ if at > 0 => break,
                _ => first = Some((head_of(&seen, packet), len)),
            }
            self.enter(session, &seen, packet);
            at = self.skip(input, at + HEAD);
            whole = self.ends();
        }
        match first {
            Some((head, len)) => {
                *out = head;
                Event::Head { consumed: at, len, held: false, whole }
            }
            None if whole => Event::End(at),
            None => Event::Body(at),
        }
    }

    /// A packet whose beginning came in pieces.
    #[cold]
    fn gather(
        &mut self,
        session: &mut Session,
        input: &[u8],
        asked: Option<Asked>,
        out: &mut Head,
    ) -> Event {
        let mut taken = 0;
        loop {
            let wanted = match self.wanted(session, self.held.bytes(), asked) {
                Ok(wanted) => wanted,
                Err(reason) => return Event::Not(reason),
            };
            if wanted <= self.held.bytes().len() {
                break;
            }
            taken += self.held.fill(&input[taken..], wanted);
            if self.held.bytes().len() < wanted {
                return Event::Need;
            }
        }
        let held = std::mem::take(&mut self.held);
        let packet = Packet::of(held.bytes());
        let seen = match self.begin(session, packet, asked) {
            Ok(Some(seen)) => Ok(seen),
            Ok(None) => self.see(session, packet),
            Err(reason) => Err(reason),
        };
        let seen = match seen {
            Ok(seen) => seen,
            Err(reason) => return Event::Not(reason),
        };
        let tells = self.tells(&seen);
        let (head, len) = (head_of(&seen, packet), held.bytes().len());
        self.enter(session, &seen, packet);
        self.left -= u32::try_from(packet.payload.len()).unwrap_or(self.left);
        self.held = held;
        self.held.spend(len);
        match (tells, self.ends()) {
            (true, whole) => {
                *out = head;
                Event::Head { consumed: taken, len, held: true, whole }
            }
            (false, true) => Event::End(taken),
            (false, false) => Event::Body(taken),
        }
    }

    /// How many bytes of a packet are to be read, as its first ones say.
    #[inline]
    fn wanted(
        &self,
        session: &Session,
        bytes: &[u8],
        asked: Option<Asked>,
    ) -> Result<usize, Reason> {
        let Some(packet) = PacketHead::of(bytes) else { return Ok(HEAD) };
        if self.is_full || packet.len == 0 {
            return Ok(HEAD);
        }
        if self.expect.is_none() && is_greeting(session, asked) {
            if packet.sequence != 0 || packet.len > GREETING_MAX {
                return Err(Reason::NotThisProtocol);
            }
            return Ok(HEAD + packet.len as usize);
        }
        let Some(first) = bytes.get(HEAD) else { return Ok(HEAD + 1) };
        let is_one_of_many =
            !matches!(self.expect, None | Some(Expect::First | Expect::DefinitionsEnd { .. }));
        let read = if is_one_of_many && *first < 0xfe { 1 } else { READ_MAX };
        Ok(HEAD + read.min(packet.len as usize))
    }

    /// Where no answer is under way: what the packet answers, or what it is if it answers nothing.
    #[inline]
    fn begin(
        &mut self,
        session: &mut Session,
        packet: Packet<'_>,
        asked: Option<Asked>,
    ) -> Result<Option<Seen>, Reason> {
        if self.expect.is_some() {
            return Ok(None);
        }
        let Some(asked) = asked else { return unasked(session, packet).map(Some) };
        self.reply = commands::reply(asked.operation);
        self.statement = u16::try_from(asked.note & 0xffff).unwrap_or(0);
        self.is_database = asked.note & IS_DATABASE != 0;
        let is_known = self.reply != Reply::Login && asked.note & IS_LONG == 0;
        self.sequence = is_known.then_some(1);
        self.expect = Some(Expect::First);
        Ok(None)
    }

    #[inline]
    fn see(&self, session: &Session, packet: Packet<'_>) -> Result<Seen, Reason> {
        let PacketHead { sequence, .. } = packet.head;
        // Errors that nothing led to may be numbered in any way.
        let is_error = packet.payload.first() == Some(&0xff);
        if self.sequence.is_some_and(|known| known != sequence) && !is_error {
            return Err(Reason::Malformed);
        }
        match self.expect {
            Some(expect) if self.is_full => Ok(Seen::part(expect)),
            Some(expect) => see(expect, self.reply, session, packet),
            None => Err(Reason::Malformed),
        }
    }

    /// Whether a head is told of it: at the beginning of an answer, and at its end, which says more.
    fn tells(&self, seen: &Seen) -> bool {
        match seen.is {
            Is::Word => false,
            Is::Part => !self.is_told,
            Is::End | Is::Error | Is::Aside(_) => true,
        }
    }

    /// Into a packet: what it changes.
    #[inline]
    fn enter(&mut self, session: &mut Session, seen: &Seen, packet: Packet<'_>) {
        self.left = packet.head.len;
        self.is_full = packet.head.is_full();
        self.sequence = Some(packet.head.sequence.wrapping_add(1));
        self.is_told |= seen.is == Is::Part;
        if seen.asks_for_file {
            session.is_sending_file = true;
            self.sequence = None;
        }
        if let Some(id) = seen.prepared {
            session.statements.prepared(self.statement, id);
        }
        self.expect = Some(seen.next);
        if matches!(seen.is, Is::Part | Is::Word) {
            return;
        }
        if seen.is == Is::End && std::mem::take(&mut self.is_database) {
            session.use_asked();
        }
        if seen.is == Is::Error && self.reply == Reply::Prepared {
            session.statements.refused(self.statement);
        }
        if matches!(seen.is, Is::End | Is::Error) && self.reply == Reply::Login {
            session.is_asked = false;
        }
        (self.is_full, self.is_told, self.is_last) = (false, false, true);
        self.expect = None;
    }
}

/// Whether the server is to greet: at the beginning, and when all has been answered to a client
/// that said good-bye.
fn is_greeting(session: &Session, asked: Option<Asked>) -> bool {
    asked.is_none() && (session.phase == Phase::Greeting || session.has_quit)
}

/// What nobody asked for: a greeting, or an error before the server closes the connection.
#[cold]
fn unasked(session: &mut Session, packet: Packet<'_>) -> Result<Seen, Reason> {
    if packet.payload.first() == Some(&0xff) {
        return Ok(Seen::aside(Kind::Push));
    }
    if is_greeting(session, None) {
        session.begin_again();
        session.greet(packet.payload)?;
        return Ok(Seen::aside(Kind::Push));
    }
    // An answer without request, which the books know.
    Ok(Seen::aside(Kind::Response))
}

/// What an answer says, as its first packet does.
fn head_of(seen: &Seen, packet: Packet<'_>) -> Head {
    match seen.is {
        Is::Aside(kind) => Head { kind, ..Head::default() },
        Is::Error => {
            let (number, has_state) = packet.error();
            Head {
                kind: Kind::Response,
                outcome: Outcome::AppError,
                status: number.into(),
                said: match has_state {
                    true => Said::Spot(Spot::new(HEAD + 4, 5)),
                    false => Said::Nothing,
                },
                ..Head::default()
            }
        }
        // How a transaction stands is for the end to say, wherever the bytes were cut.
        Is::Part | Is::Word => Head { kind: Kind::Response, ..Head::default() },
        Is::End => Head { kind: Kind::Response, note: note_of(seen), ..Head::default() },
    }
}

/// What an answer leaves behind: whether a transaction is open.
fn note_of(seen: &Seen) -> u32 {
    match seen.status {
        Some(status) if status & status::IN_TRANSACTION != 0 => IN_TRANSACTION,
        Some(_) => NO_TRANSACTION,
        None => 0,
    }
}

/// The state of the transaction behind an answer, where the answer says it.
pub(super) fn transaction(head: &Head) -> Option<&'static [u8]> {
    match head.note {
        _ if head.kind != Kind::Response => None,
        IN_TRANSACTION => Some(b"open"),
        NO_TRANSACTION => Some(b"idle"),
        _ => None,
    }
}
