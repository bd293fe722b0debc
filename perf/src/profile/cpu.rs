//! CPU time by sampling: a software clock of the kernel for each thread, read through a ring that
//! the kernel fills (perf_event_open). No signal, no handler: the thread that is sampled does not
//! notice. The only user of perf-event2.

use super::{Place, Profile, Row, Symbols};
use perf_event::{Builder, SampleFlag, Sampler, data::Record, events::Software};
use std::{
    collections::HashMap,
    fmt, fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The most samples a second: beyond that sampling itself would show.
pub const HZ_MAX: u32 = 999;
/// Bytes of each ring: hundreds of stacks.
const RING_BYTES: usize = 32 * 1024;
/// How often rings are emptied, and whether to stop is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Values from here on are marks in a stack, not addresses (PERF_CONTEXT_MAX).
const MARKS_FROM: u64 = (-4095i64).cast_unsigned();
const KERNEL_BEGINS: u64 = (-128i64).cast_unsigned();
const USER_BEGINS: u64 = (-512i64).cast_unsigned();

/// Why there is no profile.
#[derive(Debug)]
pub struct Refused {
    source: io::Error,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
        let paranoid = paranoid.unwrap_or_default();
        let likely = match self.source.raw_os_error() {
            Some(libc_errno::EACCES) => format!(
                "kernel.perf_event_paranoid is {}; 2 or less is needed, or CAP_PERFMON",
                paranoid.trim()
            ),
            Some(libc_errno::EPERM | libc_errno::ENOSYS) => {
                "likely the container runtime's seccomp profile; allow perf_event_open".to_owned()
            }
            Some(libc_errno::EMFILE) => "no descriptors are left".to_owned(),
            _ => "see perf_event_open(2)".to_owned(),
        };
        write!(f, "perf_event_open: {}: {likely}", self.source)
    }
}

impl std::error::Error for Refused {}

/// Error numbers of Linux, the same wherever netra runs.
mod libc_errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const EACCES: i32 = 13;
    pub(super) const EMFILE: i32 = 24;
    pub(super) const ENOSYS: i32 = 38;
}

/// A thread of this process that is being sampled.
struct Thread {
    id: i32,
    name: String,
    sampler: Sampler,
    /// Clock ticks in the kernel when sampling began.
    system_ticks: u64,
}

/// Different stacks that are kept.
const STACKS_MAX: usize = 4096;
/// What an address of a stack may cost, all in all: in the stack, in its row, and as text with the name of
/// its function.
const ADDRESS_BYTES: u64 = 128;
/// A profile of less would say nothing.
const ADDRESSES_LEAST: u64 = 4096;
/// A busy process has some hundred stacks of 40 calls.
const ADDRESSES_MAX: u64 = 32 * 1024;

/// What a profile may take of memory, beside the samplers themselves.
#[derive(Debug)]
pub struct Room<N> {
    /// Bytes for stacks, and for what is made of them.
    pub stacks: u64,
    /// Says, when the sampling is over, how many bytes debug information may take.
    pub names: N,
}

/// Where threads were seen, and how often.
#[derive(Debug)]
struct Stacks {
    /// By the index of the thread, then the stack as the kernel wrote it.
    counts: HashMap<(usize, Vec<u64>), i64>,
    /// Addresses in all of them together, so far and at most.
    addresses: u64,
    addresses_max: u64,
}

impl Stacks {
    /// Of so many bytes, all in all.
    fn within(bytes: u64) -> Self {
        let addresses_max = (bytes / ADDRESS_BYTES).clamp(ADDRESSES_LEAST, ADDRESSES_MAX);
        Self { counts: HashMap::new(), addresses: 0, addresses_max }
    }

    /// Counts a stack; false when it is one more than are kept.
    fn note(&mut self, stack: (usize, Vec<u64>)) -> bool {
        if let Some(count) = self.counts.get_mut(&stack) {
            *count += 1;
            return true;
        }
        let addresses = self.addresses + stack.1.len() as u64;
        if self.counts.len() >= STACKS_MAX || addresses > self.addresses_max {
            return false;
        }
        self.addresses = addresses;
        self.counts.insert(stack, 1);
        true
    }
}

