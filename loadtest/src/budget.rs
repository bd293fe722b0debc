//! The budget of one request and of one new connection through each subject: system calls by name,
//! instructions, time in user space and in the kernel, context switches, wake-ups, page faults.
//!
//! `compare` says who is cheaper; this says where it goes. What cannot be counted on a machine
//! says so in its cell.

mod bench;
mod instructions;
mod order;
mod tables;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::compare::version;
use crate::error::{Error, Kind, Result};
use crate::machine::Machine;
use crate::report::{write_json, write_text};
use crate::subject::Subject;
use crate::summary::Spread;
use crate::sys;
use crate::topology::{Topology, WorkDir};
use watch::Seen;

/// Subjects without -s.
const SUBJECTS: &[&str] = &[
    "smallest",
    "smallest-closing",
    "netra-io_uring",
    "netra-epoll",
    "nginx-stream",
    "haproxy-tcp",
    "netra-http-io_uring",
    "netra-http-epoll",
    "nginx-http",
    "haproxy-http",
];

/// What to count, and where to write it.
#[derive(Clone, Debug, Args)]
pub(crate) struct BudgetArgs {
    /// A subject: the name of a built-in one, or a TOML file (default: smallest, netra and peers)
    #[arg(short, long = "subject")]
    subjects: Vec<String>,
    /// Leave out subjects whose program is missing or cannot do it yet, and say so
    #[arg(long)]
    skip_missing: bool,
    /// Seconds of each load
    #[arg(long, default_value = "1", value_parser = clock::seconds)]
    seconds: Duration,
    /// How often each load is timed, all subjects in turn; the tables have medians
    #[arg(short, long, default_value_t = 5)]
    rounds: usize,
    /// What to take: times need a quiet machine, counts do not, instructions take longest
    #[arg(long, value_delimiter = ',', value_enum,
        default_values = ["times", "counts", "instructions"])]
    parts: Vec<Part>,
    /// Show and publish these reports instead of measuring; later ones replace what they have of earlier ones
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "subjects")]
    from: Vec<PathBuf>,
    /// Write the counts as JSON; kept up to date during the run
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// File whose part between the markers is replaced
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Picture of the figures
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// What is taken of each subject.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    /// Latency, CPU time, context switches, page faults
    Times,
    /// System calls, their order, wake-ups
    Counts,
    /// Instructions in user space
    Instructions,
}

/// What one unit of a row is, and how it comes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Load {
    /// Requests over 32 connections that stay, as fast as they go, everything on one CPU
    Kept,
    /// New connections with one request each, 16 at a time, as fast as they go, on one CPU
    Fresh,
    /// The same at 500 per second, so that each finds a sleeping proxy
    FreshSlow,
    /// 1000 requests per second over 64 connections, the subject on a CPU of its own
    Paced,
}

impl Load {
    const ALL: [Self; 4] = [Self::Kept, Self::Fresh, Self::FreshSlow, Self::Paced];
}

/// The counts of one run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct BudgetReport {
    machine: Machine,
    seconds: f64,
    rounds: usize,
    versions: Vec<(String, String)>,
    /// Subjects left out, and why.
    skipped: Vec<(String, String)>,
    /// The latency of `Paced` without a subject.
    direct: Option<Timed>,
    rows: Vec<Row>,
}

/// One load through one subject.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Row {
    subject: String,
    load: Load,
    timed: Option<Timed>,
    seen: std::result::Result<Seen, String>,
    /// In user space, per unit.
    instructions: std::result::Result<f64, String>,
    /// Calls of one connection in their order, of `FreshSlow` only.
    order: Vec<order::Step>,
}

/// What a load took, untouched by any watcher; everything per unit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Timed {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    user_ns: f64,
    kernel_ns: f64,
    voluntary: f64,
    forced: f64,
    faults: f64,
}

/// Counts and reports; what was counted is kept whatever happens later.
pub(crate) fn run(args: &BudgetArgs) -> Result<()> {
    let report = if args.from.is_empty() { measure(args)? } else { merge(&args.from)? };
    crate::say::result(format_args!("{}", tables::markdown(&report)));
    if let Some(path) = &args.svg {
        write_text(path, &tables::drawing(&report))?;
    }
    if let Some(path) = &args.markdown {
        let refuse = |why: String| Error::usage(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|cause| refuse(cause.to_string()))?;
        write_text(path, &tables::replace(&text, &tables::markdown(&report)).map_err(refuse)?)?;
    }
    let gaps: Vec<String> = report
        .rows
        .iter()
        .filter(|row| row.timed.is_none() && args.parts.contains(&Part::Times))
        .map(|row| format!("{} {:?} was not measured", row.subject, row.load))
        .collect();
    if gaps.is_empty() { Ok(()) } else { Err(Error::new(Kind::Failed, gaps.join("\n"))) }
}

