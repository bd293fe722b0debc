//! What processes and the machine used, read from /proc.

use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::clock::float;

/// What a process and its children used until now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU seconds, to the nanosecond; threads that ended and workers of io_uring included.
    pub(crate) cpu: f64,
    /// CPU seconds in user space and in the kernel, to the clock tick.
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// Context switches of the threads that are alive, and those of them that were forced.
    pub(crate) switches: u64,
    pub(crate) forced_switches: u64,
    /// Page faults that needed no disk.
    pub(crate) faults: u64,
    pub(crate) rss_bytes: u64,
    pub(crate) pss_bytes: u64,
    pub(crate) fd_count: u64,
    pub(crate) thread_count: u64,
    /// Workers of io_uring: threads of the kernel's that do for it what would have blocked.
    pub(crate) io_workers: u64,
}

impl Usage {
    /// Of a process and all below it.
    pub(crate) fn of_tree(root: u32) -> Self {
        let mut sum = Self::default();
        for pid in tree(root) {
            sum.add(pid);
        }
        sum
    }

    fn add(&mut self, pid: u32) {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
        if let Some((user, system)) = read("stat").ok().as_deref().and_then(parse_times) {
            let tick = ticks_per_second();
            self.user += float(user) / tick;
            self.system += float(system) / tick;
            self.cpu += cpu_seconds(pid).unwrap_or(float(user + system) / tick);
        }
        self.faults += read("stat").ok().as_deref().and_then(parse_faults).unwrap_or(0);
        if let Ok(rollup) = read("smaps_rollup") {
            self.rss_bytes += field(&rollup, "Rss:").unwrap_or(0) * 1024;
            self.pss_bytes += field(&rollup, "Pss:").unwrap_or(0) * 1024;
        }
        self.fd_count += fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |d| d.count() as u64);
        for task in tasks(pid) {
            self.thread_count += 1;
            let name = fs::read_to_string(format!("/proc/{pid}/task/{task}/comm"));
            self.io_workers += u64::from(name.is_ok_and(|name| name.starts_with("iou-")));
            if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/task/{task}/status")) {
                let forced = field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
                self.switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0) + forced;
                self.forced_switches += forced;
            }
        }
    }
}

fn cpu_seconds(pid: u32) -> Option<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    Some(Duration::from(clock_gettime(clock).ok()?).as_secs_f64())
}

/// Resident memory of a process and all below it, which is cheap to read.
pub(crate) fn rss_of_tree(root: u32) -> u64 {
    let pages = |pid: u32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        text.split(' ').nth(1)?.parse().ok()
    };
    tree(root).into_iter().filter_map(pages).sum::<u64>() * 4096
}

fn tasks(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A process and all below it.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut at = 0;
    // A process tree has no cycles; the bound is for a machine that forks faster than we read.
    while at < all.len() && all.len() < 4096 {
        let pid = all[at];
        for task in tasks(pid) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{task}/children"));
            let children = children.unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
        at += 1;
    }
    all
}

/// Every thread of a process and of all below it.
pub(crate) fn threads(root: u32) -> Vec<u32> {
    tree(root).into_iter().flat_map(tasks).collect()
}

/// User and system ticks from `stat`; the name in parentheses may hold anything.
fn parse_times(stat: &str) -> Option<(u64, u64)> {
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    Some((words.nth(11)?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Minor page faults from `stat`.
fn parse_faults(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(7)?.parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn ticks_per_second() -> f64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    float(ticks.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100))
}

/// What all CPUs did until now, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuTimes {
    /// User, nice and system time.
    pub(crate) busy: f64,
    /// Interrupts and soft interrupts, which nobody is charged for.
    pub(crate) interrupts: f64,
    /// Taken by the hypervisor.
    pub(crate) steal: f64,
}

impl CpuTimes {
    pub(crate) fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default(), ticks_per_second())
    }

    fn parse(stat: &str, tick: f64) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let words: Vec<u64> =
            line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        let sum = |at: &[usize]| {
            float(at.iter().filter_map(|&index| words.get(index)).sum::<u64>()) / tick
        };
        Self { busy: sum(&[0, 1, 2]), interrupts: sum(&[5, 6]), steal: sum(&[7]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0 20";
        assert_eq!(parse_times(stat), Some((111, 222)));
        assert_eq!(parse_faults(stat), Some(7));
        assert_eq!(parse_times("nonsense"), None);
    }

    #[test]
    fn the_line_of_all_cpus_is_split() {
        let stat = "cpu  100 20 30 4000 5 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let times = CpuTimes::parse(stat, 100.0);
        assert_eq!((times.busy, times.interrupts, times.steal), (1.5, 0.13, 0.08));
    }

    #[test]
    fn we_see_ourselves() {
        let before = Usage::of_tree(std::process::id());
        let end = std::time::Instant::now() + Duration::from_millis(30);
        while std::time::Instant::now() < end {
            std::hint::black_box(0);
        }
        let after = Usage::of_tree(std::process::id());
        assert!(after.cpu > before.cpu, "{before:?} {after:?}");
        assert!(after.faults > 0 && after.forced_switches <= after.switches);
        assert!(threads(std::process::id()).contains(&std::process::id()));
        assert!(after.rss_bytes > 0 && after.pss_bytes > 0 && after.fd_count > 2);
        assert!(after.thread_count >= 1 && rss_of_tree(std::process::id()) > 0);
    }
}
