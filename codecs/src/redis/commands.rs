//! The commands of Redis 7 and Valkey 8 by name: <https://redis.io/docs/latest/commands/>.

use crate::codec::names;

/// The first argument is a key.
pub(super) const KEY: u16 = 1;
/// The server may let the client wait.
pub(super) const BLOCKING: u16 = 1 << 1;
/// Of the family of `SUBSCRIBE`: answered once for each channel.
pub(super) const SUBSCRIBE: u16 = 1 << 2;
/// Sets the connection up.
pub(super) const HANDSHAKE: u16 = 1 << 3;
/// `CLIENT`, which may turn answers off.
pub(super) const CLIENT: u16 = 1 << 4;
/// `MULTI`.
pub(super) const MULTI: u16 = 1 << 5;
/// Ends what `MULTI` began.
pub(super) const END: u16 = 1 << 6;
/// `RESET`: the connection is as new.
pub(super) const RESET: u16 = 1 << 7;
/// `MONITOR`.
pub(super) const MONITOR: u16 = 1 << 8;
/// The connection becomes a stream of replication.
pub(super) const REPLICATION: u16 = 1 << 9;
/// The first argument is the index of a database.
pub(super) const DATABASE: u16 = 1 << 10;
/// It changes nothing, and has a key: what Redis flags as `readonly`.
pub(super) const READ: u16 = 1 << 11;

/// The operation of every command that is not listed.
pub(super) const OTHER: u8 = 0;

