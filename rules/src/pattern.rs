//! What a value is compared with.

use crate::hash::same;
use regex_automata::{
    Anchored, Input, MatchKind,
    dfa::{Automaton, dense},
    util::syntax,
};
use std::{fmt, net::IpAddr};

/// What one regular expression may take, as it is built and when it is.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A question about a value.
#[derive(Debug)]
pub(crate) enum Test {
    Present,
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    /// In small letters, compared without regard to case.
    PrefixAnyCase(Box<[u8]>),
    Suffix(Box<[u8]>),
    Regex(Box<Regex>),
    OneOf(Box<[Self]>),
}

impl Test {
    /// Whether a value passes.
    #[inline]
    pub(crate) fn takes(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => same(value, exact),
            Self::Prefix(prefix) => value.starts_with(prefix),
            Self::PrefixAnyCase(prefix) => {
                let start = value.get(..prefix.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            }
            Self::Suffix(suffix) => value.ends_with(suffix),
            Self::Regex(regex) => regex.takes(value),
            Self::OneOf(tests) => tests.iter().any(|test| test.takes(value)),
        }
    }

    /// What it takes in memory beside itself.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Present => 0,
            Self::Exact(text) | Self::Prefix(text) => text.len(),
            Self::PrefixAnyCase(text) | Self::Suffix(text) => text.len(),
            Self::Regex(regex) => regex.bytes(),
            Self::OneOf(tests) => tests.iter().map(|test| size_of::<Self>() + test.bytes()).sum(),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Self::Present => f.write_str("is there"),
            Self::Exact(exact) => write!(f, "is {:?}", text(exact)),
            Self::Prefix(prefix) => write!(f, "begins with {:?}", text(prefix)),
            Self::PrefixAnyCase(prefix) => {
                write!(f, "begins with {:?} in any case", text(prefix))
            }
            Self::Suffix(suffix) => write!(f, "ends with {:?}", text(suffix)),
            Self::Regex(regex) => write!(f, "matches {:?} as a whole", regex.pattern),
            Self::OneOf(tests) => {
                let tests: Vec<_> = tests.iter().map(Self::to_string).collect();
                write!(f, "{}", tests.join(" or "))
            }
        }
    }
}

/// A regular expression that a whole value has to match: one table, no backtracking, nothing that
/// searching would have to allocate.
pub(crate) struct Regex {
    pattern: Box<str>,
    dfa: dense::DFA<Vec<u32>>,
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.pattern)
    }
}

impl Regex {
    /// Compiles a pattern in the syntax of RE2; an error says what is wrong with it.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        // As RE2 has it, classes such as \w are of ASCII. A pattern that names what only Unicode
        // has is read with it.
        let dfa = Self::build(pattern, false).or_else(|_| Self::build(pattern, true))?;
        Ok(Self { pattern: pattern.into(), dfa })
    }

    fn build(pattern: &str, is_unicode: bool) -> Result<dense::DFA<Vec<u32>>, String> {
        let built = dense::Builder::new()
            .configure(
                dense::Config::new()
                    .start_kind(regex_automata::dfa::StartKind::Anchored)
                    // Every match is followed to its end: the longest tells whether all is one.
                    .match_kind(MatchKind::All)
                    .minimize(false)
                    .dfa_size_limit(Some(REGEX_BYTES_MAX))
                    .determinize_size_limit(Some(REGEX_BYTES_MAX)),
            )
            .syntax(syntax::Config::new().unicode(is_unicode).utf8(false).nest_limit(64))
            .thompson(
                regex_automata::nfa::thompson::Config::new()
                    .nfa_size_limit(Some(REGEX_BYTES_MAX))
                    .utf8(false),
            )
            .build(pattern);
        built.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            // What is wrong stands behind the pattern and a line that points at it.
            let text = cause.to_string();
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
            last.trim().trim_start_matches("error: ").to_owned()
        })
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.dfa.memory_usage()
    }

    /// Whether all of the value matches.
    pub(crate) fn takes(&self, value: &[u8]) -> bool {
        let input = Input::new(value).anchored(Anchored::Yes);
        // The table knows every byte, and never gives up.
        let found = self.dfa.try_search_fwd(&input).unwrap_or(None);
        found.is_some_and(|found| found.offset() == value.len())
    }
}

