//! A trace as a waterfall for a terminal of 100 columns.

use super::trace::Row;
use std::fmt::Write;
use std::io::{IsTerminal, stdout};

/// Columns in front of the bars, and of the bars.
const LABEL: usize = 28;
const OPERATION: usize = 16;
/// Of how a call is joined.
const JOIN: usize = 10;
const BAR: usize = 16;

/// Colours of services, in the order of their appearance.
const COLOURS: [&str; 5] = ["36", "33", "35", "32", "34"];

/// Colours, where they can be seen and nobody minds (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn for_stdout() -> Self {
        let minded = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(stdout().is_terminal() && !minded)
    }

    fn with(self, colour: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A line for each span: who, what, when and for how long, and a bar.
pub(super) fn draw(rows: &[Row], paint: Paint) -> String {
    let begin = rows.iter().map(|row| row.span.start_us).min().unwrap_or_default();
    let ends = rows.iter().map(|row| row.span.start_us.saturating_add(row.span.duration_us));
    let total = ends.max().map_or(0, |end| end.saturating_sub(begin));
    let mut out = paint.with("2", &heading(total)) + "\n";
    let mut services: Vec<&str> = Vec::new();
    for Row { depth, span } in rows {
        let known = services.iter().position(|service| *service == span.service);
        let index = known.unwrap_or_else(|| {
            services.push(&span.service);
            services.len() - 1
        });
        let colour = COLOURS[index % COLOURS.len()];
        let label = format!("{}{} {}", " ".repeat(*depth), span.service, span.kind());
        let label = paint.with(colour, &format!("{:<LABEL$}", clip(&label, LABEL - 1)));
        let (start, took) = (span.start_us.saturating_sub(begin), span.duration_us);
        let bar = paint.with(colour, &bar(start, took, total));
        let number = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let (status, netra) = (number(span.status()), number(span.overhead_us()));
        let operation = clip(&span.operation, OPERATION - 1);
        let join = clip(span.join(), JOIN - 1);
        // A string takes everything.
        let _ = writeln!(
            out,
            "  {label}{operation:<OPERATION$}{join:<JOIN$}{status:>6}{start:>7}{took:>7}{netra:>6}  {bar}"
        );
    }
    out
}

fn heading(total: i64) -> String {
    let end = format!("{total} µs");
    let rest = BAR - 1;
    format!(
        "  {:<LABEL$}{:<OPERATION$}{:<JOIN$}{:>6}{:>7}{:>7}{:>6}  0{end:>rest$}",
        "", "operation", "joined", "status", "start", "took", "netra"
    )
}

/// From `start` for `took` of `total`, to half a column, at least half a column long.
fn bar(start: i64, took: i64, total: i64) -> String {
    let halves = 2 * BAR as i64;
    let place = |time: i64| time.saturating_mul(halves) / total.max(1);
    let from = place(start).clamp(0, halves - 1);
    let until = place(start.saturating_add(took)).clamp(from + 1, halves);
    let lit = |half: i64| (from..until).contains(&half);
    let cells = (0..BAR as i64).map(|cell| match (lit(2 * cell), lit(2 * cell + 1)) {
        (true, true) => '█',
        (true, false) => '▌',
        (false, true) => '▐',
        (false, false) => ' ',
    });
    cells.collect::<String>().trim_end().to_owned()
}

fn clip(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::trace::{join, tests::span};
    use super::*;

    fn rows() -> Vec<Row> {
        join(vec![
            span("front", "server", (1, 0), 1_000),
            span("front", "client", (2, 1), 1_010),
            span("stock-canary", "server", (3, 2), 1_045),
        ])
    }

    #[test]
    fn bars_stand_where_the_time_is() {
        let drawn = draw(&rows(), Paint(false));
        let wanted = "                              \
             operation       joined    status  start   took netra  0         100 µs
  front server                front.demo/path              200      0    100    12  ████████████████
   front client               front.demo/path explicit     200     10     80    12   ▐████████████
    stock-canary server       stock-canary.d…              200     45     10    12         █▌
";
        assert_eq!(drawn, wanted);
    }

    #[test]
    fn no_line_is_wider_than_100_columns() {
        let mut rows = rows();
        for (depth, row) in rows.iter_mut().enumerate() {
            row.depth = depth * 40;
            row.span.operation = "/é".repeat(100);
            (row.span.start_us, row.span.duration_us) = (1_000 + depth as i64, 9_999_998);
        }
        for line in draw(&rows, Paint(false)).lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn odd_times_are_drawn_as_well() {
        for (start, took, total) in [(0, 0, 0), (-5, 3, 10), (9, i64::MAX, 10), (20, 1, 10)] {
            let bar = bar(start, took, total);
            assert!((1..=BAR).contains(&bar.chars().count()), "{bar:?} of {start} {took} {total}");
        }
        assert!(!draw(&[], Paint(false)).is_empty());
    }

    #[test]
    fn colours_come_only_when_wanted_and_change_nothing_else() {
        let (plain, painted) = (draw(&rows(), Paint(false)), draw(&rows(), Paint(true)));
        assert!(!plain.contains('\x1b') && painted.contains("\x1b[33m"));
        let mut stripped = painted;
        for code in ["\x1b[0m", "\x1b[2m", "\x1b[36m", "\x1b[33m"] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, plain);
    }
}
