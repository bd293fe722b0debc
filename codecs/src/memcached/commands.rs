//! The commands of memcached 1.6 by name, in all of its protocols:
//! <https://github.com/memcached/memcached/blob/master/doc/protocol.txt>.

use crate::codec::names;

/// What a command looks like, and what may answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Only in the binary protocol.
    Binary,
    /// Keys; answered by values and `END`.
    Get,
    /// A key and a value.
    Store,
    Delete,
    /// Answered by a number.
    Count,
    Touch,
    /// Answered by many lines, or by one.
    List,
    /// Answered by one line.
    Plain,
    Version,
    /// Never answered.
    Quit,
    /// The connection becomes a stream of log lines.
    Watch,
    MetaGet,
    MetaSet,
    MetaDelete,
    MetaCount,
    MetaDebug,
    MetaNoop,
}

/// The operation of every command that is not listed.
pub(super) const OTHER: u8 = 0;

/// The usual ones first.
#[rustfmt::skip]
const COMMANDS: &[(&str, Shape)] = &[
    ("other", Shape::Binary),
    ("get", Shape::Get), ("set", Shape::Store), ("gets", Shape::Get), ("mg", Shape::MetaGet),
    ("ms", Shape::MetaSet), ("delete", Shape::Delete), ("incr", Shape::Count),
    ("decr", Shape::Count), ("add", Shape::Store), ("replace", Shape::Store),
    ("append", Shape::Store), ("prepend", Shape::Store), ("cas", Shape::Store),
    ("touch", Shape::Touch), ("gat", Shape::Get), ("gats", Shape::Get),
    ("md", Shape::MetaDelete), ("ma", Shape::MetaCount), ("mn", Shape::MetaNoop),
    ("me", Shape::MetaDebug), ("noop", Shape::Binary), ("stats", Shape::List),
    ("flush_all", Shape::Plain), ("version", Shape::Version), ("verbosity", Shape::Plain),
    ("quit", Shape::Quit), ("sasl_list_mechs", Shape::Binary), ("sasl_auth", Shape::Binary),
    ("sasl_step", Shape::Binary), ("cache_memlimit", Shape::Plain), ("shutdown", Shape::Plain),
    ("slabs", Shape::Plain), ("lru", Shape::Plain), ("lru_crawler", Shape::List),
    ("watch", Shape::Watch), ("extstore", Shape::Plain), ("refresh_certs", Shape::Plain),
];

/// The longest name of the list.
pub(super) const NAME_MAX: usize = 15;

/// The names, by operation.
pub(super) const NAMES: &[&str] = &names::<_, { COMMANDS.len() }>(COMMANDS);

/// The name of a command.
pub(super) fn name(operation: u8) -> &'static str {
    NAMES.get(usize::from(operation)).copied().unwrap_or("other")
}

/// What is known of a command.
pub(super) fn shape(operation: u8) -> Shape {
    COMMANDS.get(usize::from(operation)).map_or(Shape::Binary, |command| command.1)
}

/// The command of the text protocol that has this name, in small letters as servers want it.
#[inline]
pub(super) fn of_text(name: &[u8]) -> Option<u8> {
    let place = COMMANDS
        .iter()
        .position(|(known, shape)| *shape != Shape::Binary && known.as_bytes() == name)?;
    u8::try_from(place).ok()
}

/// The name of each opcode of the binary protocol, quiet or not.
#[rustfmt::skip]
const OPCODES: [&str; 0x25] = [
    "get", "set", "add", "replace", "delete", "incr", "decr", "quit",
    "flush_all", "get", "noop", "version", "get", "get", "append", "prepend",
    "stats", "set", "add", "replace", "delete", "incr", "decr", "quit",
    "flush_all", "append", "prepend", "verbosity", "touch", "gat", "gat", "other",
    "sasl_list_mechs", "sasl_auth", "sasl_step", "gat", "gat",
];

/// Opcodes whose answer may be left out: one bit for each.
const QUIET: u64 = 1 << 0x09 | 1 << 0x0d | 0x3ff << 0x11 | 1 << 0x1e | 1 << 0x24;

/// Operations by opcode.
static BY_OPCODE: [u8; OPCODES.len()] = {
    let mut table = [OTHER; OPCODES.len()];
    let mut opcode = 0;
    while opcode < OPCODES.len() {
        table[opcode] = place_of(OPCODES[opcode]);
        opcode += 1;
    }
    table
};

/// There are few.
#[allow(clippy::cast_possible_truncation)]
const fn place_of(name: &str) -> u8 {
    let name = name.as_bytes();
    let mut index = 0;
    loop {
        let known = COMMANDS[index].0.as_bytes();
        let mut at = 0;
        while at < name.len() && at < known.len() && name[at] == known[at] {
            at += 1;
        }
        if at == name.len() && at == known.len() {
            return index as u8;
        }
        index += 1;
    }
}

/// The operation of an opcode, and whether its answer may be left out.
#[inline]
pub(super) fn of_opcode(opcode: u8) -> (u8, bool) {
    let operation = BY_OPCODE.get(usize::from(opcode)).copied().unwrap_or(OTHER);
    (operation, opcode < 64 && QUIET >> opcode & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_nothing_else() {
        for (index, (name, shape)) in COMMANDS.iter().enumerate() {
            let found = of_text(name.as_bytes()).map(usize::from);
            assert_eq!(found, (*shape != Shape::Binary).then_some(index), "{name}");
            assert!(name.len() <= NAME_MAX);
        }
        for name in ["", "GET", "ge", "getss", "noop", "other"] {
            assert_eq!(of_text(name.as_bytes()), None, "{name}");
        }
    }

    /// <https://github.com/memcached/memcached/wiki/BinaryProtocolRevamped>
    #[test]
    fn opcodes_are_those_of_the_specification() {
        for (opcode, name, is_quiet) in [
            (0x00, "get", false),
            (0x09, "get", true),
            (0x0a, "noop", false),
            (0x0c, "get", false),
            (0x0d, "get", true),
            (0x10, "stats", false),
            (0x11, "set", true),
            (0x17, "quit", true),
            (0x1a, "prepend", true),
            (0x1b, "verbosity", false),
            (0x1d, "gat", false),
            (0x1e, "gat", true),
            (0x1f, "other", false),
            (0x22, "sasl_step", false),
            (0x24, "gat", true),
            (0x25, "other", false),
            (0xff, "other", false),
        ] {
            let (operation, quiet) = of_opcode(opcode);
            assert_eq!((self::name(operation), quiet), (name, is_quiet), "{opcode:#x}");
        }
    }
}
