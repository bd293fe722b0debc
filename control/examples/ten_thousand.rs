//! Ten thousand sidecars of one netra-control, which reads a real etcd: how long a change takes to
//! all of them, and what that costs. `make control-load` runs it; docs/CONTROL.md has the table.
//!
//! Sidecars are simulated: each has a connection of its own and asks as netra does, by long poll.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "no data path is here")]

use base64::{Engine as _, prelude::BASE64_STANDARD};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::{
    cell::{Cell, RefCell},
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    time::{sleep, timeout},
};

const SIDECARS: usize = 10_000;
const NAMESPACES: usize = 100;
/// Of each namespace: a MetaRouter and a DestinationRule for each, so 1,000 documents in all.
const SERVICES: usize = 5;
/// Of each service: 10,000 in all.
const ENDPOINTS: usize = 20;
const CHURN_PER_S: u32 = 100;
const IDLE: Duration = Duration::from_secs(55);
const CHANGES: usize = 5;

/// What the sidecars have seen of the change that is measured.
#[derive(Default)]
struct Seen {
    mark: RefCell<Vec<u8>>,
    began: Cell<Option<Instant>>,
    took: RefCell<Vec<Duration>>,
    wanted: Cell<usize>,
    all: Notify,
    first: Cell<usize>,
    answers: Cell<u64>,
    bytes: Cell<u64>,
}

/// A sidecar, as it asks: again and again, with the tag of what it has.
async fn sidecar(to: SocketAddr, at: usize, seen: Rc<Seen>) -> io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    let (mut tag, mut has) = (String::new(), Vec::new());
    let mut bytes = Vec::new();
    loop {
        let namespace = at % NAMESPACES;
        let question = format!(
            "GET /v1/rules?namespace=ns-{namespace}&wait=50&pod=pod-{at} HTTP/1.1\r\nhost: c\r\n\
             if-none-match: {tag}\r\n\r\n"
        );
        stream.write_all(question.as_bytes()).await?;
        let (head, body) = answer(&mut stream, &mut bytes).await?;
        let found = head.lines().find_map(|line| line.strip_prefix("etag: "));
        tag = found.ok_or_else(|| io::Error::other(head.clone()))?.to_owned();
        if head.starts_with("HTTP/1.1 304") {
            continue;
        }
        if has.is_empty() {
            seen.first.set(seen.first.get() + 1);
        }
        seen.answers.set(seen.answers.get() + 1);
        seen.bytes.set(seen.bytes.get() + body.len() as u64);
        let mark = seen.mark.borrow();
        if let Some(began) = seen.began.get()
            && has != *mark
            && body.windows(mark.len()).any(|it| it == *mark)
        {
            seen.took.borrow_mut().push(began.elapsed());
            has.clone_from(&mark);
            if seen.took.borrow().len() == seen.wanted.get() {
                seen.all.notify_one();
            }
        } else if has.is_empty() {
            has.extend_from_slice(b"-");
        }
    }
}

/// Head and body of an answer.
async fn answer(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<(String, Vec<u8>)> {
    bytes.clear();
    loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.and_then(|it| it.parse().ok()).unwrap_or(0);
            let mut body = bytes.split_off(end + 4);
            let have = body.len();
            if have < length {
                body.resize(length, 0);
                stream.read_exact(&mut body[have..]).await?;
            }
            bytes.shrink_to(1024);
            return Ok((head, body));
        }
        if stream.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A process that ends with this one.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Seconds of CPU so far.
    fn cpu_s(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        let words: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| words.get(at).and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }

    /// A line of its `status`, in MB.
    fn memory_mb(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|it| it.parse::<u64>().ok()).unwrap_or(0) / 1000
    }
}

struct Etcd {
    _process: Process,
    place: PathBuf,
    port: u16,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    listener.expect("a port").port()
}

