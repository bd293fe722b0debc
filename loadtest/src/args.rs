//! The command line: what each command takes, and who carries it out.

use std::ffi::OsString;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::budget::{self, BudgetArgs};
use crate::bulk::{self, BulkPlan};
use crate::check::{self, CheckArgs};
use crate::clock;
use crate::compare::publish::{self, PublishArgs};
use crate::compare::{self, CompareArgs};
use crate::error::{EXIT_CODES, Result};
use crate::idle::{self, IdlePlan};
use crate::pacer::Arrival;
use crate::plan::{LoadPlan, Pace, Payload, RequestSpec, Target};
use crate::protocol::Protocol;
use crate::report::{self, RunReport, hgrm, html, table};
use crate::upstream::{self, Behaviour, UpstreamPlan};
use crate::{mix, ramp, relay, run};

/// Measures what a proxy costs: latency from the intended start, throughput, CPU and memory.
#[derive(Debug, Parser)]
#[command(name = "netra-loadtest", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// HTTP/1.1 requests over connections that are kept
    Http(HttpArgs),
    /// Messages that are echoed, over connections that are kept
    Tcp(TcpArgs),
    /// A new connection for each HTTP request
    Churn(HttpArgs),
    /// GET of Redis over connections that are kept
    Redis(OtherArgs),
    /// Calls of Dubbo over connections that are kept
    Dubbo(OtherArgs),
    /// Calls of Thrift, framed and binary, over connections that are kept
    Thrift(OtherArgs),
    /// One large transfer per connection, again and again
    Bulk(BulkArgs),
    /// Connections that are held and do nothing
    Idle(IdleArgs),
    /// A server to send load to
    Upstream(UpstreamArgs),
    /// The smallest relay that could exist, as a floor under the figures of real ones
    Relay(RelayArgs),
    /// Find the highest rate that keeps the p99 within a budget
    Ramp(RampArgs),
    /// Several loads at once, from a TOML file
    Mix(MixArgs),
    /// What sidecars add, against no sidecar, in network namespaces of its own
    Compare(CompareArgs),
    /// What one request and one connection cost, call by call and instruction by instruction
    Budget(BudgetArgs),
    /// Whether the figures can be believed here: against other tools, a stall, and for speed
    Check(CheckArgs),
    /// Write comparisons into a README, between its markers
    Publish(PublishArgs),
    /// Show a report file, or compare two
    Report(ReportArgs),
}

/// What every load takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// Requests per second; without it each connection asks again as soon as it is answered
    #[arg(short, long)]
    rate: Option<f64>,
    /// Spread the arrivals as independent users would
    #[arg(long, requires = "rate")]
    poisson: bool,
    /// Connections
    #[arg(short, long, default_value_t = 64)]
    connections: usize,
    /// Seconds to measure
    #[arg(short, long, default_value = "10", value_parser = clock::seconds)]
    seconds: Duration,
    /// Seconds before that are not measured
    #[arg(short, long, default_value = "1", value_parser = clock::seconds)]
    warm_up: Duration,
    /// Seconds until a request has failed
    #[arg(long, default_value = "10", value_parser = clock::seconds)]
    timeout: Duration,
    /// Generator threads
    #[arg(short, long, default_value_t = 1)]
    threads: usize,
    /// CPUs to pin the threads to
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Never sleep: less lateness, for a whole CPU per thread
    #[arg(long)]
    busy: bool,
    /// Start of the random sequence
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    out: OutArgs,
}

/// Where results go, besides the table on standard output.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OutArgs {
    /// Write the report as JSON (- is standard output, instead of the table)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write an HTML page that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the percentiles in the format of HdrHistogram
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct HttpArgs {
    /// URL or host:port
    target: String,
    #[command(flatten)]
    load: LoadArgs,
    /// Method; GET, or POST when there is a body
    #[arg(short = 'X', long)]
    method: Option<String>,
    /// A further header, `Name: value`
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// Bytes of the request body
    #[arg(long, default_value_t = 0)]
    body_size: usize,
    /// Send the body in chunks
    #[arg(long)]
    chunked: bool,
}

