//! One budget of memory for the process, parted among all that can grow. Each part is a number of
//! things with a price: what netra itself takes for one, and what it has the kernel keep. Together
//! the parts are no more than the budget, so that a process of which everything is filled at once
//! lives on.

use crate::{
    config::{Config, PagesRoom},
    cpus::levels,
    load::Loaded,
};
use netra_shards::MemoryWatch;
use std::fmt::Write;

const MIB: u64 = 1 << 20;
/// What does not grow: the program and its threads, 4.7 MiB at the start.
const BASE: u64 = 6 * MIB;
/// The part of the budget that nobody is given, as its inverse: what the allocator cannot use, what
/// is charged in batches, and bytes in sockets where the cgroup counts them (v2).
const RESERVE: u64 = 16;
/// Shares are so many of these, of what base and reserve leave.
const SHARES: u64 = 64;

/// One kind of thing that grows.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    /// In [`SHARES`]; what is not used of it goes to connections.
    share: u64,
    /// Bytes for one, netra's own and the kernel's.
    price: u64,
}

/// What is parted, by these numbers. Connections get all that the others leave.
const TABLE: [Row; KINDS] = [
    Row { name: "buffers", share: 8, price: 0 },
    // Storage grows by doubling: a byte that is held may cost two.
    Row { name: "heads", share: 6, price: 2 },
    // Its two descriptors and its slots; the pages in it are those that were in the sockets.
    Row { name: "pipes", share: 2, price: 4096 },
    // A context, its place in the index, and an eighth of a route.
    Row { name: "contexts", share: 4, price: 192 },
    // One in the ring, and one in the making.
    Row { name: "spans", share: 3, price: 1024 },
    // Encoded, with its tags.
    Row { name: "spans to send", share: 2, price: 1024 },
    // A request's record and a connection's.
    Row { name: "log records", share: 1, price: 704 },
    // The question, what waits and is remembered, and its part of one look-up for eight names.
    Row { name: "names", share: 1, price: 4096 },
    // Answers that nobody reads, of each port; a profile or a time line; connections to netra's own ports.
    Row { name: "own pages", share: 5, price: 1 },
];
const KINDS: usize = 9;
const BUFFERS: usize = 0;
const HEADS: usize = 1;
const PIPES: usize = 2;
const CONTEXTS: usize = 3;
const SPANS: usize = 4;
const QUEUE: usize = 5;
const RECORDS: usize = 6;
const NAMES: usize = 7;
const PAGES: usize = 8;

/// What an idle connection costs: 8.1 KiB of the kernel's for two sockets (measured:
/// `docs/PERFORMANCE.md`, memory), and netra's own.
const CONNECTION: u64 = 9_728;
/// On ports that are read also its state, and the storage that each half keeps between heads in
/// pieces.
const READ_CONNECTION: u64 = CONNECTION + 512 + 2 * HELD_KEEP as u64;
/// That storage, where connections are bounded by the budget.
const HELD_KEEP: u32 = 512;
/// Fewer connections than this are no use to anybody.
const CONNECTIONS_LEAST: u64 = 64;

/// Of how many sorts connections are that hold heads in pieces, each with its own cap on a shard:
/// HTTP's, also where it is found, and those of all other protocols.
fn readers(config: &Config) -> u64 {
    u64::from(!config.http.ports.is_empty() || config.detects) + u64::from(config.reads_others())
}

/// How many of one kind there may be in the whole process.
#[derive(Clone, Copy, Debug)]
struct Wish {
    /// By its setting, or by what is in the code.
    most: u64,
    /// Below this it does not work.
    least: u64,
    /// Somebody has set it: that wins.
    is_set: bool,
}

/// All that the parting depends on.
#[derive(Clone, Copy, Debug)]
struct Wishes {
    buffer_bytes: u64,
    kinds: [Wish; KINDS],
    connection_price: u64,
    connections: Wish,
}

/// How many of each kind there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    kinds: [u64; KINDS],
    connections: u64,
}

/// A budget and how it is parted.
#[derive(Clone, Debug)]
struct Budget {
    bytes: u64,
    why: &'static str,
    wishes: Wishes,
    counts: Counts,
}

/// The limit of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    bytes: u64,
    usage_file: String,
    stat_file: String,
}

/// What this machine says about memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// The least limit of the cgroups from ours upwards.
    limit: Option<Limit>,
    /// All of the machine.
    total: u64,
}

impl Memory {
    /// Asks the kernel.
    pub(crate) fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let cgroups = read("/proc/self/cgroup").unwrap_or_default();
        let total = read("/proc/meminfo").and_then(|text| mem_total(&text)).unwrap_or(1 << 30);
        Self { limit: limit(&cgroups, total, read), total }
    }
}

