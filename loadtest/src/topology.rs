//! A pod on one machine: the client in one network namespace, application and sidecar in another, a
//! veth pair between them, and rules that redirect.
//!
//! The namespaces have no names. They live as long as we hold their descriptors, so that nothing of
//! them is left whatever ends us, SIGKILL included. All of this is for the main thread alone: a
//! namespace and a CPU mask belong to a thread, and children inherit those of the thread that
//! spawns them.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, sched_getaffinity, sched_setaffinity, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::error::{Context, Error, Kind, Result};
use crate::protocol::Protocol;
use crate::run::pin;
use crate::subject::{
    BULK_PORT, CLIENT_IP, ECHO_PORT, Entrance, HTTP_PORT, Launch, POD_IP, RAW_PORT, SINK_PORT,
    SUBJECT_UID, TABLE, iptables_packets, nft_packets, port_of,
};
use crate::{procfs, sys};

/// How long a process may take to end when asked to.
const STOP_TIME: Duration = Duration::from_secs(3);
/// How long a subject may take to answer through.
const START_TIME: Duration = Duration::from_secs(20);

/// Settings of the client's namespace: it stands for many clients, and has to have ports for all. The
/// pod has the kernel's range and rules, as every pod. Neither range has the ports of a proxy (14900
/// to 14999), so that no connection takes one of them by chance.
const OF_CLIENT: &[(&str, &str)] =
    &[("ipv4/ip_local_port_range", "16000 65000"), ("ipv4/tcp_tw_reuse", "1")];
/// Settings of both namespaces.
const SYSCTLS: &[(&str, &str)] = &[
    ("ipv4/tcp_syncookies", "0"),
    ("ipv4/tcp_max_syn_backlog", "8192"),
    ("core/somaxconn", "8192"),
    // bbr paces: timers of the sender would be measured instead of the proxy.
    ("ipv4/tcp_congestion_control", "reno"),
];

/// Which end of the veth pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    Client,
    Pod,
}

impl Place {
    /// The address of this end.
    pub(crate) fn ip(self) -> &'static str {
        match self {
            Self::Client => CLIENT_IP,
            Self::Pod => POD_IP,
        }
    }

    /// The end that asks what this end answers.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Pod,
            Self::Pod => Self::Client,
        }
    }
}

/// The two namespaces.
pub(crate) struct Topology {
    home: File,
    client: File,
    pod: File,
    has_nft: bool,
}