#[rustfmt::skip]
const COMMANDS: &[(&str, u16)] = &[
    ("other", 0), ("ACL", 0), ("APPEND", KEY), ("ASKING", 0), ("AUTH", HANDSHAKE),
    ("BGREWRITEAOF", 0), ("BGSAVE", 0), ("BITCOUNT", KEY | READ), ("BITFIELD", KEY),
    ("BITFIELD_RO", KEY | READ), ("BITOP", 0), ("BITPOS", KEY | READ),
    ("BLMOVE", KEY | BLOCKING), ("BLMPOP", BLOCKING), ("BLPOP", KEY | BLOCKING),
    ("BRPOP", KEY | BLOCKING), ("BRPOPLPUSH", KEY | BLOCKING), ("BZMPOP", BLOCKING),
    ("BZPOPMAX", KEY | BLOCKING), ("BZPOPMIN", KEY | BLOCKING), ("CLIENT", CLIENT),
    ("CLUSTER", 0), ("COMMAND", 0), ("CONFIG", 0), ("COPY", KEY), ("DBSIZE", 0), ("DEBUG", 0),
    ("DECR", KEY), ("DECRBY", KEY), ("DEL", KEY), ("DISCARD", END), ("DUMP", KEY | READ),
    ("ECHO", 0), ("EVAL", 0), ("EVALSHA", 0), ("EVALSHA_RO", READ), ("EVAL_RO", READ),
    ("EXEC", END), ("EXISTS", KEY | READ), ("EXPIRE", KEY), ("EXPIREAT", KEY),
    ("EXPIRETIME", KEY | READ), ("FAILOVER", 0), ("FCALL", 0), ("FCALL_RO", READ),
    ("FLUSHALL", 0), ("FLUSHDB", 0), ("FUNCTION", 0), ("GEOADD", KEY), ("GEODIST", KEY | READ),
    ("GEOHASH", KEY | READ), ("GEOPOS", KEY | READ), ("GEORADIUS", KEY),
    ("GEORADIUSBYMEMBER", KEY), ("GEORADIUSBYMEMBER_RO", KEY | READ),
    ("GEORADIUS_RO", KEY | READ), ("GEOSEARCH", KEY | READ), ("GEOSEARCHSTORE", KEY),
    ("GET", KEY | READ), ("GETBIT", KEY | READ), ("GETDEL", KEY), ("GETEX", KEY),
    ("GETRANGE", KEY | READ), ("GETSET", KEY), ("HDEL", KEY), ("HELLO", HANDSHAKE),
    ("HEXISTS", KEY | READ), ("HEXPIRE", KEY), ("HEXPIREAT", KEY), ("HEXPIRETIME", KEY),
    ("HGET", KEY | READ), ("HGETALL", KEY | READ), ("HGETDEL", KEY), ("HGETEX", KEY),
    ("HINCRBY", KEY), ("HINCRBYFLOAT", KEY), ("HKEYS", KEY | READ), ("HLEN", KEY | READ),
    ("HMGET", KEY | READ), ("HMSET", KEY), ("HPERSIST", KEY), ("HPEXPIRE", KEY),
    ("HPEXPIREAT", KEY), ("HPEXPIRETIME", KEY), ("HPTTL", KEY), ("HRANDFIELD", KEY | READ),
    ("HSCAN", KEY | READ), ("HSET", KEY), ("HSETEX", KEY), ("HSETNX", KEY),
    ("HSTRLEN", KEY | READ), ("HTTL", KEY), ("HVALS", KEY | READ), ("INCR", KEY),
    ("INCRBY", KEY), ("INCRBYFLOAT", KEY), ("INFO", 0), ("KEYS", 0), ("LASTSAVE", 0),
    ("LATENCY", 0), ("LCS", KEY | READ), ("LINDEX", KEY | READ), ("LINSERT", KEY),
    ("LLEN", KEY | READ), ("LMOVE", KEY), ("LMPOP", 0), ("LOLWUT", 0), ("LPOP", KEY),
    ("LPOS", KEY | READ), ("LPUSH", KEY), ("LPUSHX", KEY), ("LRANGE", KEY | READ),
    ("LREM", KEY), ("LSET", KEY), ("LTRIM", KEY), ("MEMORY", 0), ("MGET", KEY | READ),
    ("MIGRATE", 0), ("MODULE", 0), ("MONITOR", MONITOR), ("MOVE", KEY), ("MSET", KEY),
    ("MSETNX", KEY), ("MULTI", MULTI), ("OBJECT", READ), ("PERSIST", KEY), ("PEXPIRE", KEY),
    ("PEXPIREAT", KEY), ("PEXPIRETIME", KEY | READ), ("PFADD", KEY), ("PFCOUNT", KEY),
    ("PFDEBUG", 0), ("PFMERGE", KEY), ("PFSELFTEST", 0), ("PING", 0), ("PSETEX", KEY),
    ("PSUBSCRIBE", SUBSCRIBE), ("PSYNC", REPLICATION), ("PTTL", KEY | READ), ("PUBLISH", 0),
    ("PUBSUB", 0), ("PUNSUBSCRIBE", SUBSCRIBE), ("QUIT", 0), ("RANDOMKEY", 0), ("READONLY", 0),
    ("READWRITE", 0), ("RENAME", KEY), ("RENAMENX", KEY), ("REPLCONF", 0), ("REPLICAOF", 0),
    ("RESET", RESET), ("RESTORE", KEY), ("ROLE", 0), ("RPOP", KEY), ("RPOPLPUSH", KEY),
    ("RPUSH", KEY), ("RPUSHX", KEY), ("SADD", KEY), ("SAVE", 0), ("SCAN", 0),
    ("SCARD", KEY | READ), ("SCRIPT", 0), ("SDIFF", KEY | READ), ("SDIFFSTORE", KEY),
    ("SELECT", HANDSHAKE | DATABASE), ("SET", KEY), ("SETBIT", KEY), ("SETEX", KEY),
    ("SETNX", KEY), ("SETRANGE", KEY), ("SHUTDOWN", 0), ("SINTER", KEY | READ),
    ("SINTERCARD", READ), ("SINTERSTORE", KEY), ("SISMEMBER", KEY | READ), ("SLAVEOF", 0),
    ("SLOWLOG", 0), ("SMEMBERS", KEY | READ), ("SMISMEMBER", KEY | READ), ("SMOVE", KEY),
    ("SORT", KEY), ("SORT_RO", KEY | READ), ("SPOP", KEY), ("SPUBLISH", 0),
    ("SRANDMEMBER", KEY | READ), ("SREM", KEY), ("SSCAN", KEY | READ),
    ("SSUBSCRIBE", SUBSCRIBE), ("STRLEN", KEY | READ), ("SUBSCRIBE", SUBSCRIBE),
    ("SUBSTR", KEY | READ), ("SUNION", KEY | READ), ("SUNIONSTORE", KEY),
    ("SUNSUBSCRIBE", SUBSCRIBE), ("SWAPDB", 0), ("SYNC", REPLICATION), ("TIME", 0),
    ("TOUCH", KEY), ("TTL", KEY | READ), ("TYPE", KEY | READ), ("UNLINK", KEY),
    ("UNSUBSCRIBE", SUBSCRIBE), ("UNWATCH", 0), ("WAIT", BLOCKING), ("WAITAOF", BLOCKING),
    ("WATCH", KEY), ("XACK", KEY), ("XADD", KEY), ("XAUTOCLAIM", KEY), ("XCLAIM", KEY),
    ("XDEL", KEY), ("XGROUP", 0), ("XINFO", READ), ("XLEN", KEY | READ),
    ("XPENDING", KEY | READ), ("XRANGE", KEY | READ), ("XREAD", BLOCKING),
    ("XREADGROUP", BLOCKING), ("XREVRANGE", KEY | READ), ("XSETID", KEY), ("XTRIM", KEY),
    ("ZADD", KEY), ("ZCARD", KEY | READ), ("ZCOUNT", KEY | READ), ("ZDIFF", READ),
    ("ZDIFFSTORE", KEY), ("ZINCRBY", KEY), ("ZINTER", READ), ("ZINTERCARD", READ),
    ("ZINTERSTORE", KEY), ("ZLEXCOUNT", KEY | READ), ("ZMPOP", 0), ("ZMSCORE", KEY | READ),
    ("ZPOPMAX", KEY), ("ZPOPMIN", KEY), ("ZRANDMEMBER", KEY | READ), ("ZRANGE", KEY | READ),
    ("ZRANGEBYLEX", KEY | READ), ("ZRANGEBYSCORE", KEY | READ), ("ZRANGESTORE", KEY),
    ("ZRANK", KEY | READ), ("ZREM", KEY), ("ZREMRANGEBYLEX", KEY), ("ZREMRANGEBYRANK", KEY),
    ("ZREMRANGEBYSCORE", KEY), ("ZREVRANGE", KEY | READ), ("ZREVRANGEBYLEX", KEY | READ),
    ("ZREVRANGEBYSCORE", KEY | READ), ("ZREVRANK", KEY | READ), ("ZSCAN", KEY | READ),
    ("ZSCORE", KEY | READ), ("ZUNION", READ), ("ZUNIONSTORE", KEY),
];