/// Samples all threads for a while. Blocks; ends early when `stop` is set. The kernel's own part is
/// sampled where that is allowed, and else taken from /proc.
///
/// # Errors
/// The kernel does not let this process sample itself.
pub fn sample_cpu(
    hz: u32,
    time: Duration,
    stop: &AtomicBool,
    room: &Room<impl Fn() -> u64>,
) -> Result<Profile, Refused> {
    let hz = hz.clamp(1, HZ_MAX);
    let (started, begun) = (SystemTime::now(), Instant::now());
    let own = thread_id();
    let (mut threads, has_kernel) = open(hz, own)?;
    let (mut stacks, mut lost) = (Stacks::within(room.stacks), 0);
    while begun.elapsed() < time && !stop.load(Relaxed) {
        thread::park_timeout(LOOK_EVERY.min(time.saturating_sub(begun.elapsed())));
        for (index, thread) in threads.iter_mut().enumerate() {
            lost += drain(index, &mut thread.sampler, &mut stacks);
        }
    }
    let took = begun.elapsed();
    let period_ns = i64::from(1_000_000_000 / hz);
    let mut symbols = Symbols::within((room.names)());
    symbols.read_kernel(all(&stacks, true).map(|spot| spot.address));
    symbols.read_user(all(&stacks, false).map(|spot| (spot.address, spot.is_call)));
    let mut profile = Profile {
        values: vec![("samples", "count"), ("cpu", "nanoseconds")],
        period: Some(("cpu", "nanoseconds", period_ns)),
        time_unix_ns: nanos(started.duration_since(UNIX_EPOCH).unwrap_or_default()),
        duration_ns: nanos(took),
        rows: rows(&stacks, &threads, period_ns, &mut symbols),
        comments: vec![format!("netra: software cpu-clock at {hz} Hz, {lost} samples lost")],
    };
    if symbols.is_cramped() {
        let text = "there is too little memory to read debug information: lines and inlined functions \
                    are missing";
        profile.comments.push(text.into());
    }
    if !has_kernel {
        let text = "the kernel may not be sampled here (kernel.perf_event_paranoid); its time is \
                    that of /proc, in clock ticks";
        profile.comments.push(text.into());
        profile.rows.extend(threads.iter().filter_map(|it| kernel_row(it, period_ns)));
    }
    Ok(profile)
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn thread_id() -> i32 {
    let link = fs::read_link("/proc/thread-self").unwrap_or_default();
    link.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0)
}

/// One sampler for each thread but the own one; with the kernel's part where that is allowed.
fn open(hz: u32, own: i32) -> Result<(Vec<Thread>, bool), Refused> {
    let refused = |source| Refused { source };
    let tasks = fs::read_dir("/proc/self/task").map_err(refused)?;
    let mut has_kernel = true;
    let mut threads = Vec::new();
    for task in tasks.flatten() {
        let Some(id) = task.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if id == own {
            continue;
        }
        let mut sampler = sampler(id, hz, has_kernel);
        let is_denied = |e: &io::Error| {
            matches!(e.raw_os_error(), Some(libc_errno::EACCES | libc_errno::EPERM))
        };
        if has_kernel && sampler.as_ref().is_err_and(is_denied) {
            has_kernel = false;
            sampler = self::sampler(id, hz, false);
        }
        match sampler {
            Ok(sampler) => {
                let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
                let name = name.trim().to_owned();
                threads.push(Thread { id, name, sampler, system_ticks: system_ticks(id) });
            }
            // It has ended between the list and now.
            Err(e) if e.raw_os_error() == Some(3) => {}
            Err(e) => return Err(refused(e)),
        }
    }
    Ok((threads, has_kernel))
}

