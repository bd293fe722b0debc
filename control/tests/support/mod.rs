//! What tests of netra-control have in common: processes, places, questions, sidecars.
#![allow(dead_code, unreachable_pub, reason = "each test has what it needs of it")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

pub const TOKEN: &str = "shop-token-0123456789";
pub const ROOT_TOKEN: &str = "root-token-0123456789";
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of its own, gone afterwards.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netra-fleet-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, text: &str) {
        // Whole at once: half a file is another document.
        let beside = self.0.join(format!("{name}.new"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.0.join(name)).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process, ended with the test.
pub struct Process {
    pub child: Child,
    said: Arc<Mutex<String>>,
}

impl Process {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (lines, keep) = (BufReader::new(child.stderr.take().unwrap()), said.clone());
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut said = keep.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        });
        Self { child, said }
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// The address that it says it listens on.
    pub fn address(&self) -> SocketAddr {
        let mark = "listens on ";
        until("it listens", || self.said().contains(mark));
        let said = self.said();
        let at = said.find(mark).unwrap() + mark.len();
        said[at..].split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn until(what: &str, is_true: impl FnMut() -> bool) {
    until_within(PATIENCE, what, is_true);
}

pub fn until_within(patience: Duration, what: &str, mut is_true: impl FnMut() -> bool) {
    let by = Instant::now() + patience;
    while !is_true() {
        assert!(Instant::now() < by, "never came true: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn control(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netra-control"));
    command.args(["serve", "--listen=127.0.0.1:0"]).args(args);
    command
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn tag(&self) -> String {
        let line = self.head.lines().find_map(|line| line.strip_prefix("etag: "));
        line.unwrap_or_default().to_owned()
    }
}

pub fn ask(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(70))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// What a sidecar of a namespace asks.
pub fn rules(to: SocketAddr, namespace: &str, token: &str, tag: &str, wait: u32) -> Answer {
    let path = format!("/v1/rules?namespace={namespace}&pod=web-1&wait={wait}");
    let bearer = format!("Bearer {token}");
    ask(to, "GET", &path, &[("authorization", &bearer), ("if-none-match", tag)], "")
}

pub fn router(name: &str, weight: u32) -> String {
    format!(
        "apiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: MetaRouter\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:\n  hosts: [orders.demo]\n  exportTo: [.]\n\
         \x20 routes:\n  - name: split\n    route:\n\
         \x20   - {{destination: {{host: orders.demo, subset: v1}}, weight: {weight}}}\n\
         \x20   - {{destination: {{host: orders.demo, subset: v2}}, weight: {}}}\n",
        100 - weight
    )
}

pub const REST: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: orders, namespace: shop}
spec:
  host: orders.demo
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: orders, namespace: shop}
spec:
  hosts: [orders.demo]
  addresses: [10.1.0.1]
  resolution: STATIC
  ports: [{number: 8080, name: http, protocol: HTTP}]
  endpoints:
  - {address: 10.0.0.1, labels: {version: v1}}
  - {address: 10.0.0.2, labels: {version: v2}}
";

pub fn directory(name: &str) -> (Place, Process, SocketAddr) {
    directory_with(name, |_, command| command)
}

/// The same with something that is done to the command before.
pub fn directory_with(
    name: &str,
    prepare: impl Fn(&Place, Command) -> Command,
) -> (Place, Process, SocketAddr) {
    let place = Place::new(name);
    fs::create_dir(place.0.join("rules")).unwrap();
    place.write("rules/router.yaml", &router("orders", 20));
    place.write("rules/rest.yaml", REST);
    place.write("tokens", &format!("shop {TOKEN}\n* {ROOT_TOKEN}\n"));
    let folder = place.0.join("rules").display().to_string();
    let tokens = place.0.join("tokens").display().to_string();
    let command = control(&["--directory", &folder, "--tokens", &tokens]);
    let control = Process::start(prepare(&place, command));
    let at = control.address();
    until("it is ready", || ask(at, "GET", "/ready", &[], "").status == 200);
    (place, control, at)
}

/// A free port of this host.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A sidecar that asks this netra-control; its admin port with it, and the port of its metrics.
pub fn sidecar(place: &Place, control: SocketAddr) -> (Process, SocketAddr, SocketAddr) {
    sidecar_with(place, control, |command| command)
}

/// The same with something that is done to the command before.
pub fn sidecar_with(
    place: &Place,
    control: SocketAddr,
    prepare: impl Fn(Command) -> Command,
) -> (Process, SocketAddr, SocketAddr) {
    let netra = PathBuf::from(env!("CARGO_BIN_EXE_netra-control")).with_file_name("netra");
    assert!(netra.exists(), "{} is built by `cargo build --workspace`", netra.display());
    place.write("token", TOKEN);
    let [admin, metrics] = [free_port(), free_port()];
    let mut command = Command::new(netra);
    command
        .env_clear()
        .args(["--service-name", "front", "--shards", "1", "--http-ports", "8080"])
        .env("NETRA_PORT", free_port().to_string())
        .env("NETRA_PROMETHEUS_PORT", metrics.to_string())
        .env("NETRA_PPROF_PORT", admin.to_string())
        .env("NETRA_RULES_URL", format!("http://{control}"))
        .env("NETRA_RULES_NAMESPACE", "shop")
        .env("NETRA_RULES_TOKEN_FILE", place.0.join("token"))
        .env("NETRA_RULES_CACHE", place.0.join("cache.yaml"));
    let [admin, metrics] = [admin, metrics].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    (Process::start(prepare(command)), admin, metrics)
}

/// A figure of a sidecar's metrics.
pub fn figure(metrics: SocketAddr, name: &str) -> f64 {
    let text = ask(metrics, "GET", "/metrics", &[], "").text();
    let begin = format!("{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&begin));
    line.unwrap().parse().unwrap()
}

/// What `netra doctor` says of a sidecar.
pub fn doctor(admin: SocketAddr) -> String {
    let netra = PathBuf::from(env!("CARGO_BIN_EXE_netra-control")).with_file_name("netra");
    let mut command = Command::new(netra);
    command.env_clear().arg("doctor").env("NETRA_SERVICE_NAME", "front");
    command.env("NETRA_PPROF_PORT", admin.port().to_string());
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// The rules that a sidecar obeys, and what is wrong with what came last.
pub fn obeyed(admin: SocketAddr) -> Option<(String, usize)> {
    TcpStream::connect(admin).ok()?;
    let answer = ask(admin, "GET", "/rules", &[], "");
    let page: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    Some((page["rules"].to_string(), page["errors"].as_array()?.len()))
}