/// Parts the budget, and puts each part into the configuration. What does not fit is told in a
/// warning: the one who sets a cap by hand has it.
pub(crate) fn apply(loaded: &mut Loaded, shards: usize, memory: &Memory) {
    let budget = Budget::new(loaded, shards as u64, memory);
    budget.put(&mut loaded.config, shards as u64);
    // Where the cgroup counts for more than netra alone, its own limit is the line.
    loaded.config.memory = memory.limit.as_ref().map(|limit| MemoryWatch {
        usage_file: limit.usage_file.clone().into(),
        stat_file: limit.stat_file.clone().into(),
        limit: limit.bytes.min(budget.bytes),
    });
    loaded.warnings.extend(budget.warnings(memory));
    loaded.decided = budget.decided(&loaded.config);
}

impl Wishes {
    fn of(loaded: &Loaded, shards: u64) -> Self {
        let config = &loaded.config;
        let readers = readers(config);
        let each = |most: u64, least: u64, name: Option<&str>| Wish {
            most: most * shards,
            least: least.min(most) * shards,
            is_set: name.is_some_and(|name| loaded.is_set(name)),
        };
        let once = |most: u64, least: u64| Wish { most, least: least.min(most), is_set: false };
        let none = Wish { most: 0, least: 0, is_set: false };
        let when = |is: bool, wish: Wish| if is { wish } else { none };
        let (limits, http) = (&config.limits, &config.http);
        let traces = config.tracing.as_ref();
        let spans = traces.map_or(0, |it| it.tracing.spans_max as u64);
        let queue = traces.map_or(0, |it| it.export.queue_spans as u64);
        let records = config.access_log.as_ref().map_or(0, |log| log.records_max as u64);
        let asked = u64::from(limits.connections_max);
        let is_set = asked > 0;
        let connections = if is_set { asked } else { u32::MAX.into() };
        Self {
            buffer_bytes: limits.buffer_bytes.into(),
            kinds: [
                each(limits.buffers_max.into(), 32, Some("NETRA_BUFFERS_MAX")),
                each(readers * http.held_bytes_max as u64, readers * (128 << 10), None),
                each(limits.pipes_max.into(), 8, Some("NETRA_PIPES_MAX")),
                when(config.remembers_contexts(), each(http.limits.contexts_max.into(), 256, None)),
                each(spans, 64, None),
                once(queue, 256),
                each(records, 64, None),
                when(config.has_routing(), once(config.names_max as u64, 16)),
                once(PagesRoom::MOST, MIB),
            ],
            connection_price: if readers > 0 { READ_CONNECTION } else { CONNECTION },
            connections: Wish { most: connections, least: CONNECTIONS_LEAST, is_set },
        }
    }

    fn price(&self, kind: usize) -> u64 {
        if kind == BUFFERS { self.buffer_bytes } else { TABLE[kind].price }
    }
}

/// How many of each kind a budget allows.
fn part(bytes: u64, wishes: &Wishes) -> Counts {
    let free = bytes.saturating_sub(BASE + bytes / RESERVE);
    let mut kinds = [0; KINDS];
    let mut given = 0;
    for (kind, row) in TABLE.iter().enumerate() {
        let (wish, price) = (wishes.kinds[kind], wishes.price(kind));
        kinds[kind] = allowed(free * row.share / SHARES / price, wish);
        given += kinds[kind] * price;
    }
    let rest = free.saturating_sub(given);
    Counts { kinds, connections: allowed(rest / wishes.connection_price, wishes.connections) }
}

fn allowed(affordable: u64, wish: Wish) -> u64 {
    if wish.is_set { wish.most } else { affordable.clamp(wish.least, wish.most.max(wish.least)) }
}

impl Budget {
    fn new(loaded: &Loaded, shards: u64, memory: &Memory) -> Self {
        let (bytes, why) = match (loaded.config.memory_max, &memory.limit) {
            (Some(bytes), _) => (bytes, "as set"),
            (None, Some(limit)) => (limit.bytes, "the cgroup's limit"),
            (None, None) => (memory.total / 2, "half of the machine"),
        };
        let wishes = Wishes::of(loaded, shards);
        Self { bytes, why, wishes, counts: part(bytes, &wishes) }
    }

