//! The pod and its client: two namespaces, a veth pair, rules, the sidecar, an application.

use super::namespace::{self, Namespace};
use super::stage::Lane;
use super::{Result, mask, server};
use nix::sys::signal::{SigmaskHow, Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{env, thread};

pub(super) const CLIENT: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1)),
];
pub(super) const POD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2)),
];
/// The application's port; the rules send it to netra.
pub(super) const APP: u16 = 8080;
/// The port of the service elsewhere that the application calls; the rules send it to netra.
pub(super) const ELSEWHERE: u16 = 9080;
/// What is added to a port for the same server, left alone by the rules: the direct path.
pub(super) const DIRECT: u16 = 1;
/// netra's own port.
pub(super) const NETRA: u16 = 14956;
const METRICS: u16 = 14958;
const SIDECAR: u32 = 1337;

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) lane: Lane,
    pub(super) client: Namespace,
    pub(super) pod: Namespace,
    pub(super) sidecar: Sidecar,
}

impl Pod {
    pub(super) fn build(lane: Lane) -> Result<Self> {
        let (client, pod) = (Namespace::new()?, Namespace::new()?);
        wire(&client, &pod)?;
        serve(&pod, APP)?;
        serve(&client, ELSEWHERE)?;
        apply_rules(&pod, &lane)?;
        let sidecar = Sidecar::start(&pod, &lane)?;
        let built = Self { lane, client, pod, sidecar };
        built.await_ready()?;
        Ok(built)
    }

    fn await_ready(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.get("/ready") {
                Ok((200, _)) => return Ok(()),
                _ if self.sidecar.ended() => {}
                _ if Instant::now() < deadline => {
                    thread::park_timeout(Duration::from_millis(2));
                    continue;
                }
                _ => {}
            }
            return Err(format!("the sidecar does not come up:\n{}", self.sidecar.said()));
        }
    }

    /// netra's metrics now.
    pub(super) fn metrics(&self) -> Result<String> {
        match self.get("/metrics")? {
            (200, body) => Ok(body),
            (status, _) => Err(format!("/metrics answers {status}")),
        }
    }

    fn get(&self, path: &str) -> Result<(u16, String)> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, METRICS))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let head = format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = self.pod.enter(ask)?.map_err(|error| format!("{path}: {error}"))?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Ok((status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned()))
    }

    /// Asks the sidecar to leave and waits for it.
    pub(super) fn leave(self) -> Result<()> {
        self.sidecar.leave()
    }
}

fn wire(client: &Namespace, pod: &Namespace) -> Result<()> {
    // Different indexes: with equal ones, as two fresh namespaces would give, the kernel takes the
    // ends for unrelated links and lets IPv6 wait a second for the carrier.
    let target = pod.path();
    client.ip(&format!(
        "link add eth0 index 10 type veth peer name eth0 index 11 netns {target}\n"
    ))?;
    for (namespace, [v4, v6]) in [(client, CLIENT), (pod, POD)] {
        let mut lines = format!("link set lo up\naddr add {v4}/24 dev eth0\n");
        // A kernel without IPv6 still shows everything else.
        if has_ipv6() {
            lines += &format!("addr add {v6}/64 dev eth0 nodad\n");
        }
        namespace.ip(&(lines + "link set eth0 up\n"))?;
    }
    Ok(())
}

/// Whether this kernel speaks IPv6.
pub(super) fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// The same server twice: behind the rules, and beside them.
fn serve(namespace: &Namespace, port: u16) -> Result<()> {
    for port in [port, port + DIRECT] {
        let any: IpAddr =
            if has_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let listener = namespace.enter(|| TcpListener::bind((any, port)))?;
        let served = listener.and_then(|listener| server::serve(&listener));
        served.map_err(|error| format!("port {port}: {error}"))?;
    }
    Ok(())
}

/// `NETRA_INIT_BIN`, or the one beside this program, or the one in the path.
fn init_program() -> PathBuf {
    if let Some(path) = env::var_os("NETRA_INIT_BIN") {
        return path.into();
    }
    let beside = env::current_exe().map(|program| program.with_file_name("netra-init"));
    beside.ok().filter(|path| path.exists()).unwrap_or_else(|| "netra-init".into())
}

