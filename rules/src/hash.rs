//! Hashes: quick ones for tables, and one that is the same on every machine for ever.
//!
//! What is done for every message is always inlined, here and where it is used: a call costs as much as what
//! it is for.

/// A hash for tables of this process. What is in them comes from documents: whoever sends values
/// can at most make a search compare once more.
#[inline]
pub(crate) fn quick(bytes: &[u8]) -> u64 {
    Name::of(bytes).hash()
}

/// Bytes to be looked for: all of them where there are up to sixteen, else what stands for them. What rules
/// ask for is short, and two words are compared sooner than a function is called that compares texts.
#[derive(Clone, Copy, Debug, Eq)]
pub(crate) struct Name {
    words: [u64; 2],
    len: u32,
}

/// One comparison of all that differs is sooner done than one of each part.
impl PartialEq for Name {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let [first, second] = [0, 1].map(|at| self.words[at] ^ other.words[at]);
        first | second | u64::from(self.len ^ other.len) == 0
    }
}

impl Name {
    #[inline(always)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::with(bytes, |word| word)
    }

    /// Of the bytes with capitals as small letters. Bytes beside letters may be taken for one another, where
    /// [`is_plain`] does not say that of those that were looked for none can be.
    #[inline]
    pub(crate) fn of_any_case(bytes: &[u8]) -> Self {
        Self::with(bytes, any_case)
    }

    /// Of an address and a port.
    #[inline]
    pub(crate) fn of_address(address: u128, port: u16) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "both halves are there")]
        let words = [address as u64, (address >> 64) as u64];
        Self { words, len: port.into() }
    }

    /// Whether no other bytes have this name.
    #[inline]
    pub(crate) fn says_all(self) -> bool {
        self.len as usize <= 2 * WORD
    }

    #[inline(always)]
    fn with(bytes: &[u8], of: impl Fn(u64) -> u64) -> Self {
        let words = ends(bytes).unwrap_or_else(|| stand_in(bytes, &of));
        #[expect(clippy::cast_possible_truncation, reason = "so long no message is")]
        let len = bytes.len() as u32;
        Self { words: words.map(of), len }
    }

    /// Where a table looks for it first.
    #[inline]
    fn place(self) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "of a hash some bits do")]
        let place = self.hash() as usize;
        place
    }

    #[inline(always)]
    fn hash(self) -> u64 {
        let [first, second] = self.words;
        folded_product(first ^ SEED, second ^ ODD ^ u64::from(self.len))
    }
}

const SEED: u64 = 0x6e65_7472_615f_7631;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Bytes of a word.
const WORD: usize = 8;

/// Words that stand for a long text: what was there is multiplied with what is known to nobody, and the
/// halves of the product are one on the other.
#[cold]
fn stand_in(bytes: &[u8], of: impl Fn(u64) -> u64) -> [u64; 2] {
    let mut words = [SEED, ODD];
    let mut rest = bytes;
    while let Some((word, more)) = rest.split_first_chunk::<WORD>() {
        let word = of(u64::from_le_bytes(*word));
        words = [folded_product(words[0] ^ word, ODD), folded_product(words[1] ^ word, !SEED)];
        rest = more;
    }
    let word = of(word_of(rest));
    [folded_product(words[0] ^ word, ODD), folded_product(words[1] ^ word, !SEED)]
}

/// Whether these are the same bytes.
#[inline]
pub(crate) fn same(one: &[u8], two: &[u8]) -> bool {
    match (ends(one), ends(two)) {
        _ if one.len() != two.len() => false,
        (Some(one), Some(two)) => one == two,
        _ => one == two,
    }
}

/// A product of 128 bits in one word.
#[inline]
fn folded_product(one: u64, two: u64) -> u64 {
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

/// Less than eight bytes.
#[inline]
fn word_of(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
    }
    bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Eight bytes of which capitals and small letters are one. Of the others `@[\\]^_` are as what stands 32
/// places behind them.
#[inline]
fn any_case(word: u64) -> u64 {
    word | (word & 0x4040_4040_4040_4040) >> 1
}

/// Whether these bytes are none that [`Name::of_any_case`] takes for others: as names of hosts are.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    let is_it = |byte: &u8| byte.is_ascii_lowercase() || (byte.is_ascii() && byte & 0x40 == 0);
    bytes.iter().all(is_it)
}

/// Things by name: a table of which half is empty, where one is looked for from the place on that its hash
/// says.
#[derive(Debug)]
pub(crate) struct ByName<T> {
    places: Box<[Place<T>]>,
    count: usize,
}

#[derive(Debug)]
struct Place<T> {
    name: Name,
    it: Option<T>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { places: Box::default(), count: 0 }
    }
}