fn sampler(id: i32, hz: u32, has_kernel: bool) -> io::Result<Sampler> {
    let mut builder = Builder::new(Software::CPU_CLOCK);
    builder
        .observe_pid(id)
        .any_cpu()
        .sample_frequency(hz.into())
        .sample(SampleFlag::IP | SampleFlag::CALLCHAIN)
        .exclude_kernel(!has_kernel)
        .exclude_hv(true)
        .enabled(true);
    builder.build()?.sampled(RING_BYTES)
}

/// Takes what is in a ring; returns how many samples had no room there.
fn drain(index: usize, sampler: &mut Sampler, stacks: &mut Stacks) -> u64 {
    let mut lost = 0;
    while let Some(record) = sampler.next_record() {
        match record.parse_record() {
            Ok(Record::Sample(sample)) => {
                let chain = sample.callchain().map(<[u64]>::to_vec);
                let stack = chain.or(sample.ip().map(|ip| vec![ip])).unwrap_or_default();
                lost += u64::from(!stacks.note((index, stack)));
            }
            Ok(Record::Lost(record)) => lost += record.lost,
            _ => {}
        }
    }
    lost
}

fn rows(stacks: &Stacks, threads: &[Thread], period_ns: i64, symbols: &mut Symbols) -> Vec<Row> {
    stacks
        .counts
        .iter()
        .map(|((index, stack), count)| Row {
            stack: places(stack, symbols),
            values: vec![*count, count * period_ns],
            labels: vec![("thread", threads[*index].name.clone())],
        })
        .collect()
}

/// An address of a stack, and whether it is the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    address: u64,
    is_kernel: bool,
    /// It is where a call returns to.
    is_call: bool,
}

/// The addresses of a stack. The kernel marks where its own part and the program's begin.
fn spots(stack: &[u64]) -> impl Iterator<Item = Spot> {
    let (mut is_kernel, mut is_call) = (false, false);
    stack.iter().filter_map(move |address| {
        let address = *address;
        if address < MARKS_FROM {
            return Some(Spot {
                address,
                is_kernel,
                is_call: std::mem::replace(&mut is_call, true),
            });
        }
        match address {
            KERNEL_BEGINS => (is_kernel, is_call) = (true, false),
            USER_BEGINS => (is_kernel, is_call) = (false, false),
            _ => {}
        }
        None
    })
}

/// The kernel's addresses of all stacks, or the program's.
fn all(stacks: &Stacks, is_kernel: bool) -> impl Iterator<Item = Spot> {
    let all = stacks.counts.keys().flat_map(|(_, stack)| spots(stack));
    all.filter(move |spot| spot.is_kernel == is_kernel)
}

/// Names a stack.
fn places(stack: &[u64], symbols: &mut Symbols) -> Vec<Arc<Place>> {
    let place = |spot: Spot| match spot.is_kernel {
        true => symbols.kernel(spot.address),
        false => symbols.user(spot.address, spot.is_call),
    };
    spots(stack).map(place).collect()
}

/// What a thread spent in the kernel meanwhile, when that could not be sampled.
fn kernel_row(thread: &Thread, period_ns: i64) -> Option<Row> {
    const TICK_NS: i64 = 10_000_000;
    let ticks = system_ticks(thread.id).saturating_sub(thread.system_ticks);
    let ns = i64::try_from(ticks).ok().filter(|ticks| *ticks > 0)? * TICK_NS;
    Some(Row {
        stack: vec![Arc::new(Place::named("[k] kernel, not sampled"))],
        values: vec![ns / period_ns, ns],
        labels: vec![("thread", thread.name.clone())],
    })
}

