//! What is remembered by request id, for a while.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use hashbrown::HashTable;

/// Bytes of a key that are kept as they are.
const INLINE_BYTES: usize = 47;

/// Entries of a block of storage.
const BLOCK_LEN: usize = 256;

/// The random numbers of a process behind its hashes.
///
/// All shards of a process need the same seed, for keys go from one to the other.
#[derive(Clone, Copy, Debug)]
pub struct KeySeed {
    table: u64,
    long: [u64; 2],
}

impl KeySeed {
    /// Takes random bits, drawn once when the process starts.
    pub const fn from_random(bits: [u64; 3]) -> Self {
        Self { table: bits[0], long: [bits[1], bits[2]] }
    }
}

/// A request id as a key: opaque bytes, of any length, in 48 bytes.
///
/// Up to 47 bytes are the key itself. Of a longer id the key is its first 31 bytes with 128 bits
/// of seeded hash of the whole, so that a peer cannot make two ids meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    bytes: [u8; INLINE_BYTES],
    /// Length of the id, or more than 47 for a longer one.
    len: u8,
}

impl RequestKey {
    /// The key of a request id.
    pub fn new(id: &[u8], seed: &KeySeed) -> Self {
        let mut bytes = [0; INLINE_BYTES];
        if let (Some(start), Ok(len)) = (bytes.get_mut(..id.len()), u8::try_from(id.len())) {
            start.copy_from_slice(id);
            return Self { bytes, len };
        }
        let (start, hashes) = bytes.split_at_mut(INLINE_BYTES - 16);
        start.copy_from_slice(&id[..start.len()]);
        for (place, seed) in hashes.chunks_exact_mut(8).zip(seed.long) {
            place.copy_from_slice(&hash(seed, id).to_ne_bytes());
        }
        Self { bytes, len: u8::MAX }
    }
}

/// What a map has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TtlCounts {
    /// Lookups that found an entry.
    pub hits: u64,
    /// Lookups that found none, or one that had expired.
    pub misses: u64,
    /// Entries that went before their time, for want of room.
    pub evicted: u64,
    /// Entries whose time was over.
    pub expired: u64,
}

/// A bounded map whose entries expire a constant time after they were put.
///
/// Since that time is the same for all, entries expire in the order in which they came: a queue
/// is all the clockwork there is. Each `put` also drops up to two expired entries, so the map
/// shrinks by itself while it is used; [`sweep`](Self::sweep) is for when it is not. Storage
/// grows in blocks of 256 entries, none of which is ever copied.
#[derive(Debug)]
pub struct TtlMap<V> {
    seed: u64,
    ttl_ns: u64,
    len_max: usize,
    /// Hash and number of each live entry.
    index: HashTable<Slot>,
    /// All entries, oldest first. One that was put again is there twice; only the later is live.
    blocks: VecDeque<Vec<Entry<V>>>,
    /// An empty block for the next time one is needed.
    spare: Option<Vec<Entry<V>>>,
    /// Number of the oldest entry, and its place in the first block.
    first: u32,
    first_place: usize,
    /// Entries in the blocks, live or not.
    queued: usize,
    counts: TtlCounts,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    number: u32,
}

#[derive(Debug)]
struct Entry<V> {
    key: RequestKey,
    hash: u32,
    put_ns: u64,
    value: V,
}

impl<V> TtlMap<V> {
    /// An empty map, without storage, for at most `len_max` entries (at least 1, at most 2³¹).
    pub fn new(len_max: u32, ttl_ns: u64, seed: &KeySeed) -> Self {
        Self {
            seed: seed.table,
            ttl_ns,
            len_max: len_max.clamp(1, 1 << 31) as usize,
            index: HashTable::new(),
            blocks: VecDeque::new(),
            spare: None,
            first: 0,
            first_place: 0,
            queued: 0,
            counts: TtlCounts::default(),
        }
    }

    /// Remembers `value` under `key` until `now_ns` plus the time to live, in place of what was
    /// there. When the map is full the oldest entry goes.
    pub fn put(&mut self, key: RequestKey, value: V, now_ns: u64) {
        self.sweep(now_ns, 2);
        while self.queued >= self.len_max {
            if self.drop_first() {
                self.counts.evicted += 1;
            }
        }
        let hash = self.hash(&key);
        let number = self.push(Entry { key, hash, put_ns: now_ns, value });
        let (index, blocks) = (&mut self.index, &self.blocks);
        let place = |number: u32| number.wrapping_sub(self.first) as usize + self.first_place;
        let same = |slot: &Slot| slot.hash == hash && entry(blocks, place(slot.number)).key == key;
        match index.find_mut(spread(hash), same) {
            Some(slot) => slot.number = number,
            None => {
                index.insert_unique(spread(hash), Slot { hash, number }, |slot| spread(slot.hash));
            }
        }
    }

