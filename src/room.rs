//! Whether there is room for further connections. Where there is none they wait in the kernel's
//! queue, and whoever waits sees nothing: it is said when it begins and when it is over, and
//! `/ready` says no while it lasts.

use netra_perf::{Gauge, Recorder};
use std::sync::Arc;
use tracing::{info, warn};

/// Looks in a row without room after which `/ready` says no; the first look with room ends that.
const FULL_LOOKS: u32 = 3;
/// Looks in a row without room after which it is said: an accept may fail for once.
const BEGUN_LOOKS: u32 = 2;
/// Looks in a row with room after which it is over, and said.
const QUIET_LOOKS: u32 = 10;

/// Looks at the shards once a second.
#[derive(Debug)]
pub(crate) struct Room {
    recorders: Vec<Arc<Recorder>>,
    connections_max: u32,
    watch: Watch,
}

impl Room {
    pub(crate) fn new(recorders: Vec<Arc<Recorder>>, connections_max: u32) -> Self {
        Self { recorders, connections_max, watch: Watch::default() }
    }

    /// Whether there is too little room to be ready.
    pub(crate) fn look(&mut self) -> bool {
        let is_full = |recorder: &&Arc<Recorder>| recorder.gauge(Gauge::AcceptFull) > 0;
        let full = self.recorders.iter().filter(is_full).count();
        match self.watch.seen(full > 0) {
            Some(Said::Begun) => warn!(
                shards = full,
                connections = self.connections(),
                connections_max = self.connections_max,
                "no room for further connections: they wait in the kernel's queue. Raise the limit \
                 of descriptors (ulimit -n, LimitNOFILE, docker --ulimit nofile), the memory, or \
                 NETRA_CONNECTIONS_MAX, whichever netra --print-config names"
            ),
            Some(Said::Over) => {
                info!(connections = self.connections(), "room for further connections again");
            }
            None => {}
        }
        self.watch.full >= FULL_LOOKS
    }

    fn connections(&self) -> u64 {
        let of_shard = |recorder: &Arc<Recorder>| recorder.gauge(Gauge::ConnectionsActive);
        self.recorders.iter().map(of_shard).sum()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Begun,
    Over,
}

/// Looks in a row of each kind.
#[derive(Debug, Default)]
struct Watch {
    full: u32,
    quiet: u32,
    has_begun: bool,
}

impl Watch {
    fn seen(&mut self, is_full: bool) -> Option<Said> {
        let count = |looks: u32, more: bool| if more { looks.saturating_add(1) } else { 0 };
        (self.full, self.quiet) = (count(self.full, is_full), count(self.quiet, !is_full));
        let changes = match self.has_begun {
            false => self.full >= BEGUN_LOOKS,
            true => self.quiet >= QUIET_LOOKS,
        };
        changes.then(|| {
            self.has_begun = !self.has_begun;
            if self.has_begun { Said::Begun } else { Said::Over }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_house_is_said_once_and_a_gap_is_no_end() {
        let mut watch = Watch::default();
        let mut look = |is_full, looks| -> Vec<Said> {
            (0..looks).filter_map(|_| watch.seen(is_full)).collect()
        };
        assert_eq!(look(false, 100), []);
        assert_eq!(look(true, 5), [Said::Begun]);
        assert_eq!(look(false, QUIET_LOOKS - 1), []);
        assert_eq!(look(true, 1), []);
        assert_eq!(look(false, QUIET_LOOKS + 5), [Said::Over]);
        assert_eq!((look(true, 1), look(false, 1)), (vec![], vec![]));
        assert_eq!(look(true, 2), [Said::Begun]);
    }

    #[test]
    fn ready_is_refused_after_three_looks_and_granted_at_the_first_with_room() {
        let recorders = [Arc::new(Recorder::default()), Arc::new(Recorder::default())];
        let mut room = Room::new(recorders.to_vec(), 9);
        let mut looks = |full: u64, count: usize| -> Vec<bool> {
            recorders[1].set(Gauge::AcceptFull, full);
            (0..count).map(|_| room.look()).collect()
        };
        assert_eq!(looks(1, 4), [false, false, true, true]);
        assert_eq!(looks(0, 1), [false]);
        assert_eq!(looks(1, 3), [false, false, true]);
    }
}
