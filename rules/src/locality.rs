//! Where something stands, and who is nearer: regions, their zones, and parts of those.

use std::fmt;

/// Where something stands; what is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// The largest: `eu-west-1`.
    pub region: Box<str>,
    /// A part of it: `eu-west-1a`.
    pub zone: Box<str>,
    /// A part of that: a rack.
    pub subzone: Box<str>,
}

/// What Kubernetes and Istio call the three, as labels.
const LABELS: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];
/// Steps from the same part of a zone to anywhere.
const ANYWHERE: u8 = 3;

impl Locality {
    /// As `region/zone/subzone`.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default().into();
        Self { region: next(), zone: next(), subzone: next() }
    }

    /// As labels of an endpoint say.
    pub(crate) fn of_labels(labels: &[(String, String)]) -> Self {
        let [region, zone, subzone] = LABELS.map(|name| {
            let found = labels.iter().find(|(own, _)| own == name);
            found.map_or("", |(_, value)| value).into()
        });
        Self { region, zone, subzone }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }

    fn steps_to(&self, other: &Self) -> u8 {
        // Of Kubernetes' endpoints the zone is known and the region is not.
        let is_known = !self.region.is_empty() && !other.region.is_empty();
        if other.is_empty() || (is_known && self.region != other.region) {
            ANYWHERE
        } else if self.zone != other.zone {
            2
        } else {
            u8::from(self.subzone != other.subzone)
        }
    }

    /// Whether a pattern such as `eu-west-1/*` means it; what a pattern does not say is anything.
    fn is_of(&self, pattern: &str) -> bool {
        let own = [&self.region, &self.zone, &self.subzone];
        let mut parts = pattern.splitn(3, '/').zip(own);
        parts.all(|(part, own)| matches!(part, "" | "*") || *part == **own)
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}/{}/{}", self.region, self.zone, self.subzone);
        f.write_str(text.trim_end_matches('/'))
    }
}

/// Whether a label says where something stands.
pub(crate) fn is_of_place(label: &str) -> bool {
    LABELS.contains(&label)
}

/// Whether this may be a label of a workload, and its value.
pub fn is_label(name: &str, value: &str) -> bool {
    let is_of = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    !name.is_empty() && name.bytes().all(is_of) && value.bytes().all(is_of) && !value.contains('/')
}

/// Somebody: where it stands, if that is known, and its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) locality: Locality,
    pub(crate) labels: Vec<(String, String)>,
}

impl Here {
    /// The value of a label; where it says a place, and nobody has said it so, the place. Empty is none.
    fn value(&self, name: &str) -> &str {
        if let Some((_, value)) = self.labels.iter().find(|(own, _)| own == name) {
            return value;
        }
        let Locality { region, zone, subzone } = &self.locality;
        let places = LABELS.iter().zip([region, zone, subzone]);
        places.filter(|(label, _)| **label == name).map(|(_, it)| &**it).next().unwrap_or_default()
    }
}

/// What a document says of who is nearer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preference {
    /// Where those of a region go when nobody of it is well.
    pub(crate) failover: Vec<(String, String)>,
    /// Who is where: what parts, in percent, go where.
    pub(crate) distribute: Vec<(String, Vec<(String, u32)>)>,
    /// Labels that are the same here and there, or that have a certain value there: the more of the first
    /// ones, the nearer. As Istio's failoverPriority.
    pub(crate) labels: Vec<(String, Option<String>)>,
}

impl Preference {
    /// Whether it parts messages by percent, whoever is well.
    pub(crate) fn parts(&self) -> bool {
        !self.distribute.is_empty()
    }

    /// Whether it says anything for who is here.
    pub(crate) fn is_for(&self, own: &Here) -> bool {
        !self.labels.is_empty() || !own.locality.is_empty()
    }

    /// Labels whose own value counts, and that are none of a place.
    pub(crate) fn own_labels(&self) -> impl Iterator<Item = &str> {
        let own = self.labels.iter().filter(|(name, value)| value.is_none() && !is_of_place(name));
        own.map(|(name, _)| name.as_str())
    }