impl Etcd {
    fn start() -> Self {
        let place = PathBuf::from(format!("/dev/shm/netra-control-load-{}", std::process::id()));
        let (port, peer) = (free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(&place)
            .args(["--listen-client-urls", &url(port), "--advertise-client-urls", &url(port)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &format!("default={}", url(peer))]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process(command.spawn().expect("Debian package etcd-server"));
        let etcd = Self { _process: process, place, port };
        let by = Instant::now() + Duration::from_secs(20);
        while post(etcd.port, "/v3/kv/range", &json!({"key": "YQ=="})).is_err() {
            assert!(Instant::now() < by, "etcd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        etcd
    }

    /// Many keys, as many at once as etcd lets.
    fn fill(&self, pairs: &[(String, String)]) {
        for some in pairs.chunks(100) {
            let puts: Vec<Value> = some
                .iter()
                .map(|(key, value)| {
                    let [key, value] = [key, value].map(|it| BASE64_STANDARD.encode(it));
                    json!({"request_put": {"key": key, "value": value}})
                })
                .collect();
            post(self.port, "/v3/kv/txn", &json!({"success": puts})).expect("txn");
        }
    }
}

fn post(port: u16, path: &str, body: &Value) -> io::Result<()> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    let body = body.to_string();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: e\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(io::Error::other(text)),
    }
}

fn put(port: u16, key: &str, value: &str) {
    let [key, value] = [key, value].map(|it| BASE64_STANDARD.encode(it));
    post(port, "/v3/kv/put", &json!({"key": key, "value": value})).expect("put");
}

fn endpoint(at: usize, turn: usize) -> (String, String) {
    let (namespace, service) = (at % NAMESPACES, at / NAMESPACES % SERVICES);
    let key = format!("/netra/endpoints/ns-{namespace}/svc-{service}/{at}");
    let address = format!("10.{}.{}.{}", turn % 200, at / 250, at % 250 + 1);
    let version = if (at / NAMESPACES / SERVICES).is_multiple_of(2) { "v1" } else { "v2" };
    (
        key,
        json!({"address": address, "ports": {"web": 8080}, "labels": {"version": version}})
            .to_string(),
    )
}

fn documents() -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for namespace in 0..NAMESPACES {
        for service in 0..SERVICES {
            let host = format!("svc-{service}.ns-{namespace}.svc.cluster.local");
            let meta =
                json!({"name": format!("svc-{service}"), "namespace": format!("ns-{namespace}")});
            let subset = |name: &str| json!({"name": name, "labels": {"version": name}});
            let to = |subset: &str, weight: u32| json!({"destination": {"host": host, "subset": subset}, "weight": weight});
            let router = json!({"apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "MetaRouter", "metadata": meta,
                "spec": {"hosts": [host], "exportTo": ["."],
                    "routes": [{"name": "split", "route": [to("v1", 90), to("v2", 10)]}]}});
            let rule = json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": meta,
                "spec": {"host": host, "exportTo": ["."], "subsets": [subset("v1"), subset("v2")]}});
            let key = |kind: &str| format!("/netra/documents/ns-{namespace}/svc-{service}-{kind}");
            pairs.push((key("router"), router.to_string()));
            pairs.push((key("rule"), rule.to_string()));
        }
    }
    pairs
}

/// A router of one namespace, or one that everybody sees.
fn marked(namespace: &str, mark: &str, to: &str) -> String {
    let host = format!("svc-0.{to}.svc.cluster.local");
    json!({"apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "MetaRouter",
        "metadata": {"name": "marked", "namespace": namespace},
        "spec": {"hosts": [format!("{namespace}.demo")], "exportTo": [to],
            "routes": [{"name": mark, "route": [{"destination": {"host": host}}]}]}})
    .to_string()
}

/// Puts a change, waits until so many have it, and says how long that took.
async fn change(
    seen: &Seen,
    etcd: &Etcd,
    mark: &str,
    key: &str,
    value: &str,
    wanted: usize,
) -> Vec<Duration> {
    seen.took.borrow_mut().clear();
    mark.as_bytes().clone_into(&mut seen.mark.borrow_mut());
    seen.wanted.set(wanted);
    seen.began.set(Some(Instant::now()));
    put(etcd.port, key, value);
    if timeout(Duration::from_secs(30), seen.all.notified()).await.is_err() {
        println!("  {} of {wanted} only", seen.took.borrow().len());
    }
    seen.began.set(None);
    let mut took = seen.took.borrow().clone();
    took.sort_unstable();
    took
}

fn told(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let of = |percent: usize| {
        took.get(took.len().saturating_sub(1) * percent / 100).map_or(0, Duration::as_millis)
    };
    println!("{what}: n {} p50 {} ms, p99 {} ms, last {} ms", took.len(), of(50), of(99), of(100));
}

fn control(etcd: &Etcd) -> (Process, SocketAddr) {
    let program = std::env::args().nth(1).expect("the path of netra-control");
    let mut command = Command::new("taskset");
    command.args(["-c", "0", &program, "serve", "--listen=127.0.0.1:0", "--without-tokens"]);
    command.arg(format!("--etcd=127.0.0.1:{}", etcd.port)).stderr(Stdio::piped());
    let mut child = command.spawn().expect("taskset");
    let mut lines =
        BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let line = lines.by_ref().find(|line| line.contains("listens on ")).expect("an address");
    std::thread::spawn(move || lines.for_each(|line| println!("  {line}")));
    let at = line.rsplit(' ').next().and_then(|it| it.parse().ok()).expect("an address");
    (Process(child), at)
}

