//! Pods made of real containers: who holds the network, the application, the rules, the sidecar.
//! Everything of a test carries its label and goes with it, however it ends.

use super::scrape::{self, Scrape};
use super::spans::{Ports, SpanSink, python_path};
use super::world::checked;
use super::{PATIENCE, wait_until};
use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Ports of the application: HTTP, echo, bulk.
pub const HTTP: u16 = 8080;
pub const ECHO: u16 = 9000;
pub const BULK: u16 = 9001;
const METRICS: u16 = 14958;

/// What Docker 28 allows by default, which engines before 25 do not: without io_uring.
pub const DEFAULT_PROFILE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/docker/seccomp/default.json");
/// The same and io_uring.
pub const OUR_PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/seccomp.json");

/// An image of this checkout: `docker/images.sh` makes them, `make test` calls it.
fn image(name: &str) -> String {
    format!("{name}:{}", tag())
}

/// Tag of the images under test.
pub fn tag() -> String {
    env::var("NETRA_TEST_TAG").unwrap_or_else(|_| "test".to_owned())
}

/// Whether a Docker engine answers. If one must, or if there is one without our images, the test
/// fails; else it says loudly that it proves nothing.
pub fn is_there() -> bool {
    let answers = |args: &[&str]| {
        Command::new("docker").args(args).output().is_ok_and(|output| output.status.success())
    };
    if !answers(&["info"]) {
        let is_required = env::var("NETRA_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
        assert!(!is_required, "no Docker engine answers, and NETRA_REQUIRE_DOCKER=1");
        eprintln!("*** SKIPPED: no Docker engine answers here; it proves nothing ***");
        return false;
    }
    for name in ["netra", "netra-init", "netra-init-iptables", "netra-control", "netra-test"] {
        let there = answers(&["image", "inspect", &image(name)]);
        assert!(there, "no image {}: make test-images", image(name));
    }
    true
}

/// Runs docker; it has to succeed. Returns what it printed.
#[track_caller]
pub fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().expect("docker");
    let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout
}

/// A network of containers that ends with its test.
pub struct Network {
    name: String,
}

impl Network {
    pub fn new(test: &str) -> Self {
        let name = format!("netra-{test}-{}", std::process::id());
        docker(&["network", "create", &name]);
        Self { name }
    }

    fn container(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// Arguments of `docker run` for a container of this network that stays.
    fn detached<'a>(&'a self, name: &'a str) -> [&'a str; 6] {
        ["run", "--detach", "--name", name, "--label", &self.name]
    }

    /// An application on this network, without a sidecar: its address and its name.
    pub fn server(&self, name: &str) -> (Ipv4Addr, String) {
        let name = self.container(name);
        let base = self.detached(&name);
        docker(&[&base[..], &["--network", &self.name, &image("netra-test")], SERVE].concat());
        (self.address(&name), name)
    }

    /// A service of the demo on this network, without a sidecar, listening on port 80: its name.
    pub fn service(&self, name: &str, args: &[&str]) -> String {
        let name = self.container(name);
        let base = self.detached(&name);
        docker(
            &[
                &base[..],
                &["--network", &self.name],
                DEMO_SERVICE,
                &[&image("netra"), "demo", "service"],
                args,
            ]
            .concat(),
        );
        name
    }

    /// netra-control without root, without a capability and with nothing to write to: its name and
    /// its address.
    pub fn control(&self, run: &[&str], args: &[&str]) -> (String, Ipv4Addr) {
        let name = self.container("control");
        let base = self.detached(&name);
        let safe = ["--network", &self.name, "--read-only", "--cap-drop", "ALL"];
        let safe = [&safe[..], &["--security-opt", "no-new-privileges"]].concat();
        docker(&[&base[..], &safe, run, &[&image("netra-control"), "serve"], args].concat());
        let address = self.address(&name);
        (name, address)
    }

