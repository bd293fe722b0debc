//! `/debug/pprof/`, as Go's net/http/pprof has it. Sampling and symbols take a thread of their own
//! for as long as they last.

use super::{Admin, HTML, PAGES, number};
use crate::{
    endpoint::{Answer, Ask, Method, StatusCode},
    mask,
    table::table,
};
use netra_perf::{
    Gauge,
    profile::{HZ_MAX, Place, Profile, Room, Row, Symbols, sample_cpu},
};
use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::oneshot;

pub(super) const SECONDS_MAX: u32 = 300;
/// As Go, and as people who look at pictures expect.
const SECONDS_PROFILE: u32 = 30;
const SECONDS_PICTURE: u32 = 10;
/// Off the beat of anything that happens a hundred times a second.
const HZ: u32 = 99;
/// Addresses that are named in one go.
const SYMBOLS_MAX: usize = 1024;
/// Debug information is read by a parser that recurses.
const STACK_BYTES: usize = 1 << 20;

/// How a CPU profile is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Pprof,
    Folded,
    Picture,
}

impl Admin {
    /// The pages below `/debug/pprof/`.
    pub(super) async fn profile(&self, path: &str, ask: &Ask) -> Answer {
        match path.strip_prefix("/debug/pprof/") {
            Some("profile") => self.cpu(ask, Form::Pprof).await,
            Some("folded") => self.cpu(ask, Form::Folded).await,
            Some("flamegraph") => self.cpu(ask, Form::Picture).await,
            Some("heap" | "allocs") => encoded(&self.heap()),
            Some("trace") => self.time_line(ask).await,
            Some("cmdline") => cmdline(),
            Some("symbol") if ask.method == Method::POST => self.symbols(ask).await,
            Some("symbol") => Answer::plain(StatusCode::OK, "num_symbols: 1\n"),
            _ => index(),
        }
    }

    async fn cpu(&self, ask: &Ask, form: Form) -> Answer {
        let seconds = if form == Form::Pprof { SECONDS_PROFILE } else { SECONDS_PICTURE };
        let seconds = number(ask, "seconds", seconds, SECONDS_MAX);
        let (seconds, hz) = match (seconds, number(ask, "hz", HZ, HZ_MAX)) {
            (Ok(seconds), Ok(hz)) => (seconds, hz),
            (Err(refused), _) | (_, Err(refused)) => return refused,
        };
        let service = mask::line(&self.config.service_name).into_owned();
        let room = Room { stacks: self.config.pages.making(), names: self.room_for_names() };
        let work = move |stop: &AtomicBool| match sample_cpu(
            hz,
            Duration::from_secs(seconds.into()),
            stop,
            &room,
        ) {
            Ok(profile) => shown(&profile, form, &format!("{service}: {seconds} s at {hz} Hz")),
            Err(refused) => {
                Answer::plain(StatusCode::NOT_IMPLEMENTED, &format!("no profile: {refused}\n"))
            }
        };
        self.aside(work).await.with("x-netra-profiler", "perf_event_open")
    }

    /// POST: addresses joined by `+`, as net/http/pprof takes them.
    async fn symbols(&self, ask: &Ask) -> Answer {
        let text = String::from_utf8_lossy(&ask.body).into_owned();
        let room = self.room_for_names();
        self.aside(move |stop| {
            let mut symbols = Symbols::within(room());
            let mut out = String::from("num_symbols: 1\n");
            let words = text.trim().split('+').take(SYMBOLS_MAX);
            let address =
                |word: &str| u64::from_str_radix(word.trim().trim_start_matches("0x"), 16).ok();
            let addresses: Vec<u64> = words.filter_map(address).collect();
            symbols.read_user(addresses.iter().map(|address| (*address, false)));
            for address in addresses {
                if stop.load(Acquire) {
                    break;
                }
                let place = symbols.user(address, false);
                let name = place.calls.last().map_or("", |call| call.function.as_str());
                out += &format!("{address:#x} {name}\n");
            }
            Answer::plain(StatusCode::OK, &out)
        })
        .await
    }

    /// How much memory debug information may take: an eighth of the limit, of what the process has left but
    /// for the eighth at which its shards begin to shed. While it is read connections may take all that
    /// is theirs.
    fn room_for_names(&self) -> impl Fn() -> u64 + Send + use<> {
        let memory = self.config.memory.clone();
        move || memory.as_ref().map_or(u64::MAX, |it| room_for_names(it.limit, it.left()))
    }

