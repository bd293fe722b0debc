//! Instructions in user space, counted by callgrind: the difference of a long and a short load, so
//! that what start and end cost falls out. Hardware counters would do, but virtual machines seldom
//! have them.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::{Error, Kind, Result};
use crate::subject::{Launch, search};
use crate::sys;
use crate::topology::{Place, Running, Topology};

/// Longest until a subject under valgrind has ended.
const PATIENCE: Duration = Duration::from_secs(40);
/// Files that callgrind writes, one for each process.
const PREFIX: &str = "callgrind.";

/// The launch of a subject under callgrind.
pub(super) fn wrap(launch: Launch, work: &Path) -> Result<Launch> {
    let missing = || Error::new(Kind::Tool, "no program valgrind");
    let valgrind = search(Path::new("valgrind")).ok_or_else(missing)?;
    for file in files(work) {
        let _ = std::fs::remove_file(file);
    }
    let out = work.join(format!("{PREFIX}%p"));
    let mut args =
        vec!["--tool=callgrind".to_owned(), format!("--callgrind-out-file={}", out.display())];
    args.push(launch.binary.to_string_lossy().into_owned());
    args.extend(launch.args);
    Ok(Launch { binary: valgrind, args, env: launch.env, entrance: launch.entrance })
}

/// Ends a subject under callgrind; the instructions of its whole life.
///
/// Valgrind lets one thread run at a time, and knows of `io_uring_enter` only in later versions
/// that it may wait: a thread that waits in it keeps all others from noticing the signal. Hence
/// the connections, which end the wait.
pub(super) fn finish(
    running: &mut Running,
    topology: &Topology,
    to: SocketAddr,
    work: &Path,
) -> Result<u64> {
    running.tell(Signal::SIGTERM);
    let begun = Instant::now();
    while running.ended().is_none() {
        if begun.elapsed() > PATIENCE {
            return Err(Error::new(Kind::Tool, "it did not end under valgrind"));
        }
        topology.within(Place::Client, || {
            let _ = TcpStream::connect_timeout(&to, Duration::from_millis(50));
            Ok(())
        })?;
        sys::pause(Duration::from_millis(50));
    }
    let texts = files(work).into_iter().map(|file| super::watch::read(&file));
    texts
        .filter_map(|text| total(&text))
        .reduce(|sum, total| sum + total)
        .ok_or_else(|| Error::new(Kind::Tool, "callgrind wrote nothing"))
}

fn files(work: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(work) else { return Vec::new() };
    let ours = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
    };
    entries.flatten().map(|entry| entry.path()).filter(ours).collect()
}

/// Instructions in a file of callgrind's.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().rfind(|line| line.starts_with("totals:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_file_is_read() {
        let text = "version: 1\nevents: Ir\nsummary: 12\nfn=(1) main\n0 12\n\ntotals: 12\n";
        assert_eq!(total(text), Some(12));
        assert_eq!(total("version: 1\n"), None);
    }
}
