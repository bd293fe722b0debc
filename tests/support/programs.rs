//! Real programs in the namespaces: servers, their clients, and as much success as without netra.

use super::matrix::{self, Findings};
use super::netra::{Backend, Netra, Setup, apply_rules};
use super::world::{CLIENT_V4, Namespace, POD_V4, World, checked};
use super::{PATIENCE, script, wait_until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// What succeeded, and how often.
pub type Tally = BTreeMap<String, u64>;

pub fn tally<const N: usize>(rows: [(&str, u64); N]) -> Tally {
    rows.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Where a program is; its absence fails the test and names the package.
pub fn tool(name: &str, package: &str) -> PathBuf {
    let mut places = vec!["/usr/bin".to_owned(), "/usr/sbin".to_owned(), "/bin".to_owned()];
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|v| v.path().join("bin").display().to_string()));
    }
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}"))
}

/// A server and the workers it has started, killed when dropped.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    pub fn start(world: &World, namespace: &Namespace, command: Command, port: u16) -> Self {
        Self::start_within(PATIENCE, world, namespace, command, port)
    }

    /// The same of a server that takes its time.
    pub fn start_within(
        patience: Duration,
        world: &World,
        namespace: &Namespace,
        mut command: Command,
        port: u16,
    ) -> Self {
        let log = world.dir().join(format!("server-{port}.log"));
        let file = fs::File::create(&log).expect("a log file");
        command.stdout(file.try_clone().expect("dup")).stderr(file).current_dir(world.dir());
        // Its workers are of its group: they outlive it where they are not killed as well.
        let mut child = command.process_group(0).spawn().expect("the server starts");
        let address = if std::ptr::eq(namespace, &world.pod) { POD_V4 } else { CLIENT_V4 };
        let up = wait_until(patience, || {
            assert!(child.try_wait().expect("wait").is_none(), "{}", said(&log));
            script::connect(namespace, (address, port).into()).is_ok()
        });
        assert!(up, "nobody listens on port {port}:\n{}", said(&log));
        Self(child)
    }
}

impl Server {
    /// Sends it, and its workers, a signal.
    pub fn signal(&self, signal: Signal) {
        let group = i32::try_from(self.0.id()).map(Pid::from_raw);
        let _ = group.map(|group| killpg(group, signal));
    }

    /// Has it stand still: when this returns, none of its threads reads anything any more.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.0.id());
        let is_still = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        let is_stopped = || fs::read_dir(&tasks).expect("it runs").flatten().all(is_still);
        assert!(wait_until(PATIENCE, is_stopped), "{tasks}: some of them go on");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        drop(self.0.wait());
    }
}

/// nginx on port 8080 of the pod, with the files of the test's directory; `listen` is the value of its
/// directive.
pub fn nginx(world: &World, listen: &str) -> Server {
    let dir = world.dir().display();
    let http = format!(
        "access_log off; keepalive_requests 1000000; server {{ listen {listen}; root {dir}; }}"
    );
    nginx_with(world, &world.pod, &http, 8080)
}

/// nginx in `namespace`, with this in its `http`; it listens on `port`.
pub fn nginx_with(world: &World, namespace: &Namespace, http: &str, port: u16) -> Server {
    let dir = world.dir().display().to_string();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr crit;
        events {{ worker_connections 4096; }}
        http {{ {temp} {http} }}"
    );
    let path = world.dir().join("nginx.conf");
    fs::write(&path, config).expect("a file");
    let mut command = namespace.command(tool("nginx", "nginx"));
    command.args(["-e", "stderr", "-p", &dir, "-c"]).arg(path);
    Server::start(world, namespace, command, port)
}

fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

/// Runs a program to its end in `namespace` and returns what it printed.
pub fn run(namespace: &Namespace, program: &Path, args: &[&str]) -> String {
    let output = namespace.command(program).args(args).output().expect("the program runs");
    checked(output, &format!("{} {}", program.display(), args.join(" ")))
}

/// The load, directly and then through netra with both drivers.
pub fn compare(world: &World, load: impl Fn() -> Tally) {
    compare_with(world, |setup| setup, load, |_| Ok(()));
}

/// The same with settings of one's own, and a look at netra after each load.
pub fn compare_with(
    world: &World,
    prepare: impl Fn(Setup) -> Setup,
    load: impl Fn() -> Tally,
    look: impl Fn(&Netra<'_>) -> Result<(), String>,
) {
    let direct = load();
    assert!(direct.values().all(|count| *count > 0), "directly: {direct:?}");
    apply_rules(world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells_with(2) {
        let netra = Netra::start(world, &prepare(Setup::new(cell)));
        let through = load();
        if through != direct {
            findings.note(cell, format!("through netra {through:?}, directly {direct:?}"));
        }
        let scrape = netra.scrape();
        if scrape.opened("inbound") + scrape.opened("outbound") == 0 {
            findings.note(cell, "nothing went through netra");
        }
        findings.check(cell, look(&netra));
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// The number that follows `label` in `text`.
pub fn number_after(text: &str, label: &str) -> u64 {
    let rest = text.split_once(label).unwrap_or_else(|| panic!("no {label:?} in:\n{text}")).1;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after {label:?} in:\n{text}"))
}

/// The number that precedes `label` in `text`.
pub fn number_before(text: &str, label: &str) -> u64 {
    let before = text.split_once(label).unwrap_or_else(|| panic!("no {label:?} in:\n{text}")).0;
    let word = before.split_whitespace().last().unwrap_or_default();
    word.parse().unwrap_or_else(|_| panic!("no number before {label:?} in:\n{text}"))
}