/// 100 endpoints of a second get another address, until the flag is down; how many it were.
fn churn(port: u16, goes_on: Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        let (began, mut turns) = (Instant::now(), 0_usize);
        while goes_on.load(Relaxed) {
            let at = turns * 7919 % (NAMESPACES * SERVICES * ENDPOINTS);
            let (key, value) = endpoint(at, turns + 1);
            put(port, &key, &value);
            turns += 1;
            let all = u32::try_from(turns).unwrap_or(u32::MAX);
            let due = Duration::from_secs(1) * all / CHURN_PER_S;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        turns
    })
}

/// What is measured.
struct Run {
    etcd: Etcd,
    control: Process,
    at: SocketAddr,
    seen: Rc<Seen>,
}

impl Run {
    fn start() -> Self {
        let etcd = Etcd::start();
        etcd.fill(&documents());
        let all = NAMESPACES * SERVICES * ENDPOINTS;
        etcd.fill(&(0..all).map(|at| endpoint(at, 0)).collect::<Vec<_>>());
        let (control, at) = control(&etcd);
        Self { etcd, control, at, seen: Rc::default() }
    }

    async fn connect(&self) {
        let (began, seen) = (Instant::now(), &self.seen);
        for number in 0..SIDECARS {
            let (to, seen) = (self.at, seen.clone());
            tokio::task::spawn_local(async move {
                if let Err(why) = sidecar(to, number, seen).await {
                    println!("  sidecar {number}: {why}");
                }
            });
            if number % 50 == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        while seen.first.get() < SIDECARS && began.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_millis(20)).await;
        }
        println!(
            "{} sidecars have rules after {:.1} s, of {} bytes each",
            seen.first.get(),
            began.elapsed().as_secs_f64(),
            seen.bytes.get() / seen.answers.get().max(1)
        );
    }

    async fn idle(&self) {
        sleep(Duration::from_secs(2)).await;
        let (began, cpu) = (Instant::now(), self.control.cpu_s());
        sleep(IDLE).await;
        let share = 100.0 * (self.control.cpu_s() - cpu) / began.elapsed().as_secs_f64();
        println!("idle: {share:.2} % of a core, RSS {} MB", self.control.memory_mb("VmRSS:"));
    }

    /// Changes that all sidecars see, one after the other.
    async fn for_all(&self, name: &str, pause: Duration) -> Vec<Duration> {
        let mut took = Vec::new();
        for turn in 0..CHANGES {
            sleep(pause).await;
            let mark = format!("mark-{name}{turn}");
            let value = marked("fleet", &mark, "*").replace("svc-0.*.", "svc-0.ns-0.");
            let key = "/netra/documents/fleet";
            took.extend(change(&self.seen, &self.etcd, &mark, key, &value, SIDECARS).await);
        }
        took
    }

    async fn for_one(&self) -> Vec<Duration> {
        let mut took = Vec::new();
        for turn in 0..CHANGES * 2 {
            let (mark, namespace) = (format!("mark-b{turn}"), format!("ns-{turn}"));
            let value = marked(&namespace, &mark, &namespace);
            let key = format!("/netra/documents/{namespace}/marked");
            let few = SIDECARS / NAMESPACES;
            took.extend(change(&self.seen, &self.etcd, &mark, &key, &value, few).await);
        }
        took
    }

    async fn churn(&self) {
        let goes_on = Arc::new(AtomicBool::new(true));
        let churning = churn(self.etcd.port, goes_on.clone());
        let (began, cpu) = (Instant::now(), self.control.cpu_s());
        let answers = self.seen.answers.get();
        let took = self.for_all("c", Duration::from_secs(3)).await;
        goes_on.store(false, Relaxed);
        let wall = began.elapsed().as_secs_f64();
        let share = 100.0 * (self.control.cpu_s() - cpu) / wall;
        let answers = (self.seen.answers.get() - answers) as f64 / wall;
        let turns = churning.join().unwrap_or(0);
        told("a change for all, while endpoints come and go", took);
        println!(
            "churn: {:.0} endpoints/s, {answers:.0} answers/s, {share:.0} % of a core, RSS at most {} MB",
            turns as f64 / wall,
            self.control.memory_mb("VmHWM:")
        );
    }
}

async fn measure() {
    let run = Run::start();
    run.connect().await;
    run.idle().await;
    told("a change for all", run.for_all("a", Duration::from_millis(500)).await);
    told("a change for one namespace", run.for_one().await);
    run.churn().await;
}

fn main() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("descriptors");
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, measure());
}