/// The names, by operation.
pub(super) const NAMES: &[&str] = &names::<_, { COMMANDS.len() }>(COMMANDS);

/// What is known of a command.
pub(super) fn flags(operation: u8) -> u16 {
    COMMANDS.get(usize::from(operation)).map_or(0, |command| command.1)
}

/// The name of a command.
pub(super) fn name(operation: u8) -> &'static str {
    NAMES.get(usize::from(operation)).copied().unwrap_or("other")
}

/// The operation of the command whose name is the first `len` bytes, in any case.
///
/// A name is three words of eight bytes, in capitals; the sum of them says where in the table of
/// operations to look. Letters alone differ by that bit, and names have hardly anything else.
#[inline]
pub(super) fn operation(bytes: &[u8], len: usize) -> u8 {
    if len > NAME_MAX {
        return OTHER;
    }
    let words = match bytes.first_chunk::<8>() {
        Some(word) if len <= 8 => [capitals(u64::from_le_bytes(*word)) & FIRST[len], 0, 0],
        _ => long_words(bytes, len),
    };
    let mut place = hash(words);
    loop {
        let operation = TABLE[place];
        if operation == OTHER || WORDS[operation as usize] == words {
            return operation;
        }
        place = (place + 1) % TABLE_LEN;
    }
}