    /// The value that was put under `key` less than the time to live ago.
    pub fn get(&mut self, key: &RequestKey, now_ns: u64) -> Option<&V> {
        let hash = self.hash(key);
        let found = self
            .index
            .find(spread(hash), |slot| slot.hash == hash && self.entry(slot.number).key == *key);
        let live = found
            .map(|slot| slot.number)
            .filter(|&number| now_ns.saturating_sub(self.entry(number).put_ns) < self.ttl_ns);
        match live {
            Some(number) => {
                self.counts.hits += 1;
                Some(&self.entry(number).value)
            }
            None => {
                self.counts.misses += 1;
                None
            }
        }
    }

    /// The value that was put under `key` less than the time to live ago, and when that was. It is
    /// no look-up that counts.
    pub fn peek(&self, key: &RequestKey, now_ns: u64) -> Option<(&V, u64)> {
        let hash = self.hash(key);
        let same = |slot: &Slot| slot.hash == hash && self.entry(slot.number).key == *key;
        let entry = self.entry(self.index.find(spread(hash), same)?.number);
        let is_live = now_ns.saturating_sub(entry.put_ns) < self.ttl_ns;
        is_live.then_some((&entry.value, entry.put_ns))
    }

    /// Drops entries whose time is over, at most `count_max` of them; true when more may be left.
    pub fn sweep(&mut self, now_ns: u64, count_max: usize) -> bool {
        for _ in 0..count_max {
            let Some(first) = self.blocks.front().map(|block| &block[self.first_place]) else {
                return false;
            };
            if now_ns.saturating_sub(first.put_ns) < self.ttl_ns {
                return false;
            }
            if self.drop_first() {
                self.counts.expired += 1;
            }
        }
        true
    }

    /// Entries that can be found, and those whose time is over but which are still there.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// What the map has done so far.
    pub fn counts(&self) -> TtlCounts {
        self.counts
    }

    fn hash(&self, key: &RequestKey) -> u32 {
        let used = usize::from(key.len).min(INLINE_BYTES);
        let hash = hash(self.seed, &key.bytes[..used]);
        // The upper half of the hash, which fits.
        (hash >> 32) as u32
    }

    /// Where in the blocks the entry with this number is.
    fn entry(&self, number: u32) -> &Entry<V> {
        entry(&self.blocks, number.wrapping_sub(self.first) as usize + self.first_place)
    }

    /// Puts an entry at the end of the queue and returns its number.
    fn push(&mut self, entry: Entry<V>) -> u32 {
        // At most 2³¹ entries are queued, so numbers of 32 bits do not meet.
        #[allow(clippy::cast_possible_truncation)]
        let number = self.first.wrapping_add(self.queued as u32);
        match self.blocks.back_mut() {
            Some(block) if block.len() < BLOCK_LEN => block.push(entry),
            _ => {
                let spare = self.spare.take();
                let mut block = spare.unwrap_or_else(|| Vec::with_capacity(BLOCK_LEN));
                block.push(entry);
                self.blocks.push_back(block);
            }
        }
        self.queued += 1;
        number
    }

    /// Drops the oldest entry; false when it had been replaced already, or there is none.
    fn drop_first(&mut self) -> bool {
        let Some(block) = self.blocks.front() else { return false };
        let (hash, number) = (block[self.first_place].hash, self.first);
        let last_of_block = self.first_place + 1 == block.len();
        let slot = self.index.find_entry(spread(hash), |slot| slot.number == number);
        let was_live = slot.map(|slot| slot.remove()).is_ok();
        self.first = self.first.wrapping_add(1);
        self.first_place += 1;
        self.queued -= 1;
        // Either the block is full and used up, or it is the only one and the queue is empty.
        if last_of_block {
            self.first_place = 0;
            if let Some(mut block) = self.blocks.pop_front() {
                block.clear();
                self.spare = Some(block);
            }
        }
        was_live
    }
}

fn entry<V>(blocks: &VecDeque<Vec<Entry<V>>>, place: usize) -> &Entry<V> {
    &blocks[place / BLOCK_LEN][place % BLOCK_LEN]
}

