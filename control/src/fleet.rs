//! Who asks: the sidecars that were heard of lately, and what each of them runs.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Sidecars that are remembered, at most; those beyond are served, and counted.
const SIDECARS_MAX: usize = 50_000;
/// Bytes of a sidecar's name and of its trouble that are kept.
const TEXT_BYTES_MAX: usize = 256;
/// Silence after which a sidecar is no longer counted: several long polls.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// What is known of one, beside whose it is and its name.
#[derive(Clone, Debug)]
pub(crate) struct Sidecar {
    /// The tag of what it runs; empty when it has nothing.
    pub(crate) tag: Box<str>,
    /// Why it did not take what it got last; empty when it took it.
    pub(crate) trouble: Box<str>,
    heard: Instant,
}

/// Its namespace and its pod.
type Name = (Box<str>, Box<str>);

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    sidecars: Mutex<HashMap<Name, Sidecar>>,
}

/// What is told of the fleet.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) sidecars: usize,
    pub(crate) with_trouble: usize,
    /// How many run each tag.
    pub(crate) tags: Vec<(String, usize)>,
}

impl Fleet {
    fn sidecars(&self) -> MutexGuard<'_, HashMap<Name, Sidecar>> {
        self.sidecars.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One has asked.
    pub(crate) fn hear(&self, namespace: &str, pod: &str, tag: &str, trouble: &str) {
        let [pod, tag, trouble] = [pod, tag, trouble].map(shortened);
        let key = (namespace.into(), pod);
        let mut sidecars = self.sidecars();
        if sidecars.len() >= SIDECARS_MAX && !sidecars.contains_key(&key) {
            sidecars.retain(|_, it| it.heard.elapsed() < FORGOTTEN_AFTER);
            if sidecars.len() >= SIDECARS_MAX {
                return;
            }
        }
        sidecars.insert(key, Sidecar { tag, trouble, heard: Instant::now() });
    }

    /// Those that were heard of lately, in order.
    pub(crate) fn all(&self) -> Vec<(Name, Sidecar)> {
        let mut sidecars = self.sidecars();
        sidecars.retain(|_, it| it.heard.elapsed() < FORGOTTEN_AFTER);
        let mut all: Vec<_> =
            sidecars.iter().map(|(name, it)| (name.clone(), it.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// How many of each namespace run each tag.
    pub(crate) fn tags(&self) -> HashMap<(String, String), usize> {
        let mut tags = HashMap::new();
        let sidecars = self.sidecars();
        let lately = sidecars.iter().filter(|(_, it)| it.heard.elapsed() < FORGOTTEN_AFTER);
        for ((namespace, _), it) in lately {
            *tags.entry((namespace.to_string(), it.tag.to_string())).or_default() += 1;
        }
        tags
    }

    /// How many there are, and what they run.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census::default();
        let mut tags: HashMap<String, usize> = HashMap::new();
        for sidecar in self.sidecars().values() {
            if sidecar.heard.elapsed() < FORGOTTEN_AFTER {
                census.sidecars += 1;
                census.with_trouble += usize::from(!sidecar.trouble.is_empty());
                *tags.entry(sidecar.tag.to_string()).or_default() += 1;
            }
        }
        census.tags = tags.into_iter().collect();
        census.tags.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        census
    }
}

fn shortened(text: &str) -> Box<str> {
    text.chars().take(TEXT_BYTES_MAX).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_census_counts_each_sidecar_once() {
        let fleet = Fleet::default();
        fleet.hear("shop", "a", "\"1\"", "");
        fleet.hear("shop", "a", "\"2\"", "");
        fleet.hear("shop", "b", "\"2\"", "line 1: no\n");
        fleet.hear("pay", "a", "\"1\"", "");
        let census = fleet.census();
        assert_eq!((census.sidecars, census.with_trouble), (3, 1));
        assert_eq!(census.tags, [("\"2\"".to_owned(), 2), ("\"1\"".to_owned(), 1)]);
        let all = fleet.all();
        assert_eq!((&*all[0].0.0, &*all[2].1.trouble), ("pay", "line 1: no"));
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        let fleet = Fleet::default();
        for pod in 0..SIDECARS_MAX + 10 {
            fleet.hear("shop", &pod.to_string(), "", "");
        }
        assert_eq!(fleet.census().sidecars, SIDECARS_MAX);
    }
}
