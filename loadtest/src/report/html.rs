//! One page that needs nothing else: curves, time line and tables, readable in ten years.

use std::fmt::Write as _;

use crate::clock::{float, micros};
use crate::report::svg::{Axis, Curve, chart, escape};
use crate::report::{RunReport, table};
use crate::stats::Distribution;

/// What a page shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) title: String,
    /// Where and when.
    pub(crate) subtitle: String,
    pub(crate) sections: Vec<Section>,
}

/// A heading, and what is below it.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) heading: String,
    pub(crate) parts: Vec<Part>,
}

/// Something to show.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Text(String),
    /// Names and figures that matter most.
    Tiles(Vec<(&'static str, String)>),
    /// The first row is the head.
    Table(Vec<Vec<String>>),
    /// SVG.
    Drawing(String),
}

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1f2328;--dim:#656d76;--bg:#f6f8fa;--card:#fff;--line:#d8dee4;\
--head:#f6f8fa}\
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--dim:#8d96a0;--bg:#010409;--card:#0d1117;\
--line:#30363d;--head:#161b22}}\
*{box-sizing:border-box}body{font:14px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif;\
color:var(--fg);background:var(--bg);max-width:1180px;margin:0 auto;padding:2.2rem 1.2rem 4rem}\
header{margin:0 .2rem 1.6rem}h1{font-size:1.7rem;line-height:1.25;margin:0 0 .3rem;\
letter-spacing:-.01em}header p{color:var(--dim);margin:0}\
section{background:var(--card);border:1px solid var(--line);border-radius:10px;\
padding:1rem 1.3rem 1.3rem;margin:0 0 1.2rem}h2{font-size:1.05rem;margin:.1rem 0 .8rem}\
section p{margin:.4rem 0;max-width:62rem}svg{display:block;width:100%;height:auto;\
font:11px system-ui,sans-serif;margin:.6rem 0}svg text{fill:var(--fg)}\
.grid{stroke:var(--line);stroke-width:.6}.curve{fill:none;stroke-width:1.8;stroke-linejoin:round}\
.scroll{overflow-x:auto;margin:.7rem 0}\
table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}\
th,td{padding:.3rem .5rem;text-align:right;border-bottom:1px solid var(--line);\
white-space:nowrap}th{background:var(--head);color:var(--dim);font-weight:600;font-size:.86em}\
th:first-child,td:first-child{text-align:left}td:first-child{font-weight:600}\
tr:last-child td{border-bottom:0}td small{color:var(--dim);font-size:.8em}\
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:.2rem 0 .9rem}\
.tiles div{flex:1 1 8rem;background:var(--head);border:1px solid var(--line);border-radius:8px;\
padding:.6rem .9rem}.tiles b{display:block;font-size:1.45rem;line-height:1.3;\
font-variant-numeric:tabular-nums}.tiles span{color:var(--dim);font-size:.86em}";

/// The whole file.
pub(crate) fn page(page: &Page) -> String {
    let title = escape(&page.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n\
         <header><h1>{title}</h1><p>{}</p></header>\n",
        escape(&page.subtitle)
    );
    for section in &page.sections {
        let _ = writeln!(out, "<section><h2>{}</h2>", escape(&section.heading));
        for part in &section.parts {
            match part {
                Part::Text(text) => {
                    let _ = writeln!(out, "<p>{}</p>", escape(text));
                }
                Part::Drawing(svg) => out.push_str(svg),
                Part::Table(rows) => push_table(&mut out, rows),
                Part::Tiles(tiles) => {
                    out.push_str("<div class=\"tiles\">");
                    for (name, value) in tiles {
                        let (name, value) = (escape(name), escape(value));
                        let _ = write!(out, "<div><b>{value}</b><span>{name}</span></div>");
                    }
                    out.push_str("</div>\n");
                }
            }
        }
        out.push_str("</section>\n");
    }
    out.push_str("</body></html>\n");
    out
}

