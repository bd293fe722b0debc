//! A comparison as tables: medians over the rounds with their spread, and ratios.

use std::fmt::Write as _;

use super::{Calls, CompareReport, DIRECT, Layout, Sample, Scenario, publish};
use crate::clock::float;
use crate::report::html::{Page, Part, Section, percentile_chart, percentile_curve};
use crate::report::table::align;
use crate::stats::Distribution;
use crate::summary::Spread;
use crate::topology::Place;

/// A figure of a sample.
type Figure = fn(&Sample) -> Option<f64>;

/// A figure of a distribution.
type Quantile = fn(&Distribution) -> f64;

const LATENCIES: [(&str, Quantile); 5] = [
    ("p50", |d| d.p50),
    ("p90", |d| d.p90),
    ("p99", |d| d.p99),
    ("p99.9", |d| d.p999),
    ("max", |d| d.max),
];

/// What requests or bytes cost.
const COSTS: [(&str, Figure); 6] = [
    ("CPU s", Sample::cpu_per_unit),
    ("user %", |s| (s.user + s.system > 0.0).then(|| s.user / (s.user + s.system) * 100.0)),
    ("switches", switches),
    ("io workers", |s| (s.subject != DIRECT).then(|| float(s.io_workers))),
    ("RSS MB", |s| megabytes(s.rss_bytes)),
    ("PSS MB", |s| megabytes(s.pss_bytes)),
];

/// What connections cost that do nothing.
const MEMORY: [(&str, Figure); 7] = [
    ("RSS MB", |s| megabytes(s.rss_bytes)),
    ("PSS MB", |s| megabytes(s.pss_bytes)),
    ("RSS MB before", |s| megabytes(s.rss_before_bytes)),
    ("KB/connection", Sample::kilobytes_per_connection),
    ("descriptors", |s| (s.fd_count > 0).then(|| float(s.fd_count))),
    ("CPU s", |s| (s.subject != DIRECT).then_some(s.cpu)),
    ("start s", |s| (s.subject != DIRECT).then_some(s.start_seconds)),
];

fn megabytes(bytes: u64) -> Option<f64> {
    (bytes > 0).then(|| float(bytes) / 1e6)
}

fn switches(sample: &Sample) -> Option<f64> {
    let is_of_requests = sample.scenario.has_requests() && sample.requests > 0;
    let is_known = sample.subject != DIRECT && is_of_requests;
    is_known.then(|| float(sample.switches) / float(sample.requests))
}

/// One line of progress.
pub(super) fn brief(sample: &Sample) -> String {
    let mut line = format!("{:<16} {:<8}", sample.subject, sample.scenario.name());
    let _ = match (&sample.failure, sample.scenario.inward()) {
        (Some(why), _) => write!(line, " FAILED: {why}"),
        (None, Scenario::Bulk) => write!(line, " {:.2} GB/s", sample.rate / 1e9),
        (None, Scenario::Idle) => write!(line, " {:.1} MB", float(sample.rss_bytes) / 1e6),
        (None, _) => write!(
            line,
            " {:.0}/s p50 {:.1} p99 {:.1} us",
            sample.rate, sample.latency.p50, sample.latency.p99
        ),
    };
    if sample.is_disturbed {
        let _ =
            write!(line, "  disturbed: foreign {:.2}, steal {:.2}", sample.foreign, sample.steal);
    }
    line
}

/// The samples of a subject that count: without the disturbed ones, unless there are no others.
pub(super) fn kept<'a>(
    report: &'a CompareReport,
    subject: &str,
    scenario: Scenario,
) -> Vec<&'a Sample> {
    let is_wanted =
        |s: &&Sample| s.subject == subject && s.scenario == scenario && s.failure.is_none();
    let all: Vec<&Sample> = report.samples.iter().filter(is_wanted).collect();
    let clean: Vec<&Sample> = all.iter().copied().filter(|s| !s.is_disturbed).collect();
    if clean.is_empty() { all } else { clean }
}

/// What a subject adds to direct in the same round, over the rounds.
pub(super) fn added(
    report: &CompareReport,
    subject: &str,
    scenario: Scenario,
    figure: impl Fn(&Sample) -> f64,
) -> Option<Spread> {
    let direct = kept(report, DIRECT, scenario);
    let differences: Vec<f64> = kept(report, subject, scenario)
        .into_iter()
        .filter_map(|sample| {
            let base = direct.iter().find(|base| base.round == sample.round)?;
            Some(figure(sample) - figure(base))
        })
        .collect();
    Spread::of(&differences)
}

pub(super) fn subjects(report: &CompareReport) -> Vec<&str> {
    let mut names: Vec<&str> = vec![DIRECT];
    for sample in &report.samples {
        if !names.contains(&sample.subject.as_str()) {
            names.push(&sample.subject);
        }
    }
    names
}

