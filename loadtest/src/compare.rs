//! What a sidecar adds: the same load without and with each subject, in turn, for several rounds.

mod figures;
pub(crate) mod measure;
pub(crate) mod publish;
mod syscalls;
mod tables;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::machine::Machine;
use crate::protocol::Protocol;
use crate::report::{html, write_json, write_text};
use crate::stats::Distribution;
use crate::subject::{BULK_PORT, ECHO_PORT, HTTP_PORT, RAW_PORT, Subject, port_of};
use crate::sys;
use crate::topology::{Place, Topology, WorkDir};
use measure::Bench;
pub(crate) use tables::{page, text};

/// Name of the rounds without a sidecar.
pub(crate) const DIRECT: &str = "direct";

/// What to compare and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct CompareArgs {
    /// A subject: the name of a built-in one, or a TOML file (see loadtest/subjects)
    #[arg(short, long = "subject", required = true)]
    subjects: Vec<String>,
    /// Leave out subjects whose program is missing or cannot do it yet, and say so
    #[arg(long)]
    skip_missing: bool,
    /// Rounds; every subject once in each, in rotating order
    #[arg(short, long, default_value_t = 5)]
    rounds: usize,
    /// What to measure
    #[arg(long, value_delimiter = ',', value_enum,
        default_values = ["idle", "http", "max", "raw", "tcp", "churn", "bulk", "out-http", "out-tcp"])]
    scenarios: Vec<Scenario>,
    /// Which part runs on which CPU
    #[arg(long, value_enum, default_value_t = Layout::OneCpu)]
    layout: Layout,
    /// Requests per second of `http`
    #[arg(long, default_value_t = 1000.0)]
    pub(crate) rate: f64,
    /// Requests per second of `redis`, `dubbo` and `thrift`; without it as fast as it goes
    #[arg(long)]
    pub(crate) protocol_rate: Option<f64>,
    /// New connections per second of `churn`
    #[arg(long, default_value_t = 500.0)]
    pub(crate) churn_rate: f64,
    /// Connections of `http`
    #[arg(short, long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Connections of `idle`
    #[arg(long, default_value_t = 1000)]
    pub(crate) idle_connections: usize,
    /// Bytes of `bulk`
    #[arg(long, default_value_t = 1 << 30)]
    pub(crate) bulk_bytes: u64,
    /// Seconds of each sample
    #[arg(long, default_value = "4", value_parser = clock::seconds)]
    pub(crate) seconds: Duration,
    /// Do not count system calls in a pass of its own
    #[arg(long)]
    pub(crate) no_syscalls: bool,
    /// Share of a CPU that others may use before a sample counts as disturbed
    #[arg(long, default_value_t = 0.06)]
    pub(crate) foreign_max: f64,
    /// Write all samples as JSON; kept up to date during the run
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write an HTML page that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What is measured. Without `out` the client is outside of the pod and the server inside; with it
/// the other way round.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scenario {
    /// Connections that do nothing: memory and descriptors
    Idle,
    #[default]
    /// HTTP at a constant rate: the latency that is added
    Http,
    /// HTTP as fast as it goes over 32 connections: CPU per request
    Max,
    /// The same through a port that no subject reads as HTTP
    Raw,
    /// Ping-pong of 64 bytes over one connection
    Tcp,
    /// A new connection for each request, at a constant rate
    Churn,
    /// One large download
    Bulk,
    /// GET of Redis over 32 connections: CPU per request
    Redis,
    /// Calls of Dubbo over 32 connections
    Dubbo,
    /// Calls of Thrift over 32 connections
    Thrift,
    /// `http` from the pod to a server outside
    OutHttp,
    /// `max` from the pod to a server outside
    OutMax,
    /// `tcp` from the pod to a server outside
    OutTcp,
    /// `bulk` from a server outside to the pod
    OutBulk,
}