/// proc(5): field 15 of a task's stat; counting begins behind the name, which ends with a bracket.
fn system_ticks(id: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().nth(12).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{super::Call, *};
    use std::sync::Barrier;

    #[test]
    fn a_profile_keeps_so_many_stacks_and_counts_on() {
        let mut stacks = Stacks::within(u64::MAX);
        for n in 0..STACKS_MAX as u64 {
            assert!(stacks.note((0, vec![n])));
        }
        assert!(!stacks.note((1, vec![0])));
        assert!(stacks.note((0, vec![0])));
        assert_eq!((stacks.counts.len(), stacks.counts[&(0, vec![0])]), (STACKS_MAX, 2));
    }

    /// As many deep stacks as are kept, none like another.
    #[test]
    fn whatever_the_stacks_are_a_profile_takes_no_more_than_its_room() {
        // The deepest that the kernel walks.
        const DEEP: u64 = 127;
        const BYTES: u64 = 1 << 20;
        let mut stacks = Stacks::within(BYTES);
        let deep = |n: u64| (0, (0..DEEP).map(|at| n * DEEP + at + 1).collect());
        let kept = (0..STACKS_MAX as u64).filter(|n| stacks.note(deep(*n))).count() as u64;
        assert_eq!(kept, BYTES / ADDRESS_BYTES / DEEP);
        assert!(stacks.note(deep(0)), "one that is there");
        let place = |spot: Spot| {
            let function = format!("netra::{}{}", "module::".repeat(9), spot.address);
            Arc::new(Place {
                address: spot.address,
                calls: vec![Call { function, ..Call::default() }],
            })
        };
        let rows = stacks.counts.keys().map(|(_, stack)| Row {
            stack: spots(stack).map(place).collect(),
            values: vec![1],
            labels: vec![("thread", "shard-0".into())],
        });
        let profile = Profile { rows: rows.collect(), ..Profile::default() };
        let (folded, picture) = (profile.to_folded().len(), profile.to_flame_graph("all").len());
        assert!(folded <= 1 << 20 && picture < 3 << 19, "{folded} and {picture} bytes");
        assert!(profile.to_pprof().unwrap().len() < 1 << 19);
        assert_eq!(Stacks::within(0).addresses_max, ADDRESSES_LEAST);
        assert_eq!(Stacks::within(u64::MAX).addresses_max, ADDRESSES_MAX);
    }

    #[inline(never)]
    fn burns_cpu(stop: &AtomicBool) -> u64 {
        let mut n = 0u64;
        while !stop.load(Relaxed) {
            n = std::hint::black_box(n.wrapping_mul(31).wrapping_add(7));
        }
        n
    }

    #[test]
    fn a_thread_that_burns_cpu_is_found() {
        let stop = Arc::new(AtomicBool::new(false));
        let burn = Arc::clone(&stop);
        // A thread has its own name only once it runs.
        let begun = Arc::new(Barrier::new(2));
        let begins = Arc::clone(&begun);
        let burns = move || {
            begins.wait();
            burns_cpu(&burn)
        };
        let burning = thread::Builder::new().name("burner".into()).spawn(burns).unwrap();
        begun.wait();
        let room = Room { stacks: u64::MAX, names: || u64::MAX };
        let profile = sample_cpu(199, Duration::from_millis(700), &AtomicBool::new(false), &room);
        stop.store(true, Relaxed);
        burning.join().unwrap();
        let profile = match profile {
            Ok(profile) => profile,
            // The test is of this machine, then; the end-to-end test insists.
            Err(refused) => {
                assert!(refused.to_string().contains("perf_event"), "{refused}");
                return;
            }
        };
        let folded = profile.to_folded();
        let burnt: i64 = folded
            .lines()
            .filter(|line| line.starts_with("burner;") && line.contains("burns_cpu"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap())
            .sum();
        let all: i64 = profile.rows.iter().map(|row| row.values[0]).sum();
        assert!(burnt * 10 > all * 8 && burnt > 10, "{burnt} of {all}\n{folded}");
    }

    #[test]
    fn refusals_name_their_likely_cause() {
        for (errno, word) in [(1, "seccomp"), (13, "perf_event_paranoid"), (24, "descriptors")] {
            let refused = Refused { source: io::Error::from_raw_os_error(errno) };
            let line = refused.to_string();
            assert!(line.contains(word) && !line.contains('\n'), "{line}");
        }
    }
}