    /// Tells everybody what may be used.
    fn put(&self, config: &mut Config, shards: u64) {
        let all = |kind: usize| usize::try_from(self.counts.kinds[kind]).unwrap_or(usize::MAX);
        let each =
            |kind: usize| u32::try_from(self.counts.kinds[kind] / shards).unwrap_or(u32::MAX);
        let readers = usize::try_from(readers(config)).unwrap_or(1);
        let limits = &mut config.limits;
        limits.buffers_max = each(BUFFERS);
        limits.direction_buffers_max = limits.direction_buffers_max.min(limits.buffers_max);
        limits.pipes_max = each(PIPES);
        limits.connections_max = u32::try_from(self.counts.connections).unwrap_or(u32::MAX);
        let http = &mut config.http;
        http.held_bytes_max = each(HEADS) as usize / readers.max(1);
        http.limits.contexts_max = each(CONTEXTS);
        http.limits.held_keep_bytes = http.limits.held_keep_bytes.min(HELD_KEEP);
        config.names_max = all(NAMES);
        config.pages = PagesRoom::of(self.counts.kinds[PAGES]);
        if let Some(traces) = &mut config.tracing {
            traces.tracing.spans_max = each(SPANS) as usize;
            traces.export.queue_spans = all(QUEUE);
        }
        if let Some(log) = &mut config.access_log {
            log.records_max = each(RECORDS) as usize;
        }
    }

    fn warnings(&self, memory: &Memory) -> Vec<String> {
        let (sum, bytes, why) = (self.sum(), self.bytes, self.why);
        let mut warnings = Vec::new();
        if sum > bytes {
            let (sum, bytes) = (mib(sum), mib(bytes));
            warnings.push(format!(
                "all caps together are {sum} MiB, more than NETRA_MEMORY_MAX, {bytes} MiB ({why}): \
                 when everything is filled at once, the kernel may end netra"
            ));
        }
        if let Some(limit) = memory.limit.as_ref().filter(|limit| limit.bytes < bytes) {
            let (bytes, limit) = (mib(bytes), mib(limit.bytes));
            let line =
                format!("NETRA_MEMORY_MAX is {bytes} MiB, and the cgroup allows {limit} MiB");
            warnings.push(line);
        }
        warnings
    }

    /// Each part by name, in bytes; together they are [`Budget::sum`].
    fn parts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let of =
            |kind: usize| (TABLE[kind].name, self.counts.kinds[kind] * self.wishes.price(kind));
        let kinds = (0..KINDS).map(of).filter(|(_, bytes)| *bytes > 0);
        let connections = self.counts.connections * self.wishes.connection_price;
        // Where nothing bounds them but the number of descriptors, they have no part.
        let bounded = self.counts.connections < u32::MAX.into();
        let connections = bounded.then_some(("connections", connections));
        let fixed = [("base", BASE), ("reserve", self.bytes / RESERVE)];
        connections.into_iter().chain(kinds).chain(fixed)
    }

    fn sum(&self) -> u64 {
        self.parts().map(|(_, bytes)| bytes).sum()
    }

    /// What `auto` came to, by setting.
    fn decided(&self, config: &Config) -> Vec<(&'static str, String)> {
        let mut words = format!("{} MiB, {}: ", mib(self.bytes), self.why);
        for (index, (name, bytes)) in self.parts().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let _ = write!(words, "{comma}{name} {}", mib(bytes));
        }
        let part = |count: u32| format!("{count} by NETRA_MEMORY_MAX");
        let limits = &config.limits;
        let mut decided = vec![("NETRA_MEMORY_MAX", words)];
        if !self.wishes.connections.is_set && limits.connections_max < u32::MAX {
            let most = format!("at most {}", part(limits.connections_max));
            decided.push(("NETRA_CONNECTIONS_MAX", most));
        }
        let less = |kind: usize| self.counts.kinds[kind] < self.wishes.kinds[kind].most;
        if less(BUFFERS) {
            decided.push(("NETRA_BUFFERS_MAX", part(limits.buffers_max)));
        }
        if less(PIPES) {
            decided.push(("NETRA_PIPES_MAX", part(limits.pipes_max)));
        }
        decided
    }
}

/// Mebibytes with one decimal, where there is one.
fn mib(bytes: u64) -> String {
    let tenths = (bytes * 10 + MIB / 2) / MIB;
    match tenths % 10 {
        0 => format!("{}", tenths / 10),
        tenth => format!("{}.{tenth}", tenths / 10),
    }
}

/// The least limit of the cgroups from ours upwards, v1 or v2; none that is more than the machine
/// has, as v1 says where there is none.
fn limit(cgroups: &str, total: u64, read: impl Fn(&str) -> Option<String>) -> Option<Limit> {
    let mut least: Option<Limit> = None;
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, limit, usage) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
            v1 if v1.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => continue,
        };
        for level in levels(path) {
            let file = |name| format!("{root}{level}/{name}");
            let bytes = read(&file(limit)).and_then(|text| text.trim().parse::<u64>().ok());
            let Some(bytes) = bytes.filter(|bytes| *bytes < total) else { continue };
            if least.as_ref().is_none_or(|least| bytes < least.bytes) {
                let (usage_file, stat_file) = (file(usage), file("memory.stat"));
                least = Some(Limit { bytes, usage_file, stat_file });
            }
        }
    }
    least
}

/// `MemTotal:  24683424 kB`.
fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