impl Scenario {
    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// What is done, whichever way.
    fn inward(self) -> Self {
        match self {
            Self::OutHttp => Self::Http,
            Self::OutMax => Self::Max,
            Self::OutTcp => Self::Tcp,
            Self::OutBulk => Self::Bulk,
            inward => inward,
        }
    }

    /// The port of its server.
    fn port(self) -> u16 {
        match self.inward() {
            Self::Raw => RAW_PORT,
            Self::Tcp => ECHO_PORT,
            Self::Bulk => BULK_PORT,
            Self::Redis => port_of(Protocol::Redis),
            Self::Dubbo => port_of(Protocol::Dubbo),
            Self::Thrift => port_of(Protocol::Thrift),
            _ => HTTP_PORT,
        }
    }

    /// Where the server is.
    fn server(self) -> Place {
        if self == self.inward() { Place::Pod } else { Place::Client }
    }

    /// Whether it consists of requests, whose latency and cost is measured.
    fn has_requests(self) -> bool {
        !matches!(self.inward(), Self::Bulk | Self::Idle)
    }
}

/// Where the parts run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Layout {
    /// Everything on one CPU: no wake-ups across CPUs, which cost more than a proxy on many VMs
    OneCpu,
    /// The subject alone on a CPU of its own: throughput per core
    TwoCpu,
}

/// A file of samples.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct CompareReport {
    pub(crate) machine: Machine,
    pub(crate) layout: Layout,
    pub(crate) rate: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) protocol_rate: Option<f64>,
    pub(crate) connections: usize,
    pub(crate) rounds: usize,
    /// Pairs of subject and what it says of its version.
    pub(crate) versions: Vec<(String, String)>,
    /// Subjects left out, and why.
    pub(crate) skipped: Vec<(String, String)>,
    pub(crate) samples: Vec<Sample>,
    /// System calls, counted apart from the samples: counting slows down what is counted.
    #[serde(default)]
    pub(crate) calls: Vec<Calls>,
}

/// System calls of a subject in one scenario.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Calls {
    pub(crate) subject: String,
    pub(crate) scenario: Scenario,
    pub(crate) per_request: Option<f64>,
    /// What counted, or why nothing did.
    pub(crate) by: String,
}

/// One scenario, once, through one subject.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Sample {
    pub(crate) subject: String,
    pub(crate) scenario: Scenario,
    pub(crate) round: usize,
    /// Why there are no figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    pub(crate) latency: Distribution,
    /// Answers per second, or bytes per second of `bulk`.
    pub(crate) rate: f64,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// CPU seconds of the subject.
    pub(crate) cpu: f64,
    pub(crate) user: f64,
    pub(crate) system: f64,
    pub(crate) switches: u64,
    /// Workers of io_uring at the end.
    #[serde(default)]
    pub(crate) io_workers: u64,
    pub(crate) rss_bytes: u64,
    pub(crate) pss_bytes: u64,
    /// Before the first connection of this sample.
    #[serde(default)]
    pub(crate) rss_before_bytes: u64,
    /// From the start of the subject to its first answer.
    #[serde(default)]
    pub(crate) start_seconds: f64,
    pub(crate) fd_count: u64,
    /// Packets that hit a redirect rule; zero without a subject.
    pub(crate) redirected: u64,
    /// Shares of one CPU: used by others, and taken by the hypervisor.
    pub(crate) foreign: f64,
    pub(crate) steal: f64,
    pub(crate) is_disturbed: bool,
}

impl Sample {
    /// CPU seconds per 100 000 requests, or per GB of `bulk`.
    pub(crate) fn cpu_per_unit(&self) -> Option<f64> {
        let count = clock::float(self.requests);
        let unit = if self.scenario.inward() == Scenario::Bulk { 1e9 } else { 1e5 };
        (self.requests > 0).then(|| self.cpu / count * unit)
    }

    /// What a connection that does nothing adds to the memory of the subject.
    pub(crate) fn kilobytes_per_connection(&self) -> Option<f64> {
        let added = clock::float(self.rss_bytes) - clock::float(self.rss_before_bytes);
        let is_known = self.scenario == Scenario::Idle && self.rss_bytes > 0 && self.requests > 0;
        is_known.then(|| added / 1e3 / clock::float(self.requests))
    }
}

