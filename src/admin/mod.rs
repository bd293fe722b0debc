//! Profiles, live views and orders, on `NETRA_PPROF_PORT` at `NETRA_ADMIN_ADDRESS`. It runs on the
//! control thread; what shards must be asked goes to them as commands, a slice at a time.

mod connections;
mod failures;
mod orders;
mod pprof;
mod time_line;
mod views;

pub(crate) use orders::{OBEYED, REFUSED};

use crate::{
    config::Config,
    endpoint::{Answer, Ask, Method, Site, StatusCode},
    event::Event,
    event::Request,
    mask,
    rules::View,
    show,
    values::Effective,
};
use netra_perf::Recorder;
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::Instant,
};

/// What the pages are made of.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) config: Config,
    pub(crate) settings: Vec<Effective>,
    /// What `auto` came to, by setting.
    pub(crate) decided: Vec<(&'static str, String)>,
    pub(crate) driver: &'static str,
    pub(crate) started: SystemTime,
    pub(crate) recorders: Vec<Arc<Recorder>>,
    /// The rules in force.
    pub(crate) rules: watch::Receiver<View>,
    /// The control thread, which has the shards.
    pub(crate) tell: mpsc::Sender<Event>,
    /// Of what costs much, one is made at a time.
    pub(crate) is_profiling: Arc<AtomicBool>,
    /// Shards are asked for their connections by one at a time, from then on; the next ones wait.
    pub(crate) looking: Mutex<Option<Instant>>,
}

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
/// The page loads nothing and talks to its own server only.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src \
                           'unsafe-inline'; connect-src 'self'; img-src data:";

/// Every page: its path, whether it is an order (POST), and what it is.
const PAGES: &[(&str, bool, &str)] = &[
    ("/", false, "shards, rates, percentiles and top connections, live"),
    ("/shards", false, "what every shard counts and measures"),
    ("/connections", false, "?by=age|idle|bytes|overhead|stalled&top=20"),
    ("/failures", false, "?last=100&top=20: what failed, where and why, and where most of it does"),
    ("/contexts", false, "what is remembered by request id"),
    ("/rules", false, "every rule: how often it decided, what it does, why it cannot"),
    (
        "/clusters",
        false,
        "?top=1000: every cluster of the rules: endpoints, who is out and why, what is under way",
    ),
    ("/config", false, "every setting, and where it comes from"),
    ("/log-level", true, "order: ?level=debug|info|warning|error|fatal; GET tells the present one"),
    ("/drain", true, "order: as SIGTERM: accept nothing, let finish, end"),
    ("/quitquitquit", true, "order: end at once; needs NETRA_ADMIN_QUIT=true"),
    ("/debug/pprof/", false, "index of the profiles"),
    ("/debug/pprof/profile", false, "?seconds=30&hz=99: CPU, for go tool pprof"),
    ("/debug/pprof/flamegraph", false, "?seconds=10&hz=99: the same as a picture"),
    ("/debug/pprof/folded", false, "?seconds=10&hz=99: the same as folded stacks"),
    ("/debug/pprof/heap", false, "memory of the pools and of the allocator"),
    ("/debug/pprof/allocs", false, "the same, under the name that Go has for it"),
    ("/debug/pprof/trace", false, "?seconds=1: every turn of every shard, for ui.perfetto.dev"),
    ("/debug/pprof/cmdline", false, "the command line"),
    ("/debug/pprof/symbol", true, "names of addresses; GET says that there are any"),
];

impl Site for Admin {
    /// The longest profile, and time to put it together.
    const THINK_MAX: Duration = Duration::from_secs(pprof::SECONDS_MAX as u64 + 60);
    const PROBES: &[&str] = &[];

    fn unread_bytes_max(&self) -> usize {
        self.config.pages.unread()
    }

    async fn answer(&self, ask: Ask) -> Answer {
        if !ask.from.is_direct {
            let text = "netra is called here by its address or localhost, not by a name\n";
            return Answer::plain(StatusCode::MISDIRECTED_REQUEST, text);
        }
        if ask.from.is_foreign {
            return Answer::plain(StatusCode::FORBIDDEN, "not for pages of other hosts\n");
        }
        let path = if ask.path == "/debug/pprof" { "/debug/pprof/" } else { &ask.path };
        let Some((_, is_order, _)) = PAGES.iter().find(|page| page.0 == path) else {
            return not_found();
        };
        let is_post = ask.method == Method::POST;
        let is_get = ask.method == Method::GET || ask.method == Method::HEAD;
        let has_get = !is_order || matches!(path, "/log-level" | "/debug/pprof/symbol");
        match (is_get, is_post) {
            (true, _) if has_get => {}
            (_, true) if *is_order => {}
            _ if *is_order && has_get => return Answer::only("GET, HEAD, POST"),
            _ if *is_order => return Answer::only("POST"),
            _ => return Answer::only("GET, HEAD"),
        }
        if is_post
            && orders::PATHS.contains(&path)
            && let Err(refused) = self.allows(&ask.from, path)
        {
            return refused;
        }
        self.page(path, &ask).await
    }
}

impl Admin {
    async fn page(&self, path: &str, ask: &Ask) -> Answer {
        match path {
            "/" => Answer::ok(HTML, include_str!("page.html"))
                .with("content-security-policy", PAGE_POLICY)
                .with("cache-control", "no-store"),
            "/shards" => json(&self.shards()),
            "/contexts" => json(&self.contexts()),
            "/rules" => json(&self.rules.borrow().page(netra_shards::monotonic_ns())),
            "/clusters" => self.clusters(ask),
            "/connections" => self.connections(ask).await,
            "/failures" => self.failures(ask).await,
            "/config" => {
                let decided: Vec<_> =
                    self.decided.iter().map(|(name, what)| (*name, what.clone())).collect();
                Answer::ok(JSON, show::show(&self.settings, &decided, show::Shape::Json))
            }
            "/log-level" => orders::log_level(ask),
            "/drain" => self.order(Request::Drain).await,
            "/quitquitquit" => self.order(Request::Quit).await,
            _ => self.profile(path, ask).await,
        }
    }
}

fn json(value: &serde_json::Value) -> Answer {
    Answer::ok(JSON, &*mask::json(&format!("{value:#}\n"))).with("cache-control", "no-store")
}

fn not_found() -> Answer {
    let mut text = String::from("not found; there are\n");
    for (path, is_order, what) in PAGES {
        text += &format!("{:<5}{path:<26}{what}\n", if *is_order { "POST" } else { "GET" });
    }
    Answer::plain(StatusCode::NOT_FOUND, &text)
}

/// A whole number of the query, within bounds; a bad one is the client's fault.
fn number(ask: &Ask, name: &str, default: u32, max: u32) -> Result<u32, Answer> {
    let Some(text) = ask.parameter(name) else { return Ok(default) };
    crate::texts::whole(text, 1, max).ok_or_else(|| {
        let text = format!("{name}: a whole number from 1 to {max}\n");
        Answer::plain(StatusCode::BAD_REQUEST, &text)
    })
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