fn push_table(out: &mut String, rows: &[Vec<String>]) {
    out.push_str("<div class=\"scroll\"><table>\n");
    for (index, row) in rows.iter().enumerate() {
        let cell = if index == 0 { "th" } else { "td" };
        out.push_str("<tr>");
        for text in row {
            // The spread behind a median is there for who looks for it.
            let (figure, spread) = text.split_once(" [").unwrap_or((text, ""));
            let _ = write!(out, "<{cell}>{}", escape(figure));
            if !spread.is_empty() {
                let _ = write!(out, " <small>[{}</small>", escape(spread));
            }
            let _ = write!(out, "</{cell}>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

/// The page of one run.
pub(crate) fn of_run(report: &RunReport) -> Page {
    let setting = &report.setting;
    let mut curves = vec![percentile_curve("latency", &report.latency)];
    if setting.rate.is_some() && !report.service.buckets.is_empty() {
        curves.push(percentile_curve("from the real start", &report.service));
    }
    let machine = &report.machine;
    let text = table::run(report);
    let summary = text.lines().take(2).collect::<Vec<_>>().join(" · ");
    Page {
        title: format!("{} against {}", setting.scenario, setting.target),
        subtitle: format!(
            "{} · Linux {} · {} x {} · {} · netra-loadtest {}",
            machine.date,
            machine.kernel,
            machine.cpu_count,
            machine.cpu,
            machine.congestion_control,
            machine.version
        ),
        sections: vec![
            Section {
                heading: "Summary".to_owned(),
                parts: vec![
                    Part::Tiles(tiles(report)),
                    Part::Text(summary),
                    Part::Text(format!("Generator: {}.", table::verdict(report))),
                    Part::Table(figures(report)),
                ],
            },
            Section {
                heading: "Latency by percentile".to_owned(),
                parts: vec![Part::Drawing(percentile_chart(&curves, report.latency.count))],
            },
            Section { heading: "Time line".to_owned(), parts: time_line(report) },
        ],
    }
}

fn tiles(report: &RunReport) -> Vec<(&'static str, String)> {
    let micros = |value: f64| match value {
        value if value < 1e3 => format!("{value:.0} us"),
        value if value < 1e6 => format!("{:.1} ms", value / 1e3),
        value => format!("{:.2} s", value / 1e6),
    };
    let latency = &report.latency;
    vec![
        ("p50", micros(latency.p50)),
        ("p99", micros(latency.p99)),
        ("p99.9", micros(latency.p999)),
        ("max", micros(latency.max)),
        ("answers per second", format!("{:.0}", report.rate)),
        ("failed", report.counts.failed().to_string()),
    ]
}

fn figures(report: &RunReport) -> Vec<Vec<String>> {
    let head = ["microseconds", "count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, d) in [
        ("latency", &report.latency),
        ("from the real start", &report.service),
        ("generator lateness", &report.generator.lateness),
        ("connect", &report.connect),
    ] {
        if d.count > 0 {
            let values = [d.mean, d.p50, d.p90, d.p99, d.p999, d.p9999, d.max];
            let mut row = vec![name.to_owned(), d.count.to_string()];
            row.extend(values.map(|value| format!("{value:.1}")));
            rows.push(row);
        }
    }
    rows
}

/// Points of a percentile curve: nines to the right, microseconds upwards.
pub(crate) fn percentile_curve(name: &str, distribution: &Distribution) -> Curve {
    let histogram = distribution.histogram();
    let total = float(histogram.len()).max(1.0);
    let points = histogram
        .iter_quantiles(8)
        .filter(|step| step.count_at_value() > 0 || step.quantile_iterated_to() < 1.0)
        .map(|step| {
            // The last sample stands for one part in `total`, not for infinitely many nines.
            let rest = (1.0 - step.quantile_iterated_to()).max(0.5 / total);
            (-rest.log10(), micros(step.value_iterated_to().min(histogram.max())))
        })
        .collect();
    Curve { name: name.to_owned(), points }
}

/// A chart of percentile curves.
pub(crate) fn percentile_chart(curves: &[Curve], count: u64) -> String {
    let values = curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1));
    let (x, y) = (Axis::nines(count), Axis::log(values));
    chart("Latency by percentile", ("percentile", &x), ("microseconds", &y), curves)
}

fn time_line(report: &RunReport) -> Vec<Part> {
    let curve = |name: &str, value: fn(&crate::stats::Moment) -> f64| Curve {
        name: name.to_owned(),
        points: report.moments.iter().map(|moment| (moment.at, value(moment))).collect(),
    };
    let latencies = [curve("p50", |m| m.p50), curve("p99", |m| m.p99), curve("max", |m| m.max)];
    let rates = [curve("answers/s", |m| m.rate)];
    let x = Axis::linear(report.moments.iter().map(|moment| moment.at));
    let values = |curves: &[Curve]| {
        curves.iter().flat_map(|c| c.points.iter().map(|p| p.1)).collect::<Vec<_>>().into_iter()
    };
    let (y, y_rate) = (Axis::log(values(&latencies)), Axis::linear(values(&rates)));
    vec![
        Part::Drawing(chart(
            "Latency over time",
            ("seconds", &x),
            ("microseconds", &y),
            &latencies,
        )),
        Part::Drawing(chart("Rate over time", ("seconds", &x), ("per second", &y_rate), &rates)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::histogram;

    #[test]
    fn a_percentile_curve_rises_and_ends_at_the_maximum() {
        let mut values = histogram();
        for value in 1..=1_000_u64 {
            values.record(value * value).expect("within bounds");
        }
        let curve = percentile_curve("x", &Distribution::with_buckets(&values));
        assert!(curve.points.windows(2).all(|p| p[0].0 <= p[1].0 && p[0].1 <= p[1].1));
        let last = curve.points.last().expect("points");
        assert!((last.1 - 1_000.0).abs() < 2.0 && last.0 > 3.0 && last.0 < 3.4, "{last:?}");
    }

    #[test]
    fn a_page_is_complete_and_refers_to_nothing_outside() {
        let page = page(&Page {
            title: "<script>".to_owned(),
            subtitle: String::new(),
            sections: vec![Section {
                heading: "h".to_owned(),
                parts: vec![
                    Part::Text("a & b".to_owned()),
                    Part::Table(vec![vec!["x".to_owned()], vec!["<1>".to_owned()]]),
                ],
            }],
        });
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(page.contains("<td>&lt;1&gt;</td>") && page.contains("<p>a &amp; b</p>"));
        for outside in ["<script", "http:", "https:", "src=", "url(", "@import", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