#[cold]
fn long_words(bytes: &[u8], len: usize) -> [u64; 3] {
    let mut padded = [0; NAME_MAX];
    if let Some(name) = bytes.get(..len) {
        padded[..len].copy_from_slice(name);
    }
    words_of(&padded)
}

/// The longest name that is looked for.
const NAME_MAX: usize = 24;
const TABLE_LEN: usize = 1024;

/// Masks for the first bytes of a word.
const FIRST: [u64; 9] = {
    let mut masks = [u64::MAX; 9];
    let mut len = 0;
    while len < 8 {
        masks[len] = (1 << (8 * len)) - 1;
        len += 1;
    }
    masks
};

const WORDS: [[u64; 3]; COMMANDS.len()] = {
    let mut all = [[0; 3]; COMMANDS.len()];
    let mut index = 0;
    while index < all.len() {
        let name = COMMANDS[index].0.as_bytes();
        let mut padded = [0; NAME_MAX];
        let mut at = 0;
        while at < name.len() {
            padded[at] = name[at];
            at += 1;
        }
        all[index] = words_of(&padded);
        index += 1;
    }
    all
};

/// Operations by hash of the name; the next free place when that is taken, 0 where there is none.
static TABLE: [u8; TABLE_LEN] = {
    let mut table = [OTHER; TABLE_LEN];
    let mut index = 1;
    while index < COMMANDS.len() {
        let mut place = hash(WORDS[index]);
        while table[place] != OTHER {
            place = (place + 1) % TABLE_LEN;
        }
        table[place] = index_byte(index);
        index += 1;
    }
    table
};

/// There are no more than 256.
#[allow(clippy::cast_possible_truncation)]
const fn index_byte(index: usize) -> u8 {
    index as u8
}

const fn capitals(word: u64) -> u64 {
    word & 0xdfdf_dfdf_dfdf_dfdf
}

const fn words_of(padded: &[u8; NAME_MAX]) -> [u64; 3] {
    let mut words = [0; 3];
    let mut at = 0;
    while at < NAME_MAX {
        words[at / 8] |= (padded[at] as u64) << (8 * (at % 8));
        at += 1;
    }
    [capitals(words[0]), capitals(words[1]), capitals(words[2])]
}

const fn hash(words: [u64; 3]) -> usize {
    let mixed = words[0] ^ words[1].rotate_left(23) ^ words[2].rotate_left(41);
    let bits = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    (bits[0] as usize) << 2 | (bits[1] as usize) >> 6
}

const _: () = assert!(COMMANDS.len() <= 256 && TABLE_LEN == 1 << 10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_nothing_else() {
        for (index, (name, _)) in COMMANDS.iter().enumerate().skip(1) {
            for text in [name.to_string(), name.to_lowercase(), format!("{name}\r\n$3\r\nabc")] {
                let found = operation(text.as_bytes(), name.len());
                assert_eq!(usize::from(found), index, "{text}");
            }
            let longer = format!("{name}X");
            assert!(operation(longer.as_bytes(), longer.len()) != found_of(name), "{longer}");
        }
        for name in ["", "G", "GETS", "other", "NOSUCHCOMMAND", "GEORADIUSBYMEMBER_ROX", "\u{0}"] {
            assert_eq!(operation(name.as_bytes(), name.len()), OTHER, "{name}");
        }
        assert_eq!(operation(&[b'A'; 400], 300), OTHER);
    }

    fn found_of(name: &str) -> u8 {
        operation(name.as_bytes(), name.len())
    }

    /// Few names lie where another has to be looked at first.
    #[test]
    fn the_table_is_sparse() {
        let away = WORDS
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(index, words)| usize::from(TABLE[hash(**words)]) != *index);
        assert!(away.count() < COMMANDS.len() / 5);
    }
}
