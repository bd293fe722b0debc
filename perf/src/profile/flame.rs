//! A flame graph as one SVG without scripts: wide is much, up is inward, names on hover.

use super::Profile;
use std::fmt::Write;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 18.0;
/// Narrower boxes are left out; nobody could see them.
const NARROWEST: f64 = 0.4;
/// Boxes there are at most: 1 MB of text. Of more the narrowest are left out, too.
const BOXES_MAX: usize = 4096;
const LETTER: f64 = 6.6;
const HEADER: f64 = 34.0;

/// A function on the way from the root, with what was seen of it.
#[derive(Default)]
struct Node<'n> {
    name: &'n str,
    count: i64,
    /// By name. Most have one: a map would be ten times as large.
    inner: Vec<Self>,
}

impl<'n> Node<'n> {
    fn add(&mut self, mut path: impl Iterator<Item = &'n str>, count: i64) {
        self.count += count;
        let Some(name) = path.next() else { return };
        let at = match self.inner.binary_search_by_key(&name, |inner| inner.name) {
            Ok(at) => at,
            Err(at) => {
                self.inner.reserve_exact(1);
                self.inner.insert(at, Self { name, ..Self::default() });
                at
            }
        };
        self.inner[at].add(path, count);
    }

    fn depth(&self) -> u16 {
        self.inner.iter().map(Self::depth).max().map_or(1, |inner| inner.saturating_add(1))
    }

    /// Boxes of at least so many samples.
    #[allow(clippy::cast_precision_loss)]
    fn boxes(&self, least: f64) -> usize {
        if (self.count as f64) < least {
            return 0;
        }
        1 + self.inner.iter().map(|inner| inner.boxes(least)).sum::<usize>()
    }
}

impl Profile {
    /// By the first of its values.
    pub fn to_flame_graph(&self, title: &str) -> String {
        let mut root = Node::default();
        for row in &self.rows {
            root.add(row.path(), row.values.first().copied().unwrap_or(0));
        }
        let height = f64::from(root.depth()) * ROW + HEADER;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"11\">\n\
             <style>g:hover rect{{stroke:#000}}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fffdf8\"/>\n\
             <text x=\"8\" y=\"20\" font-size=\"14\">{}</text>\n",
            escaped(title)
        );
        let picture = Picture::of(&root, height - ROW);
        picture.draw(&mut out, "all", &root, 0.0, 0);
        out.push_str("</svg>\n");
        out
    }
}

struct Picture {
    total: i64,
    floor: f64,
    /// Narrower boxes are left out.
    narrowest: f64,
}

impl Picture {
    #[allow(clippy::cast_precision_loss)]
    fn of(root: &Node<'_>, floor: f64) -> Self {
        let total = root.count.max(1);
        let mut narrowest = NARROWEST;
        while root.boxes(narrowest / WIDTH * total as f64) > BOXES_MAX {
            narrowest *= 2.0;
        }
        Self { total, floor, narrowest }
    }

    #[allow(clippy::cast_precision_loss)]
    fn draw(&self, out: &mut String, name: &str, node: &Node<'_>, x: f64, level: u16) {
        let share = node.count as f64 / self.total as f64;
        let width = share * WIDTH;
        if width < self.narrowest {
            return;
        }
        let y = self.floor - f64::from(level) * ROW;
        let _ = write!(
            out,
            "<g><title>{}: {} ({:.1} %)</title>\
             <rect x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{}\" rx=\"2\" \
             fill=\"{}\"/>",
            escaped(name),
            node.count,
            share * 100.0,
            ROW - 1.0,
            colour(name)
        );
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let letters = (width / LETTER) as usize;
        if letters > 3 {
            let shown: String = short(name).chars().take(letters - 1).collect();
            let (x, y) = (x + 3.0, y + ROW - 6.0);
            let _ = write!(out, "<text x=\"{x:.1}\" y=\"{y:.0}\">{}</text>", escaped(&shown));
        }
        out.push_str("</g>\n");
        let mut x = x;
        for inner in &node.inner {
            self.draw(out, inner.name, inner, x, level.saturating_add(1));
            x += inner.count as f64 / self.total as f64 * WIDTH;
        }
    }
}

/// The name without the path of its crate where that only takes room: the last two parts, unless
/// there is more to it.
fn short(name: &str) -> &str {
    if name.contains('<') {
        return name;
    }
    name.rmatch_indices("::").nth(1).map_or(name, |(at, _)| &name[at + 2..])
}

/// One colour for one name: the kernel cool, the rest warm.
fn colour(name: &str) -> String {
    let hash =
        name.bytes().fold(0u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let hue = if name.starts_with("[k]") { 200 + hash % 30 } else { hash % 50 };
    format!("hsl({hue},{}%,{}%)", 65 + hash / 64 % 20, 68 + hash / 2048 % 10)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_as_wide_as_their_share() {
        let svg = super::super::example().to_flame_graph("a < b");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b") && !svg.contains("script"));
        assert!(svg.contains("<title>inlined_into&lt;T&gt;: 3 (75.0 %)</title>"), "{svg}");
        assert!(svg.contains("width=\"900.0\"") && svg.contains("width=\"300.0\""));
        // all, thread, main, inlined, leaf
        assert_eq!(svg.matches("<g>").count(), 6);
        assert!(svg.contains("height=\"124\""), "{svg}");
    }

    #[test]
    fn an_empty_profile_is_a_picture_too() {
        assert!(Profile::default().to_flame_graph("none").ends_with("</svg>\n"));
    }
}
