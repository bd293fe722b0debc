//! Which request a call belongs to that carries nothing of it: a service says the truth with each
//! call, and netra's spans are compared with it.

use super::support::matrix::{Cell, Driver, cells_with};
use super::support::netra::{Backend, Netra, Setup, apply_rules, remove_rules};
use super::support::programs::{Server, tool};
use super::support::world::{CLIENT_V4, POD_V4, World};
use super::{mongodb, mysql, peer, postgresql, python, python_path, python_server};
use serde_json::Value;
use std::collections::BTreeMap;
use std::{env, thread, time::Duration};

const APP: u16 = 8080;
/// As in `joins_app.py`: how many requests say different lengths, and the shortest.
const LONGEST: u64 = 1500;
const KINDS: [&str; 7] =
    ["explicit", "exclusive", "contained", "tx", "affine", "ambiguous", "none"];

/// A span of netra's own, as it writes it to stdout.
#[derive(Debug)]
struct Told {
    name: String,
    is_server: bool,
    ids: [String; 3],
    times: (u64, u64),
    tags: Value,
    links: usize,
}

impl Told {
    fn all(log: &str) -> Vec<Self> {
        let spans = log.lines().filter(|line| line.contains("\"trace_id\""));
        spans.map(|line| Self::read(&serde_json::from_str(line).expect("JSON"))).collect()
    }

    fn read(line: &Value) -> Self {
        let text = |key: &str| line[key].as_str().expect(key).to_owned();
        let number = |key: &str| line[key].as_u64().expect(key);
        Self {
            name: text("name"),
            is_server: line["kind"] == "server",
            ids: ["trace_id", "span_id", "parent_id"].map(text),
            times: (number("start_us"), number("start_us") + number("duration_us")),
            tags: line["tags"].clone(),
            links: line["links"].as_array().map_or(0, Vec::len),
        }
    }

    fn tag(&self, key: &str) -> &str {
        self.tags[key].as_str().unwrap_or_default()
    }

    fn size(&self) -> Option<u64> {
        self.tags["netra.request.size"].as_u64()
    }

    /// The number behind the last of `before` in a text.
    fn number(text: &str, before: &str) -> Option<u64> {
        text.rsplit_once(before)?.1.parse().ok()
    }
}

/// How many calls were told as what, and of how many of them that is true.
#[derive(Debug, Default)]
struct Score {
    calls: BTreeMap<String, u64>,
    wrong: BTreeMap<String, u64>,
    total: u64,
    examples: Vec<String>,
}

impl Score {
    fn of(spans: &[Told]) -> Self {
        let served = spans.iter().filter(|span| span.is_server);
        let served: BTreeMap<u64, &Told> = served
            .filter_map(|span| Some((Told::number(span.tag("http.path"), "/r/")?, span)))
            .collect();
        let first = served.keys().next().copied().expect("a request");
        let calls: Vec<&Told> = spans.iter().filter(|span| !span.is_server).collect();
        // The first request came alone: its sizes are those of its number.
        let sizes: BTreeMap<&str, u64> = calls
            .iter()
            .rev()
            .filter(|call| is_within(call, served[&first]))
            .filter_map(|call| Some((call.name.as_str(), call.size()? - first % LONGEST)))
            .collect();
        let mut score = Self::default();
        for call in calls {
            let truth = match call.name.as_str() {
                "SET" | "select jobs" => None,
                _ => Some(truth(call, &served, &sizes)),
            };
            // What is done while the service begins has nobody to belong to.
            if truth == Some(None) {
                continue;
            }
            score.count(call, truth.flatten(), &served);
        }
        score
    }

    fn count(&mut self, call: &Told, truth: Option<u64>, served: &BTreeMap<u64, &Told>) {
        let kind = call.tag("netra.join").to_owned();
        assert!(KINDS.contains(&kind.as_str()), "{call:?}");
        let is_joined = ["exclusive", "contained", "tx", "affine"].contains(&kind.as_str());
        let [trace, _, parent] = &call.ids;
        let is_right = match truth.map(|n| served[&n]) {
            Some(request) => [trace, parent] == [&request.ids[0], &request.ids[1]],
            None => false,
        };
        assert!(is_joined || parent.trim_matches('0').is_empty(), "a parent of {kind}: {call:?}");
        assert!(kind == "ambiguous" || call.links == 0, "{call:?}");
        if truth.is_some() {
            self.total += 1;
            *self.calls.entry(kind.clone()).or_default() += 1;
        }
        if is_joined && !is_right {
            if self.examples.len() < 5 {
                self.examples.push(format!("{truth:?} {:?}: {call:?}", truth.map(|n| served[&n])));
            }
            *self.wrong.entry(kind).or_default() += 1;
        }
    }

