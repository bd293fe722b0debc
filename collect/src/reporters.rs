//! Who sends spans: sidecars and clients, by what they say of themselves.

use crate::batch::{Item, Value};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

pub(crate) const REPORTERS_MAX: usize = 4096;
const TAG_MAX: usize = 200;
const TAGS_MAX: usize = 32;

/// One process that sends spans.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reporter {
    pub(crate) service: Box<str>,
    /// What it says of itself, but for its service's name.
    pub(crate) tags: Vec<(Box<str>, Box<str>)>,
    pub(crate) spans: u64,
    pub(crate) errors: u64,
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    /// What its own metrics said, if it was asked.
    pub(crate) series: Vec<(Box<str>, f64)>,
}

impl Reporter {
    /// What it weighs, with its place in the table.
    fn bytes(&self) -> usize {
        let tags = self.tags.iter().map(|(key, value)| key.len() + value.len() + 32);
        size_of::<Self>() * 2 + self.service.len() + TAG_MAX + tags.sum::<usize>()
    }

    pub(crate) fn tag(&self, keys: &[&str]) -> Option<&str> {
        let mut tags = self.tags.iter();
        tags.find(|(key, _)| keys.contains(&&**key)).map(|(_, value)| &**value)
    }
}

/// All of them, by service and instance; the one that was silent longest makes room.
#[derive(Debug)]
pub(crate) struct Reporters {
    pub(crate) all: HashMap<(u32, Box<str>), Reporter, FixedState>,
    pub(crate) forgotten: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Reporters {
    /// None yet, and no more than weigh so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { all: HashMap::default(), forgotten: 0, bytes: 0, bytes_max }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A process of the service of this node sent spans.
    pub(crate) fn note<'t>(
        &mut self,
        (node, service): (u32, &str),
        items: impl Iterator<Item = Item<&'t str>> + Clone,
        (spans, errors): (u64, u64),
        now_ns: u64,
    ) {
        let instance = instance(items.clone());
        let instance = &instance[..instance.floor_char_boundary(TAG_MAX)];
        let key = (node, Box::from(instance));
        if !self.all.contains_key(&key) {
            if self.all.len() >= REPORTERS_MAX
                || self.bytes > self.bytes_max && !self.all.is_empty()
            {
                self.forget_silent();
            }
            let reporter = Reporter {
                service: service.into(),
                tags: tags(items),
                first_ns: now_ns,
                ..Reporter::default()
            };
            self.bytes += reporter.bytes();
            self.all.insert(key.clone(), reporter);
        }
        if let Some(reporter) = self.all.get_mut(&key) {
            reporter.spans += spans;
            reporter.errors += errors;
            reporter.last_ns = now_ns;
        }
    }

    /// Half of them, so that a flood of new ones does not look for the oldest each time.
    fn forget_silent(&mut self) {
        let mut times: Vec<u64> = self.all.values().map(|reporter| reporter.last_ns).collect();
        let middle = times.len() / 2;
        let (_, least, _) = times.select_nth_unstable(middle);
        let least = *least;
        let before = self.all.len();
        self.all.retain(|_, reporter| reporter.last_ns > least);
        self.bytes = self.all.values().map(Reporter::bytes).sum();
        self.forgotten += (before - self.all.len()) as u64;
    }
}

const INSTANCES: [&str; 5] = ["service.instance.id", "client-uuid", "host.name", "hostname", "ip"];

/// What tells it from others of its service.
fn instance<'t>(items: impl Iterator<Item = Item<&'t str>>) -> &'t str {
    let mut best = (INSTANCES.len(), "");
    for item in items {
        if let Item::Tag(key, Value::Text(value)) = item
            && let Some(rank) = INSTANCES.iter().position(|known| *known == key)
            && rank < best.0
        {
            best = (rank, value);
        }
    }
    best.1
}

fn tags<'t>(items: impl Iterator<Item = Item<&'t str>>) -> Vec<(Box<str>, Box<str>)> {
    let texts = items.filter_map(|item| match item {
        Item::Tag(key, Value::Text(value)) => Some((key, value.to_owned())),
        Item::Tag(key, Value::Int(value)) => Some((key, value.to_string())),
        Item::Tag(key, Value::Bool(value)) => Some((key, value.to_string())),
        Item::Tag(key, Value::Float(value)) => Some((key, value.to_string())),
        _ => None,
    });
    let cut = |text: &str| Box::from(&text[..text.floor_char_boundary(TAG_MAX)]);
    texts.take(TAGS_MAX).map(|(key, value)| (cut(key), cut(&value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(reporters: &mut Reporters, instance: &str, now_ns: u64) {
        let items = [
            Item::Tag("ip", Value::Text("10.0.0.1")),
            Item::Tag("client-uuid", Value::Text(instance)),
            Item::Tag("jaeger.version", Value::Text("netra-0.1.0")),
        ];
        reporters.note((1, "shop"), items.into_iter(), (2, 1), now_ns);
    }

    #[test]
    fn reporters_are_told_apart_and_counted() {
        let mut reporters = Reporters::new(8 << 20);
        for (instance, now) in [("a", 1), ("b", 2), ("a", 3)] {
            note(&mut reporters, instance, now);
        }
        assert_eq!(reporters.all.len(), 2);
        let a = &reporters.all[&(1, "a".into())];
        assert_eq!((a.spans, a.errors, a.first_ns, a.last_ns), (4, 2, 1, 3));
        assert_eq!(a.tag(&["telemetry.sdk.version", "jaeger.version"]), Some("netra-0.1.0"));
    }

    #[test]
    fn there_are_no_more_than_the_cap() {
        let mut reporters = Reporters::new(8 << 20);
        for n in 0..3 * REPORTERS_MAX as u64 {
            note(&mut reporters, &n.to_string(), n);
        }
        assert!(reporters.all.len() <= REPORTERS_MAX);
        assert!(reporters.all.contains_key(&(1, "12287".into())));
        assert!(reporters.forgotten > 4096);
        let mut small = Reporters::new(100_000);
        for n in 0..2_000 {
            note(&mut small, &n.to_string(), n);
        }
        assert!(small.bytes() < 110_000 && small.all.len() > 20, "{}", small.bytes());
    }
}
