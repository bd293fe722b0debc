//! Where netra's spans go in tests of a pod: the span sink, in the pod's namespace.

use super::PATIENCE;
use super::netra::Setup;
use super::spans::{Ports, SpanSink, python_path};
use super::world::{Namespace, World};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

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
}

impl Span {
    /// A tag as text; empty when there is none.
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
        let tags = line["tags"].as_array().expect("a list of tags").iter();
        let tags = tags.map(|tag| (tag[0].as_str().unwrap_or_default().into(), tag[2].clone()));
        Self {
            via: text("via").into(),
            name: text("name").into(),
            trace_id: u128::from_str_radix(text("trace_id"), 16).expect("a trace id"),
            span_id: id("span_id"),
            parent_id: id("parent_id"),
            flags: line["flags"].as_u64().unwrap_or_default(),
            tags: tags.collect(),
        }
    }
}

/// The running sink. Dropping it ends it.
#[derive(Debug)]
pub struct Sink(RefCell<SpanSink>);

impl Sink {
    pub fn start(world: &World) -> Self {
        let python = world.pod.command(python_path());
        Self(RefCell::new(SpanSink::start_as(python, Ports::default(), "127.0.0.1")))
    }

    /// The same over TLS, with `server.pem` and `server.key` of a folder, and asking for certificates
    /// where there is `clients.pem`; in the namespace and at the address given.
    pub fn start_tls(namespace: &Namespace, host: &str, folder: &Path) -> Self {
        let mut python = namespace.command(python_path());
        python.env("SINK_TLS", folder);
        Self(RefCell::new(SpanSink::start_as(python, Ports::default(), host)))
    }

    pub fn ports(&self) -> Ports {
        self.0.borrow().ports
    }

    /// netra reports every new trace here, as soon as it can, with its queries.
    pub fn wire(&self, setup: Setup) -> Setup {
        setup
            .env("JAEGER_AGENT_HOST", "127.0.0.1")
            .env("JAEGER_AGENT_PORT", self.ports().agent)
            .env("JAEGER_SAMPLER_TYPE", "const")
            .env("JAEGER_SAMPLER_PARAM", "1")
            .env("JAEGER_REPORTER_FLUSH_INTERVAL", "5ms")
            .env("NETRA_TRACING_QUERY", "keep")
            .reporting()
    }

    /// Forgets what has come, and what is coming.
    pub fn clear(&self) {
        while self.0.borrow_mut().next_within(Duration::from_millis(300)).is_some() {}
    }

    /// The next line that the sink says, whatever came.
    pub fn next(&self) -> Option<Value> {
        self.0.borrow_mut().next_within(PATIENCE)
    }

    /// Waits until there are `count` spans, and takes them; more is an error, as is less.
    pub fn take(&self, count: usize) -> Result<Vec<Span>, String> {
        let mut sink = self.0.borrow_mut();
        let deadline = Instant::now() + PATIENCE;
        let mut spans = Vec::new();
        loop {
            let left = match spans.len() < count {
                true => deadline.saturating_duration_since(Instant::now()),
                false => Duration::ZERO,
            };
            match sink.next_within(left) {
                Some(span) => spans.push(Span::read(&span)),
                None if spans.len() == count => return Ok(spans),
                None => return Err(format!("{} spans, not {count}: {spans:#?}", spans.len())),
            }
        }
    }
}
