//! The real binaries: netra as a child of the test, and the rules by netra-init.

use super::cgroup::Cgroup;
use super::matrix::Cell;
use super::scrape::{self, Scrape};
use super::sys::Birth;
use super::world::{World, checked};
use super::{PATIENCE, procfs, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::CString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, thread};

/// The port that rules redirect to.
pub const PORT: u16 = 14956;
/// The port of `/metrics` and `/ready`.
pub const METRICS_PORT: u16 = 14958;
/// The port of profiles and admin.
pub const ADMIN_PORT: u16 = 14957;
/// The user whose connections the rules leave alone.
pub const UID: u32 = 1337;

fn binary(variable: &str, built: &str) -> PathBuf {
    let path = env::var_os(variable).map_or_else(|| PathBuf::from(built), PathBuf::from);
    assert!(path.exists(), "{} is missing: cargo build --workspace first", path.display());
    path
}

/// The netra under test: `NETRA_BIN`, else the one that cargo built for this test.
pub fn netra_binary() -> PathBuf {
    binary("NETRA_BIN", env!("CARGO_BIN_EXE_netra"))
}

/// The netra-init beside it.
pub fn init_binary() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_netra")).with_file_name("netra-init");
    binary("NETRA_INIT_BIN", beside.to_str().expect("a path in UTF-8"))
}

/// Who writes the rules into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    NftNative,
    IptablesNft,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::NftNative => "nft-native",
            Self::IptablesNft => "iptables-nft",
        }
    }
}

/// Redirects the pod's traffic to netra.
pub fn apply_rules(world: &World, backend: Backend) {
    init(world, "apply", backend);
}

/// Leaves new connections alone, and open ones as they are.
pub fn release_rules(world: &World, backend: Backend) {
    init(world, "release", backend);
}

/// Takes the redirection away.
pub fn remove_rules(world: &World, backend: Backend) {
    init(world, "cleanup", backend);
}

fn init(world: &World, action: &str, backend: Backend) {
    let mut command = world.pod.command(init_binary());
    command.args([action, "--backend", backend.name()]);
    command.env("NETRA_SIDECAR_USER_ID", UID.to_string());
    command.env("NETRA_SIDECAR_GROUP_ID", UID.to_string());
    let output = command.output().expect("netra-init");
    checked(output, &format!("netra-init {action} --backend {}", backend.name()));
}

/// How to start netra.
#[derive(Clone, Debug)]
pub struct Setup {
    pub cell: Cell,
    env: Vec<(String, String)>,
    nofile: Option<u64>,
    /// Sockets that are no connection's: those of the reporter.
    own_sockets: usize,
    /// Files that it sees in the place of the machine's, and what is in them.
    files: Vec<(&'static str, String)>,
    is_stdout_stuck: bool,
    cgroup: Option<Arc<Cgroup>>,
    user: u32,
}

impl Setup {
    pub fn new(cell: Cell) -> Self {
        Self {
            cell,
            env: Vec::new(),
            nofile: None,
            own_sockets: 0,
            files: Vec::new(),
            is_stdout_stuck: false,
            cgroup: None,
            user: UID,
        }
    }

    /// It lives in this cgroup.
    pub fn cgroup(mut self, cgroup: &Arc<Cgroup>) -> Self {
        self.cgroup = Some(Arc::clone(cgroup));
        self
    }

    /// It runs as another user than the one that the rules leave alone.
    pub fn user(mut self, uid: u32) -> Self {
        self.user = uid;
        self
    }

    /// Its stdout is a pipe that nobody reads.
    pub fn stuck_stdout(mut self) -> Self {
        self.is_stdout_stuck = true;
        self
    }

    pub fn env(mut self, name: impl ToString, value: impl ToString) -> Self {
        self.env.push((name.to_string(), value.to_string()));
        self
    }

    /// It keeps a socket to where its spans go, from the first of them on.
    pub fn reporting(mut self) -> Self {
        self.own_sockets = 1;
        self
    }

    /// It sees this text in the place of a file of the machine's, such as /etc/hosts.
    pub fn file(mut self, place: &'static str, text: impl ToString) -> Self {
        self.files.push((place, text.to_string()));
        self
    }

    pub fn nofile(mut self, limit: u64) -> Self {
        self.nofile = Some(limit);
        self
    }
}

/// A running netra. Dropping it kills it; [`Netra::finish`] asks it to leave and looks for leaks.
#[derive(Debug)]
pub struct Netra<'w> {
    world: &'w World,
    child: Child,
    log: PathBuf,
    cell: Cell,
    sockets_idle: usize,
}

