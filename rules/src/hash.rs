//! Hashes: quick ones for tables, and one that is the same on every machine for ever.

/// A hash for tables of this process. What is in them comes from documents: whoever sends values
/// can at most make a search compare once more.
#[inline]
pub(crate) fn quick(bytes: &[u8]) -> u64 {
    folded(bytes, |word| word)
}

/// The same of the bytes in small letters.
#[inline]
pub(crate) fn quick_of_small(bytes: &[u8]) -> u64 {
    folded(bytes, small)
}

/// Whether these are the same bytes. What rules compare is short: a call would cost more than to look.
#[inline]
pub(crate) fn same(one: &[u8], two: &[u8]) -> bool {
    match (ends(one), ends(two)) {
        _ if one.len() != two.len() => false,
        (Some(one), Some(two)) => one == two,
        _ => one == two,
    }
}

/// Whether `given` in small letters is `wanted`, which has no others.
#[inline]
pub(crate) fn same_small(wanted: &[u8], given: &[u8]) -> bool {
    match (ends(wanted), ends(given)) {
        _ if wanted.len() != given.len() => false,
        (Some(wanted), Some(given)) => wanted == given.map(small),
        _ => wanted.eq_ignore_ascii_case(given),
    }
}

/// What was there is multiplied with what is known to nobody, and the halves of the product are one on
/// the other.
#[inline]
fn folded(bytes: &[u8], of: impl Fn(u64) -> u64) -> u64 {
    let mut hash = bytes.len() as u64 ^ SEED;
    let mut rest = bytes;
    while rest.len() > 2 * WORD {
        let (word, more) = rest.split_at(WORD);
        hash = folded_product(hash ^ of(word_of(word)), ODD);
        rest = more;
    }
    let [first, last] = ends(rest).unwrap_or_default().map(of);
    folded_product(hash ^ first, ODD ^ last.rotate_left(32))
}

const SEED: u64 = 0x6e65_7472_615f_7631;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Bytes of a word.
const WORD: usize = 8;

/// A product of 128 bits in one word.
#[inline]
pub(crate) fn folded_product(one: u64, two: u64) -> u64 {
    let product = u128::from(one) * u128::from(two);
    #[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
    let (low, high) = (product as u64, (product >> 64) as u64);
    low ^ high
}

/// The first and the last eight bytes, which are all of up to sixteen; None of more.
#[inline]
fn ends(bytes: &[u8]) -> Option<[u64; 2]> {
    match (bytes.first_chunk::<WORD>(), bytes.last_chunk::<WORD>()) {
        (Some(first), Some(last)) if bytes.len() <= 2 * WORD => {
            Some([u64::from_le_bytes(*first), u64::from_le_bytes(*last)])
        }
        (Some(_), _) => None,
        (None, _) => Some([word_of(bytes), 0]),
    }
}

/// Up to eight bytes.
#[inline]
fn word_of(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.first_chunk::<WORD>() {
        return u64::from_le_bytes(*word);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
    }
    match bytes {
        [] => 0,
        [one] => u64::from(*one),
        [one, two] => u64::from(u16::from_le_bytes([*one, *two])) << 8,
        [one, .., two, three] => u64::from(u32::from_le_bytes([*one, *two, *three, 1])),
        _ => 0,
    }
}

/// Eight bytes in small letters, those of ASCII that have any.
#[inline]
fn small(word: u64) -> u64 {
    const ALL: u64 = 0x0101_0101_0101_0101;
    let low = word & (0x7f * ALL);
    let (from_a, behind_z) = (low + (0x80 - 0x41) * ALL, low + (0x7f - 0x5a) * ALL);
    let is_capital = (from_a ^ behind_z) & !word & (0x80 * ALL);
    word | is_capital >> 2
}

/// Things by their hash: a table of which half is empty, where one is looked for from the place on that its
/// hash says.
#[derive(Debug)]
pub(crate) struct ByHash<T> {
    places: Box<[Option<(u64, T)>]>,
    count: usize,
}

impl<T> Default for ByHash<T> {
    fn default() -> Self {
        Self { places: Box::default(), count: 0 }
    }
}

