//! Looks at a running subject: its system calls with their time, and its wake-ups. With bpftrace, or
//! else strace, which counts calls but makes every time of them its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::float;
use crate::error::{Context, Error, Kind, Result};
use crate::topology::Running;
use crate::{procfs, sys};

const PROGRAM: &str = include_str!("watch.bt");
/// What bpftrace says when it counts, as JSON.
const ATTACHED: &str = "\"attached_probes\"";
/// Longest until a watcher counts, and until it has written what it counted.
const PATIENCE: Duration = Duration::from_secs(20);
/// From the start of strace to when it counts, which it does not tell.
const SETTLE: Duration = Duration::from_millis(500);

/// Calls of one kind, all of them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Call {
    pub(super) name: String,
    /// The call of the same thread before it; unknown to strace.
    pub(super) before: String,
    pub(super) is_failed: bool,
    pub(super) count: f64,
    /// On the CPU, the watcher's own cost included.
    pub(super) ns: Option<f64>,
}

/// How often threads were woken, and how long it took until they ran.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Wakes {
    pub(super) subject: f64,
    pub(super) subject_ns: f64,
    /// Of the load and the server.
    pub(super) others: f64,
    pub(super) others_ns: f64,
    /// Mean latency meanwhile, which the watcher makes longer.
    pub(super) mean_us: f64,
}

/// What was seen during a load.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Seen {
    pub(super) calls: Vec<Call>,
    /// Why there is none, where that is so.
    pub(super) wakes: std::result::Result<Wakes, String>,
}

/// A look in progress.
pub(super) struct Watch {
    process: Running,
    out: PathBuf,
    /// Why it is not bpftrace that looks.
    fallback: Option<String>,
}

impl Watch {
    /// Attaches to a process and all below it.
    pub(super) fn attach(root: u32, work: &Path) -> Result<Self> {
        let because = match Self::bpftrace(root, work) {
            Ok(watch) => return Ok(watch),
            Err(cause) => cause.to_string(),
        };
        let strace = Self::strace(root, work);
        strace
            .map_err(|cause| Error::new(Kind::Tool, format!("{because}; {cause}")))
            .map(|watch| Self { fallback: Some(because), ..watch })
    }

    fn bpftrace(root: u32, work: &Path) -> Result<Self> {
        let (script, out) = (work.join("watch.bt"), work.join("watch.json"));
        let threads: String =
            procfs::threads(root).iter().map(|tid| format!("@is[{tid}] = 1; ")).collect();
        let program = PROGRAM.replace("{threads}", &threads).replace("{comm}", &own_comm());
        std::fs::write(&script, program).context(|| script.display().to_string())?;
        let mut command = Command::new("bpftrace");
        command.args(["-B", "none", "-f", "json"]).arg(&script);
        let mut process = Running::tool(&mut command, &out, &work.join("watch.log"))?;
        let begun = Instant::now();
        while !read(&out).contains(ATTACHED) {
            if process.ended().is_some() || begun.elapsed() > PATIENCE {
                let said = read(&work.join("watch.log")) + &read(&out);
                let why = said
                    .lines()
                    .find(|line| line.contains("ERROR"))
                    .unwrap_or("it does not attach");
                return Err(Error::new(Kind::Tool, format!("bpftrace: {}", why.trim())));
            }
            sys::pause(Duration::from_millis(50));
        }
        Ok(Self { process, out, fallback: None })
    }

    fn strace(root: u32, work: &Path) -> Result<Self> {
        let (out, log) = (work.join("watch.strace"), work.join("watch.log"));
        let pids: Vec<String> = procfs::tree(root).iter().map(u32::to_string).collect();
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-U", "calls,name", "-p", &pids.join(","), "-o"]).arg(&out);
        let mut process = Running::tool(&mut command, &work.join("watch.out"), &log)?;
        sys::pause(SETTLE);
        match process.ended() {
            Some(_) => Err(Error::new(Kind::Tool, format!("strace: {}", read(&log).trim()))),
            None => Ok(Self { process, out, fallback: Some(String::new()) }),
        }
    }

    /// Detaches; what was seen since it was attached.
    pub(super) fn finish(mut self) -> Result<Seen> {
        self.process.interrupt(PATIENCE);
        let text = read(&self.out);
        match self.fallback {
            None => {
                parse_maps(&text).ok_or_else(|| Error::new(Kind::Tool, "bpftrace said nothing"))
            }
            Some(because) => Ok(Seen { calls: parse_counts(&text), wakes: Err(because) }),
        }
    }
}

/// The name that load and server have in the kernel, being this program.
fn own_comm() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // TASK_COMM_LEN with its zero.
    name.chars().filter(|c| !matches!(c, '"' | '\\')).take(15).collect()
}

