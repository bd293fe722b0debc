//! Sees that documents change, and reads them then, off the control thread.

use super::{Good, Named, Own, files::Shape, live::place, read};
use crate::resolver::Names;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{
    collections::{BTreeSet, HashSet},
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
    let mut known = Named::default();
    // Names of services that were waited for once: rules do not wait for them a second time.
    let mut awaited = HashSet::new();
    let mut generation = 1;
    loop {
        let (now, until) = known.ask(&hosts, &names).await;
        let is_told = if now != known {
            known = now;
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
        let again = |known: Named| {
            let (at, own) = (folder.clone(), own.clone());
            spawn_blocking(move || {
                let shape = Shape::of(&at);
                (shape, read(&at, &own, known, generation, endpoints_move).map(Arc::new))
            })
        };
        let Ok((mut seen, mut result)) = again(known.clone()).await else { continue };
        if let Ok(good) = &result {
            hosts.clone_from(&good.asked_hosts);
            awaited.retain(|name| hosts.contains(name));
            let lacks = known.lacks(&hosts);
            if !lacks.is_subset(&awaited) {
                awaited.extend(lacks);
                known = known.ask(&hosts, &names).await.0;
                let Ok(anew) = again(known.clone()).await else { continue };
                (seen, result) = anew;
            }
        }
        shape = seen;
        ears.listen(&folder);
        if !tell(result).await {
            return;
        }
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
