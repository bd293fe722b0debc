//! The tables of HPACK (RFC 7541 §2.3): the one that everybody has, and the one that a connection's
//! way has built up.

use std::collections::VecDeque;

/// Fields that everybody has, from index 1 on (RFC 7541, appendix A).
#[rustfmt::skip]
const STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// What an entry costs beside its bytes (RFC 7541 §4.1).
const ENTRY_BYTES: u32 = 32;
/// The size of a table unless something else is said.
pub(super) const DEFAULT_BYTES: u32 = 4096;
/// The largest size that is followed: lengths are kept in 16 bits.
pub(super) const BYTES_MAX: u32 = 65_535;

/// The table of one way. Bytes of all entries lie one behind the other, so that each can be looked
/// at as it is; what is evicted makes room by moving the others, which happens once in a while.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// Newest last.
    entries: VecDeque<Entry>,
    /// Where the oldest entry begins.
    begin: u32,
    size: u32,
    max: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u32,
    name: u16,
    value: u16,
}

impl Table {
    /// Empty, and without storage.
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), entries: VecDeque::new(), begin: 0, size: 0, max: DEFAULT_BYTES }
    }

    /// The field at this index, counted from 1.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<(&[u8], &[u8])> {
        let index = index.checked_sub(1)? as usize;
        if let Some(field) = STATIC.get(index) {
            return Some(*field);
        }
        let age = index - STATIC.len();
        let place = self.entries.len().checked_sub(age + 1)?;
        let entry = self.entries[place];
        let at = entry.at as usize;
        let field = &self.bytes[at..at + usize::from(entry.name) + usize::from(entry.value)];
        Some(field.split_at(entry.name.into()))
    }

    /// Puts a field in. One that is larger than the table empties it (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let len = name.len() + value.len();
        let cost = u32::try_from(len).unwrap_or(u32::MAX).saturating_add(ENTRY_BYTES);
        if cost > self.max {
            self.evict_to(0);
            return;
        }
        self.evict_to(self.max - cost);
        if self.bytes.len() + len > self.bytes.capacity() {
            self.make_room(len);
        }
        // No more than `max` each, which 16 bits hold.
        #[allow(clippy::cast_possible_truncation)]
        self.entries.push_back(Entry {
            at: self.bytes.len() as u32,
            name: name.len() as u16,
            value: value.len() as u16,
        });
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.size += cost;
    }

    /// Follows a change of size.
    pub(super) fn resize(&mut self, max: u32) {
        self.max = max;
        self.evict_to(max);
        if max < DEFAULT_BYTES && self.entries.is_empty() {
            (self.bytes, self.entries, self.begin) = (Vec::new(), VecDeque::new(), 0);
        }
    }

    /// Bytes of storage.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Evicts the oldest until the rest is no larger than this.
    fn evict_to(&mut self, size: u32) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_front() else { break };
            let len = u32::from(oldest.name) + u32::from(oldest.value);
            self.begin = oldest.at + len;
            self.size -= len + ENTRY_BYTES;
        }
        if self.entries.is_empty() {
            self.bytes.clear();
            self.begin = 0;
        }
    }

    /// Moves the entries to the beginning, and takes more storage where they need it: never more
    /// than the size of the table.
    #[cold]
    fn make_room(&mut self, len: usize) {
        let begin = self.begin as usize;
        self.bytes.drain(..begin);
        for entry in &mut self.entries {
            entry.at -= self.begin;
        }
        self.begin = 0;
        let needed = self.bytes.len() + len;
        if needed > self.bytes.capacity() {
            let wanted = (2 * needed).max(256).min(self.max as usize).max(needed);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_indexes_count_from_the_newest() {
        let mut table = Table::new();
        table.resize(100);
        assert_eq!(table.get(0), None);
        assert_eq!(table.get(2), Some((&b":method"[..], &b"GET"[..])));
        assert_eq!(table.get(61), Some((&b"www-authenticate"[..], &b""[..])));
        assert_eq!(table.get(62), None);
        for n in 0u8..100 {
            table.insert(b"name", &[n; 3]);
            assert_eq!(table.get(62), Some((&b"name"[..], &[n; 3][..])));
            assert_eq!(table.get(63).map(|it| it.1[0]), n.checked_sub(1));
            assert_eq!(table.get(64), None, "78 of 100 bytes are two entries");
        }
        assert!(table.held() <= 100 + 4 * size_of::<Entry>(), "{}", table.held());
        table.insert(b"x", &[0; 68]);
        assert_eq!(table.get(62), None, "too large for the table");
        table.insert(b"x", &[0; 67]);
        assert!(table.get(62).is_some() && table.get(63).is_none());
        table.resize(99);
        assert_eq!((table.get(62), table.held()), (None, 0));
    }

    #[test]
    fn a_full_table_takes_so_much() {
        let mut table = Table::new();
        for n in 0u32..10_000 {
            table.insert(&n.to_be_bytes(), b"");
            table.insert(&[b'a'; 9], &[b'b'; 40][..(n % 40) as usize]);
        }
        assert!(table.held() <= 5 * 1024 + 512, "{}", table.held());
    }
}
