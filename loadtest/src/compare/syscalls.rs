//! Counts the system calls of a subject: with perf, which costs it little, or else with strace. Both
//! slow it down, so this has a load of its own, after the measured ones.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::topology::Running;
use crate::{procfs, sys};

/// From the start of a counter to when it counts.
const SETTLE: Duration = Duration::from_millis(400);
/// Longest that a counter may take to write what it has counted.
const PATIENCE: Duration = Duration::from_secs(5);

/// A program that counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tool {
    Perf,
    Strace,
}

/// A count in progress.
pub(super) struct Counter {
    tool: Tool,
    process: Running,
    out: PathBuf,
}

impl Counter {
    /// Attaches to a process and all below it.
    pub(super) fn attach(root: u32, work: &Path) -> Result<Self> {
        let mut causes = Vec::new();
        for tool in [Tool::Perf, Tool::Strace] {
            match Self::attach_with(tool, root, work) {
                Ok(counter) => return Ok(counter),
                Err(cause) => causes.push(cause.to_string()),
            }
        }
        Err(Error::new(Kind::Tool, causes.join("; ")))
    }

    fn attach_with(tool: Tool, root: u32, work: &Path) -> Result<Self> {
        let out = work.join("calls");
        let _ = std::fs::remove_file(&out);
        let pids: Vec<String> = procfs::tree(root).iter().map(u32::to_string).collect();
        let mut command = Command::new(tool.name());
        match tool {
            Tool::Perf => command.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o"]),
            Tool::Strace => command.args(["-f", "-c", "-U", "calls,name", "-o"]),
        };
        command.arg(&out).args(["-p", &pids.join(",")]);
        let log = work.join("calls.log");
        let mut process = Running::tool(&mut command, Path::new("/dev/null"), &log)?;
        sys::pause(SETTLE);
        if process.ended().is_some() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let why = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it ended");
            return Err(Error::new(Kind::Tool, format!("{}: {}", tool.name(), why.trim())));
        }
        Ok(Self { tool, process, out })
    }

    pub(super) fn name(&self) -> &'static str {
        self.tool.name()
    }

    /// Detaches; the calls since it was attached.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.process.interrupt(PATIENCE);
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        self.tool.parse(&text).ok_or_else(|| {
            Error::new(Kind::Tool, format!("{} did not say how many", self.tool.name()))
        })
    }
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Perf => "perf",
            Self::Strace => "strace",
        }
    }

    fn parse(self, text: &str) -> Option<u64> {
        match self {
            Self::Perf => {
                let line = text.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
                match line.split(',').next()? {
                    // Without a single call there is nothing to count.
                    "<not counted>" => Some(0),
                    count => count.parse().ok(),
                }
            }
            Self::Strace => {
                let line = text.lines().rfind(|line| line.trim_end().ends_with(" total"))?;
                line.split_whitespace().next()?.parse().ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_counters_say_is_read() {
        let perf = "# started on x\n\n1234,,raw_syscalls:sys_enter,99,100.00,,\n";
        assert_eq!(Tool::Perf.parse(perf), Some(1234));
        let none = "<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n";
        assert_eq!(Tool::Perf.parse(none), Some(0));
        let refused = "<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n";
        assert_eq!(Tool::Perf.parse(refused), None);
        let strace = "    calls syscall\n--------- --------\n      12 read\n       3 write\n\
                      --------- --------\n      15 total\n";
        assert_eq!(Tool::Strace.parse(strace), Some(15));
        assert_eq!(Tool::Strace.parse(""), None);
    }
}
