//! Asks endpoints of clusters whether they are well, and looks at their success rates, where a document
//! wants that: on a thread of its own, which is not there otherwise. What it finds is written into counters that shards only read.

mod ask;
mod schedule;

use crate::rules::View;
use ask::{Outcome, ask};
use netra_rules::Unwell;
use schedule::{Key, Schedule};
use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    runtime,
    sync::watch,
    task::JoinSet,
    time::{Instant as At, sleep_until},
};
use tracing::{info, warn};

/// Questions that are under way at a time: each has a socket.
const AT_ONCE_MAX: usize = 32;
/// Endpoints that are asked, at most: the first ones of the documents.
const ENDPOINTS_MAX: usize = 1000;
/// The most that a question needs is its answer's bytes.
const STACK_BYTES: usize = 128 * 1024;
/// Nothing is to be done for so long.
const IDLE: Duration = Duration::from_secs(3600);

/// Follows the rules, and begins when there is anybody to ask.
pub(crate) fn follow(mut view: watch::Receiver<View>) {
    tokio::spawn(async move {
        loop {
            let is_watched = view.borrow_and_update().process.is_watched();
            if is_watched {
                if let Err(error) = start(view) {
                    warn!(error = %error, "no endpoint is asked whether it is well, and no success rate looked at");
                }
                return;
            }
            if view.changed().await.is_err() {
                return;
            }
        }
    });
}

fn start(view: watch::Receiver<View>) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let thread = thread::Builder::new().name("health".into()).stack_size(STACK_BYTES);
    thread.spawn(move || runtime.block_on(run(view))).map(drop)
}

/// Asks for as long as there are rules to follow.
async fn run(mut view: watch::Receiver<View>) {
    let origin = Instant::now();
    let now = || u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut schedule = Schedule::new(netra_shards::monotonic_ns());
    let mut asked = JoinSet::new();
    obey(&mut schedule, &mut view, now());
    loop {
        while asked.len() < AT_ONCE_MAX
            && let Some(key) = schedule.take(now())
        {
            asked.spawn(async move {
                let outcome = ask(key.0, &key.1).await;
                (key, outcome)
            });
        }
        let has_room = asked.len() < AT_ONCE_MAX;
        let next = schedule.next().filter(|_| has_room).map(Duration::from_nanos);
        let next = next.map_or_else(|| Instant::now() + IDLE, |next| origin + next);
        let next = next.min(sweep(&view));
        tokio::select! {
            changed = view.changed() => match changed {
                Ok(()) => obey(&mut schedule, &mut view, now()),
                Err(_) => return,
            },
            Some(Ok((key, outcome))) = asked.join_next(), if !asked.is_empty() => {
                answered(&mut schedule, &key, outcome, now());
            }
            () = sleep_until(At::from_std(next)) => {}
        }
    }
}

/// Success rates are looked at where it is time; when the next time is.
fn sweep(view: &watch::Receiver<View>) -> Instant {
    let process = Arc::clone(&view.borrow().process);
    let now_ns = netra_shards::monotonic_ns();
    let next = process.sweep(now_ns).map(|next| Duration::from_nanos(next.saturating_sub(now_ns)));
    Instant::now() + next.unwrap_or(IDLE)
}

fn obey(schedule: &mut Schedule, view: &mut watch::Receiver<View>, now_ns: u64) {
    let mut checked = view.borrow_and_update().process.checked();
    if checked.len() > ENDPOINTS_MAX {
        warn!(
            endpoints = checked.len(),
            asked = ENDPOINTS_MAX,
            "more endpoints than are asked whether they are well: the others count as well"
        );
        checked.split_off(ENDPOINTS_MAX).iter().for_each(netra_rules::Checked::leave);
    }
    schedule.obey(checked, now_ns);
}

fn answered(schedule: &mut Schedule, key: &Key, outcome: Outcome, now_ns: u64) {
    let Some(checked) = schedule.answered(key, now_ns) else { return };
    let unwell = match outcome {
        Outcome::Well => None,
        Outcome::Unwell(unwell) => Some(unwell),
        // Nobody was asked.
        Outcome::Own => return,
    };
    for (cluster, is_out) in checked.answered(unwell, netra_shards::monotonic_ns()) {
        let address = checked.address;
        if is_out {
            let why = unwell.map_or("", Unwell::name);
            warn!(cluster, address = %address, why, "an endpoint is not well: it is left out");
        } else {
            info!(cluster, address = %address, "an endpoint is well again");
        }
    }
}