pub(super) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Reads the maps that bpftrace prints at its end, a line of JSON for each.
fn parse_maps(text: &str) -> Option<Seen> {
    let mut maps: BTreeMap<String, Value> = BTreeMap::new();
    for line in text.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        if line["type"] == "map" {
            maps.extend(line["data"].as_object()?.clone());
        }
    }
    let calls = maps.get("@calls")?.as_object()?;
    let times = maps.get("@ns");
    let number = |name: &str| maps.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let mut seen = Seen {
        calls: Vec::new(),
        wakes: Ok(Wakes {
            subject: number("@wakes"),
            subject_ns: number("@wake_ns"),
            others: number("@others"),
            others_ns: number("@others_ns"),
            mean_us: 0.0,
        }),
    };
    for (key, count) in calls {
        let mut words = key.split(',').map(str::trim);
        let (before, id, failed) = (words.next()?, words.next()?, words.next()?);
        seen.calls.push(Call {
            name: name(id),
            before: name(before),
            is_failed: failed == "1",
            count: count.as_f64()?,
            ns: times.and_then(|times| times[key].as_f64()),
        });
    }
    Some(seen)
}

/// Reads the table of `strace -c`.
fn parse_counts(text: &str) -> Vec<Call> {
    let row = |line: &str| -> Option<Call> {
        let mut words = line.split_whitespace();
        let count = float(words.next()?.parse().ok()?);
        let name = words.next()?.to_owned();
        (name != "total").then(|| Call { name, count, ..Call::default() })
    };
    text.lines().filter_map(row).collect()
}

/// Names of the calls that relays make.
fn name(id: &str) -> String {
    const NAMES: &[(libc::c_long, &str)] = &[
        (libc::SYS_accept4, "accept4"),
        (libc::SYS_brk, "brk"),
        (libc::SYS_clock_gettime, "clock_gettime"),
        (libc::SYS_close, "close"),
        (libc::SYS_connect, "connect"),
        (libc::SYS_epoll_ctl, "epoll_ctl"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_epoll_pwait2, "epoll_pwait2"),
        (libc::SYS_epoll_wait, "epoll_wait"),
        (libc::SYS_fcntl, "fcntl"),
        (libc::SYS_futex, "futex"),
        (libc::SYS_getpeername, "getpeername"),
        (libc::SYS_getpid, "getpid"),
        (libc::SYS_getsockname, "getsockname"),
        (libc::SYS_getsockopt, "getsockopt"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_ioctl, "ioctl"),
        (libc::SYS_madvise, "madvise"),
        (libc::SYS_mmap, "mmap"),
        (libc::SYS_munmap, "munmap"),
        (libc::SYS_read, "read"),
        (libc::SYS_readv, "readv"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_recvmsg, "recvmsg"),
        (libc::SYS_sendmsg, "sendmsg"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_setsockopt, "setsockopt"),
        (libc::SYS_shutdown, "shutdown"),
        (libc::SYS_socket, "socket"),
        (libc::SYS_splice, "splice"),
        (libc::SYS_write, "write"),
        (libc::SYS_writev, "writev"),
    ];
    let number = id.parse::<libc::c_long>().ok();
    let known = number.and_then(|id| NAMES.iter().find(|(number, _)| *number == id));
    known.map_or_else(|| format!("call {id}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maps_of_bpftrace_are_read() {
        let text = "{\"type\": \"attached_probes\", \"data\": {\"probes\": 9}}\n\
            {\"type\": \"map\", \"data\": {\"@calls\": {\"45,44,0\": 12, \"3,3,0\": 4}}}\n\
            {\"type\": \"map\", \"data\": {\"@ns\": {\"45,44,0\": 1200, \"3,3,0\": 8}}}\n\
            {\"type\": \"map\", \"data\": {\"@wakes\": 3}}\n\
            {\"type\": \"map\", \"data\": {\"@wake_ns\": 90}}\n";
        let seen = parse_maps(text).expect("two kinds of calls");
        let sent = seen.calls.iter().find(|call| call.name == "sendto").expect("sendto");
        assert_eq!((sent.before.as_str(), sent.count, sent.ns), ("recvfrom", 12.0, Some(1200.0)));
        let wakes = seen.wakes.expect("wakes");
        assert_eq!((wakes.subject, wakes.subject_ns, wakes.others), (3.0, 90.0, 0.0));
        assert!(parse_maps("ERROR: no\n").is_none());
    }

    #[test]
    fn the_table_of_strace_is_read() {
        let text = "    calls syscall\n--------- --------\n      12 read\n       3 write\n\
                    --------- --------\n      15 total\n";
        let calls = parse_counts(text);
        let shown: Vec<(&str, f64)> = calls.iter().map(|c| (c.name.as_str(), c.count)).collect();
        assert_eq!(shown, [("read", 12.0), ("write", 3.0)]);
    }

    #[test]
    fn unknown_calls_keep_their_number() {
        assert_eq!(name(&libc::SYS_connect.to_string()), "connect");
        assert_eq!(name("9999"), "call 9999");
    }
}
