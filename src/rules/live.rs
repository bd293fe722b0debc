//! The rules in force: what shards are given, and what is told of them.

use super::{Good, heard::Heard, view::View};
use netra_rules::{Hits, Process, Table};
use netra_shards::ShardSet;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::watch;
use tracing::{info, warn};

/// After this long no shard counts by a table that it was told to leave.
const LEAVING: Duration = Duration::from_secs(2);
/// Lines of what is wrong that are logged.
const LOGGED_MAX: usize = 20;

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Live {
    process: Arc<Process>,
    leaving: Vec<(Instant, Arc<Table>, Vec<Arc<Hits>>)>,
    tell: watch::Sender<View>,
}

impl Live {
    /// Gives shards the rules that were there at the start; `is_remote` says that netra-control
    /// changes them.
    pub(crate) fn start(
        path: &str,
        good: Option<&Good>,
        is_remote: bool,
        set: &mut ShardSet,
    ) -> Self {
        let heard = is_remote.then(|| Arc::new(Heard::new()));
        let (tell, _) = watch::channel(View { path: path.to_owned(), heard, ..View::default() });
        let mut live = Self { process: Arc::default(), leaving: Vec::new(), tell };
        if let Some(good) = good {
            live.obey(good, set);
        }
        live
    }

    /// What is told of them, whenever somebody looks.
    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.tell.subscribe()
    }

    /// The documents have changed, or what is known of their hosts.
    pub(crate) fn change(&mut self, read: &Result<Good, Vec<String>>, set: &mut ShardSet) {
        match read {
            Ok(good) => {
                self.tell.send_modify(|view| view.changes.0 += 1);
                self.obey(good, set);
            }
            Err(errors) => {
                let generation = self.tell.borrow().table.generation();
                for error in errors.iter().take(LOGGED_MAX) {
                    warn!(generation, "rules: {error}");
                }
                warn!(
                    generation,
                    errors = errors.len(),
                    "the documents of rules are bad: the rules before them stay in force"
                );
                self.tell.send_modify(|view| {
                    view.changes.1 += 1;
                    view.errors.clone_from(errors);
                });
            }
        }
    }

    fn obey(&mut self, good: &Good, set: &mut ShardSet) {
        let Some(table) = good.compiled.table.as_ref().map(Arc::clone) else { return };
        self.process = Arc::new(table.process(Some(&self.process), netra_shards::monotonic_ns()));
        let hits = set.obey(&table, &self.process);
        let old = self.tell.borrow().clone();
        if !old.table.is_empty() {
            self.leaving.push((Instant::now(), old.table, old.hits));
        }
        let troubles = &good.compiled.troubles;
        for warning in troubles.warnings() {
            warn!("rules: {warning}");
        }
        info!(
            path = old.path,
            generation = table.generation(),
            rules = table.rules().len(),
            "rules are in force"
        );
        let (leaving, process) = (self.leaving(), Arc::clone(&self.process));
        self.tell.send_modify(|view| {
            (view.table, view.hits, view.leaving) = (table, hits, leaving);
            view.process = Arc::clone(&process);
            view.landings.clone_from(&good.compiled.landings);
            view.warnings = troubles.warnings().iter().map(ToString::to_string).collect();
            view.errors.clear();
            view.since = Some(SystemTime::now());
        });
    }

    fn leaving(&self) -> Vec<(Arc<Table>, Vec<Arc<Hits>>)> {
        self.leaving.iter().map(|(_, table, hits)| (Arc::clone(table), hits.clone())).collect()
    }

    /// Once a second: what shards have left is added up and let go.
    pub(crate) fn tend(&mut self) {
        let is_gone = |(since, ..): &mut (Instant, _, _)| since.elapsed() > LEAVING;
        let gone: Vec<_> =
            self.leaving.extract_if(.., is_gone).map(|(_, table, hits)| (table, hits)).collect();
        if gone.is_empty() {
            return;
        }
        let leaving = self.leaving();
        self.tell.send_modify(|view| {
            view.before = Arc::new(view.folded(&gone));
            view.leaving = leaving;
        });
    }
}

/// Where documents are, if anywhere.
pub(super) fn place(path: &str) -> Option<&Path> {
    (!path.is_empty()).then(|| Path::new(path))
}