#[derive(Clone, Debug, Args)]
struct TcpArgs {
    /// host:port of an echo server
    target: String,
    #[command(flatten)]
    load: LoadArgs,
    /// Bytes of a message
    #[arg(long, default_value_t = 64)]
    size: usize,
}

#[derive(Clone, Debug, Args)]
struct OtherArgs {
    /// host:port of our own server of this protocol (`netra-loadtest upstream`)
    target: String,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Clone, Debug, Args)]
struct BulkArgs {
    /// host:port of a bulk server (`netra-loadtest upstream --bulk`)
    target: String,
    /// Bytes of each transfer
    #[arg(short, long, default_value_t = 1 << 30)]
    bytes: u64,
    /// Transfers in all
    #[arg(short = 'n', long, default_value_t = 1)]
    count: usize,
    /// Send instead of receive
    #[arg(long)]
    upload: bool,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct IdleArgs {
    /// host:port of an HTTP server
    target: String,
    /// Connections
    #[arg(short, long, default_value_t = 1000)]
    connections: usize,
    /// Seconds to hold them
    #[arg(short, long, default_value = "5", value_parser = clock::seconds)]
    seconds: Duration,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct UpstreamArgs {
    /// Addresses for HTTP
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    http: Vec<SocketAddr>,
    /// Address for echo
    #[arg(long, value_name = "ADDR")]
    echo: Option<SocketAddr>,
    /// Address for bulk transfers
    #[arg(long, value_name = "ADDR")]
    bulk: Option<SocketAddr>,
    /// Address for Redis
    #[arg(long, value_name = "ADDR")]
    redis: Option<SocketAddr>,
    /// Address for Dubbo
    #[arg(long, value_name = "ADDR")]
    dubbo: Option<SocketAddr>,
    /// Address for Thrift
    #[arg(long, value_name = "ADDR")]
    thrift: Option<SocketAddr>,
    /// Address for datagrams that nobody reads, such as spans
    #[arg(long, value_name = "ADDR")]
    sink: Option<SocketAddr>,
    /// Threads
    #[arg(short, long, default_value_t = 1)]
    threads: usize,
    /// CPUs to pin the threads to
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Bytes of a response body
    #[arg(long, default_value_t = 1024)]
    body_size: usize,
    /// Send the body in chunks
    #[arg(long)]
    chunked: bool,
    /// Seconds between a request and its answer
    #[arg(long, default_value = "0", value_parser = clock::seconds)]
    think: Duration,
    /// Seconds the whole server stops for, again and again
    #[arg(long, default_value = "0", value_parser = clock::seconds)]
    stall: Duration,
    /// Seconds from one stall to the next
    #[arg(long, default_value = "1", value_parser = clock::seconds)]
    stall_every: Duration,
    /// Answer every so many requests with 503
    #[arg(long, default_value_t = 0)]
    error_every: u64,
    /// Close the connection after every so many answers
    #[arg(long, default_value_t = 0)]
    close_every: u64,
}

#[derive(Clone, Debug, Args)]
struct RelayArgs {
    /// Where redirected connections arrive
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddrV4,
    /// Close both sides as soon as one has ended, as nginx does: a turn less, and no half-close
    #[arg(long)]
    closes_early: bool,
}

#[derive(Clone, Debug, Args)]
struct RampArgs {
    #[command(flatten)]
    http: HttpArgs,
    /// p99 that must be kept, in microseconds
    #[arg(long, default_value_t = 10_000.0)]
    budget_us: f64,
    /// Highest rate to try
    #[arg(long, default_value_t = 1_000_000.0)]
    rate_max: f64,
    /// How close to the limit to search, as a share of it
    #[arg(long, default_value_t = 0.05)]
    precision: f64,
}

#[derive(Clone, Debug, Args)]
struct MixArgs {
    /// What to run, see loadtest/mix.toml
    file: PathBuf,
    /// Write the reports as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct ReportArgs {
    /// A report file; with a second one, whether B differs from A beyond the noise
    #[arg(required = true, num_args = 1..=2)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    out: OutArgs,
}

pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed<Cli> {
    Cli::try_parse_from(arguments)
}

type Parsed<T> = std::result::Result<T, clap::Error>;

/// Carries the command out.
pub(crate) fn dispatch(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Http(args) => run_load(&args.plan("http", false)?, &args.load.out),
        Command::Churn(args) => run_load(&args.plan("churn", true)?, &args.load.out),
        Command::Redis(args) => args.run(Protocol::Redis),
        Command::Dubbo(args) => args.run(Protocol::Dubbo),
        Command::Thrift(args) => args.run(Protocol::Thrift),
        Command::Tcp(args) => run_load(&args.plan()?, &args.load.out),
        Command::Bulk(args) => bulk::run(&args.plan()?, args.json.as_deref()),
        Command::Idle(args) => idle::run(&args.plan()?, args.json.as_deref()),
        Command::Upstream(args) => args.serve(),
        Command::Relay(args) => relay::serve(args.listen, args.closes_early),
        Command::Budget(args) => budget::run(&args),
        Command::Ramp(args) => {
            let plan = args.http.plan("ramp", false)?;
            let search = ramp::Search::new(plan.pace.rate(), args.rate_max, args.precision)?;
            ramp::run(&plan, search, args.budget_us, &args.http.load.out)
        }
        Command::Mix(args) => mix::run(&args.file, args.json.as_deref()),
        Command::Compare(args) => compare::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Report(args) => report::difference::show_files(&args.files, &args.out),
    }
}

/// Runs one load and reports it; the error is what is wrong with the figures.
fn run_load(plan: &LoadPlan, out: &OutArgs) -> Result<()> {
    let report = run::execute(plan, true)?;
    out.write(&report)?;
    report.fault().map_or(Ok(()), Err)
}

impl OutArgs {
    /// Prints the table and writes the files that were asked for.
    pub(crate) fn write(&self, report: &RunReport) -> Result<()> {
        if !self.json(report)? {
            crate::say::result(format_args!("{}", table::run(report)));
        }
        if let Some(path) = &self.hgrm {
            report::write_text(path, &hgrm::percentiles(&report.latency.histogram()))?;
        }
        if let Some(path) = &self.html {
            report::write_text(path, &html::page(&html::of_run(report)))?;
        }
        Ok(())
    }

