//! The commands of MySQL 8 and MariaDB 11 by number, and how each is answered.

/// The operation of every command that is not listed.
pub(super) const OTHER: u8 = 0;
/// The operation of what the client says after the greeting: who it is.
pub(super) const LOGIN: u8 = 1;

pub(super) const QUIT: u8 = 0x01;
pub(super) const INIT_DB: u8 = 0x02;
pub(super) const QUERY: u8 = 0x03;
pub(super) const CHANGE_USER: u8 = 0x11;
pub(super) const STMT_PREPARE: u8 = 0x16;
pub(super) const STMT_EXECUTE: u8 = 0x17;
pub(super) const STMT_SEND_LONG_DATA: u8 = 0x18;
pub(super) const STMT_CLOSE: u8 = 0x19;
pub(super) const STMT_RESET: u8 = 0x1a;
pub(super) const STMT_FETCH: u8 = 0x1c;
pub(super) const RESET_CONNECTION: u8 = 0x1f;
pub(super) const STMT_BULK_EXECUTE: u8 = 0xfa;

/// How a command is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reply {
    /// One packet: OK, EOF or ERR.
    #[default]
    Simple,
    /// Not at all.
    Nothing,
    /// Questions about who the client is, until OK or ERR.
    Login,
    /// Results, one or many.
    Results,
    /// Definitions of columns until EOF.
    Fields,
    /// What was prepared, with definitions of parameters and columns.
    Prepared,
    /// Rows until EOF.
    Rows,
    /// One packet of text.
    Text,
    /// The connection becomes a stream of replication.
    Replication,
    /// Something that is not read.
    Unread,
}

#[rustfmt::skip]
const COMMANDS: &[(u8, &str, Reply)] = &[
    (0xff, "other", Reply::Simple), (0xff, "login", Reply::Login),
    (QUIT, "COM_QUIT", Reply::Nothing), (INIT_DB, "COM_INIT_DB", Reply::Simple),
    (QUERY, "COM_QUERY", Reply::Results), (0x04, "COM_FIELD_LIST", Reply::Fields),
    (0x05, "COM_CREATE_DB", Reply::Simple), (0x06, "COM_DROP_DB", Reply::Simple),
    (0x07, "COM_REFRESH", Reply::Simple), (0x08, "COM_SHUTDOWN", Reply::Simple),
    (0x09, "COM_STATISTICS", Reply::Text), (0x0a, "COM_PROCESS_INFO", Reply::Results),
    (0x0c, "COM_PROCESS_KILL", Reply::Simple), (0x0d, "COM_DEBUG", Reply::Simple),
    (0x0e, "COM_PING", Reply::Simple), (CHANGE_USER, "COM_CHANGE_USER", Reply::Login),
    (0x12, "COM_BINLOG_DUMP", Reply::Replication), (0x13, "COM_TABLE_DUMP", Reply::Replication),
    (0x15, "COM_REGISTER_SLAVE", Reply::Simple),
    (STMT_PREPARE, "COM_STMT_PREPARE", Reply::Prepared),
    (STMT_EXECUTE, "COM_STMT_EXECUTE", Reply::Results),
    (STMT_SEND_LONG_DATA, "COM_STMT_SEND_LONG_DATA", Reply::Nothing),
    (STMT_CLOSE, "COM_STMT_CLOSE", Reply::Nothing), (STMT_RESET, "COM_STMT_RESET", Reply::Simple),
    (0x1b, "COM_SET_OPTION", Reply::Simple), (STMT_FETCH, "COM_STMT_FETCH", Reply::Rows),
    (0x1e, "COM_BINLOG_DUMP_GTID", Reply::Replication),
    (RESET_CONNECTION, "COM_RESET_CONNECTION", Reply::Simple),
    (0x20, "COM_CLONE", Reply::Unread),
    (0x21, "COM_SUBSCRIBE_GROUP_REPLICATION_STREAM", Reply::Replication),
    (STMT_BULK_EXECUTE, "COM_STMT_BULK_EXECUTE", Reply::Results),
    (0xfe, "COM_MULTI", Reply::Unread),
];

/// The names, by operation.
pub(super) const NAMES: &[&str] = &names();

/// Operations by number of the command.
static BY_NUMBER: [u8; 256] = {
    let mut table = [OTHER; 256];
    let mut index = 2;
    while index < COMMANDS.len() {
        table[COMMANDS[index].0 as usize] = index_byte(index);
        index += 1;
    }
    table
};

/// The operation of the command with this number.
pub(super) fn operation(number: u8) -> u8 {
    BY_NUMBER[usize::from(number)]
}

/// The number of the command; of what is none, one that no command has.
pub(super) fn number(operation: u8) -> u8 {
    COMMANDS.get(usize::from(operation)).map_or(0xff, |command| command.0)
}

/// How it is answered.
pub(super) fn reply(operation: u8) -> Reply {
    COMMANDS.get(usize::from(operation)).map_or(Reply::Simple, |command| command.2)
}

/// Whether it does what its text, or that of its statement, says.
pub(super) fn executes(operation: u8) -> bool {
    matches!(number(operation), QUERY | STMT_EXECUTE | STMT_FETCH | STMT_BULK_EXECUTE)
}

/// The name of a command.
pub(super) fn name(operation: u8) -> &'static str {
    NAMES.get(usize::from(operation)).copied().unwrap_or("other")
}

/// There are no more than 256.
#[allow(clippy::cast_possible_truncation)]
const fn index_byte(index: usize) -> u8 {
    index as u8
}

const fn names() -> [&'static str; COMMANDS.len()] {
    let mut names = [""; COMMANDS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = COMMANDS[index].1;
        index += 1;
    }
    names
}

const _: () = assert!(COMMANDS.len() < 256);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_number_and_nothing_else_is() {
        for (index, (byte, name_of, reply_of)) in COMMANDS.iter().enumerate().skip(2) {
            let found = operation(*byte);
            assert_eq!((usize::from(found), name(found)), (index, *name_of));
            assert_eq!((number(found), reply(found)), (*byte, *reply_of));
        }
        let others = (0..=255).filter(|byte| operation(*byte) == OTHER).count();
        assert_eq!(others, 256 - (COMMANDS.len() - 2));
        assert_eq!((name(LOGIN), reply(LOGIN), number(LOGIN)), ("login", Reply::Login, 0xff));
    }
}