impl<T> ByHash<T> {
    /// The one of this hash that `is_it`.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        self.places.get(self.place(hash, is_it)?)?.as_ref().map(|(_, it)| it)
    }

    /// The same to be changed; where there is none, one is made.
    pub(crate) fn find_or_make(
        &mut self,
        hash: u64,
        is_it: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> &mut T {
        let found = self.place(hash, &is_it).filter(|place| self.places[*place].is_some());
        let place = found.unwrap_or_else(|| {
            self.grow();
            self.count += 1;
            // No place is empty only in a table that has none, and it has grown.
            self.place(hash, is_it).unwrap_or(0)
        });
        &mut self.places[place].get_or_insert_with(|| (hash, make())).1
    }

    /// Whether there is nothing.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten().map(|(_, it)| it)
    }

    /// What its places take in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.places)
    }

    /// Where it is, or would be.
    #[inline]
    fn place(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        let mask = (self.places.len() as u64).wrapping_sub(1);
        let mut at = hash;
        loop {
            let place = usize::try_from(at & mask).ok()?;
            match self.places.get(place)? {
                Some((known, it)) if *known != hash || !is_it(it) => at = at.wrapping_add(1),
                _ => return Some(place),
            }
        }
    }

    fn grow(&mut self) {
        if 2 * (self.count + 1) <= self.places.len() {
            return;
        }
        let places = (0..(2 * self.places.len()).max(8)).map(|_| None).collect();
        for (hash, it) in std::mem::replace(&mut self.places, places).into_iter().flatten() {
            if let Some(place) = self.place(hash, |_| false) {
                self.places[place] = Some((hash, it));
            }
        }
    }
}

/// The hash of a message's values, on which endpoints are chosen: sidecars agree about it, whatever
/// they were built with. FNV-1a, mixed until every bit counts.
pub(crate) struct Stable(u64);

impl Stable {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Another value; a missing one is not an empty one.
    pub(crate) fn add(&mut self, value: Option<&[u8]>) {
        for byte in value.unwrap_or_default() {
            self.byte(*byte);
        }
        self.byte(if value.is_some() { 0xff } else { 0xfe });
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    pub(crate) fn finish(&self) -> u64 {
        mix(self.0)
    }
}

/// Every bit of a number into every bit of another.
pub(crate) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_every_length_counts() {
        let text: Vec<u8> = (0..40).map(|at| b'A' + at % 50).collect();
        let mut seen = std::collections::HashSet::new();
        for len in 0..=text.len() {
            assert!(seen.insert(quick(&text[..len])), "{len}");
            assert!(same(&text[..len], &text.clone()[..len]));
            assert!(len == 0 || !same(&text[..len], &text[..len - 1]));
            for at in 0..len {
                let mut other = text[..len].to_vec();
                other[at] ^= 0x81;
                assert!(seen.insert(quick(&other)), "{len} {at}");
                assert!(!same(&text[..len], &other) && !same_small(&text[..len], &other));
            }
        }
    }

    #[test]
    fn capitals_of_ascii_have_small_letters_and_nothing_else_has() {
        for len in 1..20 {
            for byte in 0..=255_u8 {
                let mut given = vec![b'x'; len];
                given[len / 2] = byte;
                let wanted = given.to_ascii_lowercase();
                assert_eq!(quick_of_small(&given), quick(&wanted), "{byte}");
                assert!(same_small(&wanted, &given), "{byte}");
                let is_capital = byte.is_ascii_uppercase();
                assert_eq!(same(&wanted, &given), !is_capital, "{byte}");
            }
        }
    }

    #[test]
    fn what_is_in_a_table_is_found_also_where_hashes_are_the_same() {
        let mut table: ByHash<(u32, u32)> = ByHash::default();
        assert!(table.is_empty() && table.find(3, |_| true).is_none());
        for number in 0..1000_u32 {
            let hash = u64::from(number % 7) << 60 | u64::from(number % 3);
            table.find_or_make(hash, |it| it.0 == number, || (number, 0)).1 += number;
            table.find_or_make(hash, |it| it.0 == number, || (number, 0)).1 += 1;
        }
        assert_eq!(table.iter().count(), 1000);
        for number in 0..1000_u32 {
            let hash = u64::from(number % 7) << 60 | u64::from(number % 3);
            assert_eq!(table.find(hash, |it| it.0 == number), Some(&(number, number + 1)));
            assert_eq!(table.find(hash ^ 4, |it| it.0 == number), None);
        }
    }

    #[test]
    fn the_stable_hash_is_what_it_was() {
        let hash = |values: &[Option<&[u8]>]| {
            let mut hash = Stable::new();
            values.iter().for_each(|value| hash.add(*value));
            hash.finish()
        };
        assert_eq!(hash(&[Some(b"sayHello")]), 0xf533_203e_1597_54b3);
        assert_ne!(hash(&[Some(b"")]), hash(&[None]));
        assert_ne!(hash(&[Some(b"ab"), Some(b"c")]), hash(&[Some(b"a"), Some(b"bc")]));
    }
}
