//! The words of SQL that a summary is made by: PostgreSQL 17, MySQL 8 and MariaDB 11.

/// The longest word of the list.
pub(super) const WORD_MAX: u8 = 16;

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Begins a statement: its place in [`OPERATIONS`], and what comes behind it.
    Operation(u8, After),
    /// Begins a query, wherever it stands: its place in [`OPERATIONS`].
    Select(u8),
    /// A kind of object that is made, changed or dropped, and whether its name says something.
    Object {
        has_target: bool,
    },
    /// The same, which may also stand before the name of a table where no kind is asked for.
    Table,
    /// Stands before the kind of an object.
    Adjective,
    /// Stands before a name.
    Skipped,
    From,
    Join,
    Into,
    Using,
    /// Ends a list of tables.
    Clause,
    /// A statement may begin behind it.
    Opening,
    Distinct,
}

/// What comes behind an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing that is told.
    Nothing,
    /// Another statement, after some words.
    Opening,
    /// A name.
    Named,
    /// Clauses such as `FROM`.
    Query,
    /// A name, then such clauses.
    Target,
    /// The kind of an object.
    Object,
}

use After::{Named, Nothing, Object, Opening, Query, Target};

const OPERATION_WORDS: &[(&str, After)] = &[
    ("other", Nothing),
    ("SELECT", Query),
    ("INSERT", Target),
    ("UPDATE", Target),
    ("DELETE", Query),
    ("MERGE", Target),
    ("REPLACE", Target),
    ("BEGIN", Nothing),
    ("START", Nothing),
    ("SAVEPOINT", Nothing),
    ("RELEASE", Nothing),
    ("COMMIT", Nothing),
    ("END", Nothing),
    ("ROLLBACK", Nothing),
    ("ABORT", Nothing),
    ("ALTER", Object),
    ("ANALYZE", Named),
    ("CALL", Named),
    ("CLOSE", Nothing),
    ("COPY", Named),
    ("CREATE", Object),
    ("DEALLOCATE", Nothing),
    ("DECLARE", Nothing),
    ("DESCRIBE", Named),
    ("DISCARD", Nothing),
    ("DO", Nothing),
    ("DROP", Object),
    ("EXECUTE", Nothing),
    ("EXPLAIN", Opening),
    ("FETCH", Nothing),
    ("GRANT", Nothing),
    ("KILL", Nothing),
    ("LISTEN", Named),
    ("LOAD", Query),
    ("LOCK", Named),
    ("MOVE", Nothing),
    ("NOTIFY", Named),
    ("OPTIMIZE", Object),
    ("PREPARE", Nothing),
    ("REFRESH", Object),
    ("REINDEX", Object),
    ("RESET", Nothing),
    ("REVOKE", Nothing),
    ("SET", Nothing),
    ("SHOW", Nothing),
    ("TRUNCATE", Named),
    ("UNLISTEN", Named),
    ("UNLOCK", Nothing),
    ("USE", Named),
    ("VACUUM", Named),
];

#[rustfmt::skip]
const OTHER_WORDS: &[(&str, Word)] = &[
    ("DESC", Word::Operation(operation("DESCRIBE"), Named)),
    ("TABLE", Word::Table), ("TABLES", Word::Table),
    ("VIEW", OBJECT), ("INDEX", OBJECT), ("SEQUENCE", OBJECT), ("FUNCTION", OBJECT),
    ("PROCEDURE", OBJECT), ("TRIGGER", OBJECT), ("TYPE", OBJECT), ("SCHEMA", OBJECT),
    ("DATABASE", OBJECT), ("EXTENSION", OBJECT), ("DOMAIN", OBJECT), ("EVENT", OBJECT),
    ("POLICY", OBJECT), ("RULE", OBJECT), ("PUBLICATION", OBJECT), ("SUBSCRIPTION", OBJECT),
    ("AGGREGATE", OBJECT), ("TABLESPACE", OBJECT), ("STATISTICS", OBJECT), ("SERVER", OBJECT),
    ("ROLE", UNNAMED), ("USER", UNNAMED), ("GROUP", Word::Clause), ("SYSTEM", UNNAMED),
    ("OR", Word::Adjective), ("TEMP", Word::Adjective), ("TEMPORARY", Word::Adjective),
    ("UNLOGGED", Word::Adjective), ("UNIQUE", Word::Adjective), ("FOREIGN", Word::Adjective),
    ("MATERIALIZED", Word::Adjective), ("GLOBAL", Word::Adjective), ("LOCAL", Word::Adjective),
    ("RECURSIVE", Word::Adjective), ("CONSTRAINT", Word::Adjective), ("FULLTEXT", Word::Adjective),
    ("IF", Word::Skipped), ("NOT", Word::Skipped), ("EXISTS", Word::Skipped),
    ("ONLY", Word::Skipped), ("LATERAL", Word::Skipped), ("CONCURRENTLY", Word::Skipped),
    ("IGNORE", Word::Skipped), ("LOW_PRIORITY", Word::Skipped), ("HIGH_PRIORITY", Word::Skipped),
    ("DELAYED", Word::Skipped), ("QUICK", Word::Skipped), ("VERBOSE", Word::Skipped),
    ("FULL", Word::Skipped), ("FREEZE", Word::Skipped), ("ON", Word::Skipped),
    ("FROM", Word::From), ("JOIN", Word::Join), ("STRAIGHT_JOIN", Word::Join),
    ("INTO", Word::Into), ("USING", Word::Using), ("DISTINCT", Word::Distinct),
    ("AS", Word::Opening),
    ("WHERE", Word::Clause), ("ORDER", Word::Clause), ("HAVING", Word::Clause),
    ("LIMIT", Word::Clause), ("OFFSET", Word::Clause), ("WINDOW", Word::Clause),
    ("RETURNING", Word::Clause), ("UNION", Word::Clause), ("INTERSECT", Word::Clause),
    ("EXCEPT", Word::Clause), ("VALUES", Word::Clause), ("VALUE", Word::Clause),
    ("FOR", Word::Clause), ("WHEN", Word::Clause), ("OUTFILE", Word::Clause),
    ("DUMPFILE", Word::Clause), ("DEFAULT", Word::Clause), ("WITH", Word::Clause),
];

