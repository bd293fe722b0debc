//! Sets of numbers kept as sorted, disjoint, non-adjacent ranges: one normal form, so that two
//! spellings of the same set give the same rules, and the kernel never sees an overlap.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A number that can bound a range.
pub trait Bound: Copy + Ord + Debug {
    /// The smallest value.
    const FIRST: Self;
    /// The largest value.
    const LAST: Self;
    /// The value after this one, unless it is the last.
    fn next(self) -> Option<Self>;
    /// Network byte order, as nf_tables compares it.
    fn wire(self) -> Vec<u8>;
}

macro_rules! bound {
    ($($int:ty),*) => {$(
        impl Bound for $int {
            const FIRST: Self = Self::MIN;
            const LAST: Self = Self::MAX;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn wire(self) -> Vec<u8> {
                self.to_be_bytes().to_vec()
            }
        }
    )*};
}
bound!(u16, u32, u128);

/// A closed range.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Range<T> {
    /// First member.
    pub first: T,
    /// Last member.
    pub last: T,
}

impl<T: Bound> Range<T> {
    /// Whether the range has exactly one member.
    pub fn is_single(&self) -> bool {
        self.first == self.last
    }
}

/// A set of numbers in normal form.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RangeSet<T>(Vec<Range<T>>);

impl<T: Bound> RangeSet<T> {
    /// Brings ranges in any order, overlapping or not, to the normal form.
    pub fn new(mut ranges: Vec<Range<T>>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<Range<T>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.last.next().is_none_or(|next| range.first <= next) => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[Range<T>] {
        &self.0
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every value of the type is in the set.
    pub fn is_full(&self) -> bool {
        matches!(self.0[..], [Range { first, last }] if first == T::FIRST && last == T::LAST)
    }

    /// Whether `value` is in the set.
    pub fn contains(&self, value: T) -> bool {
        self.0.iter().any(|range| range.first <= value && value <= range.last)
    }

    /// This set with another one added.
    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).copied().collect())
    }
}

/// A set of TCP ports.
pub type PortSet = RangeSet<u16>;

/// A set of addresses of both families, each in its normal form.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AddrSet {
    /// IPv4 addresses as numbers.
    pub v4: RangeSet<u32>,
    /// IPv6 addresses as numbers.
    pub v6: RangeSet<u128>,
}

impl AddrSet {
    /// Collects CIDRs (address and prefix length); host bits are masked off.
    pub fn from_cidrs(cidrs: &[(IpAddr, u8)]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for &(addr, prefix_len) in cidrs {
            match addr {
                IpAddr::V4(addr) => {
                    let host = u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
                    let first = u32::from(addr) & !host;
                    v4.push(Range { first, last: first | host });
                }
                IpAddr::V6(addr) => {
                    let host = u128::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
                    let first = u128::from(addr) & !host;
                    v6.push(Range { first, last: first | host });
                }
            }
        }
        Self { v4: RangeSet::new(v4), v6: RangeSet::new(v6) }
    }

    /// Whether no address of either family is in the set.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// An address type as the backends see it: how it is written, and how long it is.
pub trait Address: Bound {
    /// Bits of an address.
    const BITS: u8;
    /// The address as people write it.
    fn text(self) -> String;
    /// How many of the last bits are free if the range is one CIDR, `None` if it is not.
    fn host_bits(range: Range<Self>) -> Option<u8>;
    /// The last address of the largest CIDR that starts at `first` and ends at or before `last`.
    fn largest_cidr_end(first: Self, last: Self) -> Self;

    /// The prefix length if the range is one CIDR.
    fn prefix_len(range: Range<Self>) -> Option<u8> {
        Self::host_bits(range).map(|host_bits| Self::BITS - host_bits)
    }
}

macro_rules! address {
    ($int:ty, $addr:ty, $bits:literal) => {
        impl Address for $int {
            const BITS: u8 = $bits;
            fn text(self) -> String {
                <$addr>::from(self).to_string()
            }
            fn host_bits(range: Range<Self>) -> Option<u8> {
                let host = range.first ^ range.last;
                let is_mask = host & host.wrapping_add(1) == 0;
                let is_aligned = range.first & host == 0;
                (is_mask && is_aligned).then_some(u8::try_from(host.count_ones()).unwrap_or($bits))
            }
            fn largest_cidr_end(first: Self, last: Self) -> Self {
                let mut end = first;
                for host_bits in 1..=<$int>::BITS {
                    let host = <$int>::MAX >> (<$int>::BITS - host_bits);
                    if first & host != 0 || first | host > last {
                        break;
                    }
                    end = first | host;
                }
                end
            }
        }
    };
}
address!(u32, Ipv4Addr, 32);
address!(u128, Ipv6Addr, 128);

/// Splits a range into the fewest CIDRs, for backends that know no address ranges.
pub fn to_cidrs<T: Address>(range: Range<T>) -> Vec<Range<T>> {
    let mut cidrs = Vec::new();
    let mut first = range.first;
    loop {
        let last = T::largest_cidr_end(first, range.last);
        cidrs.push(Range { first, last });
        match last.next() {
            Some(next) if last < range.last => first = next,
            _ => return cidrs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(ranges: &[(u16, u16)]) -> PortSet {
        RangeSet::new(ranges.iter().map(|&(first, last)| Range { first, last }).collect())
    }

    #[test]
    fn one_normal_form() {
        assert_eq!(
            ports(&[(80, 80), (443, 443), (81, 90), (85, 100)]),
            ports(&[(80, 100), (443, 443)])
        );
        assert_eq!(ports(&[(1, 65535), (65535, 65535), (7, 7)]), ports(&[(1, 65535)]));
        assert!(ports(&[(0, 65535)]).is_full());
        assert!(!ports(&[(1, 65535)]).is_full());
        assert!(ports(&[(80, 90)]).contains(90) && !ports(&[(80, 90)]).contains(91));
    }

    #[test]
    fn cidrs_merge_and_mask() {
        let set = AddrSet::from_cidrs(&[
            ("10.0.0.7".parse().unwrap(), 9),
            ("10.128.0.0".parse().unwrap(), 9),
            ("fe80::1".parse().unwrap(), 10),
            ("::".parse().unwrap(), 0),
        ]);
        let range = set.v4.ranges()[0];
        assert_eq!((range.first.text(), u32::prefix_len(range)), ("10.0.0.0".into(), Some(8)));
        assert!(set.v6.is_full());
        assert_eq!(u128::prefix_len(set.v6.ranges()[0]), Some(0));
    }

    #[test]
    fn ranges_split_into_cidrs() {
        let range = Range { first: 0x0a01_0000, last: 0x0a03_ffff };
        let text: Vec<_> = to_cidrs(range)
            .into_iter()
            .map(|cidr| format!("{}/{}", cidr.first.text(), u32::prefix_len(cidr).unwrap()))
            .collect();
        assert_eq!(text, ["10.1.0.0/16", "10.2.0.0/15"]);
        assert_eq!(to_cidrs(Range { first: 0u32, last: u32::MAX }).len(), 1);
        assert_eq!(to_cidrs(Range { first: 1u32, last: u32::MAX - 1 }).len(), 62);
        assert_eq!(to_cidrs(Range { first: u128::MAX, last: u128::MAX }).len(), 1);
        assert_eq!(u32::prefix_len(range), None);
        assert_eq!(u32::prefix_len(Range { first: 5, last: 5 }), Some(32));
    }
}
