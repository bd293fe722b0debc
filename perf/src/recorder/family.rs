//! What a group of counters with one name is, and which series it has.

use super::Key;

/// What a family's series are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Only goes up; kept in nanoseconds, shown in seconds.
    CounterSeconds,
}

/// One series of a family: its cell, and its label values in the order of the family's labels.
#[derive(Clone, Debug)]
pub struct Series {
    /// Where its value is.
    pub key: Key,
    /// Its label values.
    pub labels: Vec<&'static str>,
}

/// A group of series with one name.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The metric's name, without the `_total` of counters.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Counter or seconds.
    pub kind: Kind,
    /// Label names; `shard` is added by the reader where `per_shard` is set.
    pub labels: &'static [&'static str],
    /// Shown for each shard, not summed.
    pub per_shard: bool,
    pub(super) first: usize,
    pub(super) axes: &'static [&'static [&'static str]],
}

impl Family {
    /// All series of this family: the product of its label values.
    pub fn series(&self) -> Vec<Series> {
        let mut rows = vec![Vec::new()];
        for axis in self.axes {
            rows = rows
                .into_iter()
                .flat_map(|row: Vec<&'static str>| {
                    axis.iter().map(move |value| row.iter().copied().chain([*value]).collect())
                })
                .collect();
        }
        (self.first..).zip(rows).map(|(cell, labels)| Series { key: Key(cell), labels }).collect()
    }
}

pub(super) const fn single(name: &'static str, help: &'static str, key: Key) -> Family {
    Family {
        name,
        help,
        kind: Kind::Counter,
        labels: &[],
        per_shard: false,
        first: key.0,
        axes: &[],
    }
}

pub(super) const fn per_shard(name: &'static str, help: &'static str, key: Key) -> Family {
    Family {
        name,
        help,
        kind: Kind::Counter,
        labels: &[],
        per_shard: true,
        first: key.0,
        axes: &[],
    }
}