    /// The span sink in a container, on the ports where receivers of spans are looked for, and its
    /// name. There is no image with Python: it gets to see this machine's, and this checkout.
    pub fn sink(&self, name: &str) -> (SpanSink, String) {
        let name = self.container(name);
        let python = python_path();
        let home = python.parent().and_then(Path::parent).expect("a folder with bin/python");
        let base = ["-c", "import sys; print(sys.base_prefix)"];
        let base = checked(Command::new(&python).args(base).output().expect("python"), "python");
        let folders =
            [env!("CARGO_MANIFEST_DIR"), home.to_str().expect("a path in UTF-8"), base.trim()];
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--interactive", "--name", &name, "--label", &self.name]);
        command.args(["--network", &self.name, "--user", "0"]);
        let seen = folders.iter().filter(|folder| **folder != "/usr");
        let seen: Vec<String> = seen.map(|folder| format!("{folder}:{folder}:ro")).collect();
        let system = ["/usr:/usr:ro", "/usr/lib:/lib:ro", "/usr/lib64:/lib64:ro"];
        for volume in seen.iter().map(String::as_str).chain(system) {
            command.args(["--volume", volume]);
        }
        command.arg("--entrypoint").arg(&python).arg(image("netra-test"));
        let ports = Ports { agent: 6831, collector: 14268, otlp_http: 4318, otlp_grpc: 4317 };
        (SpanSink::start_as(command, ports, "0.0.0.0"), name)
    }

    /// A line of the documents, with this network's name, the images of this checkout, and an
    /// application that listens on the same port.
    pub fn adapted(&self, line: &str) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let application = [&image("netra-test")[..], &SERVE.join(" ")].join(" ");
        let names = ["shop-", "--network shop ", "--service-name shop"];
        let named = names.iter().fold(line.to_owned(), |line, name| {
            line.replace(name, &name.replace("shop", &self.name))
        });
        named
            .replace("example/shop:1", &application)
            .replace(&format!(":{version}"), &format!(":{}", tag()))
            .replace("-p 8080:8080", "-p 127.0.0.1::8080")
            .replacen("run ", &format!("run --label {} ", self.name), 1)
    }

    fn address(&self, container: &str) -> Ipv4Addr {
        let format = format!("{{{{(index .NetworkSettings.Networks {:?}).IPAddress}}}}", self.name);
        docker(&["inspect", "--format", &format, container]).parse().expect("an address")
    }

    /// A client container on this network; every request has to succeed.
    pub fn load(&self, args: &[&str]) -> Load {
        Load::start(&self.name, args)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let filter = format!("label={}", self.name);
        let listed = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output();
        let listed = listed.map(|output| output.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&listed).split_whitespace() {
            if std::thread::panicking() {
                let logs = Command::new("docker").args(["logs", "--tail", "20", id]).output();
                let logs = logs.map(|output| output.stderr).unwrap_or_default();
                eprintln!("--- {id}\n{}", String::from_utf8_lossy(&logs));
            }
            drop(Command::new("docker").args(["rm", "-f", id]).output());
        }
        drop(Command::new("docker").args(["network", "rm", &self.name]).output());
    }
}

/// The demo's services are in netra's image. They run as any user but netra's.
const DEMO_SERVICE: &[&str] = &["--user", "1000:1000", "--read-only", "--cap-drop", "ALL"];

const SERVE: &[&str] = &[
    "upstream",
    "--http=0.0.0.0:8080",
    "--echo=0.0.0.0:9000",
    "--bulk=0.0.0.0:9001",
    "--body-size=1024",
];

/// A load under way.
pub struct Load {
    child: Child,
    what: String,
}

impl Load {
    fn start(network: &str, args: &[&str]) -> Self {
        let child = Command::new("docker")
            .args(["run", "--rm", "--network", network, &image("netra-test")])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker");
        Self { child, what: format!("{args:?}") }
    }

    /// Waits for the end: netra-loadtest says by its exit code whether a request failed.
    #[track_caller]
    pub fn succeeds(self) -> String {
        let output = self.child.wait_with_output().expect("docker");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {}\n{said}\n{stderr}", self.what, output.status);
        said
    }
}

/// How the sidecar's container runs.
#[derive(Clone, Copy, Default)]
pub struct Sidecar<'a> {
    /// Further arguments of `docker run`.
    pub run: &'a [&'a str],
    /// Further flags of netra.
    pub flags: &'a [&'a str],
}

/// Containers that share one network namespace, which the first of them holds.
pub struct Pod<'a> {
    network: &'a Network,
    name: String,
    pub address: Ipv4Addr,
}

impl<'a> Pod<'a> {
    /// The network namespace, by a container that does nothing else, as in Kubernetes.
    pub fn new(network: &'a Network, name: &str) -> Self {
        let name = network.container(name);
        let base = network.detached(&name);
        let sleep = ["--network", &network.name, &image("netra-test"), "upstream"];
        docker(&[&base[..], &sleep, &["--echo=127.0.0.1:1"]].concat());
        Self { network, address: network.address(&name), name }
    }

