//! What both ways have to know of the connection.

use super::statements::Statements;
use super::wire::Bytes;
use crate::codec::Reason;

/// Bits of the capabilities. Those of MariaDB alone come behind the first 32.
pub(super) mod capability {
    pub(crate) const MYSQL: u64 = 1;
    pub(crate) const CONNECT_WITH_DB: u64 = 1 << 3;
    pub(crate) const COMPRESS: u64 = 1 << 5;
    pub(crate) const PROTOCOL_41: u64 = 1 << 9;
    pub(crate) const SSL: u64 = 1 << 11;
    pub(crate) const SECURE_CONNECTION: u64 = 1 << 15;
    pub(crate) const LENENC_AUTH: u64 = 1 << 21;
    pub(crate) const DEPRECATE_EOF: u64 = 1 << 24;
    pub(crate) const OPTIONAL_METADATA: u64 = 1 << 25;
    pub(crate) const ZSTD: u64 = 1 << 26;
    pub(crate) const QUERY_ATTRIBUTES: u64 = 1 << 27;
    pub(crate) const CACHED_METADATA: u64 = 1 << 36;
}

/// Bits of the status in OK and EOF.
pub(super) mod status {
    pub(crate) const IN_TRANSACTION: u16 = 1;
    pub(crate) const MORE_RESULTS: u16 = 1 << 3;
    pub(crate) const CURSOR_EXISTS: u16 = 1 << 6;
}

/// How far the beginning of the connection has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// The server is to greet.
    #[default]
    Greeting,
    /// The client is to say who it is.
    Login,
    /// Commands.
    Commands,
}

/// What both ways have to know.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) phase: Phase,
    /// What the server can, then what both can.
    capabilities: u64,
    /// The client answers questions about who it is.
    pub(super) is_asked: bool,
    /// The client sends a file that the server asked for.
    pub(super) is_sending_file: bool,
    /// The client has said good-bye.
    pub(super) has_quit: bool,
    /// The database in use.
    pub(super) database: Database,
    /// The one that was asked for last, from the first that was on.
    asked_database: Option<Box<Database>>,
    pub(super) statements: Statements,
}

/// The longest name of a database in bytes; a longer one is not told.
const DATABASE_MAX: usize = 64;

/// The name of a database, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Database {
    len: u8,
    name: [u8; DATABASE_MAX],
}

impl Default for Database {
    fn default() -> Self {
        Self { len: 0, name: [0; DATABASE_MAX] }
    }
}

impl Database {
    pub(super) fn new(name: &[u8]) -> Self {
        let mut database = Self::default();
        if let Some(room) = database.name.get_mut(..name.len()) {
            room.copy_from_slice(name);
            database.len = u8::try_from(name.len()).unwrap_or(0);
        }
        database
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.name[..usize::from(self.len)]
    }
}

impl Session {
    /// Whether both can.
    #[inline]
    pub(super) fn has(&self, capability: u64) -> bool {
        self.capabilities & capability != 0
    }

    /// Another connection begins.
    pub(super) fn begin_again(&mut self) {
        self.statements.clear();
        let statements = std::mem::take(&mut self.statements);
        let mut asked_database = self.asked_database.take();
        if let Some(asked) = &mut asked_database {
            **asked = Database::default();
        }
        *self = Self { statements, asked_database, ..Self::default() };
    }

    /// The client asks for this database.
    pub(super) fn ask_for(&mut self, database: &[u8]) {
        **self.asked_database.get_or_insert_default() = Database::new(database);
    }

    /// It has got what it asked for.
    pub(super) fn use_asked(&mut self) {
        if let Some(asked) = &self.asked_database {
            self.database = **asked;
        }
    }

    /// Gives storage back that says nothing more.
    pub(super) fn release_memory(&mut self) {
        self.statements.release_memory();
        self.asked_database.take_if(|asked| **asked == self.database);
    }

    /// The greeting of the server.
    /// <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_v10.html>
    pub(super) fn greet(&mut self, payload: &[u8]) -> Result<(), Reason> {
        match payload.first() {
            Some(10) => {}
            Some(9) => return Err(Reason::Unsupported),
            _ => return Err(Reason::NotThisProtocol),
        }
        let version_end = memchr::memchr(0, payload).ok_or(Reason::NotThisProtocol)?;
        // Id of the connection, eight bytes of a challenge, a filler.
        let mut rest = Bytes::new(payload, version_end + 1 + 4 + 8 + 1);
        let low = rest.number(2).ok_or(Reason::NotThisProtocol)?;
        rest.skip(1 + 2);
        let high = rest.number(2).unwrap_or(0);
        self.capabilities = low | high << 16;
        rest.skip(1 + 6);
        if !self.has(capability::MYSQL) {
            self.capabilities |= rest.number(4).unwrap_or(0) << 32;
        }
        if !self.has(capability::PROTOCOL_41) {
            return Err(Reason::Unsupported);
        }
        self.phase = Phase::Login;
        Ok(())
    }

    /// What the client says it can; returns those of its own.
    pub(super) fn agree(&mut self, payload: &[u8]) -> Result<u64, Reason> {
        let mut bytes = Bytes::new(payload, 0);
        let own = bytes.number(4).ok_or(Reason::NotThisProtocol)?;
        if own & capability::PROTOCOL_41 == 0 {
            return Err(Reason::Unsupported);
        }
        // Largest packet, character set, filler.
        bytes.skip(4 + 1 + 19);
        let of_mariadb = bytes.number(4).filter(|_| own & capability::MYSQL == 0).unwrap_or(0);
        self.capabilities &= own | of_mariadb << 32;
        if self.has(capability::SSL) {
            return Err(Reason::Tls);
        }
        if self.has(capability::COMPRESS | capability::ZSTD) {
            return Err(Reason::Compressed);
        }
        self.phase = Phase::Commands;
        self.is_asked = true;
        Ok(own)
    }
}