/// The hash table wants its bits all over 64.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(seed).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: KeySeed = KeySeed::from_random([1, 2, 3]);
    const TTL: u64 = 1000;

    fn key(id: impl AsRef<[u8]>) -> RequestKey {
        RequestKey::new(id.as_ref(), &SEED)
    }

    fn map(len_max: u32) -> TtlMap<u32> {
        TtlMap::new(len_max, TTL, &SEED)
    }

    #[test]
    fn keys_are_the_whole_id() {
        assert_eq!(size_of::<RequestKey>(), 48);
        let long = |tail: &str| key(format!("{}{tail}", "x".repeat(60)));
        assert_eq!(long("a"), long("a"));
        assert_ne!(long("a"), long("b"));
        assert_ne!(key("a"), key("a\0"));
        assert_ne!(key(""), key("\0"));
        assert_ne!(key([7; 47]), key([7; 48]));
        assert_ne!(key([7; 48]), key([7; 49]));
        let other = KeySeed::from_random([1, 2, 4]);
        assert_ne!(RequestKey::new(&[7; 99], &SEED), RequestKey::new(&[7; 99], &other));
        assert_eq!(RequestKey::new(&[7; 36], &SEED), RequestKey::new(&[7; 36], &other));
    }

    #[test]
    fn entries_live_for_the_time_to_live() {
        let mut map = map(10);
        map.put(key("a"), 1, 5);
        assert_eq!(map.get(&key("a"), 5), Some(&1));
        assert_eq!(map.get(&key("a"), 5 + TTL - 1), Some(&1));
        assert_eq!(map.get(&key("a"), 5 + TTL), None);
        assert_eq!(map.get(&key("b"), 5), None);
        // A clock that steps back does no harm.
        assert_eq!(map.get(&key("a"), 0), Some(&1));
        assert_eq!(map.peek(&key("a"), 5 + TTL - 1), Some((&1, 5)));
        assert_eq!(map.peek(&key("a"), 5 + TTL), None);
        assert_eq!(map.counts(), TtlCounts { hits: 3, misses: 2, ..TtlCounts::default() });
        assert!(!map.sweep(5 + TTL, 9) && map.is_empty());
        assert_eq!(map.counts().expired, 1);
    }

    #[test]
    fn putting_again_renews() {
        let mut map = map(10);
        map.put(key("a"), 1, 0);
        map.put(key("a"), 2, TTL / 2);
        assert_eq!(map.len(), 1);
        map.sweep(TTL, 9);
        assert_eq!(map.get(&key("a"), TTL), Some(&2));
        assert_eq!(map.counts().expired, 0);
    }

    #[test]
    fn a_full_map_drops_the_oldest() {
        let mut map = map(3);
        for id in 0..5_u32 {
            map.put(key(id.to_string()), id, 0);
        }
        let mut found: Vec<_> = (0..5_u32).collect();
        found.retain(|id| map.get(&key(id.to_string()), 0).is_some());
        assert_eq!(found, [2, 3, 4]);
        assert_eq!((map.len(), map.counts().evicted), (3, 2));
    }

    /// Against a plain list, over many blocks, with repeated keys, expiry and wrapping numbers.
    #[test]
    fn behaves_as_a_plain_list() {
        for len_max in [1, 7, 256, 257, 1000] {
            let mut map = map(len_max);
            map.first = u32::MAX - 500;
            let mut list: VecDeque<(u32, u32, u64)> = VecDeque::new();
            let (mut random, mut now, mut expired) = (u64::from(len_max), 0_u64, 0);
            for value in 0..4000 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let id = (random >> 33) as u32 % 600;
                now += (random >> 60) % 3;
                for _ in 0..2 {
                    if list.front().is_some_and(|&(_, _, put)| now - put >= TTL) {
                        let (gone, _, _) = list.pop_front().unwrap();
                        expired += u64::from(!list.iter().any(|&(id, _, _)| id == gone));
                    }
                }
                while list.len() >= len_max as usize {
                    list.pop_front();
                }
                list.push_back((id, value, now));
                map.put(key(id.to_be_bytes()), value, now);
                let asked = (random >> 40) as u32 % 600;
                let newest = list.iter().rev().find(|&&(id, _, _)| id == asked);
                let expected = newest.filter(|&&(_, _, put)| now - put < TTL).map(|(_, v, _)| v);
                assert_eq!(map.get(&key(asked.to_be_bytes()), now), expected);
            }
            assert_eq!(map.counts().expired, expired);
            while map.sweep(now + TTL, 100) {}
            assert!(map.is_empty() && map.queued == 0 && map.blocks.is_empty());
        }
    }
}