    /// Runs what takes time in a thread of its own, one at a time. It is told to stop when nobody
    /// waits for it any more.
    async fn aside(&self, work: impl FnOnce(&AtomicBool) -> Answer + Send + 'static) -> Answer {
        let free = match self.begin() {
            Ok(free) => free,
            Err(refused) => return refused,
        };
        let (done, answer) = oneshot::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = thread::Builder::new().name("profile".into()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            let answer = work(&theirs);
            drop(free);
            // Nobody may wait for it any more.
            let _ = done.send(answer);
            netra_perf::collect();
        });
        let _stops = Stops(stop);
        match (started, answer.await) {
            (Ok(_), Ok(answer)) => answer,
            _ => Answer::plain(StatusCode::INTERNAL_SERVER_ERROR, "no thread for it\n"),
        }
    }

    /// Marks that something costly is being made, until the mark is dropped; one such thing is made
    /// at a time.
    pub(super) fn begin(&self) -> Result<Freed, Answer> {
        if self.is_profiling.swap(true, AcqRel) {
            let text = "another profile is being taken\n";
            let refused = Answer::plain(StatusCode::SERVICE_UNAVAILABLE, text);
            return Err(refused.with("retry-after", "5"));
        }
        Ok(Freed(Arc::clone(&self.is_profiling)))
    }

    /// Memory by what holds it, as far as netra knows.
    fn heap(&self) -> Profile {
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut rows = Vec::new();
        let mut held = 0;
        let mut row = |names: &[&str], count: u64, bytes: u64| {
            rows.push(Row {
                stack: names.iter().map(|name| Arc::new(Place::named(*name))).collect(),
                values: vec![whole(count), whole(bytes)],
                labels: Vec::new(),
            });
        };
        for (shard, recorder) in self.recorders.iter().enumerate() {
            let name = format!("shard-{shard}");
            let used = recorder.gauge(Gauge::BuffersUsed);
            let bytes = used * u64::from(self.config.limits.buffer_bytes);
            row(&["relay buffers", &name], used, bytes);
            let heads = recorder.gauge(Gauge::HeldBytes);
            held += heads;
            row(&["heads that have not come whole", &name, "allocator"], 0, heads);
            let contexts = recorder.gauge(Gauge::ContextEntries);
            row(&["contexts remembered", &name, "allocator"], contexts, 0);
        }
        let committed = netra_perf::allocator().committed.unwrap_or(0);
        row(&["everything else", "allocator"], 0, committed.saturating_sub(held));
        Profile {
            values: vec![("inuse_objects", "count"), ("inuse_space", "bytes")],
            period: Some(("space", "bytes", 1)),
            time_unix_ns: unix_now_ns(),
            rows,
            comments: vec![
                "netra: pools and the allocator's committed bytes; allocations are not sampled"
                    .into(),
            ],
            ..Profile::default()
        }
    }
}

fn room_for_names(limit: u64, left: u64) -> u64 {
    let eighth = limit / 8;
    left.saturating_sub(eighth).min(eighth)
}

/// Clears the mark of a running profile.
#[derive(Debug)]
pub(super) struct Freed(Arc<AtomicBool>);

impl Drop for Freed {
    fn drop(&mut self) {
        self.0.store(false, Release);
    }
}

/// Tells a profile that nobody waits for it.
struct Stops(Arc<AtomicBool>);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

fn unix_now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(0)
}

fn shown(profile: &Profile, form: Form, title: &str) -> Answer {
    match form {
        Form::Pprof => encoded(profile),
        Form::Folded => Answer::plain(StatusCode::OK, &profile.to_folded()),
        Form::Picture => Answer::ok("image/svg+xml", profile.to_flame_graph(title)),
    }
}

fn encoded(profile: &Profile) -> Answer {
    match profile.to_pprof() {
        Ok(bytes) => Answer::ok("application/octet-stream", bytes)
            .with("content-disposition", "attachment; filename=\"profile.pb.gz\""),
        Err(error) => Answer::plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

/// As the kernel has it, arguments with a zero between; but for what is shown nowhere.
fn cmdline() -> Answer {
    let args: Vec<String> = env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    Answer::plain(StatusCode::OK, &shown_arguments(&args).join("\0"))
}

fn shown_arguments(args: &[String]) -> Vec<String> {
    let shown = |name: &str, value: &str| {
        let setting = table().find(|setting| setting.flag() == name)?;
        Some(setting.shown(value).into_owned())
    };
    let masked = mask::arguments(args.iter().map(String::as_str), shown);
    masked.iter().map(|argument| mask::line(argument).into_owned()).collect()
}

fn index() -> Answer {
    let mut out = String::from(
        "<!doctype html><meta charset=utf-8><title>netra: profiles</title>\
         <style>body{font:15px/1.6 system-ui,sans-serif;max-width:46em;margin:2em auto;padding:0 1em}\
         td{padding:.1em 1.2em .1em 0}</style><h1>/debug/pprof/</h1><table>",
    );
    for (path, is_order, what) in PAGES {
        if let Some(name) = path.strip_prefix("/debug/pprof/").filter(|name| !name.is_empty()) {
            let verb = if *is_order { " (POST)" } else { "" };
            out += &format!("<tr><td><a href=\"{path}\">{name}</a>{verb}<td>{what}");
        }
    }
    out += "</table><p><code>go tool pprof http://HOST:PORT/debug/pprof/profile?seconds=10</code>";
    Answer::ok(HTML, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In 64 MiB a development build's 36 MB of them stood beside 20 MB of sockets that came meanwhile.
    #[test]
    fn debug_information_takes_no_more_than_an_eighth() {
        const MIB: u64 = 1 << 20;
        for (left, room) in [(0, 0), (8, 0), (9, 1), (16, 8), (60, 8)] {
            assert_eq!(room_for_names(64 * MIB, left * MIB), room * MIB, "{left}");
        }
        assert_eq!(room_for_names(512 * MIB, 500 * MIB), 64 * MIB);
    }

    #[test]
    fn the_command_line_shows_no_secret() {
        let line = [
            "netra",
            "--service-name",
            "shop",
            "--jaeger-password",
            "s3cret",
            "--otel-exporter-otlp-headers=a=s3cret",
            "-jaeger-endpoint",
            "http://c/?token=s3cret",
        ];
        let shown = shown_arguments(&line.map(str::to_owned)).join(" ");
        assert_eq!(
            shown,
            "netra --service-name shop --jaeger-password *** --otel-exporter-otlp-headers=*** \
             -jaeger-endpoint http://c/?token=.."
        );
    }
}
