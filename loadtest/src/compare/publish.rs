//! Comparisons as a table and a picture in a document, between its markers and nowhere else.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::tables::{added, kept, subjects, versions};
use super::{CompareReport, DIRECT, Layout, Sample, Scenario};
use crate::error::{Error, Result};
use crate::report::bars::{Panel, figure, picture};
use crate::report::write_text;
use crate::summary::Spread;

const BEGIN: &str = "<!-- bench: begin (written by `make bench`) -->";
const END: &str = "<!-- bench: end -->";

/// Where to write what.
#[derive(Clone, Debug, Args)]
pub(crate) struct PublishArgs {
    /// Reports of `compare`
    #[arg(required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// File whose part between the markers is replaced
    #[arg(long, value_name = "FILE")]
    document: PathBuf,
    /// Picture of the first report, in the document's folder or below it
    #[arg(long, value_name = "FILE")]
    svg: PathBuf,
}

/// Writes the picture and the tables.
pub(crate) fn run(args: &PublishArgs) -> Result<()> {
    let load = |path: &PathBuf| -> Result<CompareReport> {
        let refuse = |why: String| Error::usage(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|cause| refuse(cause.to_string()))?;
        serde_json::from_str(&text).map_err(|_| refuse("not a report of `compare`".to_owned()))
    };
    let reports = args.files.iter().map(load).collect::<Result<Vec<_>>>()?;
    let text = std::fs::read_to_string(&args.document)
        .map_err(|cause| Error::usage(format!("{}: {cause}", args.document.display())))?;
    let folder = args.document.parent().unwrap_or(Path::new(""));
    let picture = args.svg.strip_prefix(folder).unwrap_or(&args.svg);
    let mut part = format!("![What a sidecar costs]({})\n", picture.display());
    for report in &reports {
        part.push_str(&markdown(report));
    }
    let text = replace(&text, [BEGIN, END], &part)
        .map_err(|why| Error::usage(format!("{}: {why}", args.document.display())))?;
    if let Some(first) = reports.first() {
        write_text(&args.svg, &drawing(first))?;
    }
    write_text(&args.document, &text)
}

/// The text with another part between two markers.
pub(crate) fn replace(
    text: &str,
    [begin, end]: [&str; 2],
    part: &str,
) -> std::result::Result<String, String> {
    let missing = |marker: &str| format!("no line `{marker}`");
    let start = text.find(begin).ok_or_else(|| missing(begin))? + begin.len();
    let stop = start + text[start..].find(end).ok_or_else(|| missing(end))?;
    Ok(format!("{}\n{part}{}", &text[..start], &text[stop..]))
}

/// A column: its head, and the figures of a subject of which the first decides what is best.
struct Column {
    head: &'static str,
    scenario: Scenario,
    of: fn(&CompareReport, &str, Scenario) -> Option<Vec<f64>>,
    is_signed: bool,
}

const fn latency(head: &'static str, scenario: Scenario) -> Column {
    Column { head, scenario, of: latencies, is_signed: true }
}

const fn cost(head: &'static str, scenario: Scenario) -> Column {
    Column { head, scenario, of: cpu, is_signed: false }
}

const COLUMNS: &[Column] = &[
    latency("HTTP added p50 / p99 us", Scenario::Http),
    cost("HTTP CPU s/100k", Scenario::Max),
    cost("raw port CPU s/100k", Scenario::Raw),
    Column { head: "calls", scenario: Scenario::Raw, of: calls, is_signed: false },
    latency("ping-pong added p50 / p99 us", Scenario::Tcp),
    cost("new connections CPU s/100k", Scenario::Churn),
    Column { head: "bulk CPU s/GB", scenario: Scenario::Bulk, of: cpu, is_signed: false },
    Column {
        head: "idle RSS MB, KB/connection",
        scenario: Scenario::Idle,
        of: idle,
        is_signed: false,
    },
    latency("outbound HTTP added p50 / p99 us", Scenario::OutHttp),
];

fn median(samples: &[&Sample], of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = samples.iter().filter_map(|sample| of(sample)).collect();
    Spread::of(&values).map(|spread| spread.median)
}

