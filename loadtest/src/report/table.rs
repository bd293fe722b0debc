//! Reports as text for a terminal.

use std::fmt::Write as _;

use crate::report::{RunReport, Verdict};
use crate::stats::Distribution;

/// One run.
pub(crate) fn run(report: &RunReport) -> String {
    let setting = &report.setting;
    let mut out = String::new();
    let pace = match (setting.rate, setting.is_poisson) {
        (Some(rate), false) => format!("open loop, {rate:.0}/s constant"),
        (Some(rate), true) => format!("open loop, {rate:.0}/s Poisson"),
        (None, _) => "closed loop".to_owned(),
    };
    let _ = writeln!(
        out,
        "{} {}: {pace}, {} connections, {} threads, {:.1} s",
        setting.scenario, setting.target, setting.connections, setting.threads, report.seconds
    );
    let counts = &report.counts;
    let _ = writeln!(
        out,
        "  {:.0} answers/s, {} good, {} failed, {:.2} MB received, {} connections opened",
        report.rate,
        counts.good,
        counts.failed(),
        crate::clock::float(counts.bytes_received) / 1e6,
        counts.connections_opened,
    );
    for (failure, count) in &counts.failures {
        let _ = writeln!(out, "  {count} x {failure:?}");
    }
    let _ = writeln!(
        out,
        "  {:<24}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}",
        "microseconds", "mean", "p50", "p90", "p99", "p99.9", "max"
    );
    row(&mut out, "latency", &report.latency);
    if setting.rate.is_some() {
        row(&mut out, "from the real start", &report.service);
        row(&mut out, "generator lateness", &report.generator.lateness);
    }
    row(&mut out, "connect", &report.connect);
    let cpu = report.generator.cpu_seconds;
    let _ = writeln!(out, "  generator: {cpu:.2} s of CPU; {}", verdict(report));
    out
}

fn row(out: &mut String, name: &str, distribution: &Distribution) {
    if distribution.count > 0 {
        let Distribution { mean, p50, p90, p99, p999, max, .. } = distribution;
        let _ = writeln!(
            out,
            "  {name:<24}{mean:>11.1}{p50:>11.1}{p90:>11.1}{p99:>11.1}{p999:>11.1}{max:>11.1}"
        );
    }
}

/// What the figures are worth, in words.
pub(crate) fn verdict(report: &RunReport) -> &'static str {
    match report.generator.verdict {
        Verdict::Good if report.setting.rate.is_none() => {
            "closed loop: delays of the target hide the requests they delayed"
        }
        Verdict::Good => "it kept its schedule",
        Verdict::GeneratorLate => {
            "IT WAS THE BOTTLENECK: much of the latency is its own (more --threads, --busy)"
        }
        Verdict::TargetOverloaded => "the target did not keep up with the rate",
    }
}

/// Columns aligned: the first to the left, the others to the right.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = match column {
                0 => write!(out, "{cell:<width$}"),
                _ => write!(out, "  {cell:>width$}"),
            };
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = align(&[row(["name", "p50", ""]), row(["a", "+12.5", "x"])]);
        assert_eq!(text, "name    p50\na     +12.5  x\n");
    }
}