    /// For each of these, how soon it is its turn: 0 first, and nobody's turn is left out.
    pub(crate) fn levels(&self, own: &Here, of: &[Here]) -> Vec<u8> {
        let goes_to = self.failover.iter().find(|(from, _)| **from == *own.locality.region);
        let steps = |other: &Locality| match (own.locality.steps_to(other), goes_to) {
            (ANYWHERE, Some((_, to))) if **to != *other.region => ANYWHERE + 1,
            (steps, _) => steps,
        };
        let goes_by_place =
            (self.labels.is_empty() || !self.failover.is_empty()) && !own.locality.is_empty();
        let level = |other: &Here| {
            let steps = if goes_by_place { steps(&other.locality) } else { 0 };
            (self.labels.len() - self.alike(own, other), steps)
        };
        in_turn(&of.iter().map(level).collect::<Vec<_>>())
    }

    /// How many labels, from the first on, are as they should be. One that neither has is the same.
    fn alike(&self, own: &Here, other: &Here) -> usize {
        let is_same = |(name, value): &&(String, Option<String>)| {
            value.as_deref().unwrap_or_else(|| own.value(name)) == other.value(name)
        };
        self.labels.iter().take_while(is_same).count()
    }

    /// What weight each of these has, by its own and by the part of where it stands; None where nothing
    /// is said of who is here, or nobody would be left.
    pub(crate) fn weights(&self, own: &Locality, of: &[(Locality, u32)]) -> Option<Vec<u32>> {
        let (_, parts) = self.distribute.iter().find(|(from, _)| own.is_of(from))?;
        let part_of = |other: &Locality| parts.iter().position(|(to, _)| other.is_of(to));
        let places: Vec<_> = of.iter().map(|(it, _)| part_of(it)).collect();
        let mut sums = vec![0_u64; parts.len()];
        for (place, (_, weight)) in places.iter().zip(of) {
            if let Some(place) = place {
                sums[*place] += u64::from(*weight);
            }
        }
        // Parts of who is not there are everybody else's: only how parts compare counts.
        let weight = |(place, (_, weight)): (&Option<usize>, &(Locality, u32))| {
            let Some(place) = *place else { return 0 };
            let whole = u64::from(parts[place].1) * u64::from(*weight) * WHOLE;
            let part = whole.div_ceil(sums[place].max(1));
            u32::try_from(part).unwrap_or(u32::MAX)
        };
        let weights: Vec<u32> = places.iter().zip(of).map(weight).collect();
        weights.iter().any(|it| *it > 0).then_some(weights)
    }

    /// In words, for somebody who stands there.
    pub(crate) fn in_words(&self, own: &Here) -> String {
        let place = &own.locality;
        if self.parts() {
            return format!("parted by where endpoints are, as {place} has it");
        }
        if self.labels.is_empty() {
            return format!("first who is nearest to {place}");
        }
        let label = |(name, value): &(String, Option<String>)| {
            format!("{name}={}", value.as_deref().unwrap_or_else(|| own.value(name)))
        };
        let labels: Vec<_> = self.labels.iter().map(label).collect();
        format!("first who has {}", labels.join(", then "))
    }
}

/// For each of these its place among those that there are: 0 first, without gaps.
pub(crate) fn in_turn<T: Ord + Copy>(of: &[T]) -> Vec<u8> {
    let mut there = of.to_vec();
    there.sort_unstable();
    there.dedup();
    let turn = |it: &T| there.binary_search(it).unwrap_or(0);
    of.iter().map(|it| u8::try_from(turn(it)).unwrap_or(u8::MAX)).collect()
}

