//! What the packets of an answer are, one behind the other.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_command_phase.html>,
//! <https://mariadb.com/kb/en/clientserver-protocol/>.

use super::commands::Reply;
use super::session::{Session, capability, status};
use super::wire::{Bytes, FULL, HEAD, PacketHead};
use crate::codec::{Kind, Reason};

/// The number of an error that is none: how far a statement of MariaDB has come.
const PROGRESS: u16 = 0xffff;

/// What the next packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// The first of an answer, or of a further result of it.
    First,
    /// One of so many definitions; of parameters, when those of columns follow.
    Definitions { left: u16, columns: u16 },
    /// EOF behind definitions.
    DefinitionsEnd { columns: u16 },
    /// A row, or the end.
    Rows,
    /// One of any number of definitions, or the end.
    Fields,
}

/// What a packet is to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    /// Something within it.
    Part,
    /// Something that does not say how it comes out: the server asks for a file, or says how far a
    /// statement has come.
    Word,
    /// The end.
    End,
    /// The end, and something is wrong.
    Error,
    /// No part of it.
    Aside(Kind),
}

/// A packet, of which as much is there as has to be read.
#[derive(Clone, Copy)]
pub(super) struct Packet<'b> {
    pub(super) head: PacketHead,
    pub(super) payload: &'b [u8],
}

/// What a packet is, and what it means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) is: Is,
    pub(super) next: Expect,
    pub(super) status: Option<u16>,
    /// The id of the statement that was prepared.
    pub(super) prepared: Option<u32>,
    pub(super) asks_for_file: bool,
}

impl Seen {
    fn new(is: Is, next: Expect) -> Self {
        Self { is, next, status: None, prepared: None, asks_for_file: false }
    }

    pub(super) fn part(next: Expect) -> Self {
        Self::new(Is::Part, next)
    }

    pub(super) fn aside(kind: Kind) -> Self {
        Self::new(Is::Aside(kind), Expect::First)
    }

    fn end() -> Self {
        Self::new(Is::End, Expect::First)
    }

    /// A result ends, and the answer with it unless there are more.
    fn result_end(status: u16) -> Self {
        let has_more = status & status::MORE_RESULTS != 0;
        let is = if has_more { Is::Part } else { Is::End };
        Self { status: Some(status), ..Self::new(is, Expect::First) }
    }
}

impl<'b> Packet<'b> {
    /// The packet that these bytes are of, which have all of its head.
    #[inline]
    pub(super) fn of(bytes: &'b [u8]) -> Self {
        let head = PacketHead::of(bytes).unwrap_or(PacketHead { len: 0, sequence: 0 });
        Self { head, payload: bytes.get(HEAD..).unwrap_or_default() }
    }

    fn first(self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// Of ERR: its number, and whether a state of five letters is with it.
    pub(super) fn error(self) -> (u16, bool) {
        let number = Bytes::new(self.payload, 1).number(2).unwrap_or(0);
        let has_state = self.payload.get(3) == Some(&b'#')
            && self.payload.get(4..9).is_some_and(|it| it.iter().all(u8::is_ascii_alphanumeric));
        (u16::try_from(number).unwrap_or(0), has_state)
    }

    /// The status in OK.
    fn ok_status(self) -> Result<u16, Reason> {
        let mut rest = Bytes::new(self.payload, 1);
        let read = |rest: &mut Bytes<'_>| {
            rest.counted()?;
            rest.counted()?;
            rest.number(2)
        };
        let status = read(&mut rest).and_then(|status| u16::try_from(status).ok());
        status.ok_or(Reason::Malformed)
    }

    /// The status at an end: in what has the form of OK, or in EOF.
    fn end_status(self, session: &Session) -> Result<u16, Reason> {
        if session.has(capability::DEPRECATE_EOF) && self.head.len > 5 {
            return self.ok_status();
        }
        let status = Bytes::new(self.payload, 3).number(2);
        status.and_then(|status| u16::try_from(status).ok()).ok_or(Reason::Malformed)
    }

    /// Whether it is the end of rows or definitions, and no row that begins with a long string.
    #[inline]
    fn is_end(self, session: &Session) -> bool {
        let bound = if session.has(capability::DEPRECATE_EOF) { FULL } else { 9 };
        self.first() == Some(0xfe) && self.head.len < bound
    }
}

/// What a packet is where `expect` is expected.
#[inline]
pub(super) fn see(
    expect: Expect,
    reply: Reply,
    session: &Session,
    packet: Packet<'_>,
) -> Result<Seen, Reason> {
    match packet.first() {
        None if reply == Reply::Login => return Ok(Seen::aside(Kind::Callback)),
        None => return Err(Reason::Malformed),
        Some(0xff) if packet.error().0 == PROGRESS => return Ok(Seen::new(Is::Word, expect)),
        Some(0xff) => return Ok(Seen::new(Is::Error, expect)),
        Some(_) => {}
    }
    match expect {
        Expect::First => first(reply, session, packet),
        Expect::Definitions { left, columns } if left > 1 => {
            Ok(Seen::part(Expect::Definitions { left: left - 1, columns }))
        }
        Expect::Definitions { columns, .. } => Ok(behind_definitions(columns, reply, session)),
        Expect::DefinitionsEnd { columns } => definitions_end(columns, reply, session, packet),
        Expect::Rows if packet.is_end(session) => Ok(Seen::result_end(packet.end_status(session)?)),
        Expect::Fields if packet.is_end(session) => Ok(Seen::end()),
        Expect::Rows | Expect::Fields => Ok(Seen::part(expect)),
    }
}

