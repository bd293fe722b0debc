//! The way of the answers.

use super::request::{Negotiation, RequestSide};
use super::{EARLY, EXTENDED, Start};
use crate::codec::{Asked, Event, Head, Kind, Outcome, Reason, Said, Spot, size};
use crate::limits::Limits;

/// Bytes of a told head: the state of the transaction, then what is wrong.
const TOLD_LEN: usize = 6;

/// Where in the stream of answers.
#[derive(Debug, Default)]
pub(super) struct ResponseSide {
    start: Start,
    /// The type of the message under way, 0 between two.
    kind: u8,
    /// Bytes of it that are still to come.
    left: u64,
    /// The message under way is no part of an answer, and has been told.
    is_aside: bool,
    /// An answer is under way.
    has_begun: bool,
    field: Field,
    /// The severity of the error under way; that which is not translated counts.
    severity: Option<u8>,
    /// The code of the first error of the answer under way.
    code: Option<[u8; 5]>,
    /// The code of the error under way.
    new_code: [u8; 5],
    told: [u8; TOLD_LEN],
}

/// Where in an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field {
    /// What the next field is.
    #[default]
    Kind,
    /// In one, behind so many bytes of it.
    Value { kind: u8, len: u8 },
    /// Behind all of them.
    Rest,
}

impl ResponseSide {
    #[inline]
    pub(super) fn advance(
        &mut self,
        request: &mut RequestSide,
        input: &[u8],
        (asked, limits): (Option<Asked>, &Limits),
        head: &mut Head,
    ) -> Event {
        if !request.has_begun {
            return Event::Not(Reason::ServerFirst);
        }
        if self.is_aside {
            let count = size(self.left).min(input.len());
            return if self.passed(count as u64) { Event::End(count) } else { Event::Body(count) };
        }
        if let Some(negotiation) = request.negotiation
            && let Some(event) = negotiated(negotiation, input[0])
        {
            request.negotiation = None;
            return event;
        }
        request.negotiation = None;
        let mut at = 0;
        loop {
            if self.kind == 0 {
                at += self.start.fill(&input[at..], 5);
                let (kind, left) = match self.start.take(limits) {
                    None => return Event::Body(at),
                    Some(Err(reason)) => return Event::Not(reason),
                    Some(Ok(known)) => known,
                };
                (self.kind, self.left) = (kind, left);
                if let Err(reason) = self.begin(request, asked) {
                    return Event::Not(reason);
                }
                if self.is_aside {
                    return self.aside(at, input.len() - at, head);
                }
            }
            let count = size(self.left).min(input.len() - at);
            match self.kind {
                b'E' => self.read_error(&input[at..at + count]),
                b'Z' if count > 0 => self.told[0] = input[at],
                _ => {}
            }
            (at, self.left) = (at + count, self.left - count as u64);
            if self.left > 0 {
                return Event::Body(at);
            }
            match std::mem::take(&mut self.kind) {
                b'Z' => {
                    request.transaction = self.told[0];
                    return self.ready(at, head);
                }
                b'E' => {
                    if let Some(event) = self.end_error(at, asked.is_some(), head) {
                        return event;
                    }
                }
                _ => {}
            }
            if at == input.len() {
                return Event::Body(at);
            }
        }
    }

    /// A message begins.
    #[inline]
    fn begin(&mut self, request: &mut RequestSide, asked: Option<Asked>) -> Result<(), Reason> {
        match self.kind {
            b'D' | b'C' | b'T' | b'1' | b'2' | b'3' | b'n' | b's' | b't' | b'I' | b'H' | b'd'
            | b'c' | b'V' | b'R' | b'K' | b'v' => {}
            b'Z' if self.left == 1 => {}
            b'E' => (self.field, self.severity, self.new_code) = (Field::Kind, None, *b"XX000"),
            b'N' | b'A' | b'S' if !self.has_begun => {
                self.is_aside = true;
                return Ok(());
            }
            b'N' | b'A' | b'S' => {}
            b'G' => {
                let is_under_way = |note: u32| note & EARLY != 0 && request.is_within_cycle();
                request.owes_sync = asked
                    .is_some_and(|asked| asked.note & EXTENDED != 0 && !is_under_way(asked.note));
            }
            b'W' => return Err(Reason::Replication),
            _ => return Err(Reason::Malformed),
        }
        self.has_begun = true;
        Ok(())
    }

    /// A message that answers nothing, behind the first `at` bytes.
    fn aside(&mut self, at: usize, available: usize, head: &mut Head) -> Event {
        let count = size(self.left).min(available);
        self.left -= count as u64;
        let whole = self.left == 0;
        if whole {
            (self.kind, self.is_aside) = (0, false);
        }
        *head = Head { kind: Kind::Push, ..Head::default() };
        Event::Head { consumed: at + count, len: 0, held: true, whole }
    }