fn scenarios(report: &CompareReport) -> Vec<Scenario> {
    let mut all: Vec<Scenario> = report.samples.iter().map(|sample| sample.scenario).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn heading(report: &CompareReport, scenario: Scenario) -> String {
    let other = |what: &str| match report.protocol_rate {
        Some(rate) => format!("{what}, open loop, {rate:.0}/s over 32 connections"),
        None => format!("{what} as fast as it goes, 32 connections"),
    };
    let what = match scenario.inward() {
        Scenario::Http => {
            format!("HTTP, open loop, {:.0}/s over {} connections", report.rate, report.connections)
        }
        Scenario::Max => "HTTP as fast as it goes, 32 connections".to_owned(),
        Scenario::Raw => "HTTP through a raw port, as fast as it goes, 32 connections".to_owned(),
        Scenario::Tcp => "TCP ping-pong, 64 bytes, 1 connection".to_owned(),
        Scenario::Churn => "New connection per request".to_owned(),
        Scenario::Bulk => "Bulk download".to_owned(),
        Scenario::Redis => other("GET of Redis"),
        Scenario::Dubbo => other("Calls of Dubbo"),
        Scenario::Thrift => other("Calls of Thrift"),
        _ => "Idle connections".to_owned(),
    };
    match scenario.server() {
        Place::Pod => what,
        Place::Client => format!("From the pod: {what}"),
    }
}

/// The tables of one scenario; the first row of each is its head.
fn tables(report: &CompareReport, scenario: Scenario) -> Vec<Vec<Vec<String>>> {
    let mut all = Vec::new();
    if scenario.has_requests() {
        let mut head = vec!["microseconds added".to_owned()];
        head.extend(LATENCIES.iter().map(|(name, _)| (*name).to_owned()));
        let row = |subject: &str| {
            let mut row = vec![subject.to_owned()];
            row.extend(LATENCIES.iter().map(|(_, of)| latency(report, subject, scenario, *of)));
            row
        };
        all.push(std::iter::once(head).chain(subjects(report).into_iter().map(row)).collect());
    }
    all.push(costs(report, scenario));
    all
}

fn costs(report: &CompareReport, scenario: Scenario) -> Vec<Vec<String>> {
    let is_idle = scenario.inward() == Scenario::Idle;
    let figures: &[(&str, Figure)] = if is_idle { &MEMORY } else { &COSTS };
    let (rate, unit) = match scenario.inward() {
        Scenario::Bulk => ("GB/s", "CPU s/GB"),
        _ => ("per second", "CPU s/100k"),
    };
    let mut head = vec!["cost".to_owned()];
    if !is_idle {
        head.extend([rate, "of direct"].map(str::to_owned));
    }
    let names = figures.iter().map(|&(name, _)| match name {
        "CPU s" if !is_idle => unit,
        "switches" => "switches/req",
        name => name,
    });
    head.extend(names.map(str::to_owned));
    if scenario.has_requests() {
        head.push("calls/req".to_owned());
    }
    head.extend(["failed", "clean"].map(str::to_owned));
    let mut rows = vec![head];
    for subject in subjects(report) {
        let samples = kept(report, subject, scenario);
        let mut row = vec![subject.to_owned()];
        if !is_idle {
            row.extend(self::rate(report, subject, scenario));
        }
        row.extend(figures.iter().map(|(_, of)| {
            let values: Vec<f64> = samples.iter().filter_map(|sample| of(sample)).collect();
            Spread::of(&values).map_or("-".to_owned(), |spread| short(&spread, false))
        }));
        if scenario.has_requests() {
            row.push(calls(report, subject, scenario));
        }
        let all = report.samples.iter().filter(|s| s.subject == subject && s.scenario == scenario);
        let (mut failed, mut clean, mut count) = (0, 0, 0);
        for sample in all {
            failed += sample.failed + u64::from(sample.failure.is_some());
            clean += usize::from(!sample.is_disturbed && sample.failure.is_none());
            count += 1;
        }
        row.extend([failed.to_string(), format!("{clean}/{count}")]);
        rows.push(row);
    }
    rows
}

fn calls(report: &CompareReport, subject: &str, scenario: Scenario) -> String {
    let is_it = |calls: &&Calls| calls.subject == subject && calls.scenario == scenario;
    match report.calls.iter().find(is_it) {
        Some(Calls { per_request: Some(count), .. }) => format!("{count:.2}"),
        Some(_) => "not counted".to_owned(),
        None => "-".to_owned(),
    }
}

/// What must be known about the figures: who counted, and what is missing.
fn notes(report: &CompareReport) -> Vec<String> {
    let mut notes = Vec::new();
    let add = |text: String, notes: &mut Vec<String>| {
        if !notes.contains(&text) {
            notes.push(text);
        }
    };
    for Calls { subject, scenario, per_request, by } in &report.calls {
        match per_request {
            Some(_) => add(format!("system calls counted apart, with {by}"), &mut notes),
            None => {
                let name = scenario.name();
                add(format!("system calls of {subject}, {name}: not counted: {by}"), &mut notes);
            }
        }
    }
    for (name, why) in &report.skipped {
        notes.push(format!("skipped {name}: {why}"));
    }
    for sample in &report.samples {
        if let Some(why) = &sample.failure {
            let (subject, scenario, round) =
                (&sample.subject, sample.scenario.name(), sample.round);
            notes.push(format!("FAILED {subject}, {scenario}, round {round}: {why}"));
        }
    }
    notes
}

fn latency(report: &CompareReport, subject: &str, scenario: Scenario, of: Quantile) -> String {
    if subject == DIRECT {
        let values: Vec<f64> =
            kept(report, DIRECT, scenario).iter().map(|sample| of(&sample.latency)).collect();
        return Spread::of(&values).map_or("-".to_owned(), |spread| short(&spread, false));
    }
    let spread = added(report, subject, scenario, |sample| of(&sample.latency));
    spread.map_or("-".to_owned(), |spread| short(&spread, true))
}

fn rate(report: &CompareReport, subject: &str, scenario: Scenario) -> [String; 2] {
    let median = |name: &str| {
        let rates: Vec<f64> = kept(report, name, scenario).iter().map(|s| s.rate).collect();
        Spread::of(&rates).map(|spread| spread.median)
    };
    let Some(own) = median(subject) else { return ["-".to_owned(), "-".to_owned()] };
    let shown = match scenario.inward() {
        Scenario::Bulk => format!("{:.2}", own / 1e9),
        _ => format!("{own:.0}"),
    };
    let ratio = median(DIRECT).filter(|direct| *direct > 0.0);
    [shown, ratio.map_or("-".to_owned(), |direct| format!("{:.2}", own / direct))]
}

/// The median, and the ends of the spread behind it.
fn short(spread: &Spread, is_signed: bool) -> String {
    let show = |value: f64| match (value.abs() < 10.0 && value.fract() != 0.0, is_signed) {
        (true, true) => format!("{value:+.2}"),
        (true, false) => format!("{value:.2}"),
        (false, true) => format!("{value:+.0}"),
        (false, false) => format!("{value:.0}"),
    };
    let (median, low, high) = (show(spread.median), show(spread.low), show(spread.high));
    if low == high { median } else { format!("{median} [{low}..{high}]") }
}

/// All tables for a terminal.
pub(crate) fn text(report: &CompareReport) -> String {
    let mut out = String::new();
    for scenario in scenarios(report) {
        let _ = writeln!(out, "\n{}", heading(report, scenario));
        for table in tables(report, scenario) {
            out.push_str(&align(&table));
        }
    }
    for note in notes(report) {
        let _ = writeln!(out, "{note}");
    }
    out
}

/// What the programs say of themselves, each once.
pub(super) fn versions(report: &CompareReport) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (_, version) in &report.versions {
        if !all.contains(version) {
            all.push(version.clone());
        }
    }
    all
}

