//! What requests ask for, and what can be wrong.

use crate::codec::{Kind, Outcome, names};

/// Each with its number, of `ZooDefs.OpCode`; the first two have none.
#[rustfmt::skip]
const OPERATIONS: &[(&str, i32)] = &[
    ("other", i32::MIN), ("connect", i32::MAX),
    ("create", 1), ("delete", 2), ("exists", 3), ("getData", 4), ("setData", 5), ("getACL", 6),
    ("setACL", 7), ("getChildren", 8), ("sync", 9), ("getChildren2", 12), ("check", 13),
    ("multi", 14), ("create2", 15), ("reconfig", 16), ("checkWatches", 17), ("removeWatches", 18),
    ("createContainer", 19), ("deleteContainer", 20), ("createTTL", 21), ("multiRead", 22),
    ("setWatches", 101), ("sasl", 102), ("getEphemerals", 103), ("getAllChildrenNumber", 104),
    ("setWatches2", 105), ("addWatch", 106), ("whoAmI", 107), ("closeSession", -11),
];

/// The names, by operation.
pub(super) const NAMES: &[&str] = &names::<_, { OPERATIONS.len() }>(OPERATIONS);

pub(super) const OTHER: u8 = 0;
pub(super) const CONNECT: u8 = 1;
pub(super) const EXISTS: u8 = 4;
pub(super) const MULTI: u8 = 13;
pub(super) const CLOSE: u8 = 29;

/// The error of a path that is not there.
pub(super) const NO_NODE: i32 = -101;

/// The operation with this number.
pub(super) fn operation(number: i32) -> u8 {
    let place = OPERATIONS.iter().position(|(_, known)| *known == number);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or(OTHER)
}

/// What a request with this number is for: proofs and watches belong to the session.
pub(super) fn kind(number: i32) -> Kind {
    match number {
        101 | 102 | 105 | -11 => Kind::Handshake,
        _ => Kind::Request,
    }
}

/// Errors by number, of `KeeperException.Code`.
pub(super) fn name(error: i32) -> &'static str {
    match error {
        -1 => "SystemError",
        -2 => "RuntimeInconsistency",
        -3 => "DataInconsistency",
        -4 => "ConnectionLoss",
        -5 => "MarshallingError",
        -6 => "Unimplemented",
        -7 => "OperationTimeout",
        -8 => "BadArguments",
        -13 => "NewConfigNoQuorum",
        -14 => "ReconfigInProgress",
        -100 => "APIError",
        -101 => "NoNode",
        -102 => "NoAuth",
        -103 => "BadVersion",
        -108 => "NoChildrenForEphemerals",
        -110 => "NodeExists",
        -111 => "NotEmpty",
        -112 => "SessionExpired",
        -113 => "InvalidCallback",
        -114 => "InvalidACL",
        -115 => "AuthFailed",
        -118 => "SessionMoved",
        -119 => "NotReadOnly",
        -120 => "EphemeralOnLocalSession",
        -121 => "NoWatcher",
        -122 => "RequestTimeout",
        -123 => "ReconfigDisabled",
        -124 => "SessionClosedRequireSaslAuth",
        -125 => "QuotaExceeded",
        -127 => "ThrottledOp",
        _ => "error",
    }
}

/// Whether the protocol was not kept to, or the server says no.
pub(super) fn outcome(error: i32) -> Outcome {
    if matches!(error, -8..=-5) { Outcome::ProtocolError } else { Outcome::AppError }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_table() {
        for (place, name) in [
            (OTHER, "other"),
            (CONNECT, "connect"),
            (EXISTS, "exists"),
            (MULTI, "multi"),
            (CLOSE, "closeSession"),
        ] {
            assert_eq!(NAMES[usize::from(place)], name);
        }
        for (number, name) in [(1, "create"), (3, "exists"), (106, "addWatch"), (999, "other")] {
            assert_eq!(NAMES[usize::from(operation(number))], name);
        }
    }
}
