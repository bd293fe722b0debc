//! Profiles: where CPU time and memory go, as pprof's protobuf, as folded text, as a picture.
//! Whatever is slow here, symbols above all, runs in the thread of whoever asks, never on a shard.

mod cpu;
mod elf;
mod flame;
mod folded;
mod nearest;
mod pprof;
mod symbols;

pub use cpu::{HZ_MAX, Refused, Room, sample_cpu};
pub use symbols::Symbols;

use std::sync::Arc;

/// A profile: stacks with values.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// What each value of a row is, and its unit.
    pub values: Vec<(&'static str, &'static str)>,
    /// What one sample stands for: kind, unit, how many.
    pub period: Option<(&'static str, &'static str, i64)>,
    /// When it was begun, in nanoseconds of Unix time.
    pub time_unix_ns: i64,
    /// How long it took.
    pub duration_ns: i64,
    /// The stacks.
    pub rows: Vec<Row>,
    /// What else is to be said, for people.
    pub comments: Vec<String>,
}

/// A stack and how much was seen of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The innermost place first; stacks share them.
    pub stack: Vec<Arc<Place>>,
    /// One for each of [`Profile::values`].
    pub values: Vec<i64>,
    /// Labels, such as the thread.
    pub labels: Vec<(&'static str, String)>,
}

/// A place in the code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its address; 0 for what is no code.
    pub address: u64,
    /// The functions there, inlined ones first.
    pub calls: Vec<Call>,
}

/// A function and where in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Call {
    /// Its name.
    pub function: String,
    /// Its file, if that is known.
    pub file: String,
    /// The line, if that is known.
    pub line: u32,
}

impl Place {
    /// Something that has a name and no code.
    pub fn named(name: impl Into<String>) -> Self {
        Self { address: 0, calls: vec![Call { function: name.into(), ..Call::default() }] }
    }
}

impl Row {
    /// The names from the outermost to the innermost.
    fn path(&self) -> impl Iterator<Item = &str> {
        let threads = self.labels.iter().filter(|label| label.0 == "thread");
        let calls = self.stack.iter().rev().flat_map(|place| place.calls.iter().rev());
        threads.map(|label| label.1.as_str()).chain(calls.map(|call| call.function.as_str()))
    }
}

#[cfg(test)]
pub(crate) fn example() -> Profile {
    let place = |address, names: &[&str]| {
        let call = |name: &&str| Call { function: (*name).into(), file: "a.rs".into(), line: 7 };
        Arc::new(Place { address, calls: names.iter().map(call).collect() })
    };
    let row = |stack, count: i64| Row {
        stack,
        values: vec![count, count * 10_000_000],
        labels: vec![("thread", "shard-0".into())],
    };
    Profile {
        values: vec![("samples", "count"), ("cpu", "nanoseconds")],
        period: Some(("cpu", "nanoseconds", 10_000_000)),
        time_unix_ns: 1_700_000_000_000_000_000,
        duration_ns: 1_000_000_000,
        rows: vec![
            row(vec![place(1, &["leaf", "inlined_into<T>"]), place(2, &["main"])], 3),
            row(vec![place(3, &["other;odd"]), place(2, &["main"])], 1),
        ],
        comments: vec!["a comment".into()],
    }
}