/// Compares and reports; what was measured is kept whatever happens later.
pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    let (subjects, skipped) = load(args)?;
    let work = WorkDir::create()?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let topology = Topology::build()?;
    crate::say::progress(format_args!("namespaces are up; look inside with: {}", topology.hint()));
    let mut report = CompareReport {
        machine: Machine::here(),
        layout: args.layout,
        rate: args.rate,
        protocol_rate: args.protocol_rate,
        connections: args.connections,
        rounds: args.rounds,
        versions: subjects.iter().map(|s| (s.name.clone(), version(s))).collect(),
        skipped,
        samples: Vec::new(),
        calls: Vec::new(),
    };
    let outcome = Bench::new(args, &topology, &work)
        .and_then(|mut bench| rounds(args, &mut bench, &subjects, &mut report));
    crate::say::result(format_args!("{}", text(&report)));
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    if let Some(path) = &args.html {
        write_text(path, &html::page(&page(&report)))?;
    }
    outcome?;
    let failed = report.samples.iter().filter_map(|sample| {
        let why = sample.failure.as_ref()?;
        let (subject, scenario) = (&sample.subject, sample.scenario.name());
        Some(format!("{subject} {scenario} round {}: {why}", sample.round))
    });
    match failed.collect::<Vec<_>>() {
        failed if failed.is_empty() => Ok(()),
        failed => Err(Error::new(Kind::Failed, failed.join("\n"))),
    }
}

type Skipped = Vec<(String, String)>;

fn load(args: &CompareArgs) -> Result<(Vec<Subject>, Skipped)> {
    if args.rounds == 0 || args.rounds > 1000 {
        return Err(Error::usage("rounds must be 1 to 1000"));
    }
    let (mut subjects, mut skipped): (Vec<Subject>, Skipped) = Default::default();
    for name in &args.subjects {
        let subject = Subject::load(name)?;
        if subject.name == DIRECT || subjects.iter().any(|other| other.name == subject.name) {
            return Err(Error::usage(format!("two subjects are called {}", subject.name)));
        }
        match subject.check() {
            Ok(_) => subjects.push(subject),
            Err(cause) if args.skip_missing => skipped.push((subject.name, cause.to_string())),
            Err(cause) => return Err(cause),
        }
    }
    Ok((subjects, skipped))
}

/// The first line with words that it prints about itself, on either stream.
pub(crate) fn version(subject: &Subject) -> String {
    let asked = subject.find().map(|path| Command::new(path).args(&subject.version).output());
    let Ok(Ok(said)) = asked else { return "unknown".to_owned() };
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("unknown");
    // Envoy names the path it was started by, and no name.
    match line.rsplit_once("  version: ") {
        Some((_, version)) => format!("{} {version}", subject.name),
        None => line.to_owned(),
    }
}

fn rounds(
    args: &CompareArgs,
    bench: &mut Bench<'_>,
    subjects: &[Subject],
    report: &mut CompareReport,
) -> Result<()> {
    let mut entries: Vec<Option<&Subject>> = vec![None];
    entries.extend(subjects.iter().map(Some));
    for round in 1..=args.rounds {
        for subject in &entries {
            if sys::is_interrupted() {
                return Err(Error::new(Kind::Interrupted, "interrupted; the figures are partial"));
            }
            let mut take = |sample: Sample| {
                crate::say::progress(format_args!(
                    "round {round}/{}: {}",
                    args.rounds,
                    tables::brief(&sample)
                ));
                report.samples.push(sample);
                args.json.as_ref().map_or(Ok(()), |path| write_json(path, report))
            };
            let calls = bench.visit(*subject, round, &args.scenarios, &mut take)?;
            report.calls.extend(calls);
        }
        // Nobody is always first, or always after the same neighbour's warm caches.
        entries.rotate_left(1);
    }
    Ok(())
}