const OBJECT: Word = Word::Object { has_target: true };
const UNNAMED: Word = Word::Object { has_target: false };

/// What statements do, a closed list for metrics; [`OTHER`] is everything else.
pub const OPERATIONS: [&str; OPERATION_WORDS.len()] = {
    let mut names = [""; OPERATION_WORDS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = OPERATION_WORDS[index].0;
        index += 1;
    }
    names
};

/// In [`OPERATIONS`].
pub const OTHER: u8 = 0;

const NESTED_PLACES: (u8, u8) = (operation("INSERT"), operation("REPLACE"));
const ANALYZE: u8 = operation("ANALYZE");
const OPENING_PLACES: (u8, u8) = (operation("BEGIN"), operation("RELEASE"));

/// Whether such a statement stands within others.
pub(super) fn is_nested(operation: u8) -> bool {
    (NESTED_PLACES.0..=NESTED_PLACES.1).contains(&operation)
}

/// Whether it is only done for the sake of what follows.
pub(super) fn is_opening(operation: u8) -> bool {
    (OPENING_PLACES.0..=OPENING_PLACES.1).contains(&operation)
}

/// Whether it stands between `EXPLAIN` and what is explained.
pub(super) fn is_of_explain(word: Word) -> bool {
    word == Word::Skipped || matches!(word, Word::Operation(index, _) if index == ANALYZE)
}

/// The place of an operation in [`OPERATIONS`].
pub const fn operation(name: &str) -> u8 {
    let mut index = 0;
    while index < OPERATION_WORDS.len() {
        if packed(OPERATION_WORDS[index].0) == packed(name) {
            return place(index);
        }
        index += 1;
    }
    OTHER
}

/// The word, by its letters in capitals.
#[inline]
pub(super) fn find(word: u128, len: u8) -> Option<Word> {
    if len > WORD_MAX {
        return None;
    }
    let mut at = hash(word);
    loop {
        let index = usize::from(TABLE[at].checked_sub(1)?);
        if PACKED[index] == word {
            return Some(word_at(index));
        }
        at = (at + 1) % TABLE_LEN;
    }
}

fn word_at(index: usize) -> Word {
    match OPERATION_WORDS.get(index) {
        Some(("SELECT", _)) => Word::Select(place(index)),
        Some((_, after)) => Word::Operation(place(index), *after),
        None => OTHER_WORDS[index - OPERATION_WORDS.len()].1,
    }
}

const TABLE_LEN: usize = 512;
const COUNT: usize = OPERATION_WORDS.len() + OTHER_WORDS.len();

/// All words: those of the operations first.
static PACKED: [u128; COUNT] = {
    let mut all = [0; COUNT];
    let mut index = 0;
    while index < COUNT {
        all[index] = if index < OPERATION_WORDS.len() {
            packed(OPERATION_WORDS[index].0)
        } else {
            packed(OTHER_WORDS[index - OPERATION_WORDS.len()].0)
        };
        index += 1;
    }
    all
};

/// Their places, plus one, by hash; 0 where there is none.
static TABLE: [u8; TABLE_LEN] = {
    let mut table = [0; TABLE_LEN];
    // The first of the operations is no word.
    let mut index = 1;
    while index < COUNT {
        let mut at = hash(PACKED[index]);
        while table[at] != 0 {
            at = (at + 1) % TABLE_LEN;
        }
        table[at] = place(index) + 1;
        index += 1;
    }
    table
};

/// There are fewer than 255.
#[allow(clippy::cast_possible_truncation)]
const fn place(index: usize) -> u8 {
    index as u8
}

const _: () = assert!(COUNT < 255 && OPERATION_WORDS.len() < 128);

const fn packed(name: &str) -> u128 {
    let bytes = name.as_bytes();
    assert!(bytes.len() <= WORD_MAX as usize);
    let mut word = 0;
    let mut at = 0;
    while at < bytes.len() {
        word |= (bytes[at] as u128) << (8 * at);
        at += 1;
    }
    word
}

const fn hash(word: u128) -> usize {
    let bytes = word.to_le_bytes();
    let [a, b, c, d, e, f, g, h, high @ ..] = bytes;
    let low = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let mixed = low ^ u64::from_le_bytes(high).rotate_left(23);
    let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    (mixed[0] as usize) << 1 | (mixed[1] as usize) >> 7
}

const _: () = assert!(TABLE_LEN == 1 << 9);
