//! Spans as somebody else reads them: `span_sink.py`, whose decoders are jaeger-client's generated
//! thrift, opentelemetry-proto and grpcio, receives what netra sends and says it as JSON.

use serde_json::Value;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a span may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which of the sink's ports; 0 in [`SpanSink::start`] is any free one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    pub agent: u16,
    pub collector: u16,
    pub otlp_http: u16,
    pub otlp_grpc: u16,
}

/// The running sink. It ends when this is dropped, or with the test.
#[derive(Debug)]
pub struct SpanSink {
    pub ports: Ports,
    child: Child,
    lines: Receiver<Value>,
    _stdin: ChildStdin,
}

/// A Python with the decoders: `NETRA_SPAN_PYTHON`, else what `make span-venv` installs.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = env::var_os("NETRA_SPAN_PYTHON")
        .map_or_else(|| root.join("target/span-venv/bin/python"), PathBuf::from);
    assert!(path.exists(), "{} is missing: make span-venv", path.display());
    path
}

impl SpanSink {
    /// Starts it on loopback and waits until it listens.
    pub fn start(ports: Ports) -> Self {
        Self::start_as(Command::new(python()), ports, "127.0.0.1")
    }

    /// The same by a command that runs Python elsewhere, say in a namespace; see [`python_path`].
    pub fn start_as(mut python: Command, ports: Ports, host: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/span_sink.py");
        let mut child = python
            .arg(script)
            .arg(format!("host={host}"))
            .arg(format!("agent={}", ports.agent))
            .arg(format!("collector={}", ports.collector))
            .arg(format!("otlp_http={}", ports.otlp_http))
            .arg(format!("otlp_grpc={}", ports.otlp_grpc))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the span sink starts");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (say, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("the sink writes JSON");
                if say.send(value).is_err() {
                    break;
                }
            }
        });
        let mut sink = Self { ports, child, lines, _stdin: stdin };
        let ready = sink.next().expect("the span sink listens");
        let port = |name: &str| ready["ready"][name].as_u64().unwrap().try_into().unwrap();
        sink.ports = Ports {
            agent: port("agent"),
            collector: port("collector"),
            otlp_http: port("otlp_http"),
            otlp_grpc: port("otlp_grpc"),
        };
        sink
    }

    /// The next span; None when none comes in time.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Value> {
        self.next_within(PATIENCE)
    }

    /// The same with a patience of one's own.
    pub fn next_within(&mut self, patience: Duration) -> Option<Value> {
        match self.lines.recv_timeout(patience) {
            Ok(value) => {
                assert_ne!(value["via"], "error", "not decoded: {value}");
                Some(value)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the span sink has ended"),
        }
    }

    /// So many spans.
    pub fn take(&mut self, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut spans = Vec::new();
        while spans.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(span) = self.next_within(left) else {
                panic!("{} of {count} spans came: {spans:#?}", spans.len());
            };
            spans.push(span);
        }
        spans
    }
}

/// The Python to run the sink with, for [`SpanSink::start_as`].
pub fn python_path() -> PathBuf {
    python()
}

/// The value of a tag of a span, or of its process with `&span["process"]`.
pub fn tag<'s>(span: &'s Value, key: &str) -> Option<&'s Value> {
    let tags = span["tags"].as_array().expect("tags");
    let mut found = tags.iter().filter(|tag| tag[0] == key);
    let value = found.next().map(|tag| &tag[2]);
    assert!(found.next().is_none(), "{key} twice in {span}");
    value
}

impl Drop for SpanSink {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