fn apply_rules(pod: &Namespace, lane: &Lane) -> Result<()> {
    let program = init_program();
    let outbound = match lane {
        Lane::Both => ELSEWHERE.to_string(),
        Lane::InboundOnly(_) => "none".to_owned(),
    };
    let mut command = Command::new(&program);
    command
        .args(["apply", "--backend", "nft-native"])
        .env("NETRA_SIDECAR_USER_ID", SIDECAR.to_string())
        .env("NETRA_SIDECAR_GROUP_ID", SIDECAR.to_string())
        .env("INBOUND_INTERCEPT_PORTS", APP.to_string())
        .env("OUTBOUND_INTERCEPT_PORTS", outbound)
        .stdin(Stdio::null());
    let ran = pod.enter(|| command.output())?;
    let output = ran.map_err(|error| format!("{}: {error}", program.display()))?;
    namespace::succeeded(&output, "netra-init")
}

/// The sidecar: this program, as a user of its own.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) pid: u32,
    ended: Receiver<ExitStatus>,
    lines: Receiver<String>,
}

impl Sidecar {
    fn start(pod: &Namespace, lane: &Lane) -> Result<Self> {
        let (log, words) = pipe().map_err(|error| format!("a pipe: {error}"))?;
        let mut command = command(lane)?;
        let twice = words.try_clone().map_err(|error| format!("a pipe: {error}"))?;
        command.stdout(twice).stderr(words);
        let (started, start) = channel();
        let (ending, ended) = channel();
        let pod = pod.share()?;
        // The thread that starts it outlives it: the kernel ties the sidecar's life to that thread.
        thread::spawn(move || {
            let spawned = pod.enter_for_good().and_then(|()| spawn(command));
            let pid = spawned.as_ref().map(Child::id).map_err(Clone::clone);
            // Nobody listens any more only when the demo itself has failed.
            let _ = started.send(pid);
            if let Ok(status) =
                spawned.and_then(|mut child| child.wait().map_err(|e| e.to_string()))
            {
                let _ = ending.send(status);
            }
        });
        let pid = start.recv().map_err(|_| "a thread failed".to_owned())??;
        Ok(Self { pid, ended, lines: collect(log) })
    }

    fn ended(&self) -> bool {
        self.ended.try_recv().is_ok()
    }

    /// What it wrote so far.
    fn said(&self) -> String {
        thread::park_timeout(Duration::from_millis(50));
        self.lines.try_iter().map(|line| line + "\n").collect()
    }

    fn leave(&self) -> Result<()> {
        let pid = i32::try_from(self.pid).map_err(|error| error.to_string())?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|errno| format!("SIGTERM: {errno}"))?;
        let status = self.ended.recv_timeout(Duration::from_secs(40));
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("the sidecar ended with {status}:\n{}", self.said())),
            Err(_) => Err(format!("the sidecar does not leave:\n{}", self.said())),
        }
    }
}

/// A child inherits the signals that its parent's thread blocks, and the sidecar must take SIGTERM.
fn spawn(mut command: Command) -> Result<Child> {
    mask(SigmaskHow::SIG_UNBLOCK)?;
    let child = command.spawn();
    mask(SigmaskHow::SIG_BLOCK)?;
    child.map_err(|error| format!("setpriv (Debian package util-linux): {error}"))
}

/// `setpriv` changes the user and ties the life of the sidecar to ours. The program is its standard
/// input, because the sidecar's user may not be allowed into the directory that it lies in.
fn command(lane: &Lane) -> Result<Command> {
    let program = File::open("/proc/self/exe").map_err(|error| format!("this program: {error}"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--no-new-privs"]);
    if *lane == Lane::Both {
        let user = SIDECAR.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    }
    command.args(["--", "/proc/self/fd/0", "--service-name", "demo"]).stdin(program);
    command.env_remove("NETRA_DEMO_INSIDE");
    command.env("NETRA_PORT", NETRA.to_string()).env("NETRA_PROMETHEUS_PORT", METRICS.to_string());
    // Ctrl-C is for the demo, which ends the sidecar.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    Ok(command)
}

/// Reads to the end, so that the sidecar never waits for a reader.
fn collect(log: PipeReader) -> Receiver<String> {
    let (lines, collected) = channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(std::io::Result::ok) {
            let _ = lines.send(line);
        }
    });
    collected
}
