//! The commands of MongoDB 8 by name: <https://www.mongodb.com/docs/manual/reference/command/>.

use crate::codec::names;

/// Its value is the name of a collection.
pub(super) const COLLECTION: u8 = 1;
/// Sets the connection up.
pub(super) const HANDSHAKE: u8 = 1 << 1;
/// `hello` by any of its names.
pub(super) const HELLO: u8 = 1 << 2;
/// `getMore`, whose collection is an argument.
pub(super) const GET_MORE: u8 = 1 << 3;

/// The operation of every command that is not listed.
pub(super) const OTHER: u8 = 0;
/// That of messages that are compressed.
pub(super) const COMPRESSED: u8 = 1;

/// The usual ones first.
#[rustfmt::skip]
const COMMANDS: &[(&str, u8)] = &[
    ("other", 0), ("compressed", 0),
    ("find", COLLECTION), ("insert", COLLECTION), ("update", COLLECTION), ("delete", COLLECTION),
    ("aggregate", COLLECTION), ("getMore", GET_MORE), ("findAndModify", COLLECTION),
    ("count", COLLECTION), ("distinct", COLLECTION), ("hello", HANDSHAKE | HELLO),
    ("isMaster", HANDSHAKE | HELLO), ("ping", 0), ("commitTransaction", 0),
    ("abortTransaction", 0), ("endSessions", 0), ("killCursors", COLLECTION),
    ("saslStart", HANDSHAKE), ("saslContinue", HANDSHAKE), ("authenticate", HANDSHAKE),
    ("getnonce", HANDSHAKE), ("logout", 0), ("addShard", 0), ("analyze", COLLECTION),
    ("balancerStart", 0), ("balancerStatus", 0), ("balancerStop", 0), ("buildInfo", 0),
    ("bulkWrite", 0), ("collMod", COLLECTION), ("collStats", COLLECTION), ("compact", COLLECTION),
    ("connPoolStats", 0), ("connectionStatus", 0), ("convertToCapped", COLLECTION),
    ("create", COLLECTION), ("createIndexes", COLLECTION), ("createRole", 0),
    ("createSearchIndexes", COLLECTION), ("createUser", 0), ("currentOp", 0), ("dataSize", 0),
    ("dbHash", 0), ("dbStats", 0), ("drop", COLLECTION), ("dropDatabase", 0),
    ("dropIndexes", COLLECTION), ("dropRole", 0), ("dropSearchIndex", COLLECTION),
    ("dropUser", 0), ("enableSharding", 0), ("explain", 0), ("fsync", 0), ("fsyncUnlock", 0),
    ("getClusterParameter", 0), ("getCmdLineOpts", 0), ("getDefaultRWConcern", 0),
    ("getLastError", 0), ("getLog", 0), ("getParameter", 0), ("grantRolesToUser", 0),
    ("hostInfo", 0), ("killAllSessions", 0), ("killOp", 0), ("killSessions", 0),
    ("listCollections", 0), ("listCommands", 0), ("listDatabases", 0),
    ("listIndexes", COLLECTION), ("listSearchIndexes", COLLECTION), ("listShards", 0),
    ("logRotate", 0), ("mapReduce", COLLECTION), ("moveChunk", 0),
    ("planCacheClear", COLLECTION), ("profile", 0), ("reIndex", COLLECTION),
    ("refreshSessions", 0), ("removeShard", 0), ("renameCollection", 0),
    ("replSetGetConfig", 0), ("replSetGetStatus", 0), ("replSetHeartbeat", 0),
    ("replSetInitiate", 0), ("replSetReconfig", 0), ("replSetStepDown", 0),
    ("replSetUpdatePosition", 0), ("revokeRolesFromUser", 0), ("rolesInfo", 0),
    ("serverStatus", 0), ("setDefaultRWConcern", 0), ("setFeatureCompatibilityVersion", 0),
    ("setParameter", 0), ("shardCollection", 0), ("shutdown", 0), ("split", 0),
    ("startSession", 0), ("top", 0), ("updateRole", 0), ("updateSearchIndex", COLLECTION),
    ("updateUser", 0), ("usersInfo", 0), ("validate", COLLECTION), ("whatsmyuri", 0),
];

/// The names, by operation.
pub(super) const NAMES: &[&str] = &names::<_, { COMMANDS.len() }>(COMMANDS);

/// The name of a command.
pub(super) fn name(operation: u8) -> &'static str {
    NAMES.get(usize::from(operation)).copied().unwrap_or("other")
}

/// What is known of a command.
pub(super) fn flags(operation: u8) -> u8 {
    COMMANDS.get(usize::from(operation)).map_or(0, |command| command.1)
}

/// The operation of the command of this name; some are written in small letters as well.
#[inline]
pub(super) fn operation(name: &[u8]) -> u8 {
    let found = NAMES.iter().skip(2).position(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    found.and_then(|place| u8::try_from(place + 2).ok()).unwrap_or(OTHER)
}

const _: () = assert!(COMMANDS.len() <= 256);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_nothing_else() {
        for (index, name) in NAMES.iter().enumerate() {
            let found = usize::from(operation(name.as_bytes()));
            assert_eq!(found, if index < 2 { 0 } else { index }, "{name}");
            assert_eq!(operation(name.to_lowercase().as_bytes()), operation(name.as_bytes()));
        }
        for name in ["", "fin", "finds", "other", "compressed"] {
            assert_eq!(operation(name.as_bytes()), OTHER, "{name}");
        }
    }
}
