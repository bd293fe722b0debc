//! Starts the program and what it talks to; every process is ended by its own id.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longest that anything here may take; the machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program with these words.
pub(crate) fn program(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netra-loadtest"));
    command.args(words.split_whitespace()).stdin(Stdio::null());
    command
}

/// What a finished program said.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program to its end.
pub(crate) fn run(words: &str) -> Ended {
    let output = program(words).output().expect("the program starts");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a load with its report on standard output; the exit code is checked. A machine that stops
/// us for seconds in the middle proves nothing about the program: then it is run again.
pub(crate) fn report(words: &str, code: i32) -> Value {
    for _ in 0..4 {
        let ended = run(&format!("{words} --json -"));
        let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        let over = |path: &str, limit: f64| {
            report.pointer(path).and_then(Value::as_f64).is_some_and(|value| value > limit)
        };
        if ended.code == Some(code) {
            return report;
        }
        let was_stopped = over("/generator/lateness/max", 1e6) || over("/latency/max", 2e6);
        assert!(was_stopped, "{words}: {:?}\n{}\n{}", ended.code, ended.stdout, ended.stderr);
    }
    panic!("{words}: stopped again and again");
}

/// A number in a report.
pub(crate) fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {report}"))
}

/// A process that ends with its test.
pub(crate) struct Background {
    child: Child,
}

impl Background {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self { child: command.spawn().expect("the program starts") }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stderr(&mut self) -> BufReader<impl Read + use<>> {
        BufReader::new(self.child.stderr.take().expect("a pipe"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            pause();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits a moment.
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        pause();
    }
}

/// Our own upstream on free ports.
pub(crate) struct Upstream {
    pub(crate) process: Background,
    pub(crate) http: SocketAddr,
    pub(crate) echo: SocketAddr,
    pub(crate) bulk: SocketAddr,
    /// Redis, Dubbo, Thrift.
    pub(crate) others: [SocketAddr; 3],
}

impl Upstream {
    pub(crate) fn start(words: &str) -> Self {
        let any = "127.0.0.1:0";
        let others = format!("--redis {any} --dubbo {any} --thrift {any}");
        let words = format!("upstream --http {any} --echo {any} --bulk {any} {others} {words}");
        let mut process = Background::start(program(&words).stdout(Stdio::piped()));
        let stdout = process.child.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let mut next = |service: &str| -> SocketAddr {
            let line = lines.next().expect("a line").expect("text");
            let addr = line.strip_prefix(&format!("ready {service} ")).expect(service);
            addr.parse().expect("an address")
        };
        let (http, echo, bulk) = (next("http"), next("echo"), next("bulk"));
        let others = ["redis", "dubbo", "thrift"].map(next);
        Self { process, http, echo, bulk, others }
    }
}

/// A directory that is gone with its test.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nl-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).expect("a file");
        self.file(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A JSON file.
pub(crate) fn read(path: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(path)).expect(path);
    serde_json::from_str(&text).expect("JSON")
}

/// The children of a process, and theirs.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        let path = format!("/proc/{}/task/{}/children", all[at], all[at]);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        at += 1;
    }
    all.split_off(1)
}

/// Whether a process runs; one that ended and waits for its parent does not.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
