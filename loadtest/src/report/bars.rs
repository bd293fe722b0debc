//! Bars in panels as one SVG that stands alone: the picture of a comparison.

use std::fmt::Write as _;

use crate::report::svg::{COLORS, escape};

const WIDTH: f64 = 880.0;
/// Width of a panel, and of the names before its bars and the values behind them.
const PANEL: f64 = 430.0;
const NAMES: f64 = 118.0;
const VALUES: f64 = 62.0;
const ROW: f64 = 19.0;
const BAR: f64 = 12.0;
/// Above the first bar of a panel, and below its last.
const HEAD: f64 = 34.0;
const FOOT: f64 = 14.0;
const TOP: f64 = 30.0;

/// One figure of every subject.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// Name, value, and index of the colour.
    pub(crate) bars: Vec<(String, f64, usize)>,
}

const STYLE: &str = "\
.bars text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}\
.bars .title{font-weight:600;font-size:12.5px}.bars .note{font-size:11px;fill:#6e7781}\
.bars .value{font-variant-numeric:tabular-nums;fill:#57606a}\
.bars .sheet{fill:#fff;stroke:#d0d7de}.bars .rail{fill:#eaeef2}\
@media(prefers-color-scheme:dark){.bars text{fill:#e6edf3}\
.bars .note,.bars .value{fill:#8d96a0}.bars .sheet{fill:#0d1117;stroke:#30363d}\
.bars .rail{fill:#21262d}}";

/// The panels two by two; `note` says where and when.
pub(crate) fn picture(note: &str, panels: &[Panel]) -> String {
    let most = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    let tall = HEAD + ROW * crate::clock::float(most as u64) + FOOT;
    let lines = panels.len().div_ceil(2);
    let height = TOP + tall * crate::clock::float(lines as u64) + 6.0;
    let mut out = format!(
        "<svg class=\"bars\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"What a sidecar costs\"><style>{STYLE}</style>\n\
         <rect class=\"sheet\" x=\"0.5\" y=\"0.5\" width=\"{:.1}\" height=\"{:.1}\" rx=\"6\"/>\
         <text class=\"note\" x=\"16\" y=\"22\">{}</text>\n",
        WIDTH - 1.0,
        height - 1.0,
        escape(note)
    );
    for (index, panel) in panels.iter().enumerate() {
        let (column, line) = ((index % 2) as u64, (index / 2) as u64);
        let left = 16.0 + crate::clock::float(column) * PANEL;
        let top = TOP + crate::clock::float(line) * tall;
        push_panel(&mut out, panel, left, top);
    }
    out.push_str("</svg>\n");
    out
}

fn push_panel(out: &mut String, panel: &Panel, left: f64, top: f64) {
    let longest = panel.bars.iter().map(|bar| bar.1).fold(0.0, f64::max).max(1e-9);
    let room = PANEL - NAMES - VALUES - 24.0;
    let _ = writeln!(
        out,
        "<text class=\"title\" x=\"{left}\" y=\"{:.1}\">{}</text>",
        top + 22.0,
        escape(&panel.title)
    );
    for (index, (name, value, color)) in panel.bars.iter().enumerate() {
        let y = top + HEAD + ROW * crate::clock::float(index as u64);
        let (middle, start) = (y + BAR - 1.5, left + NAMES);
        let length = (value / longest).clamp(0.0, 1.0) * room;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"rail\" x=\"{start:.1}\" y=\"{y:.1}\" width=\"{room:.1}\" \
             height=\"{BAR}\" rx=\"2\"/><rect fill=\"{}\" x=\"{start:.1}\" y=\"{y:.1}\" \
             width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{middle:.1}\">{}</text>",
            start - 8.0,
            escape(name),
            COLORS[color % COLORS.len()],
            start + room + 7.0,
            figure(*value)
        );
    }
}

/// A value with three digits that matter.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_its_rail_and_none_leaves_it() {
        let bar = |name: &str, value| (name.to_owned(), value, 0);
        let bars = vec![bar("a<b", 12.5), bar("c", 25.0), bar("d", -3.0)];
        let text = picture("n & m", &[Panel { title: "t".to_owned(), bars }]);
        assert!(text.contains("a&lt;b") && text.contains("n &amp; m"));
        let widths: Vec<f64> = text
            .split("<rect fill=")
            .skip(1)
            .map(|bar| bar.split("width=\"").nth(1).unwrap().split('"').next().unwrap())
            .map(|width| width.parse().unwrap())
            .collect();
        let room = PANEL - NAMES - VALUES - 24.0;
        assert_eq!(widths, [room / 2.0, room, 0.0]);
    }

    #[test]
    fn figures_have_three_digits() {
        let shown = [1234.5, 12.34, 1.234, 0.0].map(figure);
        assert_eq!(shown, ["1234", "12.3", "1.23", "0.00"]);
    }
}
