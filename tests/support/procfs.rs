//! What the kernel says of a process.

use std::time::Duration;
use std::{fs, thread};

/// Clock ticks a second of `/proc/PID/stat`; fixed by the kernel's ABI on Linux.
const TICKS: f64 = 100.0;

fn status(pid: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Resident memory in bytes; of it, only what is the process's own (no mapped file pages).
pub fn rss_anon(pid: u32) -> u64 {
    status(pid, "RssAnon").expect("RssAnon of a living process") * 1024
}

/// The most that was ever resident, in bytes.
pub fn rss_peak(pid: u32) -> u64 {
    status(pid, "VmHWM").expect("VmHWM of a living process") * 1024
}

/// Whether this process exists and is not a zombie.
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// Number of threads.
pub fn threads(pid: u32) -> u64 {
    status(pid, "Threads").expect("Threads of a living process")
}

/// Open descriptors, as the kernel lists them.
pub fn fds(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    entries.flatten().filter_map(target).map(|link| link.display().to_string()).collect()
}

/// How many sockets are open.
pub fn sockets(pid: u32) -> usize {
    fds(pid).iter().filter(|link| link.starts_with("socket:")).count()
}

/// CPU time used so far, in seconds, all threads.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat of a living process");
    let (_, fields) = stat.rsplit_once(") ").expect("the form of stat");
    let tick = |index: usize| -> f64 {
        fields.split(' ').nth(index).and_then(|text| text.parse().ok()).expect("a number of ticks")
    };
    (tick(11) + tick(12)) / TICKS
}

/// CPU seconds used during `span`.
pub fn cpu_during(pid: u32, span: Duration) -> f64 {
    let before = cpu_seconds(pid);
    thread::sleep(span);
    cpu_seconds(pid) - before
}
