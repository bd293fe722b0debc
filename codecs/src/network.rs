//! Addresses that begin alike.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A network, its address in the form of IPv6: one of IPv4 is among those that are mapped, so that
/// `::/0` is every address there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: u128,
    mask: u128,
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/BITS`, an IPv6 address with or without brackets.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let inside = match address.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|inside| inside.contains(':'))?,
            None => address,
        };
        let ip: IpAddr = inside.parse().ok()?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= most)?
            }
            Some(_) => return None,
        };
        // An IPv4 network is one of IPv6 in which the first 96 bits are given.
        let given = bits + 128 - most;
        let mask = u128::MAX.checked_shl(128 - given).unwrap_or(0);
        let address = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        // Bits behind the network are more likely a slip than meant.
        (address & !mask == 0).then_some(Self { address, mask })
    }

    /// Whether the address is one of it.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        wide(ip) & self.mask == self.address
    }

    /// How many bits of an address are given: the more, the narrower it is.
    pub(crate) fn bits(&self) -> u32 {
        self.mask.count_ones()
    }
}

impl fmt::Display for Network {
    /// As it is read, an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = Ipv6Addr::from_bits(self.address);
        let bits = self.bits();
        match (ip.to_ipv4_mapped().filter(|_| bits >= 96), bits) {
            (Some(v4), 128) => write!(f, "{v4}"),
            (Some(v4), bits) => write!(f, "{v4}/{}", bits - 96),
            (None, 128) => write!(f, "[{ip}]"),
            (None, bits) => write!(f, "[{ip}]/{bits}"),
        }
    }
}

/// An address as one of IPv6, which one of IPv4 is mapped to.
fn wide(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_shown_as_they_are_read() {
        for (text, shown, bits) in [
            ("10.0.0.0/8", "10.0.0.0/8", 104),
            ("10.0.0.8", "10.0.0.8", 128),
            ("10.0.0.8/32", "10.0.0.8", 128),
            ("0.0.0.0/0", "0.0.0.0/0", 96),
            ("fd00::/8", "[fd00::]/8", 8),
            ("[fd00::]/8", "[fd00::]/8", 8),
            ("[fd00::8]", "[fd00::8]", 128),
            ("::/0", "[::]/0", 0),
        ] {
            let network = Network::parse(text).unwrap();
            assert_eq!((&*network.to_string(), network.bits()), (shown, bits), "{text}");
            assert_eq!(Network::parse(shown), Some(network), "{text}");
        }
    }
}