impl<'w> Netra<'w> {
    /// Starts it as its own user without capabilities and waits until it is ready.
    pub fn start(world: &'w World, setup: &Setup) -> Self {
        let log = world.dir().join(format!("netra-{}.log", setup.cell));
        let c_string = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let files = setup.files.iter().enumerate().map(|(number, (place, text))| {
            let path = world.dir().join(format!("file-{number}"));
            fs::write(&path, text).expect("a file for netra");
            (c_string(&path), c_string(Path::new(place)))
        });
        let birth = Birth {
            nofile: setup.nofile,
            files: files.collect(),
            cgroup: setup.cgroup.as_deref().map(Cgroup::door),
            ..Birth::default()
        };
        let mut command = world.pod.command_born(netra_binary(), Some(setup.user), birth);
        command
            .args(["--service-name", "e2e"])
            .env_clear()
            .env("NETRA_PORT", PORT.to_string())
            .env("NETRA_PROMETHEUS_PORT", METRICS_PORT.to_string())
            .env("NETRA_IO", setup.cell.driver.name())
            .env("NETRA_SHARDS", setup.cell.shards.to_string())
            .env("RUST_BACKTRACE", "1")
            .envs(setup.env.iter().map(|(name, value)| (name, value)))
            .stdout(appending(&log))
            .stderr(appending(&log));
        if setup.is_stdout_stuck {
            command.stdout(Stdio::piped());
        }
        let child = command.spawn().expect("netra starts");
        let mut netra = Self { world, child, log, cell: setup.cell, sockets_idle: 0 };
        netra.await_ready();
        netra.sockets_idle = netra.settled_sockets() + setup.own_sockets;
        netra
    }

    fn await_ready(&mut self) {
        let ready = wait_until(PATIENCE, || {
            if let Some(status) = self.child.try_wait().expect("wait") {
                panic!("netra ended at start: {status}\n{}", self.log());
            }
            self.ready()
        });
        assert!(ready, "netra [{}] is not ready\n{}", self.cell, self.log());
    }

    /// Whether it says that it is ready.
    pub fn ready(&self) -> bool {
        scrape::get(&self.world.pod, METRICS_PORT, "/ready").is_ok_and(|(code, _)| code == 200)
    }

    /// Sockets once the connection that asked for readiness is gone.
    fn settled_sockets(&self) -> usize {
        let mut last = procfs::sockets(self.pid());
        wait_until(Duration::from_millis(200), || {
            let before = std::mem::replace(&mut last, procfs::sockets(self.pid()));
            thread::sleep(Duration::from_millis(10));
            before == last && last == procfs::sockets(self.pid())
        });
        last
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn cell(&self) -> Cell {
        self.cell
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn scrape(&self) -> Scrape {
        let (status, body) =
            scrape::get(&self.world.pod, METRICS_PORT, "/metrics").expect("/metrics answers");
        assert_eq!(status, 200, "/metrics: {body}");
        Scrape::parse(&body)
    }

    /// Waits until a scrape satisfies `wanted`.
    pub fn scrape_until(&self, what: &str, wanted: impl Fn(&Scrape) -> bool) -> Result<(), String> {
        if wait_until(PATIENCE, || wanted(&self.scrape())) {
            return Ok(());
        }
        Err(format!("never came true: {what}"))
    }

    /// Waits until no connection and no socket is left over.
    pub fn quiesce(&self) -> Result<(), String> {
        self.scrape_until("no connection is active", |scrape| scrape.active() == 0)?;
        let scrape = self.scrape();
        let opened = scrape.opened("inbound") + scrape.opened("outbound");
        let closed = scrape.sum("netra_tcp_connections_closed_total", &[]);
        if opened != closed {
            return Err(format!("{opened} connections opened, {closed} closed"));
        }
        let mut sockets = 0;
        let settled = wait_until(PATIENCE, || {
            sockets = procfs::sockets(self.pid());
            sockets <= self.sockets_idle
        });
        if settled { Ok(()) } else { Err(format!("{sockets} sockets, not {}", self.sockets_idle)) }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        kill(pid, signal).expect("the child is ours and not yet reaped");
    }

    /// Waits for its end; an error when it is still there after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(format!("still running after {limit:?}"));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it on SIGTERM, without looking for sockets: it opened some for itself.
    pub fn end(mut self) -> Result<(), String> {
        self.signal(Signal::SIGTERM);
        let status = self.wait(PATIENCE)?;
        if status.success() { Ok(()) } else { Err(format!("ended with {status}")) }
    }

    /// No leak, a clean exit on SIGTERM, and no panic in the log.
    pub fn finish(mut self) -> Result<(), String> {
        self.quiesce().map_err(|what| format!("{what}\n{}", self.log()))?;
        self.signal(Signal::SIGTERM);
        let status = self.wait(PATIENCE)?;
        let log = self.log();
        if !status.success() || log.contains("panicked") {
            return Err(format!("ended with {status}\n{log}"));
        }
        Ok(())
    }
}

impl Drop for Netra<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("netra [{}] wrote:\n{}", self.cell, self.log());
        }
        let killed = self.child.try_wait().is_ok_and(|status| status.is_none());
        drop(self.child.kill());
        drop(self.child.wait());
        // A killed process that used io_uring keeps its ports until the kernel has torn down its
        // ring; the next netra of this test must not meet them.
        if killed && !wait_until(PATIENCE, || port_is_free(self.world)) {
            eprintln!("port {PORT} is still taken");
        }
    }
}

/// Both streams go to one file, each line behind the last.
fn appending(log: &Path) -> File {
    File::options().create(true).append(true).open(log).expect("a log file")
}

fn port_is_free(world: &World) -> bool {
    world.pod.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))).is_ok()
}
