//! Sees that documents change, and reads them then, off the control thread.

use super::{Addresses, Good, Own, files::Shape, live::place, read};
use crate::resolver::{Answer, Names};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{
    collections::BTreeSet,
    fs,
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::warn;

/// How often it is looked for changes that nobody told of: a directory that has come back, a file
/// system that tells nothing.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Documents are read when nothing has changed for this long, or when it has gone on for longer.
const QUIET: Duration = Duration::from_millis(100);
const QUIET_MAX: Duration = Duration::from_secs(1);
/// Names that are asked for at a time, and how long their answers may take.
const NAMES_MAX: usize = 256;
const NAME_PATIENCE: Duration = Duration::from_secs(6);
/// Addresses of names are asked for again after this long at the earliest.
const NAMES_EVERY: Duration = Duration::from_secs(5);

/// Events of the kernel are read into 4 KiB.
const STACK_BYTES: usize = 64 * 1024;

/// Somebody wants the documents to be read now, changed or not.
pub(crate) type Hurry = Arc<Notify>;

/// Tells what became of the documents whenever they, or addresses of their hosts, have changed.
/// `first` is what was read at the start.
pub(crate) async fn follow<F: Future<Output = bool>>(
    path: String,
    own: Own,
    endpoints_move: bool,
    first: Good,
    names: Names,
    hurry: Hurry,
    mut tell: impl FnMut(Result<Good, Vec<String>>) -> F,
) {
    let Some(folder) = place(&path).map(Path::to_owned) else { return };
    let ears = Ears::new(&folder);
    let (mut shape, mut hosts) = (first.shape.clone(), first.asked_hosts.clone());
    drop(first);
    let mut known = Known::default();
    let mut generation = 1;
    loop {
        let (addresses, until) = known.ask(&hosts, &names).await;
        let is_told = if addresses != known.addresses {
            known.addresses = addresses;
            true
        } else {
            let wait = until.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
            tokio::select! {
                () = hurry.notified() => true,
                () = ears.hear() => true,
                () = sleep(wait) => {
                    // The shape is looked at without waiting for a disk that hangs.
                    let (now, folder) = (shape.clone(), folder.clone());
                    spawn_blocking(move || Shape::of(&folder) != now).await.unwrap_or(false)
                }
            }
        };
        if !is_told {
            continue;
        }
        generation += 1;
        let (folder, own) = (folder.clone(), own.clone());
        let (at, addresses) = (folder.clone(), known.addresses.clone());
        let done = spawn_blocking(move || {
            let shape = Shape::of(&at);
            (shape, read(&at, &own, addresses, generation, endpoints_move).map(Arc::new))
        });
        let Ok((seen, result)) = done.await else { continue };
        shape = seen;
        ears.listen(&folder);
        if let Ok(good) = &result {
            hosts.clone_from(&good.asked_hosts);
        }
        if !tell(result).await {
            return;
        }
    }
}

/// Addresses of hosts, and until when they are what they are.
#[derive(Default)]
struct Known {
    addresses: Addresses,
}

impl Known {
    /// What the hosts' names stand for now, and when to ask again. What is not found stays what it
    /// was: rules do not come and go with a name server.
    async fn ask(&self, hosts: &[String], names: &Names) -> (Addresses, Instant) {
        let mut addresses = Addresses::new();
        let mut until = Instant::now() + Duration::from_secs(60);
        let mut asked = Vec::new();
        for host in hosts.iter().take(NAMES_MAX) {
            asked.push((host, names.question(host)));
        }
        let deadline = tokio::time::Instant::now() + NAME_PATIENCE;
        for (host, question) in asked {
            let answer = match question {
                Some(question) => {
                    let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                    timeout(left, question).await.ok().and_then(Result::ok)
                }
                None => None,
            };
            match answer {
                Some(Answer { addresses: Ok(found), until: at }) => {
                    let mut found: Vec<_> = found.iter().copied().collect();
                    found.sort_unstable();
                    addresses.insert(host.clone(), found);
                    until = until.min(at);
                }
                _ => {
                    let old = self.addresses.get(host);
                    old.into_iter()
                        .for_each(|old| drop(addresses.insert(host.clone(), old.clone())));
                }
            }
        }
        (addresses, until.max(Instant::now() + NAMES_EVERY))
    }
}

/// Hears of changes of a directory, as far as the kernel tells.
struct Ears {
    inotify: Option<Arc<Inotify>>,
    heard: Arc<Notify>,
}

impl Ears {
    /// With a thread of their own, which sleeps in the kernel.
    fn new(path: &Path) -> Self {
        let heard = Arc::new(Notify::new());
        let tell = Arc::clone(&heard);
        let made = Inotify::init(InitFlags::IN_CLOEXEC).map(Arc::new).map_err(io::Error::from);
        let inotify = made.and_then(|inotify| {
            let reads = Arc::clone(&inotify);
            let thread = thread::Builder::new().name("rules".into()).stack_size(STACK_BYTES);
            thread.spawn(move || {
                while reads.read_events().is_ok_and(|events| !events.is_empty()) {
                    tell.notify_one();
                }
            })?;
            Ok(inotify)
        });
        if let Err(error) = &inotify {
            warn!(error = %error, "changes of rules are looked for every 5 seconds: no inotify");
        }
        let ears = Self { inotify: inotify.ok(), heard };
        ears.listen(path);
        ears
    }

    /// Listens to the directory, or to that of the file, and to those below. One that is listened to
    /// already is no matter.
    fn listen(&self, path: &Path) {
        let Some(inotify) = &self.inotify else { return };
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        for folder in folders(path) {
            // What cannot be listened to is looked at.
            let _ = inotify.add_watch(&folder, flags);
        }
    }

    /// Waits until something has changed, and then until nothing has for a while: whoever writes
    /// several files is let finish.
    async fn hear(&self) {
        self.heard.notified().await;
        let until = tokio::time::Instant::now() + QUIET_MAX;
        let more = || timeout(QUIET, self.heard.notified());
        while tokio::time::Instant::now() < until && more().await.is_ok() {}
    }
}

/// Directories whose changes may change the documents.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => drop(folders.insert(path.to_owned())),
        _ => {}
    }
    // Of a directory, too: it may be put in the place of another.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    folders.insert(parent.unwrap_or(Path::new(".")).to_owned());
    let files = super::files::list(path).unwrap_or_default();
    folders.extend(files.iter().filter_map(|file| file.parent()).map(Path::to_owned));
    folders
}