/// The comparison as a page.
pub(crate) fn page(report: &CompareReport) -> Page {
    let machine = &report.machine;
    let mut sections = vec![Section {
        heading: "What was compared".to_owned(),
        parts: vec![
            Part::Text(format!(
                "{}, {} rounds, medians [lowest..highest]. Latencies of a subject are what it adds \
                 to direct in the same round.",
                match report.layout {
                    Layout::OneCpu => "Subject, server and load on one CPU",
                    Layout::TwoCpu => "The subject on a CPU of its own",
                },
                report.rounds
            )),
            Part::Text(versions(report).join(" · ")),
            Part::Drawing(publish::drawing(report)),
        ],
    }];
    for scenario in scenarios(report) {
        let mut parts: Vec<Part> = tables(report, scenario).into_iter().map(Part::Table).collect();
        let curves: Vec<_> = subjects(report)
            .into_iter()
            .filter_map(|name| Some((name, pooled(&kept(report, name, scenario))?)))
            .map(|(name, latency)| percentile_curve(name, &latency))
            .collect();
        if !curves.is_empty() {
            parts.push(Part::Drawing(percentile_chart(&curves, 100_000)));
        }
        sections.push(Section { heading: heading(report, scenario), parts });
    }
    let notes: Vec<Part> = notes(report).into_iter().map(Part::Text).collect();
    if !notes.is_empty() {
        sections.push(Section { heading: "Notes".to_owned(), parts: notes });
    }
    let title = "What a sidecar costs".to_owned();
    let subtitle = format!(
        "{} · Linux {} · {} x {} · netra-loadtest {}",
        machine.date, machine.kernel, machine.cpu_count, machine.cpu, machine.version
    );
    Page { title, subtitle, sections }
}

/// All rounds as one distribution, for the curve.
fn pooled(samples: &[&Sample]) -> Option<Distribution> {
    let mut sum = crate::stats::histogram();
    for sample in samples {
        // Both have the same bounds, which is all that adding needs.
        let _ = sum.add(sample.latency.histogram());
    }
    (!sum.is_empty()).then(|| Distribution::with_buckets(&sum))
}