impl Topology {
    /// Builds both namespaces and the link between them.
    pub(crate) fn build() -> Result<Self> {
        if !Uid::effective().is_root() {
            let message = "compare needs root: it makes network namespaces and redirect rules";
            return Err(Error::new(Kind::Privileges, message));
        }
        let home = namespace()?;
        let make = || -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|cause| {
                let message = format!("cannot make a network namespace: {cause}");
                Error::new(Kind::Privileges, message + " (CAP_SYS_ADMIN is missing)")
            })?;
            namespace()
        };
        let (client, pod) = (make(), make());
        enter(&home)?;
        let has_nft = run("nft", &["--version"], None).is_ok();
        let topology = Self { home, client: client?, pod: pod?, has_nft };
        if !has_nft && run("iptables-restore", &["--version"], None).is_err() {
            return Err(Error::new(Kind::Tool, "neither nft nor iptables-restore is installed"));
        }
        topology.link()?;
        Ok(topology)
    }

    fn link(&self) -> Result<()> {
        let pod = format!("/proc/{}/fd/{}", std::process::id(), self.pod.as_raw_fd());
        self.within(Place::Client, || {
            let words = "link add veth0 type veth peer name veth1 netns";
            let words: Vec<&str> = words.split(' ').chain([pod.as_str()]).collect();
            run("ip", &words, None)
        })?;
        for (place, device) in [(Place::Client, "veth0"), (Place::Pod, "veth1")] {
            self.within(place, || {
                let addr = format!("{}/24", place.ip());
                run("ip", &["addr", "add", &addr, "dev", device], None)?;
                run("ip", &["link", "set", device, "up"], None)?;
                run("ip", &["link", "set", "lo", "up"], None)?;
                let of_client = if place == Place::Client { OF_CLIENT } else { &[] };
                for (name, value) in SYSCTLS.iter().chain(of_client) {
                    // What this kernel does not let us set keeps its default, the same for all.
                    let _ = fs::write(format!("/proc/sys/net/{name}"), value);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// How to look inside.
    pub(crate) fn hint(&self) -> String {
        let pid = std::process::id();
        format!("nsenter --net=/proc/{pid}/fd/{}", self.pod.as_raw_fd())
    }

    /// Does something in a namespace.
    pub(crate) fn within<T>(&self, place: Place, work: impl FnOnce() -> Result<T>) -> Result<T> {
        enter(match place {
            Place::Client => &self.client,
            Place::Pod => &self.pod,
        })?;
        let result = work();
        enter(&self.home)?;
        result
    }

    /// Starts a process of ours (root) in a namespace on these CPUs.
    pub(crate) fn spawn(&self, place: Place, cpu: usize, command: &mut Command) -> Result<Running> {
        let mask =
            sched_getaffinity(Pid::from_raw(0)).context(|| "sched_getaffinity".to_owned())?;
        pin(&[cpu])?;
        // In a group of its own, so that a Ctrl-C of the terminal reaches only us.
        let command = sys::die_with_parent(command).process_group(0);
        let child = self.within(place, || {
            command.spawn().map_err(|cause| {
                let name = command.get_program().display();
                Error::new(Kind::Tool, format!("cannot start {name}: {cause}"))
            })
        });
        sched_setaffinity(Pid::from_raw(0), &mask).context(|| "sched_setaffinity".to_owned())?;
        child.map(|child| Running { child })
    }

    /// Starts a subject as the user whose traffic is not redirected, and waits until it serves.
    pub(crate) fn start_subject(
        &self,
        launch: &Launch,
        rules: &str,
        work: &Path,
        cpu: usize,
    ) -> Result<Running> {
        let log_path = work.join("log");
        let log = File::create(&log_path).context(|| log_path.display().to_string())?;
        let mut command = Command::new(&launch.binary);
        command.args(&launch.args).envs(launch.env.iter().map(|(k, v)| (k, v)));
        command.uid(SUBJECT_UID).gid(SUBJECT_UID).current_dir(work).stdin(Stdio::null());
        let log_too = log.try_clone().context(|| "dup".to_owned())?;
        command.stdout(log).stderr(log_too);
        self.redirect(rules)?;
        let mut running = self.spawn(Place::Pod, cpu, &mut command)?;
        match self.wait_until_served((Place::Pod, launch.entrance), &mut running) {
            Ok(()) => Ok(running),
            Err(cause) => {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(8).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                let message = format!("{cause}; its last words:\n{}", tail.join("\n"));
                Err(Error::new(cause.kind(), message))
            }
        }
    }

    /// Waits until a connection from the other end is answered.
    fn wait_until_served(
        &self,
        (place, (port, protocol)): (Place, Entrance),
        running: &mut Running,
    ) -> Result<()> {
        let start = Instant::now();
        let addr: SocketAddr = format!("{}:{port}", place.ip())
            .parse()
            .map_err(|_| Error::new(Kind::Unexpected, "the address of an end"))?;
        while start.elapsed() < START_TIME {
            if sys::is_interrupted() {
                return Err(Error::new(Kind::Interrupted, "interrupted"));
            }
            if let Some(ended) = running.ended() {
                return Err(Error::new(Kind::Failed, format!("it ended at once ({ended})")));
            }
            if self.within(place.other(), || Ok(answers(addr, protocol)))? {
                return Ok(());
            }
            sys::pause(Duration::from_millis(20));
        }
        Err(Error::new(Kind::Failed, format!("no answer through port {port} in 20 s")))
    }

    /// Whether the rules are given to nft, or else to iptables.
    pub(crate) fn has_nft(&self) -> bool {
        self.has_nft
    }

    /// Puts the rules of a subject in place.
    fn redirect(&self, rules: &str) -> Result<()> {
        self.within(Place::Pod, || match self.has_nft {
            true => run("nft", &["-f", "-"], Some(rules)).map(drop),
            false => run("iptables-restore", &["-w"], Some(rules)).map(drop),
        })
    }

    /// Takes the rules out, and what the kernel remembers of the connections they redirected.
    pub(crate) fn clear_rules(&self) -> Result<()> {
        self.within(Place::Pod, || {
            match self.has_nft {
                true => run("nft", &["delete", "table", "ip", TABLE], None)?,
                false => run("iptables-restore", &["-w"], Some("*nat\nCOMMIT\n"))?,
            };
            // Without conntrack the entries expire by themselves; the next sample may be slower.
            let _ = run("conntrack", &["-F"], None);
            Ok(())
        })
    }

    /// Packets redirected until now: proof that the subject was in the path.
    pub(crate) fn redirected(&self) -> u64 {
        let listing = self.within(Place::Pod, || match self.has_nft {
            true => {
                run("nft", &["list", "table", "ip", TABLE], None).map(|text| nft_packets(&text))
            }
            false => run("iptables", &["-w", "-t", "nat", "-vnxL"], None)
                .map(|text| iptables_packets(&text)),
        });
        listing.unwrap_or(0)
    }

    /// Starts our own upstream at one end.
    pub(crate) fn start_upstream(
        &self,
        program: &Path,
        place: Place,
        cpu: usize,
    ) -> Result<Running> {
        let mut command = Command::new(program);
        command.arg("upstream").stdin(Stdio::null()).stdout(Stdio::null());
        let ip = place.ip();
        command.args(["--http", &format!("{ip}:{HTTP_PORT},{ip}:{RAW_PORT}")]);
        command.args(["--echo", &format!("{ip}:{ECHO_PORT}")]);
        command.args(["--bulk", &format!("{ip}:{BULK_PORT}")]);
        for protocol in Protocol::ALL {
            let addr = format!("{ip}:{}", port_of(protocol));
            command.args([format!("--{}", protocol.name()), addr]);
        }
        // Where tracing sidecars send their spans: an agent beside them.
        command.args(["--sink", &format!("127.0.0.1:{SINK_PORT}")]);
        let mut running = self.spawn(place, cpu, &mut command)?;
        self.wait_until_served((place, (HTTP_PORT, None)), &mut running)?;
        Ok(running)
    }
}

fn answers(addr: SocketAddr, protocol: Option<Protocol>) -> bool {
    let (question, begins) = match protocol {
        None => (HTTP_QUESTION.to_vec(), b"HTTP/1.1 200".to_vec()),
        Some(protocol) => (protocol.question(), protocol.answer()),
    };
    let ask = || -> std::io::Result<bool> {
        let mut stream = std::net::TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(&question)?;
        let mut head = vec![0; begins.len()];
        std::io::Read::read_exact(&mut stream, &mut head)?;
        Ok(head == begins)
    };
    ask().unwrap_or(false)
}

const HTTP_QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n";

/// A child; it ends with this value.
pub(crate) struct Running {
    child: Child,
}

impl From<Child> for Running {
    fn from(child: Child) -> Self {
        Self { child }
    }
}

impl Running {
    /// Starts a tool that looks at others, with its output in files.
    pub(crate) fn tool(command: &mut Command, out: &Path, log: &Path) -> Result<Self> {
        let file = |path: &Path| File::create(path).context(|| path.display().to_string());
        command.stdin(Stdio::null()).stdout(file(out)?).stderr(file(log)?);
        let name = command.get_program().to_string_lossy().into_owned();
        let child = sys::die_with_parent(command).spawn();
        child.map(Self::from).map_err(|cause| Error::new(Kind::Tool, format!("{name}: {cause}")))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end, and makes it after a while.
    pub(crate) fn stop(&mut self) {
        let all = procfs::tree(self.pid());
        let start = Instant::now();
        self.signal(&all, Signal::SIGTERM);
        while self.ended().is_none() && start.elapsed() < STOP_TIME {
            sys::pause(Duration::from_millis(10));
        }
        if self.ended().is_none() {
            self.signal(&all, Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }

    /// Interrupts a tool, which then writes what it has, and waits for its end.
    pub(crate) fn interrupt(&mut self, patience: Duration) {
        self.tell(Signal::SIGINT);
        let begun = Instant::now();
        while self.ended().is_none() && begun.elapsed() < patience {
            sys::pause(Duration::from_millis(10));
        }
    }

    /// Sends a signal to it alone.
    pub(crate) fn tell(&mut self, signal: Signal) {
        let pid = self.pid();
        self.signal(&[pid], signal);
    }

    fn signal(&mut self, all: &[u32], signal: Signal) {
        // Once reaped, the number may be another process's.
        if self.ended().is_none() {
            for pid in all.iter().filter_map(|&pid| i32::try_from(pid).ok()) {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A directory that is gone with this value.
pub(crate) struct WorkDir {
    pub(crate) path: PathBuf,
}

impl WorkDir {
    pub(crate) fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("netra-loadtest-{}", std::process::id()));
        fs::create_dir(&path).context(|| path.display().to_string())?;
        Ok(Self { path })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The network namespace of this thread.
fn namespace() -> Result<File> {
    File::open("/proc/thread-self/ns/net").context(|| "/proc/thread-self/ns/net".to_owned())
}

fn enter(namespace: &File) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context(|| "setns".to_owned())
}

/// Runs a tool to its end and returns what it printed.
pub(crate) fn run(program: &str, args: &[&str], input: Option<&str>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let failed = |why: String| Error::new(Kind::Tool, format!("{program}: {why}"));
    let mut child = command.spawn().map_err(|cause| failed(cause.to_string()))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).map_err(|cause| failed(cause.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|cause| failed(cause.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