fn latencies(report: &CompareReport, subject: &str, scenario: Scenario) -> Option<Vec<f64>> {
    if subject == DIRECT {
        let samples = kept(report, subject, scenario);
        let p50 = median(&samples, |s| Some(s.latency.p50))?;
        return Some(vec![p50, median(&samples, |s| Some(s.latency.p99))?]);
    }
    let of = |of: fn(&Sample) -> f64| -> Option<f64> {
        let spread = added(report, subject, scenario, of)?;
        // Rounds that do not agree on whether anything was added say that it is noise.
        let is_noise = spread.low < 0.0 && spread.high > 0.0;
        Some(if is_noise { f64::NAN } else { spread.median })
    };
    Some(vec![of(|s| s.latency.p50)?, of(|s| s.latency.p99)?])
}

fn cpu(report: &CompareReport, subject: &str, scenario: Scenario) -> Option<Vec<f64>> {
    let samples = kept(report, subject, scenario);
    let value = median(&samples, Sample::cpu_per_unit)?;
    (subject != DIRECT).then(|| vec![value])
}

fn calls(report: &CompareReport, subject: &str, scenario: Scenario) -> Option<Vec<f64>> {
    let mut all = report.calls.iter();
    let calls = all.find(|calls| calls.subject == subject && calls.scenario == scenario)?;
    calls.per_request.map(|count| vec![count])
}

fn idle(report: &CompareReport, subject: &str, scenario: Scenario) -> Option<Vec<f64>> {
    let samples = kept(report, subject, scenario);
    let per_connection = median(&samples, Sample::kilobytes_per_connection)?;
    let before = median(&samples, |s| Some(crate::clock::float(s.rss_before_bytes) / 1e6))?;
    Some(vec![before, per_connection])
}

