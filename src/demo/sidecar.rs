//! A sidecar in a namespace: its rules, this program as a user of its own, what it says and counts.

use super::metrics::Metrics;
use super::namespace::{self, Namespace};
use super::stage::Lane;
use super::{Result, mask};
use nix::sys::signal::{SigmaskHow, Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{env, thread};

/// netra's own port.
pub(super) const NETRA: u16 = 14956;
const METRICS: u16 = 14958;
const USER: u32 = 1337;

/// What decides about traces and routes is for the demo to say, not for the shell it runs in.
const NOT_INHERITED: [&str; 9] = [
    "HTTP_",
    "JAEGER_",
    "NETRA_DEMO_INSIDE",
    "NETRA_HTTP_",
    "NETRA_PROTOCOLS",
    "NETRA_REPORTER",
    "NETRA_ROUTING_",
    "NETRA_SEMCONV",
    "OTEL_",
];

/// Sends what comes to the ports `inbound`, and what goes to those of `outbound` where the lane
/// allows, to netra.
pub(super) fn apply_rules(
    pod: &Namespace,
    lane: &Lane,
    inbound: &str,
    outbound: &str,
) -> Result<()> {
    let program = init_program();
    let outbound = match lane {
        Lane::Both => outbound,
        Lane::InboundOnly(_) => "none",
    };
    let mut command = Command::new(&program);
    command
        .args(["apply", "--backend", "nft-native"])
        .env("NETRA_SIDECAR_USER_ID", USER.to_string())
        .env("NETRA_SIDECAR_GROUP_ID", USER.to_string())
        .env("INBOUND_INTERCEPT_PORTS", inbound)
        .env("OUTBOUND_INTERCEPT_PORTS", outbound)
        .stdin(Stdio::null());
    let ran = pod.enter(|| command.output())?;
    let output = ran.map_err(|error| format!("{}: {error}", program.display()))?;
    namespace::succeeded(&output, "netra-init")
}

/// `NETRA_INIT_BIN`, or the one beside this program, or the one in the path.
fn init_program() -> PathBuf {
    if let Some(path) = env::var_os("NETRA_INIT_BIN") {
        return path.into();
    }
    let beside = env::current_exe().map(|program| program.with_file_name("netra-init"));
    beside.ok().filter(|path| path.exists()).unwrap_or_else(|| "netra-init".into())
}

/// The sidecar: this program, as a user of its own.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) pid: u32,
    service: &'static str,
    pod: Namespace,
    ended: Receiver<ExitStatus>,
    lines: Receiver<String>,
}

impl Sidecar {
    /// Starts it in `pod` with `settings` in its environment.
    pub(super) fn start(
        pod: &Namespace,
        lane: &Lane,
        service: &'static str,
        settings: &[(&str, String)],
    ) -> Result<Self> {
        let (log, words) = pipe().map_err(|error| format!("a pipe: {error}"))?;
        let mut command = command(lane, service)?;
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        let twice = words.try_clone().map_err(|error| format!("a pipe: {error}"))?;
        command.stdout(twice).stderr(words);
        let (started, start) = channel();
        let (ending, ended) = channel();
        let home = pod.share()?;
        // The thread that starts it outlives it: the kernel ties the sidecar's life to that thread.
        thread::spawn(move || {
            let spawned = home.enter_for_good().and_then(|()| spawn(command));
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
        Ok(Self { pid, service, pod: pod.share()?, ended, lines: collect(log) })
    }

    pub(super) fn await_ready(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.get("/ready") {
                Ok((200, _)) => return Ok(()),
                _ if self.ended.try_recv().is_ok() => {}
                _ if Instant::now() < deadline => {
                    thread::park_timeout(Duration::from_millis(2));
                    continue;
                }
                _ => {}
            }
            return Err(format!("{} does not come up:\n{}", self.name(), self.said()));
        }
    }

    /// What it counts, now.
    pub(super) fn metrics(&self) -> Result<Metrics> {
        match self.get("/metrics")? {
            (200, body) => Ok(Metrics(body)),
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

    /// Asks it to leave.
    pub(super) fn dismiss(&self) -> Result<()> {
        let pid = i32::try_from(self.pid).map_err(|error| error.to_string())?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|errno| format!("SIGTERM: {errno}"))
    }

    /// Waits for its end after that.
    pub(super) fn await_end(&self) -> Result<()> {
        match self.ended.recv_timeout(Duration::from_secs(40)) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{} ended with {status}:\n{}", self.name(), self.said())),
            Err(_) => Err(format!("{} does not leave:\n{}", self.name(), self.said())),
        }
    }

    fn name(&self) -> String {
        format!("the sidecar of {}", self.service)
    }

    /// What it wrote so far.
    fn said(&self) -> String {
        thread::park_timeout(Duration::from_millis(50));
        self.lines.try_iter().map(|line| line + "\n").collect()
    }
}

/// A child inherits the signals that its parent's thread blocks, and the sidecar must take SIGTERM.
fn spawn(mut command: Command) -> Result<Child> {
    mask(SigmaskHow::SIG_UNBLOCK)?;
    let child = command.spawn();
    mask(SigmaskHow::SIG_BLOCK)?;
    child.map_err(|error| format!("setpriv (Debian package util-linux): {error}"))
}

/// Goes on only as a child of the demo, whose process is `$0`: one that died before `setpriv` had
/// asked to die with it would leave a sidecar behind. The program is standard input, because the
/// sidecar's user may not be allowed into the directory that it lies in.
const START: &str = r#"[ "$PPID" = "$0" ] && exec /proc/self/fd/0 "$@""#;

/// `setpriv` changes the user and ties the life of the sidecar to ours.
fn command(lane: &Lane, service: &str) -> Result<Command> {
    let program = File::open("/proc/self/exe").map_err(|error| format!("this program: {error}"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--no-new-privs"]);
    if *lane == Lane::Both {
        let user = USER.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    }
    let demo = std::process::id().to_string();
    command.args(["--", "sh", "-c", START, &demo, "--service-name", service]).stdin(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if NOT_INHERITED.iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
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
