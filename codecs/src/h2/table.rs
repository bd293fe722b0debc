//! The tables of HPACK (RFC 7541 §2.3): the one that everybody has, and the one that a connection's
//! way has built up.

use std::collections::VecDeque;

/// A field as a line of a head: `name: value\r\n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'t> {
    pub(super) text: &'t [u8],
    pub(super) name_len: usize,
}

/// What a line has beside its name and its value.
const AROUND: u32 = 4;

impl<'t> Line<'t> {
    #[inline]
    pub(super) fn name(self) -> &'t [u8] {
        &self.text[..self.name_len]
    }

    #[inline]
    pub(super) fn value(self) -> &'t [u8] {
        &self.text[self.name_len + 2..self.text.len() - 2]
    }

    /// Name, colon and blank.
    #[inline]
    pub(super) fn lead(self) -> &'t [u8] {
        &self.text[..self.name_len + 2]
    }

    /// What the field comes to as it is counted (RFC 7541 §4.1).
    #[inline]
    pub(super) fn size(self) -> u64 {
        self.text.len() as u64 + u64::from(ENTRY_BYTES - AROUND)
    }
}

macro_rules! line {
    ($name:literal, $value:literal) => {
        Line { text: concat!($name, ": ", $value, "\r\n").as_bytes(), name_len: $name.len() }
    };
}

/// Fields that everybody has, from index 1 on (RFC 7541, appendix A).
#[rustfmt::skip]
const STATIC: [Line<'static>; 61] = [
    line!(":authority", ""),
    line!(":method", "GET"),
    line!(":method", "POST"),
    line!(":path", "/"),
    line!(":path", "/index.html"),
    line!(":scheme", "http"),
    line!(":scheme", "https"),
    line!(":status", "200"),
    line!(":status", "204"),
    line!(":status", "206"),
    line!(":status", "304"),
    line!(":status", "400"),
    line!(":status", "404"),
    line!(":status", "500"),
    line!("accept-charset", ""),
    line!("accept-encoding", "gzip, deflate"),
    line!("accept-language", ""),
    line!("accept-ranges", ""),
    line!("accept", ""),
    line!("access-control-allow-origin", ""),
    line!("age", ""),
    line!("allow", ""),
    line!("authorization", ""),
    line!("cache-control", ""),
    line!("content-disposition", ""),
    line!("content-encoding", ""),
    line!("content-language", ""),
    line!("content-length", ""),
    line!("content-location", ""),
    line!("content-range", ""),
    line!("content-type", ""),
    line!("cookie", ""),
    line!("date", ""),
    line!("etag", ""),
    line!("expect", ""),
    line!("expires", ""),
    line!("from", ""),
    line!("host", ""),
    line!("if-match", ""),
    line!("if-modified-since", ""),
    line!("if-none-match", ""),
    line!("if-range", ""),
    line!("if-unmodified-since", ""),
    line!("last-modified", ""),
    line!("link", ""),
    line!("location", ""),
    line!("max-forwards", ""),
    line!("proxy-authenticate", ""),
    line!("proxy-authorization", ""),
    line!("range", ""),
    line!("referer", ""),
    line!("refresh", ""),
    line!("retry-after", ""),
    line!("server", ""),
    line!("set-cookie", ""),
    line!("strict-transport-security", ""),
    line!("transfer-encoding", ""),
    line!("user-agent", ""),
    line!("vary", ""),
    line!("via", ""),
    line!("www-authenticate", ""),
];

/// What an entry costs beside its bytes (RFC 7541 §4.1).
const ENTRY_BYTES: u32 = 32;
/// The size of a table unless something else is said.
pub(super) const DEFAULT_BYTES: u32 = 4096;
/// The largest size that is followed: lengths are kept in 16 bits.
pub(super) const BYTES_MAX: u32 = 65_535;

/// The table of one way. Lines of all entries lie one behind the other, so that each can be copied
/// as it is; what is evicted makes room by moving the others, which happens once in a while. What a
/// line has beside its field is less than what an entry costs, so that no table takes more than its size.
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
    /// Bytes of the line, and of the name that it begins with.
    len: u16,
    name: u16,
}

impl Table {
    /// Empty, and without storage.
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), entries: VecDeque::new(), begin: 0, size: 0, max: DEFAULT_BYTES }
    }

    /// The field at this index, counted from 1.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<Line<'_>> {
        let index = index.checked_sub(1)? as usize;
        if let Some(line) = STATIC.get(index) {
            return Some(*line);
        }
        let age = index - STATIC.len();
        let place = self.entries.len().checked_sub(age + 1)?;
        let entry = self.entries.get(place)?;
        let text = self.bytes.get(entry.at as usize..)?.get(..entry.len.into())?;
        Some(Line { text, name_len: entry.name.into() })
    }

    /// Puts a field in. One that is larger than the table empties it (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, line: Line<'_>) {
        let cost = u32::try_from(line.size()).unwrap_or(u32::MAX);
        if cost > self.max {
            self.evict_to(0);
            return;
        }
        self.evict_to(self.max - cost);
        if self.bytes.len() + line.text.len() > self.bytes.capacity() {
            self.make_room(line.text.len());
        }
        // No more than `max` each, which 16 bits hold.
        #[allow(clippy::cast_possible_truncation)]
        self.entries.push_back(Entry {
            at: self.bytes.len() as u32,
            len: line.text.len() as u16,
            name: line.name_len as u16,
        });
        self.bytes.extend_from_slice(line.text);
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
            let len = u32::from(oldest.len);
            self.begin = oldest.at + len;
            self.size -= len + ENTRY_BYTES - AROUND;
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

    fn insert(table: &mut Table, name: &[u8], value: &[u8]) {
        let text = [name, b": ", value, b"\r\n"].concat();
        table.insert(Line { text: &text, name_len: name.len() });
    }

    fn get(table: &Table, index: u32) -> Option<(&[u8], &[u8])> {
        table.get(index).map(|line| (line.name(), line.value()))
    }

    #[test]
    fn the_oldest_make_room_and_indexes_count_from_the_newest() {
        let mut table = Table::new();
        table.resize(100);
        assert_eq!(get(&table, 0), None);
        assert_eq!(get(&table, 2), Some((&b":method"[..], &b"GET"[..])));
        assert_eq!(get(&table, 61), Some((&b"www-authenticate"[..], &b""[..])));
        assert_eq!(get(&table, 62), None);
        for n in 0u8..100 {
            insert(&mut table, b"name", &[n; 3]);
            assert_eq!(get(&table, 62), Some((&b"name"[..], &[n; 3][..])));
            assert_eq!(get(&table, 63).map(|it| it.1[0]), n.checked_sub(1));
            assert_eq!(get(&table, 64), None, "78 of 100 bytes are two entries");
        }
        assert!(table.held() <= 100 + 4 * size_of::<Entry>(), "{}", table.held());
        insert(&mut table, b"x", &[0; 68]);
        assert_eq!(get(&table, 62), None, "too large for the table");
        insert(&mut table, b"x", &[0; 67]);
        assert!(get(&table, 62).is_some() && get(&table, 63).is_none());
        table.resize(99);
        assert_eq!((get(&table, 62), table.held()), (None, 0));
    }

    #[test]
    fn a_full_table_takes_so_much() {
        let mut table = Table::new();
        for n in 0u32..10_000 {
            insert(&mut table, &n.to_be_bytes(), b"");
            insert(&mut table, &[b'a'; 9], &[b'b'; 40][..(n % 40) as usize]);
        }
        assert!(table.held() <= 5 * 1024 + 512, "{}", table.held());
    }
}
