//! A memory cgroup for one process, v1 or v2, made by hand: the kernel's own judge of how much a
//! process takes, sockets and all that it has the kernel keep included.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the memory controller is mounted: v1 has a folder of its own.
const ROOTS: [(&str, Version); 2] =
    [("/sys/fs/cgroup/memory", Version::One), ("/sys/fs/cgroup", Version::Two)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A cgroup with a limit of memory. Dropping it takes it away; its processes have ended by then.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
    version: Version,
}

impl Cgroup {
    /// `None` where the machine does not let us; with `NETRA_REQUIRE_NETNS=1` that is a failure.
    pub fn with_memory(bytes: u64) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("netra-e2e.{}.{number}", process::id());
        for (root, version) in ROOTS {
            let dir = Path::new(root).join(&name);
            if version == Version::Two {
                // The root's children may be limited; where they may already, this says nothing new.
                drop(fs::write(Path::new(root).join("cgroup.subtree_control"), "+memory"));
            }
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            let made = Self { dir, version };
            if fs::write(made.dir.join(made.file("limit_in_bytes", "max")), bytes.to_string())
                .is_ok()
            {
                // Bytes in sockets are counted by v1 only where they are limited.
                drop(fs::write(
                    made.dir.join("memory.kmem.tcp.limit_in_bytes"),
                    (1u64 << 40).to_string(),
                ));
                return Some(made);
            }
        }
        let required = std::env::var("NETRA_REQUIRE_NETNS").is_ok_and(|value| value == "1");
        assert!(!required, "NETRA_REQUIRE_NETNS=1, but no memory cgroup can be made here");
        eprintln!("SKIPPED: no memory cgroup can be made here");
        None
    }

    fn file(&self, one: &str, two: &str) -> String {
        format!("memory.{}", if self.version == Version::One { one } else { two })
    }

    /// What a process writes "0" to, to enter.
    pub fn door(&self) -> File {
        let path = self.dir.join("cgroup.procs");
        File::options().write(true).open(path).expect("the door of the cgroup")
    }

    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.dir.join(file)).ok()?.trim().parse().ok()
    }

    /// Bytes that are charged now, without the pages of files that the kernel may drop at any time.
    pub fn usage(&self) -> u64 {
        let usage = self.number(&self.file("usage_in_bytes", "current")).expect("usage");
        usage.saturating_sub(self.stat("inactive_file") + self.stat("active_file"))
    }

    /// Bytes in the sockets' queues, which v1 counts apart.
    pub fn sockets(&self) -> u64 {
        match self.version {
            Version::One => self.number("memory.kmem.tcp.usage_in_bytes").unwrap_or(0),
            Version::Two => self.stat("sock"),
        }
    }

    /// One line of memory.stat.
    fn stat(&self, name: &str) -> u64 {
        let text = fs::read_to_string(self.dir.join("memory.stat")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// The process's own pages.
    pub fn anonymous(&self) -> u64 {
        self.stat(if self.version == Version::One { "rss" } else { "anon" })
    }

    /// What the kernel's own structures take.
    pub fn kernel(&self) -> u64 {
        self.number("memory.kmem.usage_in_bytes").unwrap_or_else(|| self.stat("kernel"))
    }

    /// How often the kernel has killed somebody here.
    pub fn oom_kills(&self) -> u64 {
        let file = self.dir.join(self.file("oom_control", "events"));
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let gone = super::wait_until(super::PATIENCE, || fs::remove_dir(&self.dir).is_ok());
        if !gone {
            eprintln!("{} stays", self.dir.display());
        }
    }
}