fn measure(args: &BudgetArgs) -> Result<BudgetReport> {
    if args.rounds == 0 || args.rounds > 100 {
        return Err(Error::usage("rounds must be 1 to 100"));
    }
    let names: Vec<&str> = match args.subjects.is_empty() {
        true => SUBJECTS.to_vec(),
        false => args.subjects.iter().map(String::as_str).collect(),
    };
    let (mut subjects, mut skipped) = (Vec::new(), Vec::new());
    for name in names {
        let subject = Subject::load(name)?;
        match subject.check() {
            Ok(()) => subjects.push(subject),
            Err(cause) if args.skip_missing => skipped.push((subject.name, cause.to_string())),
            Err(cause) => return Err(cause),
        }
    }
    let work = WorkDir::create()?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let topology = Topology::build()?;
    let bench = bench::Bench::new(args.seconds, &topology, &work)?;
    let mut report = BudgetReport {
        machine: Machine::here(),
        seconds: args.seconds.as_secs_f64(),
        rounds: args.rounds,
        versions: subjects.iter().map(|s| (s.name.clone(), version(s))).collect(),
        skipped,
        direct: None,
        rows: Vec::new(),
    };
    for subject in &subjects {
        let row = |load| Row::new(&subject.name, load, "left out");
        report.rows.extend(Load::ALL.map(row));
    }
    let keep =
        |report: &BudgetReport| args.json.as_ref().map_or(Ok(()), |path| write_json(path, report));
    if args.parts.contains(&Part::Times) {
        take_times(&bench, &subjects, args.rounds, &mut report)?;
        keep(&report)?;
    }
    for subject in &subjects {
        if args.parts.contains(&Part::Counts) {
            bench.counts(subject, rows_of(&mut report, &subject.name))?;
            keep(&report)?;
        }
        if args.parts.contains(&Part::Instructions) {
            for row in rows_of(&mut report, &subject.name) {
                row.instructions = match row.load {
                    Load::FreshSlow | Load::Paced => Err("counted at full speed only".to_owned()),
                    load => bench.instructions(subject, load).map_err(|cause| cause.to_string()),
                };
                if sys::is_interrupted() {
                    return Err(Error::new(Kind::Interrupted, "interrupted; nothing is published"));
                }
            }
            keep(&report)?;
        }
        crate::say::progress(format_args!("{}: counted", subject.name));
    }
    Ok(report)
}

fn rows_of<'a>(report: &'a mut BudgetReport, subject: &str) -> impl Iterator<Item = &'a mut Row> {
    report.rows.iter_mut().filter(move |row| row.subject == subject)
}

/// All subjects in turn, in rotating order, so that a slow minute of the machine hits them alike.
fn take_times(
    bench: &bench::Bench<'_>,
    subjects: &[Subject],
    rounds: usize,
    report: &mut BudgetReport,
) -> Result<()> {
    let mut all: Vec<(String, Load, Timed)> = Vec::new();
    let mut direct = Vec::new();
    let mut order: Vec<&Subject> = subjects.iter().collect();
    for round in 1..=rounds {
        direct.push(bench.direct()?);
        for subject in &order {
            all.extend(
                bench.times(subject)?.map(|(load, timed)| (subject.name.clone(), load, timed)),
            );
        }
        // Nobody is always after the same neighbour.
        let first = 1.min(order.len());
        order.rotate_left(first);
        crate::say::progress(format_args!("round {round}/{rounds}: timed"));
    }
    report.direct = Timed::median(&direct);
    for row in &mut report.rows {
        let same = |(subject, load, _): &&(String, Load, Timed)| {
            *subject == row.subject && *load == row.load
        };
        let rounds: Vec<Timed> = all.iter().filter(same).map(|(_, _, t)| t.clone()).collect();
        row.timed = Timed::median(&rounds);
    }
    Ok(())
}

impl Row {
    /// Nothing yet, and why.
    fn new(subject: &str, load: Load, why: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            load,
            timed: None,
            seen: Err(why.to_owned()),
            instructions: Err(why.to_owned()),
            order: Vec::new(),
        }
    }

    /// Takes over what another run has.
    fn take(&mut self, other: Self) {
        self.timed = other.timed.or(self.timed.take());
        if other.seen.is_ok() || self.seen.is_err() {
            self.seen = other.seen;
        }
        if other.instructions.is_ok() || self.instructions.is_err() {
            self.instructions = other.instructions;
        }
        if !other.order.is_empty() {
            self.order = other.order;
        }
    }
}

impl Timed {
    /// Of each figure by itself.
    fn median(rounds: &[Self]) -> Option<Self> {
        let of = |of: fn(&Self) -> f64| -> Option<f64> {
            let values: Vec<f64> = rounds.iter().map(of).collect();
            Spread::of(&values).map(|spread| spread.median)
        };
        Some(Self {
            rate: of(|t| t.rate)?,
            p50_us: of(|t| t.p50_us)?,
            p99_us: of(|t| t.p99_us)?,
            user_ns: of(|t| t.user_ns)?,
            kernel_ns: of(|t| t.kernel_ns)?,
            voluntary: of(|t| t.voluntary)?,
            forced: of(|t| t.forced)?,
            faults: of(|t| t.faults)?,
        })
    }
}

/// Reports as one.
fn merge(files: &[PathBuf]) -> Result<BudgetReport> {
    let mut merged: Option<BudgetReport> = None;
    for path in files {
        let refuse = |why: String| Error::usage(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|cause| refuse(cause.to_string()))?;
        let report: BudgetReport = serde_json::from_str(&text)
            .map_err(|_| refuse("not a report of `budget`".to_owned()))?;
        let Some(into) = &mut merged else {
            merged = Some(report);
            continue;
        };
        into.versions.retain(|(name, _)| report.versions.iter().all(|(other, _)| other != name));
        into.versions.extend(report.versions);
        into.direct = report.direct.or(into.direct.take());
        for row in report.rows {
            let same = |old: &Row| old.subject == row.subject && old.load == row.load;
            match into.rows.iter_mut().find(|old| same(old)) {
                Some(old) => old.take(row),
                None => into.rows.push(row),
            }
        }
    }
    merged.ok_or_else(|| Error::usage("no report"))
}
