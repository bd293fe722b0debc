//! Curves as inline SVG: no script, no font, no file besides.

use std::fmt::Write as _;

/// Size of the drawing and of its margins.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 160.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;
/// Told apart also by those who do not see red and green alike (Okabe and Ito).
pub(crate) const COLORS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8b6914", "#777777"];

/// A named line through points.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A scale of the drawing, with the values to mark.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    marks: Vec<(f64, String)>,
}

impl Axis {
    /// Powers of ten around the values.
    pub(crate) fn log(values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min).log10().floor();
        let high = values.iter().copied().fold(0.0, f64::max).log10().ceil();
        let (low, high) = if values.is_empty() { (0.0, 1.0) } else { (low, high.max(low + 1.0)) };
        let mut marks = Vec::new();
        let mut power = low;
        while power <= high {
            marks.push((10_f64.powf(power), readable(10_f64.powf(power))));
            power += 1.0;
        }
        Self { low, high, is_log: true, marks }
    }

    /// From zero to the highest value.
    pub(crate) fn linear(values: impl Iterator<Item = f64>) -> Self {
        let high = values.fold(0.0, f64::max).max(1e-9);
        let step = nice_step(high / 5.0);
        let high = (high / step).ceil() * step;
        let mut marks = Vec::new();
        let mut at = 0.0;
        while at <= high * 1.001 {
            marks.push((at, readable(at)));
            at += step;
        }
        Self { low: 0.0, high, is_log: false, marks }
    }

    /// Percentiles by the number of nines: 0 is the minimum, 3 is p99.9.
    pub(crate) fn nines(count: u64) -> Self {
        let high = crate::clock::float(count.max(10)).log10().ceil().clamp(1.0, 6.0);
        let names = [
            (0.0, "p0"),
            (0.301, "p50"),
            (1.0, "p90"),
            (2.0, "p99"),
            (3.0, "p99.9"),
            (4.0, "p99.99"),
        ];
        let marks = names
            .iter()
            .filter(|(at, _)| *at <= high)
            .map(|&(at, name)| (at, name.to_owned()))
            .collect();
        Self { low: 0.0, high, is_log: false, marks }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let value = if self.is_log { value.max(1e-12).log10() } else { value };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

fn nice_step(about: f64) -> f64 {
    let power = 10_f64.powf(about.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= about);
    factor.unwrap_or(10.0) * power
}

/// A number in as few characters as a mark has room for.
fn readable(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value if value == value.round() => format!("{value:.0}"),
        value => format!("{:.4}", value).trim_end_matches('0').to_owned(),
    }
}

/// A chart with a legend.
pub(crate) fn chart(title: &str, x: (&str, &Axis), y: (&str, &Axis), curves: &[Curve]) -> String {
    let (inner_width, inner_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let at_x = |value: f64| LEFT + x.1.place(value) * inner_width;
    let at_y = |value: f64| TOP + (1.0 - y.1.place(value)) * inner_height;
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\">\
         <title>{0}</title>\n",
        escape(title)
    );
    let (bottom, right) = (TOP + inner_height, LEFT + inner_width);
    for (value, text) in &x.1.marks {
        let at = at_x(*value);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            bottom + 16.0
        );
    }
    for (value, text) in &y.1.marks {
        let at = at_y(*value);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        LEFT + inner_width / 2.0,
        HEIGHT - 6.0,
        escape(x.0),
        TOP + inner_height / 2.0,
        escape(y.0)
    );
    for (index, curve) in curves.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let points: Vec<String> =
            curve.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", at_x(x), at_y(y))).collect();
        let down = TOP + 10.0 + 16.0 * crate::clock::float(index as u64);
        let _ = writeln!(
            out,
            "<polyline class=\"curve\" stroke=\"{color}\" points=\"{}\"/>\
             <line class=\"curve\" stroke=\"{color}\" x1=\"{:.1}\" y1=\"{down}\" x2=\"{:.1}\" \
             y2=\"{down}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            points.join(" "),
            right + 10.0,
            right + 28.0,
            right + 33.0,
            down + 4.0,
            escape(&curve.name)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Text that means nothing to a browser.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values_and_mark_them() {
        let log = Axis::log([12.0, 4_000.0].into_iter());
        assert_eq!((log.low, log.high), (1.0, 4.0));
        assert!((log.place(100.0) - 1.0 / 3.0).abs() < 1e-9);
        let marks: Vec<&str> = log.marks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(marks, ["10", "100", "1k", "10k"]);
        let linear = Axis::linear([3.0, 17.0].into_iter());
        assert_eq!((linear.high, linear.marks.len()), (20.0, 5));
        assert_eq!(Axis::log(std::iter::empty()).marks.len(), 2);
        assert_eq!(Axis::nines(100_000).marks.last().map(|mark| mark.1.as_str()), Some("p99.99"));
    }

    #[test]
    fn a_chart_stays_within_its_frame_and_names_its_curves() {
        let points = vec![(0.0, 1.0), (1.0, 50.0), (2.0, 1e9)];
        let curves = [Curve { name: "a<b>&\"c\"".to_owned(), points }];
        let (x, y) = (Axis::nines(100), Axis::log([1.0, 100.0].into_iter()));
        let text = chart("t", ("percentile", &x), ("us", &y), &curves);
        assert!(text.contains("a&lt;b&gt;&amp;&quot;c&quot;"));
        let drawn = text.split("points=\"").nth(1).and_then(|t| t.split('"').next()).unwrap();
        for point in drawn.split(' ') {
            let (x, y) = point.split_once(',').expect("a pair");
            assert!((LEFT..=WIDTH - RIGHT).contains(&x.parse().unwrap()), "{point}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y.parse().unwrap()), "{point}");
        }
    }
}
