//! The percentile distribution as HdrHistogram prints it, which plotting tools read.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::clock::float;

/// Steps per halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;
/// Nanoseconds per unit: the format is usually read as milliseconds.
const UNIT: f64 = 1e6;

/// The whole file.
pub(crate) fn percentiles(histogram: &Histogram<u64>) -> String {
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let value = float(step.value_iterated_to().min(histogram.max())) / UNIT;
        let quantile = step.quantile_iterated_to();
        let _ = write!(out, "{value:>12.6} {quantile:>14.12} {total:>10}");
        let _ = match quantile < 1.0 {
            true => writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(out, " {:>14}", "inf"),
        };
    }
    let (mean, deviation) = (histogram.mean() / UNIT, histogram.stdev() / UNIT);
    let (max, count) = (float(histogram.max()) / UNIT, histogram.len());
    let _ = writeln!(out, "#[Mean    = {mean:>12.6}, StdDeviation   = {deviation:>12.6}]");
    let _ = writeln!(out, "#[Max     = {max:>12.6}, Total count    = {count:>12}]");
    let _ =
        writeln!(out, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", histogram.buckets(), 2048);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::histogram;

    #[test]
    fn the_lines_rise_to_the_maximum_and_the_count() {
        let mut values = histogram();
        for value in 1..=10_000_u64 {
            values.record(value * 1_000).expect("within bounds");
        }
        let text = percentiles(&values);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert!(rows.len() > 20);
        for pair in rows.windows(2) {
            assert!(
                pair[0].iter().zip(&pair[1]).all(|(before, after)| before <= after),
                "{pair:?}"
            );
        }
        let last = rows.last().expect("rows");
        // Ten milliseconds, to three digits.
        assert!((last[0] - 10.0).abs() < 0.01 && last[1] == 1.0 && last[2] == 10_000.0);
        assert!(text.contains("Total count    =        10000]"));
        let p50 = rows.iter().find(|row| row[1] >= 0.5).expect("a median");
        assert!((p50[0] - 5.0).abs() < 0.01, "{p50:?}");
    }
}