/// A percent in parts that weights of many endpoints can share.
const WHOLE: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Vec<Locality> {
        texts.iter().map(|text| Locality::parse(text)).collect()
    }

    /// Somebody at a place, with labels: `eu/a app=x v=2`.
    fn here(text: &str) -> Here {
        let mut words = text.split(' ');
        let locality = Locality::parse(words.next().unwrap());
        let label = |it: &str| it.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()));
        Here { locality, labels: words.filter_map(label).collect() }
    }

    fn heres(texts: &[&str]) -> Vec<Here> {
        texts.iter().map(|it| here(it)).collect()
    }

    #[test]
    fn labels_that_are_the_same_come_first() {
        let there = ["eu/a x=1 y=1", "eu/b x=1 y=2", "eu/a x=2 y=1", "us/a x=1", "asia/a"];
        let region = "topology.kubernetes.io/region";
        for (labels, failover, own, expected) in [
            // All of them, the first of two, none; the second alone is nothing.
            (&["x", "y"][..], &[][..], "eu/a x=1 y=1", [0, 1, 2, 1, 2]),
            (&["y", "x"], &[], "eu/a x=1 y=1", [0, 2, 1, 2, 2]),
            // With a value nothing is compared with one's own.
            (&["x=2", "y"], &[], "eu/a x=1 y=1", [1, 1, 0, 1, 1]),
            (&["x=1", "y=2"], &[], "", [1, 0, 2, 1, 2]),
            // What neither has is the same, and what one of them has is not.
            (&["z", "x"], &[], "eu/a x=1", [0, 0, 1, 0, 1]),
            (&["x"], &[], "eu/a", [1, 1, 1, 1, 0]),
            // Places are labels, too, also where they are said otherwise.
            (&[region, "x"], &[], "eu/a x=1", [0, 0, 1, 2, 2]),
            // Beside failover nearness parts those that are alike.
            (&["x"], &[("eu", "us")], "eu/a x=1", [0, 1, 3, 2, 4]),
        ] {
            let label = |it: &&str| match it.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => ((*it).to_owned(), None),
            };
            let preference = Preference {
                labels: labels.iter().map(label).collect(),
                failover: failover.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
                ..Preference::default()
            };
            let found = preference.levels(&here(own), &heres(&there));
            assert_eq!(found, expected, "{labels:?} {own:?}");
        }
    }

    #[test]
    fn who_is_nearer_comes_first_and_no_turn_is_empty() {
        let own = here("eu/a/1");
        let all = heres;
        let there = all(&["eu/a/1", "eu/a/2", "eu/b/1", "us/a/1", "asia", ""]);
        let plain = Preference::default();
        assert_eq!(plain.levels(&own, &there), [0, 1, 2, 3, 3, 3]);
        assert_eq!(plain.levels(&own, &there[2..]), [0, 1, 1, 1]);
        assert_eq!(plain.levels(&own, &all(&["/a/1", "/b", "us/a", ""])), [0, 1, 2, 2]);
        let failover = vec![("us".into(), "asia".into()), ("eu".into(), "us".into())];
        let goes = Preference { failover, ..plain };
        assert_eq!(goes.levels(&own, &there), [0, 1, 2, 3, 4, 4]);
        assert_eq!(goes.levels(&own, &all(&["asia", "asia"])), [0, 0]);
    }

    #[test]
    fn parts_are_shared_by_who_is_there() {
        let own = Locality::parse("eu/a/1");
        let to = vec![("eu/a/*".to_owned(), 80), ("eu/b".into(), 20), ("us".into(), 0)];
        let distribute = vec![("us/*".to_owned(), Vec::new()), ("eu/a/*".into(), to)];
        let preference = Preference { distribute, ..Preference::default() };
        let there = all(&["eu/a/1", "eu/a/9", "eu/b", "us/a", "asia"]);
        let weighed = |weights: &[u32]| {
            let of: Vec<_> = there.iter().cloned().zip(weights.iter().copied()).collect();
            preference.weights(&own, &of)
        };
        assert_eq!(weighed(&[1, 1, 1, 1, 1]), Some(vec![40_000, 40_000, 20_000, 0, 0]));
        assert_eq!(weighed(&[3, 1, 5, 1, 1]), Some(vec![60_000, 20_000, 20_000, 0, 0]));
        let far: Vec<_> = there[3..].iter().cloned().map(|it| (it, 1)).collect();
        assert_eq!(preference.weights(&own, &far), None);
        assert_eq!(preference.weights(&Locality::parse("asia"), &far), None);
    }

    #[test]
    fn localities_are_read_from_text_and_labels() {
        for text in ["eu/a/1", "eu/a", "eu", ""] {
            assert_eq!(Locality::parse(text).to_string(), text);
        }
        let labels = [("topology.kubernetes.io/zone".to_owned(), "a".to_owned())];
        let found = Locality::of_labels(&labels);
        assert_eq!((&*found.zone, found.is_empty()), ("a", false));
        assert!(Locality::of_labels(&[]).is_empty());
    }
}
