//! Whom to ask when: each endpoint at intervals of its own, which chance keeps apart. Pure.

use netra_rules::{Checked, HealthCheck};
use std::{collections::HashMap, net::SocketAddr};

/// What is asked, and where.
pub(super) type Key = (SocketAddr, HealthCheck);

/// An interval is longer or shorter by up to so much, in parts.
const JITTER_PART: u64 = 10;

#[derive(Debug)]
pub(super) struct Schedule {
    targets: Vec<Target>,
    /// Chance.
    seed: u64,
}

#[derive(Debug)]
struct Target {
    checked: Checked,
    next_ns: u64,
    is_asked: bool,
}

impl Target {
    fn is_at(&self, (address, check): &Key) -> bool {
        self.checked.address == *address && self.checked.check == *check
    }
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Self { targets: Vec::new(), seed: seed | 1 }
    }

    /// These are to be asked from now on. Who was asked before keeps its time.
    pub(super) fn obey(&mut self, checked: Vec<Checked>, now_ns: u64) {
        let old: HashMap<Key, (u64, bool)> = std::mem::take(&mut self.targets)
            .into_iter()
            .map(|it| ((it.checked.address, it.checked.check), (it.next_ns, it.is_asked)))
            .collect();
        for checked in checked {
            let known = old.get(&(checked.address, checked.check.clone())).copied();
            // Soon, and not all at once.
            let soon = checked.check.interval_ns / JITTER_PART;
            let new = (now_ns + self.chance(soon), false);
            let (next_ns, is_asked) = known.unwrap_or(new);
            self.targets.push(Target { checked, next_ns, is_asked });
        }
    }

    /// Somebody whose time has come: it is asked now.
    pub(super) fn take(&mut self, now_ns: u64) -> Option<Key> {
        let due = self.targets.iter_mut().filter(|it| !it.is_asked && it.next_ns <= now_ns);
        let first = due.min_by_key(|it| it.next_ns)?;
        first.is_asked = true;
        Some((first.checked.address, first.checked.check.clone()))
    }

    /// When the next one's time comes.
    pub(super) fn next(&self) -> Option<u64> {
        self.targets.iter().filter(|it| !it.is_asked).map(|it| it.next_ns).min()
    }

    /// It has been asked; None where it is to be asked no longer.
    pub(super) fn answered(&mut self, key: &Key, now_ns: u64) -> Option<&Checked> {
        let interval = key.1.interval_ns;
        let jitter = self.chance(2 * interval / JITTER_PART);
        let target = self.targets.iter_mut().find(|it| it.is_at(key))?;
        target.is_asked = false;
        target.next_ns = now_ns + interval - interval / JITTER_PART + jitter;
        Some(&target.checked)
    }

    /// Below that; xorshift is chance enough to keep questions apart.
    fn chance(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_rules::{Context, Documents, Source};

    const SECOND: u64 = 1_000_000_000;

    /// Endpoints of a cluster with so many of them, which are asked every ten seconds.
    fn checked(count: usize) -> Vec<Checked> {
        let endpoints: String =
            (1..=count).map(|it| format!("  - {{address: 10.0.0.{it}}}\n")).collect();
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\nspec:\n  \
             hosts: [cache]\n  ports: [{{number: 6379, name: tcp-redis}}]\n  resolution: STATIC\n  \
             endpoints:\n{endpoints}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: it, annotations: {{netra.io/health-check: redis, \
             netra.io/health-check-interval: 10s}}}}\nspec: {{host: cache}}\n---\n\
             apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
             hosts: [cache]\n  routes: [{{route: [{{destination: {{host: cache}}}}]}}]\n"
        );
        let source = Source { name: "it.yaml".into(), text };
        let compiled = Documents::read(&[source]).compile(&Context::of_sidecars(""));
        let table = compiled.table.unwrap_or_else(|| panic!("{}", compiled.troubles));
        table.process(None, 1).checked()
    }

    #[test]
    fn each_is_asked_at_its_time_and_one_at_a_time() {
        let mut schedule = Schedule::new(7);
        schedule.obey(checked(3), 0);
        let mut times: HashMap<SocketAddr, Vec<u64>> = HashMap::new();
        for now in (0..60 * SECOND).step_by(usize::try_from(SECOND / 10).unwrap()) {
            let mut due: Vec<_> = std::iter::from_fn(|| schedule.take(now)).collect();
            assert!(due.len() <= 3);
            for key in due.drain(..) {
                times.entry(key.0).or_default().push(now);
                assert!(schedule.answered(&key, now).is_some());
            }
            assert!(schedule.next().unwrap() > now);
        }
        assert_eq!(times.len(), 3);
        let mut gaps = Vec::new();
        for times in times.values() {
            assert!(times[0] <= SECOND + SECOND / 10, "the first comes soon: {times:?}");
            gaps.extend(times.windows(2).map(|it| it[1] - it[0]));
        }
        let is_near = |gap: &u64| (9 * SECOND..=11 * SECOND + SECOND / 5).contains(gap);
        assert!(gaps.iter().all(is_near) && gaps.iter().any(|gap| *gap != gaps[0]), "{gaps:?}");
    }

    #[test]
    fn who_is_asked_when_rules_change_is_not_asked_twice() {
        let mut schedule = Schedule::new(7);
        schedule.obey(checked(2), 0);
        let later = 2 * SECOND;
        let (one, two) = (schedule.take(later).unwrap(), schedule.take(later).unwrap());
        assert_eq!((schedule.take(later), schedule.next()), (None, None));
        schedule.obey(checked(1), later);
        assert_eq!(schedule.take(later), None);
        let (stays, leaves) =
            if one.0.to_string() < two.0.to_string() { (one, two) } else { (two, one) };
        assert!(schedule.answered(&stays, later).is_some());
        assert!(schedule.answered(&leaves, later).is_none());
        assert!(schedule.next().is_some_and(|next| next >= 11 * SECOND));
    }
}