    fn share(&self, kind: &str) -> f64 {
        self.calls.get(kind).copied().unwrap_or(0) as f64 / self.total.max(1) as f64
    }

    fn wrong(&self, kind: &str) -> u64 {
        self.wrong.get(kind).copied().unwrap_or(0)
    }

    /// A row of the table in the documentation.
    fn row(&self, what: &str, asked: &str) -> String {
        let cells = ["exclusive", "contained", "tx", "affine", "ambiguous", "none"].map(|kind| {
            let wrong = match self.wrong(kind) {
                0 => String::new(),
                wrong => format!(" ({wrong} wrong)"),
            };
            format!("{:.1} %{wrong}", 100.0 * self.share(kind))
        });
        format!("| {what} | {asked} | {} | {} |", self.total, cells.join(" | "))
    }
}

fn is_within(call: &Told, request: &Told) -> bool {
    request.times.0 <= call.times.0 && call.times.1 <= request.times.1 + 1
}

/// The request that made a call: by its number, or by its size and time.
fn truth(call: &Told, served: &BTreeMap<u64, &Told>, sizes: &BTreeMap<&str, u64>) -> Option<u64> {
    let named = match call.tag("db.system.name") {
        "" => Told::number(call.tag("http.path"), "/h/"),
        _ => Told::number(&call.name, " r"),
    };
    if named.is_some() {
        return named.filter(|n| served.contains_key(n));
    }
    let rest = call.size()?.checked_sub(*sizes.get(call.name.as_str())?)? % LONGEST;
    let of_it =
        served.iter().filter(|(n, request)| *n % LONGEST == rest && is_within(call, request));
    of_it.map(|(n, _)| *n).next()
}

