//! A comparison as tables: medians over the rounds with their spread, and ratios.

use std::fmt::Write as _;

use super::{CompareReport, DIRECT, Sample, Scenario};
use crate::clock::float;
use crate::report::html::{Page, Part, Section, percentile_chart, percentile_curve};
use crate::report::table::align;
use crate::stats::Distribution;
use crate::summary::Spread;

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

const FIGURES: [(&str, Figure); 4] = [
    ("CPU s", Sample::cpu_per_unit),
    ("user %", |s| (s.user + s.system > 0.0).then(|| s.user / (s.user + s.system) * 100.0)),
    ("switches/req", |s| (s.requests > 0).then(|| float(s.switches) / float(s.requests))),
    ("RSS MB", |s| (s.rss_bytes > 0).then(|| float(s.rss_bytes) / 1e6)),
];

const MEMORY: [(&str, Figure); 4] = [
    ("RSS MB", |s| (s.rss_bytes > 0).then(|| float(s.rss_bytes) / 1e6)),
    ("PSS MB", |s| (s.pss_bytes > 0).then(|| float(s.pss_bytes) / 1e6)),
    ("descriptors", |s| (s.fd_count > 0).then(|| float(s.fd_count))),
    ("CPU s", |s| (s.subject != DIRECT).then_some(s.cpu)),
];

/// One line of progress.
pub(super) fn brief(sample: &Sample) -> String {
    let mut line = format!("{:<16} {:<6}", sample.subject, format!("{:?}", sample.scenario));
    let _ = match (&sample.failure, sample.scenario) {
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
fn kept<'a>(report: &'a CompareReport, subject: &str, scenario: Scenario) -> Vec<&'a Sample> {
    let is_wanted =
        |s: &&Sample| s.subject == subject && s.scenario == scenario && s.failure.is_none();
    let all: Vec<&Sample> = report.samples.iter().filter(is_wanted).collect();
    let clean: Vec<&Sample> = all.iter().copied().filter(|s| !s.is_disturbed).collect();
    if clean.is_empty() { all } else { clean }
}

/// What a subject adds to direct in the same round, over the rounds.
fn added(
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

fn subjects(report: &CompareReport) -> Vec<&str> {
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
    match scenario {
        Scenario::Http => format!(
            "HTTP, open loop, {:.0}/s over {} connections; microseconds added",
            report.rate, report.connections
        ),
        Scenario::Max => "HTTP as fast as it goes, 32 connections; microseconds added".to_owned(),
        Scenario::Tcp => "TCP ping-pong, 64 bytes, 1 connection; microseconds added".to_owned(),
        Scenario::Churn => "New connection per request; microseconds added".to_owned(),
        Scenario::Bulk => "Bulk download".to_owned(),
        Scenario::Idle => "Idle connections".to_owned(),
    }
}

/// The table of one scenario; the first row is the head.
fn rows(report: &CompareReport, scenario: Scenario) -> Vec<Vec<String>> {
    let has_latency = !matches!(scenario, Scenario::Bulk | Scenario::Idle);
    let figures = if scenario == Scenario::Idle { &MEMORY } else { &FIGURES };
    let mut head = vec!["subject".to_owned()];
    if has_latency {
        head.extend(LATENCIES.iter().map(|(name, _)| (*name).to_owned()));
    }
    if scenario != Scenario::Idle {
        let rate = if scenario == Scenario::Bulk { "GB/s" } else { "rate" };
        head.extend([rate.to_owned(), "of direct".to_owned()]);
    }
    let unit = if scenario == Scenario::Bulk { "/GB" } else { "/100k" };
    head.extend(figures.iter().map(|&(name, _)| match name {
        "CPU s" if scenario != Scenario::Idle => format!("CPU s{unit}"),
        name => name.to_owned(),
    }));
    head.extend(["failed", "clean"].map(str::to_owned));
    let mut rows = vec![head];
    for subject in subjects(report) {
        let samples = kept(report, subject, scenario);
        let mut row = vec![subject.to_owned()];
        if has_latency {
            row.extend(LATENCIES.iter().map(|(_, of)| latency(report, subject, scenario, *of)));
        }
        if scenario != Scenario::Idle {
            row.extend(rate(report, subject, scenario));
        }
        row.extend(figures.iter().map(|(_, of)| {
            let values: Vec<f64> = samples.iter().filter_map(|sample| of(sample)).collect();
            Spread::of(&values).map_or("-".to_owned(), |spread| short(&spread, false))
        }));
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
    let shown = match scenario {
        Scenario::Bulk => format!("{:.2}", own / 1e9),
        _ => format!("{own:.0}"),
    };
    let ratio = median(DIRECT).filter(|direct| *direct > 0.0);
    [shown, ratio.map_or("-".to_owned(), |direct| format!("{:.2}", own / direct))]
}

/// The median, and the ends of the spread behind it.
fn short(spread: &Spread, is_signed: bool) -> String {
    let show = |value: f64| match (value.abs() < 10.0, is_signed) {
        (true, true) => format!("{value:+.2}"),
        (true, false) => format!("{value:.2}"),
        (false, true) => format!("{value:+.0}"),
        (false, false) => format!("{value:.0}"),
    };
    match spread.count {
        1 => show(spread.median),
        _ => format!("{} [{}..{}]", show(spread.median), show(spread.low), show(spread.high)),
    }
}

/// All tables for a terminal.
pub(crate) fn text(report: &CompareReport) -> String {
    let mut out = String::new();
    for scenario in scenarios(report) {
        let _ = write!(out, "\n{}\n{}", heading(report, scenario), align(&rows(report, scenario)));
    }
    for (name, why) in &report.skipped {
        let _ = writeln!(out, "skipped {name}: {why}");
    }
    out
}

/// The comparison as a page.
pub(crate) fn page(report: &CompareReport) -> Page {
    let machine = &report.machine;
    let versions = report.versions.iter().map(|(name, version)| format!("{name}: {version}"));
    let mut sections = vec![Section {
        heading: "What was compared".to_owned(),
        parts: vec![
            Part::Text(format!(
                "{:?} layout, {} rounds, medians [lowest..highest]. Latencies of a subject are \
                 what it adds to direct in the same round.",
                report.layout, report.rounds
            )),
            Part::Text(versions.collect::<Vec<_>>().join(" · ")),
        ],
    }];
    for scenario in scenarios(report) {
        let mut parts = vec![Part::Table(rows(report, scenario))];
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