    /// One whose network this container holds, and whose sidecar is that one.
    pub fn of(network: &'a Network, holder: &str, netra: &str) -> Self {
        let address = network.address(&network.container(holder));
        let name = network.container(netra);
        let name = name.strip_suffix("-netra").expect("a sidecar's name").to_owned();
        Self { network, name, address }
    }

    /// Waits until netra is ready.
    #[track_caller]
    pub fn is_ready(&self) {
        let ready = || matches!(self.get("/ready"), Ok((200, _)));
        assert!(wait_until(PATIENCE, ready), "netra is not ready:\n{}", self.log());
    }

    fn joined(&self) -> String {
        format!("container:{}", self.name)
    }

    /// Runs netra-init as an ordinary user with the one capability that it needs.
    #[track_caller]
    pub fn init(&self, args: &[&str]) -> String {
        self.init_by("netra-init", &["--cap-add", "NET_ADMIN"], args)
    }

    /// The same by another image and with other capabilities.
    #[track_caller]
    pub fn init_by(&self, name: &str, capabilities: &[&str], args: &[&str]) -> String {
        let network = self.joined();
        let base = ["run", "--rm", "--network", &network, "--read-only", "--cap-drop", "ALL"];
        docker(&[&base[..], capabilities, &[&image(name)], args].concat())
    }

    /// Starts netra as the image's user, without any capability, with nothing to write to.
    pub fn start_netra(&self, sidecar: Sidecar<'_>) {
        let (name, network) = (self.netra(), self.joined());
        let base = self.network.detached(&name);
        let safe = ["--network", &network, "--read-only", "--cap-drop", "ALL"];
        let image = image("netra");
        let what = ["--security-opt", "no-new-privileges"];
        let named = [&image, "--service-name", "containers"];
        docker(&[&base[..], &safe, &what, sidecar.run, &named, sidecar.flags].concat());
        self.is_ready();
    }

    pub fn start_app(&self) {
        let (name, network) = (format!("{}-app", self.name), self.joined());
        let base = self.network.detached(&name);
        docker(&[&base[..], &["--network", &network, &image("netra-test")], SERVE].concat());
    }

    /// A service of the demo as the application, on port 80.
    pub fn start_service(&self, args: &[&str]) {
        let (name, network) = (format!("{}-app", self.name), self.joined());
        let base = self.network.detached(&name);
        docker(
            &[
                &base[..],
                &["--network", &network],
                DEMO_SERVICE,
                &[&image("netra"), "demo", "service"],
                args,
            ]
            .concat(),
        );
    }

    /// A request of the demo's client in the pod: what it says of the answer.
    pub fn ask(&self, args: &[&str]) -> String {
        let network = self.joined();
        let base = ["run", "--rm", "--network", &network];
        let ask = [&image("netra")[..], "demo", "ask"];
        let mut command = Command::new("docker");
        command.args(base).args(DEMO_SERVICE).args(ask).args(args);
        // Another answer than 200 is a failure of the client's.
        let output = command.output().expect("docker");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The container of netra.
    pub fn netra(&self) -> String {
        format!("{}-netra", self.name)
    }

    /// Takes the application and netra away; the network namespace stays.
    pub fn stop(&self) {
        docker(&["rm", "-f", &self.netra(), &format!("{}-app", self.name)]);
    }

    /// A client inside the pod.
    pub fn load(&self, args: &[&str]) -> Load {
        Load::start(&self.joined(), args)
    }

    fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        scrape::get_from(SocketAddr::from((self.address, METRICS)), path)
    }

    pub fn scrape(&self) -> Scrape {
        Scrape::parse(&self.get("/metrics").expect("/metrics answers").1)
    }

    pub fn log(&self) -> String {
        let output = Command::new("docker").args(["logs", &self.netra()]).output().expect("docker");
        [output.stdout, output.stderr]
            .map(|part| String::from_utf8_lossy(&part).into_owned())
            .concat()
    }

    /// A field of netra's container as `docker inspect` knows it.
    pub fn inspect(&self, field: &str) -> String {
        docker(&["inspect", "--format", &format!("{{{{{field}}}}}"), &self.netra()])
    }
}