fn redis_server(world: &World) -> Server {
    let mut command = world.client.command(tool("redis-server", "redis-server"));
    command.args(["--port", "6379", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.args(["--protected-mode", "no", "--bind", "0.0.0.0"]);
    Server::start(world, &world.client, command, 6379)
}

/// A service of a kind, under so many requests a second.
struct Run {
    mode: &'static str,
    rate: u32,
    seconds: u32,
    cell: Cell,
    level: &'static str,
}

fn score(world: &World, run: &Run) -> (Score, String) {
    let Run { mode, rate, seconds, cell, level } = run;
    let setup = Setup::new(*cell)
        .env("NETRA_HTTP_PORTS", "8080,8088")
        .env("NETRA_PROTOCOLS", "6379=redis,5432=postgresql")
        .env("NETRA_REPORTER", "stdout")
        .env("NETRA_JOIN", level)
        .env("JAEGER_SAMPLER_TYPE", "const")
        .env("JAEGER_SAMPLER_PARAM", "1");
    let netra = Netra::start(world, &setup);
    let before = netra.log().len();
    let mut app = world.pod.command(python_path());
    app.arg(peer("joins_app.py")).args([mode, "8080", &CLIENT_V4.to_string()]);
    let app = Server::start(world, &world.pod, app, APP);
    // What it does by itself is seen before anybody asks.
    thread::sleep(Duration::from_millis(500));
    let asked = ["3001", &rate.to_string(), &seconds.to_string()].map(str::to_owned);
    let host = POD_V4.to_string();
    let args = [&host, "8080", &asked[0], &asked[1], &asked[2]];
    let said = python(&world.client, "joins_load.py", &args.map(AsRef::as_ref));
    drop(app);
    thread::sleep(Duration::from_millis(1500));
    let joins = netra.scrape();
    let log = netra.log();
    netra.end().expect("a clean end");
    let spans = Told::all(&log[before..]);
    let clients = spans.iter().filter(|span| !span.is_server).count() as u64;
    assert_eq!(joins.sum("netra_joins_total", &[]), clients, "every call's span says how");
    for kind in KINDS {
        let told = spans.iter().filter(|span| span.tag("netra.join") == kind).count() as u64;
        assert_eq!(joins.sum("netra_joins_total", &[("kind", kind)]), told, "{kind}");
    }
    (Score::of(&spans), said.trim().to_owned())
}

/// No call is ever told under a request that has not made it, and the ways of joining find most.
#[test]
fn calls_belong_to_the_requests_that_made_them() {
    let Some(world) = World::new() else { return };
    let _redis = redis_server(&world);
    let _postgresql = postgresql::server_in(&world, &world.client);
    let mut service = world.client.command(python_path());
    service.arg(peer("joins_service.py")).arg("8088");
    let _service = Server::start(&world, &world.client, service, 8088);
    apply_rules(&world, Backend::NftNative);
    let of = |driver, shards| Cell { driver, shards };
    let run = |mode, rate, seconds, cell, level| Run { mode, rate, seconds, cell, level };
    let mut runs = vec![
        run("thread", 20, 4, of(Driver::IoUring, 2), "tx"),
        run("async", 100, 4, of(Driver::Epoll, 2), "tx"),
        run("thread", 60, 4, of(Driver::IoUring, 4), "tx"),
    ];
    // The table of docs/PROTOCOLS.md: NETRA_JOINS_TABLE=thread, or async, or both.
    if let Some(wanted) = env::var_os("NETRA_JOINS_TABLE") {
        runs.clear();
        for mode in ["thread", "async"].into_iter().filter(|it| wanted == *it || wanted == "both") {
            for (rate, seconds) in [(1, 25), (10, 15), (100, 10), (1000, 6)] {
                runs.push(run(mode, rate, seconds, of(Driver::IoUring, 2), "tx"));
            }
            runs.push(run(mode, 100, 10, of(Driver::IoUring, 2), "affine"));
        }
    }
    for run in runs {
        let (score, said) = score(&world, &run);
        let what = format!("{} {} {}", run.mode, run.level, run.rate);
        println!("{}", score.row(&what, &said));
        for kind in ["exclusive", "tx"] {
            assert_eq!(score.wrong(kind), 0, "{what} {kind}: {:#?}", score.examples);
        }
        let contained = score.calls.get("contained").copied().unwrap_or(0);
        assert!(score.wrong("contained") * 200 <= contained, "{what}: {:#?}", score.examples);
        let found = score.share("exclusive") + score.share("contained") + score.share("tx");
        let least = if run.rate <= 20 { 0.6 } else { 0.0 };
        assert!(found > least, "{what}: {:.2} of {} found", found, score.total);
    }
    remove_rules(&world, Backend::NftNative);
}

/// What real clients carry where their protocols have a place for it: each call is its caller's child,
/// and no other is.
#[test]
fn contexts_that_clients_carry_are_read() {
    let Some(world) = World::new() else { return };
    let _postgresql = postgresql::server_in(&world, &world.pod);
    let _mysql = mysql::server(&world);
    let _mongodb = mongodb::nx_27017(&world);
    let host = POD_V4.to_string();
    let _kafka = python_server(&world, "kafka_peer.py", 9092, &["server", &host, "9092"]);
    apply_rules(&world, Backend::NftNative);
    for cell in cells_with(2) {
        let setup = Setup::new(cell)
            .env("NETRA_PROTOCOLS", "5432=postgresql,3306=mysql,9092=kafka,27017=mongodb")
            .env("NETRA_REPORTER", "stdout")
            .env("JAEGER_SAMPLER_TYPE", "const")
            .env("JAEGER_SAMPLER_PARAM", "1");
        let netra = Netra::start(&world, &setup);
        let before = netra.log().len();
        assert_eq!(python(&world.client, "carriers_client.py", &[&host]).trim(), "done");
        netra.scrape_until("all over", |scrape| scrape.active() == 0).expect("they end");
        thread::sleep(Duration::from_millis(1500));
        let log = netra.log();
        netra.end().expect("a clean end");
        let spans = Told::all(&log[before..]);
        let carried: BTreeMap<String, &str> = spans
            .iter()
            .filter(|span| !span.ids[2].trim_matches('0').is_empty())
            .map(|span| (span.ids[2].trim_start_matches('0').to_owned(), span.name.as_str()))
            .collect();
        let name = |number: &str| carried.get(number).copied().unwrap_or_default();
        assert_eq!(["1", "2", "3"].map(name), ["select"; 3], "{carried:?}");
        assert_eq!(["4", "5", "6"].map(name), ["Produce orders", "find orders", "find orders"]);
        assert_eq!(carried.len(), 6, "{carried:?}");
        for span in spans.iter().filter(|it| !it.ids[2].trim_matches('0').is_empty()) {
            assert_eq!(span.ids[0].trim_start_matches('0'), span.ids[2].trim_start_matches('0'));
        }
    }
    remove_rules(&world, Backend::NftNative);
}
