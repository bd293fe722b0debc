//! Where netra's spans go in tests: `span_sink.py`, whose decoders are not ours, in the pod.

use super::netra::Setup;
use super::world::{World, checked};
use super::{PATIENCE, wait_until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// One span, as somebody else's decoder read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// How it came: `agent`, `collector`, `otlp_http` or `otlp_grpc`.
    pub via: String,
    pub name: String,
    pub trace_id: u128,
    pub span_id: u64,
    pub parent_id: u64,
    pub flags: u64,
    pub tags: BTreeMap<String, Value>,
    pub process: BTreeMap<String, Value>,
}

impl Span {
    pub fn tag(&self, key: &str) -> String {
        match self.tags.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }

    fn read(line: &Value) -> Self {
        let text = |key: &str| line[key].as_str().unwrap_or_default();
        let id = |key: &str| u64::from_str_radix(text(key), 16).expect("a span id");
        Self {
            via: text("via").into(),
            name: text("name").into(),
            trace_id: u128::from_str_radix(text("trace_id"), 16).expect("a trace id"),
            span_id: id("span_id"),
            parent_id: id("parent_id"),
            flags: line["flags"].as_u64().unwrap_or_default(),
            tags: tags(&line["tags"]),
            process: tags(&line["process"]["tags"]),
        }
    }
}

fn tags(list: &Value) -> BTreeMap<String, Value> {
    let list = list.as_array().expect("a list of tags");
    list.iter().map(|tag| (tag[0].as_str().unwrap_or_default().into(), tag[2].clone())).collect()
}

/// The running sink. Dropping it ends it.
#[derive(Debug)]
pub struct Sink {
    child: Child,
    ports: Value,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Sink {
    pub fn start(world: &World) -> Self {
        Self::start_with(world, &[])
    }

    /// With ports of its own, such as `collector=14268`.
    pub fn start_with(world: &World, arguments: &[&str]) -> Self {
        let errors = File::create(world.dir().join("sink.log")).expect("a log file");
        let mut child = world
            .pod
            .command(python())
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/span_sink.py"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("the span sink starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let first = lines.next().map(|line| line.expect("a line of text"));
        let first: Value = serde_json::from_str(&first.unwrap_or_default())
            .unwrap_or_else(|_| panic!("the span sink says why in {}", world.dir().display()));
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&spans);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).expect("a line of JSON");
                assert_ne!(line["via"], "error", "the sink could not decode: {line}");
                kept.lock().expect("no panic there").push(Span::read(&line));
            }
        });
        Self { child, ports: first["ready"].clone(), spans }
    }

    /// The port of `agent`, `collector`, `otlp_http` or `otlp_grpc`.
    pub fn port(&self, name: &str) -> u16 {
        let port = self.ports[name].as_u64().expect("a port of the sink");
        u16::try_from(port).expect("a port")
    }

    /// netra reports every new trace here, as soon as it can.
    pub fn wire(&self, setup: Setup) -> Setup {
        setup
            .env("JAEGER_AGENT_HOST", "127.0.0.1")
            .env("JAEGER_AGENT_PORT", self.port("agent"))
            .env("JAEGER_SAMPLER_TYPE", "const")
            .env("JAEGER_SAMPLER_PARAM", "1")
            .env("JAEGER_REPORTER_FLUSH_INTERVAL", "20ms")
    }

    /// Waits until there are `count` spans, and takes all that are there.
    pub fn take(&self, count: usize) -> Result<Vec<Span>, String> {
        wait_until(PATIENCE, || self.spans.lock().expect("no panic").len() >= count);
        let spans = std::mem::take(&mut *self.spans.lock().expect("no panic there"));
        if spans.len() == count {
            return Ok(spans);
        }
        Err(format!("{} spans came, not {count}: {spans:#?}", spans.len()))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A Python that has the decoders; made once, beside what cargo built.
pub fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_netra")).ancestors().nth(2).expect("target");
    let home = target.join("test-python");
    let lock = File::create(target.join("test-python.lock")).expect("a lock file");
    lock.lock().expect("tests of other processes wait here");
    let requirements = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/span_requirements.txt");
    let wanted = fs::read_to_string(requirements).expect("what is required");
    let done = home.join("installed.txt");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return home.join("bin/python");
    }
    let run = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        checked(output.expect("python3 (Debian packages python3, python3-venv)"), "a venv");
    };
    run(Path::new("python3"), &["-m", "venv", "--clear", home.to_str().expect("UTF-8")]);
    run(&home.join("bin/pip"), &["install", "--quiet", "--no-deps", "-r", requirements]);
    fs::write(done, wanted).expect("a mark that it is whole");
    home.join("bin/python")
}