impl<T> ByName<T> {
    /// The one of this name that `is_it`.
    #[inline(always)]
    pub(crate) fn find(&self, name: Name, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let mask = self.places.len().wrapping_sub(1);
        let mut at = name.place();
        loop {
            let place = self.places.get(at & mask)?;
            let it = place.it.as_ref()?;
            if place.name == name && is_it(it) {
                return Some(it);
            }
            at = at.wrapping_add(1);
        }
    }

    /// The same to be changed; where there is none, one is made.
    pub(crate) fn find_or_make(
        &mut self,
        name: Name,
        is_it: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> &mut T {
        let found = self.place(name, &is_it).filter(|place| self.places[*place].it.is_some());
        let place = found.unwrap_or_else(|| {
            self.grow();
            self.count += 1;
            // Only a table without places has none for it, and this one has grown.
            self.place(name, is_it).unwrap_or(0)
        });
        self.places[place].name = name;
        self.places[place].it.get_or_insert_with(make)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.it.as_ref())
    }

    /// What its places take in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.places)
    }

    /// Where it is, or would be.
    fn place(&self, name: Name, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        let mask = self.places.len().wrapping_sub(1);
        let mut at = name.place();
        loop {
            at &= mask;
            match &self.places.get(at)?.it {
                Some(it) if self.places[at].name != name || !is_it(it) => at = at.wrapping_add(1),
                _ => return Some(at),
            }
        }
    }

    fn grow(&mut self) {
        if 2 * (self.count + 1) <= self.places.len() {
            return;
        }
        let empty = || Place { name: Name::of(b""), it: None };
        let places = (0..(2 * self.places.len()).max(8)).map(|_| empty()).collect();
        for old in std::mem::replace(&mut self.places, places) {
            if let (Some(it), Some(place)) = (old.it, self.place(old.name, |_| false)) {
                self.places[place] = Place { name: old.name, it: Some(it) };
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
            let own = &text[..len];
            let copy = own.to_vec();
            assert!(seen.insert(quick(own)) && same(own, &copy), "{len}");
            assert_eq!(Name::of(own).says_all(), len <= 16);
            for at in 0..len {
                let mut other = own.to_vec();
                other[at] ^= 0x81;
                assert!(seen.insert(quick(&other)) && !same(own, &other), "{len} {at}");
                assert!(Name::of(own) != Name::of(&other) && !same(own, &own[..at]), "{len} {at}");
            }
        }
    }

    #[test]
    fn capitals_are_small_letters_and_plain_bytes_are_nothing_else() {
        for len in 1..20 {
            for (wanted, given) in (0..=255_u8).flat_map(|a| (0..=255_u8).map(move |b| (a, b))) {
                let of = |byte: u8| {
                    let mut bytes = vec![b'x'; len];
                    bytes[len / 2] = byte;
                    bytes
                };
                let is_same = Name::of_any_case(&of(wanted)) == Name::of_any_case(&of(given));
                let is_it = wanted.eq_ignore_ascii_case(&given);
                assert!(is_same || !is_it, "{wanted} {given}");
                assert!(is_same == is_it || !is_plain(&of(wanted)), "{wanted} {given}");
            }
        }
        assert!(is_plain(b"shop-1.example:80") && !is_plain(b"a_b") && !is_plain(b"A"));
    }

    #[test]
    fn what_is_in_a_table_is_found_and_nothing_else() {
        let mut table: ByName<(u32, u32)> = ByName::default();
        assert!(table.iter().next().is_none() && table.find(Name::of(b""), |_| true).is_none());
        // All of a hash, which is that of the first word alone where the second one makes it nothing.
        let name = |number: u32| Name { words: [number.into(), ODD], len: 0 };
        let others = |number: u32| Name::of(number.to_string().as_bytes());
        for number in 0..1000_u32 {
            for name in [name(number), others(number)] {
                table.find_or_make(name, |_| true, || (number, 0)).1 += number;
                table.find_or_make(name, |_| true, || (number, 7)).1 += 1;
            }
        }
        assert_eq!(table.iter().count(), 2000);
        for number in 0..1000_u32 {
            for name in [name(number), others(number)] {
                assert_eq!(table.find(name, |_| true), Some(&(number, number + 1)));
            }
            assert_eq!(table.find(name(number + 1000), |_| true), None);
            assert_eq!(table.find(Name { len: 1, ..name(number) }, |_| true), None);
        }
        // Long ones may have one name, and are not each other all the same.
        let long = Name { words: [1, 2], len: 17 };
        for number in [3, 4] {
            table.find_or_make(long, |it| it.0 == number, || (number, 0)).1 += number;
        }
        assert_eq!(table.find(long, |it| it.0 == 4), Some(&(4, 4)));
        assert_eq!(table.find(long, |it| it.0 == 5), None);
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
