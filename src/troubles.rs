//! What the shards meet and only count, because a shard never logs: said once when it begins and
//! once when it is over.

use netra_perf::{Key, Recorder};
use std::sync::Arc;
use tracing::{info, warn};

/// Looks without another case after which a trouble is over.
const QUIET_LOOKS: u32 = 60;

/// Troubles that are watched.
#[derive(Debug)]
pub(crate) struct Troubles {
    recorders: Vec<Arc<Recorder>>,
    watches: [Watch; 3],
}

impl Troubles {
    pub(crate) fn new(recorders: Vec<Arc<Recorder>>) -> Self {
        let watches = [
            Watch::new(
                Key::OWN_DIAL_REJECTED,
                "the rules send netra's own connections back to it: they are reset. Run netra as a \
                 user of its own, and tell netra-init which (NETRA_SIDECAR_USER_ID)",
                "the rules leave netra's own connections alone again",
            ),
            Watch::new(
                Key::FOREIGN_DESTINATION,
                "connections from outside are for the loopback address or for another host: they \
                 are reset. Guests come in by NETRA_REROUTE_INTERFACES",
                "no more connections from outside that are for nobody here",
            ),
            Watch::new(
                Key::SPARE_SOURCE,
                "local ports run short, because clients end their connections first: the \
                 application sees some come from NETRA_SPARE_SOURCES",
                "there are local ports again",
            ),
        ];
        Self { recorders, watches }
    }

    /// Looks once a second, and says what has begun and what is over.
    pub(crate) fn look(&mut self) {
        for watch in &mut self.watches {
            let count = self.recorders.iter().map(|recorder| recorder.get(watch.key)).sum();
            match watch.seen(count) {
                Some(Said::Begun(count)) => warn!(count, "{}", watch.begun),
                Some(Said::Over(count)) => info!(count, "{}", watch.over),
                None => {}
            }
        }
    }
}

/// What is to be said, with the cases so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Begun(u64),
    Over(u64),
}

#[derive(Debug)]
struct Watch {
    key: Key,
    begun: &'static str,
    over: &'static str,
    /// Cases in all, and before this time.
    count: u64,
    before: u64,
    /// Looks since the last case, while it has begun.
    quiet: Option<u32>,
}

impl Watch {
    fn new(key: Key, begun: &'static str, over: &'static str) -> Self {
        Self { key, begun, over, count: 0, before: 0, quiet: None }
    }

    fn seen(&mut self, count: u64) -> Option<Said> {
        let has_more = count > std::mem::replace(&mut self.count, count);
        match (self.quiet, has_more) {
            (None, false) => None,
            (None, true) => {
                self.quiet = Some(0);
                Some(Said::Begun(count - self.before))
            }
            (Some(_), true) => {
                self.quiet = Some(0);
                None
            }
            (Some(quiet), false) if quiet + 1 < QUIET_LOOKS => {
                self.quiet = Some(quiet + 1);
                None
            }
            (Some(_), false) => {
                self.quiet = None;
                let before = std::mem::replace(&mut self.before, count);
                Some(Said::Over(count - before))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_said_at_its_beginning_and_at_its_end() {
        let mut watch = Watch::new(Key::SPARE_SOURCE, "", "");
        let mut said = Vec::new();
        let mut look = |count, looks| said.extend((0..looks).filter_map(|_| watch.seen(count)));
        look(0, 100);
        look(3, QUIET_LOOKS);
        look(4, QUIET_LOOKS);
        look(5, QUIET_LOOKS + 100);
        look(7, QUIET_LOOKS + 1);
        assert_eq!(said, [Said::Begun(3), Said::Over(5), Said::Begun(2), Said::Over(2)]);
    }
}
