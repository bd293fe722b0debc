//! netra's metrics, read as anybody would read them.

/// A text of metrics, to be asked.
#[derive(Debug)]
pub(super) struct Metrics(pub(super) String);

impl Metrics {
    fn matching<'m>(
        &'m self,
        name: &'m str,
        labels: &'m [(&str, &str)],
    ) -> impl Iterator<Item = f64> + 'm {
        self.0.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, with) = series.split_once('{').unwrap_or((series, ""));
            let all =
                labels.iter().all(|(key, value)| with.contains(&format!("{key}=\"{value}\"")));
            (found == name && all).then(|| value.parse().ok())?
        })
    }

    /// All series of this name with these labels together.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).sum()
    }

    /// How many series have this name.
    pub(super) fn series(&self, name: &str) -> usize {
        self.matching(name, &[]).count()
    }

    /// Mean and count of a histogram that has anything.
    pub(super) fn mean_micros(&self, name: &str, labels: &[(&str, &str)]) -> Option<(f64, f64)> {
        let count = self.sum(&format!("{name}_count"), labels);
        let sum = self.sum(&format!("{name}_sum"), labels);
        (count > 0.0).then(|| (sum / count * 1e6, count))
    }
}