fn markdown(report: &CompareReport) -> String {
    let machine = &report.machine;
    let mut out = format!(
        "\n{}. {}, Linux {}, {} x {}, {} rounds, medians",
        match report.layout {
            Layout::OneCpu => "Proxy, server and load on **one CPU** (shows the software)",
            Layout::TwoCpu => "The proxy on **a CPU of its own** (adds wake-ups across CPUs)",
        },
        machine.date,
        machine.kernel,
        machine.cpu_count,
        machine.cpu,
        report.rounds
    );
    let clean = report.samples.iter().filter(|s| !s.is_disturbed && s.failure.is_none()).count();
    let _ = writeln!(out, "; {clean} of {} samples undisturbed.\n", report.samples.len());
    let subjects = subjects(report);
    let is_there = |column: &&Column| {
        subjects
            .iter()
            .any(|name| *name != DIRECT && (column.of)(report, name, column.scenario).is_some())
    };
    let columns: Vec<&Column> = COLUMNS.iter().filter(is_there).collect();
    let heads: Vec<&str> = columns.iter().map(|column| column.head).collect();
    let _ = writeln!(out, "| | {} |\n|---|{}", heads.join(" | "), "--:|".repeat(columns.len()));
    for name in &subjects {
        let cells = columns.iter().map(|column| cell(report, &subjects, name, column));
        let _ = writeln!(out, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    out.push('\n');
    let _ = writeln!(out, "{}.", versions(report).join("; "));
    for (_, why) in &report.skipped {
        let _ = writeln!(out, "Left out: {}.", why.replace('|', "/"));
    }
    for sample in report.samples.iter().filter(|sample| sample.failure.is_some()) {
        let why = sample.failure.as_deref().and_then(|why| why.lines().next()).unwrap_or_default();
        let _ = writeln!(out, "Failed: {}, {}: {why}.", sample.subject, sample.scenario.name());
    }
    out
}

fn cell(report: &CompareReport, subjects: &[&str], name: &str, column: &Column) -> String {
    let of = |name: &str| (column.of)(report, name, column.scenario);
    let Some(values) = of(name) else { return "-".to_owned() };
    let is_added = column.is_signed && name != DIRECT;
    let shown: Vec<String> = values
        .iter()
        .map(|&value| match is_added {
            _ if value.is_nan() => "noise".to_owned(),
            true if value >= 0.0 => format!("+{}", figure(value)),
            _ => figure(value),
        })
        .collect();
    let text = shown.join(" / ");
    let others = subjects.iter().filter(|other| **other != DIRECT);
    let best = others.filter_map(|other| of(other)?.first().copied()).fold(f64::INFINITY, f64::min);
    let is_best = name != DIRECT && values.first().is_some_and(|value| *value <= best);
    if is_best { format!("**{text}**") } else { text }
}

/// The figures that decide, as bars.
pub(super) fn drawing(report: &CompareReport) -> String {
    let names = subjects(report);
    let panel = |title: &str, scenario, of: fn(&Sample) -> Option<f64>| {
        let subjects = names.iter().enumerate().filter(|(_, name)| **name != DIRECT);
        let bars = subjects.filter_map(|(index, name)| {
            Some(((*name).to_owned(), median(&kept(report, name, scenario), of)?, index))
        });
        Panel { title: title.to_owned(), bars: bars.collect() }
    };
    let mut panels = vec![
        panel("HTTP as fast as it goes: CPU s per 100k", Scenario::Max, Sample::cpu_per_unit),
        panel("New connections: CPU s per 100k", Scenario::Churn, Sample::cpu_per_unit),
        panel("Bulk: CPU s per GB", Scenario::Bulk, Sample::cpu_per_unit),
        panel("Memory per idle connection: KB", Scenario::Idle, Sample::kilobytes_per_connection),
    ];
    panels.retain(|panel| !panel.bars.is_empty());
    let machine = &report.machine;
    let layout = match report.layout {
        Layout::OneCpu => "everything on one CPU",
        Layout::TwoCpu => "proxy on a CPU of its own",
    };
    let note = format!(
        "{} · Linux {} · {} · {layout} · medians of {} rounds, lower is better",
        machine.date, machine.kernel, machine.cpu, report.rounds
    );
    picture(&note, &panels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Calls;
    use crate::machine::Machine;
    use crate::stats::Distribution;

    const MARKS: [&str; 2] = [BEGIN, END];

    /// Two subjects in one round.
    fn report() -> CompareReport {
        let sample = |subject: &str, scenario, cpu, p50| Sample {
            subject: subject.to_owned(),
            scenario,
            round: 1,
            cpu,
            requests: 100_000,
            latency: Distribution { count: 1, p50, p99: p50 * 2.0, ..Distribution::default() },
            ..Sample::default()
        };
        let (subject, by) = ("b".to_owned(), "perf".to_owned());
        CompareReport {
            machine: Machine { kernel: "6.1".to_owned(), ..Machine::default() },
            layout: Layout::OneCpu,
            rate: 1000.0,
            protocol_rate: None,
            connections: 64,
            rounds: 1,
            versions: vec![("a".to_owned(), "a 1.0".to_owned())],
            skipped: vec![("c".to_owned(), "c: no program c".to_owned())],
            samples: vec![
                sample(DIRECT, Scenario::Http, 0.0, 10.0),
                sample("a", Scenario::Http, 1.0, 30.0),
                sample("b", Scenario::Http, 2.0, 25.0),
                sample("a", Scenario::Raw, 1.5, 0.0),
                sample("b", Scenario::Raw, 2.5, 0.0),
            ],
            calls: vec![Calls { subject, scenario: Scenario::Raw, per_request: Some(4.0), by }],
        }
    }

    #[test]
    fn the_table_has_what_was_measured_and_marks_the_best() {
        let text = markdown(&report());
        assert!(text.contains("| | HTTP added p50 / p99 us | raw port CPU s/100k | calls |"));
        assert!(text.contains("| direct | 10.0 / 20.0 | - | - |"), "{text}");
        assert!(text.contains("| a | +20.0 / +40.0 | **1.50** | - |"), "{text}");
        assert!(text.contains("| b | **+15.0 / +30.0** | 2.50 | **4.00** |"), "{text}");
        assert!(text.contains("Left out: c: no program c."));
        // One that makes it faster in every round is shown as it is.
        let mut faster = report();
        faster.samples[1].latency.p99 = 15.0;
        assert!(markdown(&faster).contains("| a | +20.0 / -5.00 |"), "{}", markdown(&faster));
        assert!(text.contains("Linux 6.1") && text.contains("5 of 5 samples undisturbed"));
    }

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let once = replace(&text, MARKS, "new\n").expect("both markers");
        assert_eq!(once, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(replace(&once, MARKS, "new\n").as_deref(), Ok(once.as_str()));
        assert!(replace("nothing", MARKS, "new").is_err());
        assert!(replace(BEGIN, MARKS, "new").is_err());
    }
}
