//! What the kernel says about this process: read from /proc when somebody looks, in code that is
//! never on a data core.

use std::fs;

/// Figures of this process, those that /proc gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Address space, most of it never touched.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// Descriptors it may open.
    pub max_fds: Option<u64>,
    /// CPU time in user and kernel mode, all threads.
    pub cpu_seconds: Option<f64>,
}

impl Process {
    /// Reads the figures as they are now.
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let status = text("/proc/self/status");
        Self {
            resident_bytes: status_bytes(&status, "VmRSS:"),
            virtual_bytes: status_bytes(&status, "VmSize:"),
            threads: status_number(&status, "Threads:"),
            open_fds: open_fds(),
            max_fds: max_fds(&text("/proc/self/limits")),
            cpu_seconds: cpu_seconds(&text("/proc/self/stat")),
        }
    }
}

/// Ticks of /proc/self/stat; USER_HZ is part of the kernel's interface and 100 where netra runs.
const TICKS_PER_SECOND: f64 = 100.0;

fn status_number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

fn status_bytes(status: &str, key: &str) -> Option<u64> {
    status_number(status, key).map(|kib| kib * 1024)
}

/// Linux 6.2 keeps the count as the size of the directory; before that it says 0, and the entries
/// are counted, less the one that counting opens.
fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64),
        count => Some(count),
    }
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// proc(5): fields 14 and 15 are utime and stime. The name in field 2 may hold blanks and brackets,
/// so counting begins behind the last bracket, with field 3.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_this_process_are_plausible() {
        let now = Process::read();
        assert!(now.resident_bytes.unwrap() > 100 * 1024);
        assert!(now.virtual_bytes.unwrap() >= now.resident_bytes.unwrap());
        assert!(now.threads.unwrap() >= 1);
        assert!(now.open_fds.unwrap() >= 3 && now.max_fds.unwrap() >= now.open_fds.unwrap());
        assert!(now.cpu_seconds.unwrap() >= 0.0);
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(cpu_seconds("7 (netra) S 1"), None);
    }

    #[test]
    fn limits_and_status_that_say_nothing_give_nothing() {
        assert_eq!(max_fds("Max open files            1024  4096  files\n"), Some(1024));
        assert_eq!(max_fds("Max open files            unlimited  unlimited  files\n"), None);
        assert_eq!(status_bytes("VmRSS:\t    2048 kB\n", "VmRSS:"), Some(2 << 20));
        assert_eq!(status_bytes("", "VmRSS:"), None);
    }
}
