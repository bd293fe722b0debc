//! Shows report files, and says whether one differs from another by more than the noise.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::args::OutArgs;
use crate::compare::{self, CompareReport, Sample, Scenario};
use crate::error::{Error, Result};
use crate::report::html::{Page, Part, Section};
use crate::report::table::align;
use crate::report::{RunReport, html, write_text};
use crate::stats::{Distribution, Moment};
use crate::summary::{Difference, Finding, PAIR_COUNT_MIN};

/// A report file of either kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum AnyReport {
    Compare(Box<CompareReport>),
    Run(Box<RunReport>),
}

/// Shows one file, or the difference of two. Every file that was asked for is written, or it is said
/// why not before anything is.
pub(crate) fn show_files(files: &[PathBuf], out: &OutArgs) -> Result<()> {
    let reports = files.iter().map(|path| load(path)).collect::<Result<Vec<_>>>()?;
    match reports.as_slice() {
        [AnyReport::Run(report)] => out.write(report),
        [AnyReport::Compare(report)] => {
            out.refuse_hgrm("a comparison has many latencies")?;
            if !out.json(report.as_ref())? {
                crate::say::result(format_args!("{}", compare::text(report)));
            }
            let page = || html::page(&compare::page(report));
            out.html().map_or(Ok(()), |path| write_text(path, &page()))
        }
        [AnyReport::Run(before), AnyReport::Run(after)] => {
            let curves = [("A", &before.latency), ("B", &after.latency)];
            let curves = curves.map(|(name, latency)| html::percentile_curve(name, latency));
            let count = before.latency.count.max(after.latency.count);
            let chart = Section {
                heading: "Latency by percentile".to_owned(),
                parts: vec![Part::Drawing(html::percentile_chart(&curves, count))],
            };
            write_difference(files, &run_pairs(before, after), vec![chart], out)
        }
        [AnyReport::Compare(before), AnyReport::Compare(after)] => {
            write_difference(files, &compare_pairs(before, after), Vec::new(), out)
        }
        _ => Err(Error::usage("the files are reports of different kinds")),
    }
}

fn write_difference(
    files: &[PathBuf],
    pairs: &[Pairs],
    more: Vec<Section>,
    out: &OutArgs,
) -> Result<()> {
    out.refuse_hgrm("a difference has no latency of its own")?;
    out.refuse_json("a difference is no report: the two files are")?;
    let rows = rows(pairs);
    crate::say::result(format_args!("{}", align(&rows)));
    let Some(path) = out.html() else { return Ok(()) };
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let table = Section {
        heading: "Whether B differs from A by more than the noise".to_owned(),
        parts: vec![Part::Table(rows)],
    };
    let page = Page {
        title: "B against A".to_owned(),
        subtitle: format!("A is {}, B is {}", names[0], names[1]),
        sections: std::iter::once(table).chain(more).collect(),
    };
    write_text(path, &html::page(&page))
}

fn load(path: &Path) -> Result<AnyReport> {
    let refuse = |why: String| Error::usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|cause| refuse(cause.to_string()))?;
    serde_json::from_str(&text)
        .map_err(|_| refuse("not a report of `http`, `tcp`, `churn` or `compare`".to_owned()))
}

/// A figure in both reports, pair by pair.
type Pairs = (String, Vec<(f64, f64)>);

/// Two runs: the intervals of their time lines are the pairs.
fn run_pairs(before: &RunReport, after: &RunReport) -> Vec<Pairs> {
    type Of = fn(&Moment) -> f64;
    let figures: [(&str, Of); 4] =
        [("p50 us", |m| m.p50), ("p99 us", |m| m.p99), ("max us", |m| m.max), ("rate", |m| m.rate)];
    let pairs = |of: Of| {
        let moments = before.moments.iter().zip(&after.moments);
        moments.map(|(a, b)| (of(a), of(b))).collect()
    };
    figures.into_iter().map(|(name, of)| (name.to_owned(), pairs(of))).collect()
}

/// Two comparisons: the rounds are the pairs.
fn compare_pairs(before: &CompareReport, after: &CompareReport) -> Vec<Pairs> {
    type Of = fn(&Sample) -> Option<f64>;
    fn latency(sample: &Sample, of: fn(&Distribution) -> f64) -> Option<f64> {
        (sample.latency.count > 0).then(|| of(&sample.latency))
    }
    let figures: [(&str, Of); 6] = [
        ("p50 us", |s| latency(s, |d| d.p50)),
        ("p99 us", |s| latency(s, |d| d.p99)),
        ("p99.9 us", |s| latency(s, |d| d.p999)),
        ("rate", |s| (s.rate > 0.0).then_some(s.rate)),
        ("CPU s", |s| s.cpu_per_unit().filter(|cpu| *cpu > 0.0)),
        ("RSS MB", |s| (s.rss_bytes > 0).then(|| crate::clock::float(s.rss_bytes) / 1e6)),
    ];
    let mut keys: Vec<(Scenario, &str)> =
        before.samples.iter().map(|s| (s.scenario, s.subject.as_str())).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut all = Vec::new();
    for (scenario, subject) in keys {
        for (name, of) in figures {
            let find = |report: &CompareReport, round, is_clean: bool| {
                let is_it = |s: &&Sample| {
                    let is_good = s.failure.is_none() && !(is_clean && s.is_disturbed);
                    s.subject == subject && s.scenario == scenario && s.round == round && is_good
                };
                of(report.samples.iter().find(is_it)?)
            };
            let pairs = |is_clean| -> Vec<(f64, f64)> {
                let pair =
                    |round| Some((find(before, round, is_clean)?, find(after, round, is_clean)?));
                (1..=before.rounds).filter_map(pair).collect()
            };
            let (mut name, mut found) =
                (format!("{} {subject} {name}", scenario.name()), pairs(true));
            if found.is_empty() {
                name += " (disturbed)";
                found = pairs(false);
            }
            if !found.is_empty() {
                all.push((name, found));
            }
        }
    }
    all
}

/// A row for each figure, below the head.
fn rows(all: &[Pairs]) -> Vec<Vec<String>> {
    let head = ["", "A", "B", "B - A (mean)", "95 % interval", "pairs", "finding"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, pairs) in all {
        let Some(difference) = Difference::of(pairs) else { continue };
        rows.push(vec![
            name.clone(),
            format!("{:.2}", difference.before),
            format!("{:.2}", difference.after),
            format!("{:+.2}", difference.mean),
            format!("{:+.2}..{:+.2}", difference.low, difference.high),
            difference.pair_count.to_string(),
            match difference.finding() {
                Finding::TooFewPairs => format!("fewer than {PAIR_COUNT_MIN} pairs: no verdict"),
                Finding::WithinNoise => "within the noise".to_owned(),
                Finding::Lower => "LOWER beyond the noise".to_owned(),
                Finding::Higher => "HIGHER beyond the noise".to_owned(),
            },
        ]);
    }
    rows
}
