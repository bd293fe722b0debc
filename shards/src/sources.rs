//! Where dials come from: the address that the kernel chooses, unless the application had chosen
//! another, or its ports have run short.
//!
//! Many clients have many addresses; netra dials the application for all of them from one, whose
//! local ports are used up for a minute each where the client ends first. Then further addresses of
//! this host are dialled from: those of `spare`, which are loopback ones, since their ports come
//! back after a second (tcp_tw_reuse is 2, for loopback, where nobody has changed it).

use crate::{links::Several, sys::Nanos};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Destinations for which ports run short that are remembered.
const REMEMBERED: usize = 8;
/// How long it is not tried again whether there are ports: to find none the kernel looks at all.
const RETRY_NS: Nanos = 5_000_000_000;

/// The first sources have no ports left for a destination.
#[derive(Clone, Copy, Debug)]
struct Short {
    to: SocketAddr,
    /// How many of the spare ones, besides the one that the kernel chooses.
    spare: usize,
    until: Nanos,
}

/// A shard's knowledge of them.
#[derive(Debug)]
pub(crate) struct Sources {
    several: Arc<Several>,
    spare: Box<[IpAddr]>,
    short: [Option<Short>; REMEMBERED],
    next: usize,
    /// No `short` outlives this.
    short_until: Nanos,
}

impl Sources {
    pub(crate) fn new(several: Arc<Several>, spare: &[IpAddr]) -> Self {
        Self { several, spare: spare.into(), short: [None; REMEMBERED], next: 0, short_until: 0 }
    }

    /// The address that the application of this host chose or was given for `to`. To bind to it is
    /// two calls, and what the kernel would choose anyway where there is only one.
    pub(crate) fn kept(&self, caller: Option<SocketAddr>, to: SocketAddr) -> Option<IpAddr> {
        let ip = caller?.ip();
        let fits = ip.is_ipv4() == to.is_ipv4() && !ip.is_loopback();
        (fits && self.several.has(to.ip())).then_some(ip)
    }

    /// The spare source that is dialled from at once, because those before it have no ports left.
    #[inline]
    pub(crate) fn spare(&self, to: SocketAddr, now: Nanos) -> Option<IpAddr> {
        if now >= self.short_until {
            return None;
        }
        let short =
            self.short.iter().flatten().find(|short| short.to == to && now < short.until)?;
        self.spares(to).nth(short.spare)
    }

    /// There are no ports from `source` to `to`, none being the one that the kernel chooses. Returns the
    /// next to try.
    pub(crate) fn next(
        &mut self,
        source: Option<IpAddr>,
        to: SocketAddr,
        now: Nanos,
    ) -> Option<IpAddr> {
        let spare = match source {
            None => 0,
            Some(source) => 1 + self.spares(to).position(|ip| ip == source)?,
        };
        let next = self.spares(to).nth(spare)?;
        let short = Short { to, spare, until: now + RETRY_NS };
        self.short_until = short.until;
        let index = self.short.iter().position(|known| known.is_some_and(|known| known.to == to));
        let index = index.unwrap_or_else(|| {
            self.next = (self.next + 1) % REMEMBERED;
            self.next
        });
        self.short[index] = Some(short);
        Some(next)
    }

    fn spares(&self, to: SocketAddr) -> impl Iterator<Item = IpAddr> {
        self.spare.iter().copied().filter(move |ip| ip.is_ipv4() == to.is_ipv4())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        let spare = ["127.0.0.6", "::1", "127.0.0.7"].map(|ip| ip.parse().unwrap());
        Sources::new(Arc::default(), &spare)
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn spare_sources_follow_one_another_until_it_is_time_to_try_again() {
        let mut sources = sources();
        let to: SocketAddr = "10.0.0.2:80".parse().unwrap();
        assert_eq!(sources.spare(to, 1), None);
        assert_eq!(sources.next(None, to, 1), ip("127.0.0.6"));
        assert_eq!(sources.spare(to, 2), ip("127.0.0.6"));
        assert_eq!(sources.next(ip("127.0.0.6"), to, 3), ip("127.0.0.7"));
        assert_eq!(sources.spare(to, 4), ip("127.0.0.7"));
        assert_eq!(sources.next(ip("127.0.0.7"), to, 5), None);
        assert_eq!(sources.spare("10.0.0.2:81".parse().unwrap(), 6), None);
        assert_eq!(sources.spare(to, 3 + RETRY_NS), None);
    }

    #[test]
    fn each_family_has_its_own() {
        let mut sources = sources();
        let to: SocketAddr = "[fd61::2]:80".parse().unwrap();
        assert_eq!(sources.next(None, to, 1), ip("::1"));
        assert_eq!(sources.next(ip("::1"), to, 1), None);
    }

    #[test]
    fn destinations_beyond_those_remembered_are_found_short_again() {
        let mut sources = sources();
        for port in 1..=100 {
            let to = SocketAddr::from(([10, 0, 0, 2], port));
            assert_eq!(sources.next(None, to, 1), ip("127.0.0.6"));
            assert_eq!(sources.spare(to, 2), ip("127.0.0.6"));
        }
    }

    #[test]
    fn nothing_is_kept_where_there_is_no_choice() {
        let sources = sources();
        let to: SocketAddr = "10.0.0.2:80".parse().unwrap();
        assert_eq!(sources.kept(Some("10.0.0.3:4".parse().unwrap()), to), None);
        assert_eq!(sources.kept(None, to), None);
    }
}