fn first(reply: Reply, session: &Session, packet: Packet<'_>) -> Result<Seen, Reason> {
    let is_ok = packet.first() == Some(0) && packet.head.len >= 7;
    match reply {
        Reply::Login if is_ok => Ok(Seen { status: Some(packet.ok_status()?), ..Seen::end() }),
        // Questions, and what plug-ins say to one another.
        Reply::Login => Ok(Seen::aside(Kind::Callback)),
        Reply::Simple if is_ok => Ok(Seen { status: Some(packet.ok_status()?), ..Seen::end() }),
        Reply::Simple if packet.is_end(session) => {
            Ok(Seen { status: Some(packet.end_status(session)?), ..Seen::end() })
        }
        Reply::Text => Ok(Seen::end()),
        Reply::Results => result(is_ok, session, packet),
        Reply::Prepared => prepared(session, packet),
        Reply::Rows => see(Expect::Rows, reply, session, packet),
        Reply::Fields => see(Expect::Fields, reply, session, packet),
        _ => Err(Reason::Malformed),
    }
}

/// The first packet of a result.
#[inline]
fn result(is_ok: bool, session: &Session, packet: Packet<'_>) -> Result<Seen, Reason> {
    if is_ok {
        return Ok(Seen::result_end(packet.ok_status()?));
    }
    if packet.first() == Some(0xfb) {
        return Ok(Seen { asks_for_file: true, ..Seen::new(Is::Word, Expect::First) });
    }
    let mut rest = Bytes::new(packet.payload, 0);
    let mut has_definitions = true;
    if session.has(capability::OPTIONAL_METADATA) {
        has_definitions = rest.number(1) != Some(0);
    }
    let count = rest.counted().and_then(|count| u16::try_from(count).ok());
    if session.has(capability::CACHED_METADATA) {
        has_definitions = rest.number(1) != Some(0);
    }
    let count = count.filter(|count| *count > 0 && rest.at() == packet.head.len as usize);
    let left = count.ok_or(Reason::Malformed)?;
    if has_definitions {
        return Ok(Seen::part(Expect::Definitions { left, columns: 0 }));
    }
    Ok(behind_definitions(0, Reply::Results, session))
}

/// <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_prepare.html>
fn prepared(session: &Session, packet: Packet<'_>) -> Result<Seen, Reason> {
    let mut rest = Bytes::new(packet.payload, 0);
    let mut number = |len| rest.number(len).ok_or(Reason::Malformed);
    let (kind, id, columns, parameters) = (number(1)?, number(4)?, number(2)?, number(2)?);
    // A filler, and the number of warnings.
    number(3)?;
    if kind != 0 {
        return Err(Reason::Malformed);
    }
    let has_definitions = !session.has(capability::OPTIONAL_METADATA) || rest.number(1) != Some(0);
    let count = |count| if has_definitions { u16::try_from(count).unwrap_or(0) } else { 0 };
    let (columns, parameters) = (count(columns), count(parameters));
    let seen = match (parameters, columns) {
        (0, 0) => Seen::end(),
        (0, left) => Seen::part(Expect::Definitions { left, columns: 0 }),
        (left, columns) => Seen::part(Expect::Definitions { left, columns }),
    };
    Ok(Seen { prepared: u32::try_from(id).ok(), ..seen })
}

/// The last definition.
#[inline]
fn behind_definitions(columns: u16, reply: Reply, session: &Session) -> Seen {
    if !session.has(capability::DEPRECATE_EOF) {
        return Seen::part(Expect::DefinitionsEnd { columns });
    }
    behind_all_definitions(columns, reply)
}

/// The last definition, or the end of them.
fn behind_all_definitions(columns: u16, reply: Reply) -> Seen {
    match (reply, columns) {
        (Reply::Prepared, 0) => Seen::end(),
        (Reply::Prepared, left) => Seen::part(Expect::Definitions { left, columns: 0 }),
        _ => Seen::part(Expect::Rows),
    }
}

fn definitions_end(
    columns: u16,
    reply: Reply,
    session: &Session,
    packet: Packet<'_>,
) -> Result<Seen, Reason> {
    if !packet.is_end(session) {
        return Err(Reason::Malformed);
    }
    let status = packet.end_status(session)?;
    if reply == Reply::Results && status & status::CURSOR_EXISTS != 0 {
        // The rows are fetched by themselves.
        return Ok(Seen::result_end(status));
    }
    Ok(Seen { status: Some(status), ..behind_all_definitions(columns, reply) })
}
