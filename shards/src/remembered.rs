//! What is true of addresses of this host, for as long as it is not asked for again.

use crate::sys::{Nanos, monotonic_ns};
use std::net::IpAddr;

/// Remembers for a moment what is true of addresses, because asking costs several calls.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    known: [Option<(IpAddr, bool, Nanos)>; 8],
    next: usize,
}

impl Remembered {
    const KEPT_NS: Nanos = 5_000_000_000;

    pub(crate) fn of(&mut self, ip: IpAddr, ask: impl FnOnce() -> bool) -> bool {
        let now = monotonic_ns();
        let fresh = |at: Nanos| now.saturating_sub(at) < Self::KEPT_NS;
        for (known, is_so, at) in self.known.iter().flatten() {
            if *known == ip && fresh(*at) {
                return *is_so;
            }
        }
        let is_so = ask();
        self.known[self.next] = Some((ip, is_so, now));
        self.next = (self.next + 1) % self.known.len();
        is_so
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_asked_for_once() {
        let mut addresses = Remembered::default();
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(addresses.of(ip, || true));
        assert!(addresses.of(ip, || unreachable!("asked twice")));
    }
}