    /// Writes a report as JSON if that was asked for; whether standard output is taken by it.
    pub(crate) fn json<T: serde::Serialize>(&self, report: &T) -> Result<bool> {
        let Some(path) = &self.json else { return Ok(false) };
        report::write_json(path, report)?;
        Ok(path.as_os_str() == "-")
    }

    /// Says that there is nothing to write as JSON.
    pub(crate) fn refuse_json(&self, why: &str) -> Result<()> {
        refuse("--json", self.json.is_some(), why)
    }

    /// Says that there are no percentiles to write.
    pub(crate) fn refuse_hgrm(&self, why: &str) -> Result<()> {
        refuse("--hgrm", self.hgrm.is_some(), why)
    }

    pub(crate) fn html(&self) -> Option<&std::path::Path> {
        self.html.as_deref()
    }
}

fn refuse(flag: &str, is_given: bool, why: &str) -> Result<()> {
    let message = || format!("{flag} cannot be written: {why}");
    if is_given { Err(crate::error::Error::usage(message())) } else { Ok(()) }
}

impl LoadArgs {
    fn plan(&self, scenario: &str, target: &Target, payload: Payload) -> Result<LoadPlan> {
        let arrival = if self.poisson { Arrival::Poisson } else { Arrival::Constant };
        let plan = LoadPlan {
            scenario: scenario.to_owned(),
            target: target.addr,
            payload,
            pace: self.rate.map_or(Pace::Closed, |rate| Pace::Open { rate, arrival }),
            connections: self.connections,
            is_fresh: scenario == "churn",
            duration: self.seconds,
            warm_up: self.warm_up,
            timeout: self.timeout,
            threads: self.threads,
            cpus: self.cpus.clone(),
            is_busy: self.busy,
            seed: self.seed,
        };
        plan.check()?;
        Ok(plan)
    }
}

impl HttpArgs {
    fn plan(&self, scenario: &str, is_close: bool) -> Result<LoadPlan> {
        let target = Target::parse(&self.target)?;
        let spec = RequestSpec {
            method: self.method.clone(),
            path: target.path.clone(),
            host: target.host.clone(),
            headers: self.headers.clone(),
            body_size: self.body_size,
            is_chunked: self.chunked,
            is_close,
        };
        self.load.plan(scenario, &target, spec.encode()?)
    }
}

impl TcpArgs {
    fn plan(&self) -> Result<LoadPlan> {
        self.load.plan("tcp", &Target::parse(&self.target)?, Payload::echo(self.size))
    }
}

impl OtherArgs {
    fn run(&self, protocol: Protocol) -> Result<()> {
        let target = Target::parse(&self.target)?;
        let plan = self.load.plan(protocol.name(), &target, Payload::of(protocol))?;
        run_load(&plan, &self.load.out)
    }
}

impl BulkArgs {
    fn plan(&self) -> Result<BulkPlan> {
        let target = Target::parse(&self.target)?.addr;
        BulkPlan::new(target, self.bytes, self.count, self.upload)
    }
}

impl IdleArgs {
    fn plan(&self) -> Result<IdlePlan> {
        IdlePlan::new(&Target::parse(&self.target)?, self.connections, self.seconds)
    }
}

impl UpstreamArgs {
    fn serve(self) -> Result<()> {
        let plan = UpstreamPlan {
            http: self.http,
            echo: self.echo,
            bulk: self.bulk,
            others: Protocol::ALL
                .into_iter()
                .zip([self.redis, self.dubbo, self.thrift])
                .filter_map(|(protocol, addr)| Some((protocol, addr?)))
                .collect(),
            sink: self.sink,
            threads: self.threads,
            cpus: self.cpus,
            behaviour: Behaviour {
                body_size: self.body_size,
                is_chunked: self.chunked,
                think: self.think,
                stall: self.stall,
                stall_every: self.stall_every,
                error_every: self.error_every,
                close_every: self.close_every,
            },
        };
        upstream::serve(&plan, |bound| {
            for (service, addr) in bound {
                crate::say::result(format_args!("ready {} {addr}\n", service.name()));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse_words(words: &str) -> Parsed<Cli> {
        parse(std::iter::once("netra-loadtest").chain(words.split(' ')).map(OsString::from))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_words_are_refused() {
        for bad in [
            "http",
            "http a:1 --rate fast",
            "http a:1 --poisson",
            "http a:1 --seconds -3",
            "upstream --http nowhere",
            "report",
            "report a b c",
            "fly",
        ] {
            assert_eq!(parse_words(bad).expect_err(bad).exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_plan_is_judged_before_anything_is_sent() {
        for (words, part) in [
            ("http 127.0.0.1:1 --rate 0", "rate"),
            ("http 127.0.0.1:1 --connections 0", "connections"),
            ("http 127.0.0.1:1 --threads 9 --connections 8", "threads"),
            ("tcp 127.0.0.1:1 --size 0", "byte"),
            ("http 127.0.0.1:1 --seconds 0", "duration"),
            ("http 127.0.0.1:1 -H nonsense", "header"),
        ] {
            let refused = dispatch(parse_words(words).expect(words)).expect_err(words);
            assert_eq!(refused.kind(), crate::Kind::Usage, "{words}");
            assert!(refused.to_string().contains(part), "{words}: {refused}");
        }
    }
}