    /// An answer is whole, and the next request may be answered.
    #[inline]
    fn ready(&mut self, consumed: usize, head: &mut Head) -> Event {
        if !matches!(self.told[0], b'I' | b'T' | b'E') {
            return Event::Not(Reason::Malformed);
        }
        self.has_begun = false;
        let code = self.code.take();
        *head = self.answer(Kind::Response, code);
        Event::Head { consumed, len: TOLD_LEN, held: true, whole: true }
    }

    fn answer(&mut self, kind: Kind, code: Option<[u8; 5]>) -> Head {
        let mut head = Head { kind, ..Head::default() };
        if let Some(code) = code {
            self.told[1..].copy_from_slice(&code);
            head.outcome = outcome(code);
            head.said = Said::Spot(Spot::new(1, code.len()));
        }
        head
    }

    /// An error is whole. One that ends the connection is the end of an answer as well.
    #[cold]
    fn end_error(&mut self, consumed: usize, is_asked: bool, head: &mut Head) -> Option<Event> {
        let code = match self.new_code.iter().all(|byte| byte.is_ascii_alphanumeric()) {
            true => self.new_code,
            false => *b"XX000",
        };
        if !matches!(self.severity, Some(b'F' | b'P')) {
            self.code.get_or_insert(code);
            return None;
        }
        (self.has_begun, self.code) = (false, None);
        self.told[0] = 0;
        let kind = if is_asked { Kind::Response } else { Kind::Push };
        *head = self.answer(kind, Some(code));
        Some(Event::Head { consumed, len: TOLD_LEN, held: true, whole: true })
    }

    /// Fields of an error, each a letter and a text: its severity and its code are kept.
    #[cold]
    fn read_error(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.field = match (self.field, *byte) {
                (Field::Kind, 0) | (Field::Rest, _) => Field::Rest,
                (Field::Kind, kind) => {
                    if kind == b'V' {
                        self.severity = None;
                    }
                    Field::Value { kind, len: 0 }
                }
                (Field::Value { .. }, 0) => Field::Kind,
                (Field::Value { kind, len }, byte) => {
                    if matches!(kind, b'S' | b'V') && len == 0 && self.severity.is_none() {
                        self.severity = Some(byte);
                    }
                    if kind == b'C'
                        && let Some(place) = self.new_code.get_mut(usize::from(len))
                    {
                        *place = byte;
                    }
                    Field::Value { kind, len: len.saturating_add(1) }
                }
            };
        }
    }

    pub(super) fn passable(&self) -> u64 {
        let is_read = matches!(self.kind, 0 | b'E' | b'Z');
        if is_read { 0 } else { self.left }
    }

    /// Returns whether a message that the books know of ended.
    pub(super) fn passed(&mut self, count: u64) -> bool {
        let was_under_way = self.left > 0;
        self.left = self.left.saturating_sub(count);
        if self.left > 0 || !was_under_way {
            return false;
        }
        self.kind = 0;
        std::mem::take(&mut self.is_aside)
    }

    pub(super) fn told(&self) -> &[u8] {
        &self.told
    }
}

/// What the server says to encryption; None if it says something else.
#[cold]
fn negotiated(asked: Negotiation, byte: u8) -> Option<Event> {
    match (asked, byte) {
        (_, b'N') => Some(Event::Skip(1)),
        (_, b'E') => None,
        (Negotiation::Tls, b'S') => Some(Event::Not(Reason::Tls)),
        (Negotiation::Gss, b'G') => Some(Event::Not(Reason::Unsupported)),
        _ => Some(Event::Not(Reason::Malformed)),
    }
}

/// Whether a server says no to the statement, or cannot do its work: by the class of the code
/// (<https://www.postgresql.org/docs/17/errcodes-appendix.html>).
fn outcome(code: [u8; 5]) -> Outcome {
    match &code {
        // Connections, resources, the operator, the system, its files, and the server itself.
        [b'0', b'8', ..] | [b'5', b'3' | b'8', ..] | [b'5', b'7', b'P', ..] => {
            Outcome::ProtocolError
        }
        [b'F', b'0', ..] | [b'X', b'X', ..] => Outcome::ProtocolError,
        _ => Outcome::AppError,
    }
}

/// The state of the transaction behind an answer.
pub(super) fn transaction<'b>(head: &Head, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let state: &'static [u8] = match bytes.first()? {
        _ if head.kind != Kind::Response => return None,
        b'I' => b"idle",
        b'T' => b"open",
        b'E' => b"failed",
        _ => return None,
    };
    Some(state)
}