/// A network, its address in the form of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: u128,
    mask: u128,
    length: u8,
    is_v4: bool,
}

impl Network {
    /// Of an address, and the length of its prefix in the family of the address.
    pub(crate) fn new(address: IpAddr, length: u8) -> Self {
        let is_v4 = address.is_ipv4();
        let wide_length = u32::from(length) + if is_v4 { 96 } else { 0 };
        let mask = u128::MAX.checked_shl(128 - wide_length.min(128)).unwrap_or(0);
        Self { address: wide(address) & mask, mask, length, is_v4 }
    }

    /// How many bits of an address it says, of the 128 that one of IPv6 has.
    pub(crate) fn bits(&self) -> u32 {
        self.mask.count_ones()
    }

    pub(crate) fn has(&self, address: IpAddr) -> bool {
        wide(address) & self.mask == self.address
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = std::net::Ipv6Addr::from(self.address);
        match address.to_ipv4_mapped().filter(|_| self.is_v4) {
            Some(address) => write!(f, "{address}/{}", self.length),
            None => write!(f, "{address}/{}", self.length),
        }
    }
}

/// An address in the form of IPv6: of IPv4 as it is mapped there.
pub(crate) fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regex_matches_the_whole_value() {
        for (pattern, good, bad) in [
            ("^s.*o$", "sayHello", "sayHello2"),
            ("s.*o", "so", "xso"),
            ("1|2", "2", "12"),
            ("a|ab", "ab", "abc"),
            ("(?i)get", "GeT", "gett"),
            (r"\w+", "abc_1", "a-b"),
            (r"[é]x", "éx", "ex"),
            (r"\d{2,3}", "123", "1234"),
            ("", "", "a"),
            (r"(foo|bar)*?", "foobar", "foob"),
        ] {
            let regex = Regex::new(pattern).unwrap();
            assert!(regex.takes(good.as_bytes()), "{pattern} {good}");
            assert!(!regex.takes(bad.as_bytes()), "{pattern} {bad}");
        }
        assert!(!Regex::new("a.").unwrap().takes(b"a\n"));
        assert!(Regex::new("a.*").unwrap().takes(b"a\xff\xfe"));
    }

    #[test]
    fn bad_and_huge_patterns_are_refused_in_words() {
        for (pattern, why) in [
            ("(", "unclosed group"),
            ("*", "repetition operator missing expression"),
            (r"(?=a)", "look-around"),
            (r"\1", "backreferences"),
            ("(a{1,100}){1,100}{1,100}", "exceeded"),
            ("(x+x+)+y[a-z]{200}.*[0-9]{50}.*(a|b)*a(a|b){14}", "exceeded"),
        ] {
            let wrong = Regex::new(pattern).unwrap_err();
            assert!(wrong.contains(why) && !wrong.contains('\n'), "{pattern}: {wrong}");
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        let network = |text: &str, length| Network::new(text.parse().unwrap(), length);
        let has = |network: Network, text: &str| network.has(text.parse().unwrap());
        assert!(has(network("10.1.2.3", 8), "10.9.9.9"));
        assert!(!has(network("10.0.0.0", 8), "11.0.0.0"));
        assert!(has(network("10.0.0.0", 8), "::ffff:10.0.0.1"));
        assert!(has(network("0.0.0.0", 0), "1.2.3.4"));
        assert!(!has(network("0.0.0.0", 0), "fd00::1"));
        assert!(has(network("::", 0), "fd00::1"));
        assert_eq!(network("10.1.2.3", 8).to_string(), "10.0.0.0/8");
        assert_eq!(network("fd00::1", 128).to_string(), "fd00::1/128");
    }
}
