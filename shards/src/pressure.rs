//! How near the process is to the end of its memory, by the kernel's own count: a cgroup pays for
//! sockets, pipes and (v2) for the bytes in sockets, which no cap of netra's sees. A shard looks
//! where memory grows: at accepts, at full receivers, at heads in pieces. Where nothing grows
//! nobody looks.

use crate::{config::MemoryWatch, sys::Nanos};
use std::{fs::File, os::unix::fs::FileExt};

/// The count is not asked for more often than this.
const LOOK_EVERY_NS: Nanos = 5_000_000;

/// New connections wait: an index of the steps in [`netra_perf::labels::SHED_STEPS`].
pub(crate) const SHED_ACCEPTS: usize = 2;

/// What is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    /// Enough.
    #[default]
    None,
    /// Less than an eighth: what is held of heads goes, and flows hold no more than they must.
    Tight,
    /// Less than a sixteenth: new connections wait in the kernel's queue.
    Full,
}

/// The count and what it came to.
#[derive(Debug)]
pub(crate) struct MemoryCount {
    usage: File,
    stat: File,
    limit: u64,
    looked_at: Nanos,
    pressure: Pressure,
}

impl MemoryCount {
    /// None where the files cannot be read: then the caps of the budget are all there is.
    pub(crate) fn open(watch: &MemoryWatch) -> Option<Self> {
        let count = Self {
            usage: File::open(&watch.usage_file).ok()?,
            stat: File::open(&watch.stat_file).ok()?,
            limit: watch.limit,
            looked_at: 0,
            pressure: Pressure::None,
        };
        count.used().map(|_| count)
    }

    /// What the last look said.
    pub(crate) fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// Looks, unless somebody just has.
    pub(crate) fn look(&mut self, now: Nanos) -> Pressure {
        if now.saturating_sub(self.looked_at) >= LOOK_EVERY_NS {
            self.looked_at = now;
            self.pressure = self.judge();
        }
        self.pressure
    }

    fn judge(&self) -> Pressure {
        let Some(used) = self.used() else { return Pressure::None };
        match self.pressure_of(used) {
            Pressure::None => Pressure::None,
            // Pages of files are counted, too, though the kernel drops them before it ends anybody.
            _ => self.pressure_of(used.saturating_sub(self.droppable())),
        }
    }

    fn pressure_of(&self, used: u64) -> Pressure {
        match self.limit.saturating_sub(used) {
            left if left < self.limit / 16 => Pressure::Full,
            left if left < self.limit / 8 => Pressure::Tight,
            _ => Pressure::None,
        }
    }

    fn used(&self) -> Option<u64> {
        let mut text = [0; 32];
        let len = self.usage.read_at(&mut text, 0).ok()?;
        number(&text[..len])
    }

    fn droppable(&self) -> u64 {
        let mut text = [0; 4096];
        let len = self.stat.read_at(&mut text, 0).unwrap_or(0);
        let value = |name: &[u8]| {
            let mut lines = text[..len].split(|byte| *byte == b'\n');
            lines.find_map(|line| number(line.strip_prefix(name)?)).unwrap_or(0)
        };
        value(b"active_file ") + value(b"inactive_file ")
    }
}

impl MemoryWatch {
    /// Bytes that are left now, pages of files not counted: the kernel drops them. All there are, where
    /// the files cannot be read.
    pub fn left(&self) -> u64 {
        let used = MemoryCount::open(self)
            .and_then(|count| Some(count.used()?.saturating_sub(count.droppable())));
        self.limit.saturating_sub(used.unwrap_or(0))
    }
}

/// A whole number in digits, before the end of the line.
fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf};

    const MIB: u64 = 1 << 20;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("netra-{name}.{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn pressure_goes_by_what_is_left_without_pages_of_files() {
        let folder = folder("pressure");
        let (usage_file, stat_file) = (folder.join("usage"), folder.join("stat"));
        let tell = |used: u64, file: u64| {
            fs::write(&usage_file, format!("{used}\n")).unwrap();
            let stat = format!("anon 1\nactive_file {file}\nx_active_file 7\ninactive_file 0\n");
            fs::write(&stat_file, stat).unwrap();
        };
        tell(0, 0);
        let (usage_file, stat_file) = (usage_file.clone(), stat_file.clone());
        let watch = MemoryWatch { usage_file, stat_file, limit: 64 * MIB };
        let mut count = MemoryCount::open(&watch).unwrap();
        let mut now = 0;
        for (used, file, pressure) in [
            (56 * MIB, 0, Pressure::None),
            (56 * MIB + 1, 0, Pressure::Tight),
            (60 * MIB, 0, Pressure::Tight),
            (60 * MIB + 1, 0, Pressure::Full),
            (63 * MIB, 8 * MIB, Pressure::None),
            (64 * MIB, 2 * MIB, Pressure::Full),
            (70 * MIB, 12 * MIB, Pressure::Tight),
        ] {
            tell(used, file);
            assert_eq!(watch.left(), (64 * MIB).saturating_sub(used - file));
            now += LOOK_EVERY_NS;
            assert_eq!(count.look(now), pressure, "{used} used, {file} of files");
        }
        tell(0, 0);
        assert_eq!(count.look(now + LOOK_EVERY_NS - 1), Pressure::Tight, "looked at too often");
        assert_eq!(count.look(now + LOOK_EVERY_NS), Pressure::None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_count_that_cannot_be_read_is_none() {
        let nowhere = PathBuf::from("/nowhere");
        let watch = MemoryWatch { usage_file: nowhere.clone(), stat_file: nowhere, limit: MIB };
        assert!(MemoryCount::open(&watch).is_none());
    }
}
