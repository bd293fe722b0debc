//! Lists of conditions in order, of which the first that holds is looked for: by hash where a
//! condition says what a value is or begins with, one by one where none does.

use crate::{
    ask::{Ask, Slot, only_value},
    facts::Facts,
    hash::{ByName, Name, same},
    key::SlotId,
    pattern::{Network, Test},
};
use std::{collections::HashMap, fmt::Write as _, net::IpAddr};

/// Something that a message must have.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) subject: Subject,
    /// Whether it must not.
    pub(crate) is_not: bool,
    /// What holds where the message has no value.
    pub(crate) without: bool,
}

#[derive(Debug)]
pub(crate) enum Subject {
    Value(SlotId, Test),
    Source(Box<[Network]>),
}

impl Condition {
    #[inline]
    fn holds<F: Facts>(&self, ask: &mut Ask<'_, F>) -> bool {
        match &self.subject {
            Subject::Value(slot, test) => match ask.value(*slot) {
                Some(value) => test.takes(value) != self.is_not,
                None => self.without,
            },
            Subject::Source(networks) => match ask.facts.source() {
                Some(source) => has(networks, source) != self.is_not,
                None => self.without,
            },
        }
    }

    /// In words; `slots` has their names.
    pub(crate) fn words(&self, slots: &[Slot]) -> String {
        let not = if self.is_not { "not: " } else { "" };
        match &self.subject {
            Subject::Value(slot, test) => {
                let name = slots.get(usize::from(*slot)).map_or("?", |slot| &slot.name);
                format!("{not}{name} {test}")
            }
            Subject::Source(networks) => {
                let networks: Vec<_> = networks.iter().map(Network::to_string).collect();
                format!("{not}the asker is in {}", networks.join(", "))
            }
        }
    }
}

fn has(networks: &[Network], source: IpAddr) -> bool {
    networks.iter().any(|network| network.has(source))
}

/// Entries in order, each of them conditions that all have to hold.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    entries: Box<[Box<[Condition]>]>,
    probes: Box<[Probe]>,
    /// Entries that a value leads to, list by list, each in order.
    lists: Box<[u32]>,
    /// Entries that no probe leads to, in order.
    rest: Box<[u32]>,
}

/// Entries by a value, or by its first bytes.
#[derive(Debug)]
struct Probe {
    slot: SlotId,
    /// So many bytes of the value count; None is all.
    length: Option<u16>,
    lists: ByName<List>,
}

impl Probe {
    /// Where a value leads.
    #[inline(always)]
    fn entries(&self, value: &[u8]) -> Option<Entries> {
        let value = match self.length {
            None => value,
            Some(length) => value.get(..usize::from(length))?,
        };
        let name = Name::of(value);
        let is_it = |list: &List| name.says_all() || same(&list.text, value);
        self.lists.find(name, is_it).map(|list| list.entries)
    }
}

/// Entries of one text.
#[derive(Debug)]
struct List {
    text: Box<[u8]>,
    entries: Entries,
}

#[derive(Clone, Copy, Debug)]
enum Entries {
    /// One that asks for nothing but the text.
    Sole(u32),
    /// Those from here to there in [`Matcher::lists`].
    Many(u32, u32),
}

/// Probes of one matcher, at most: each is tried for each message.
const PROBES_MAX: usize = 24;
/// So few entries are looked at one by one in less time than by any hash.
const FEW: usize = 3;

impl Matcher {
    pub(crate) fn new(entries: Vec<Vec<Condition>>) -> Self {
        let entries: Box<[Box<[Condition]>]> = entries.into_iter().map(Vec::into).collect();
        let mut planned: HashMap<Way, HashMap<&[u8], Vec<u32>>> = HashMap::new();
        let mut rest = Vec::new();
        let ways = Ways::of(&entries);
        for (index, conditions) in (0_u32..).zip(&*entries) {
            match ways.best(conditions).filter(|_| entries.len() > FEW) {
                Some((way, text)) => {
                    planned.entry(way).or_default().entry(text).or_default().push(index);
                }
                None => rest.push(index),
            }
        }
        // The ways on which most entries lie; others are looked at one by one.
        let mut planned: Vec<_> = planned.into_iter().collect();
        planned.sort_by_key(|(way, lists)| {
            (std::cmp::Reverse(lists.values().map(Vec::len).sum::<usize>()), *way)
        });
        let mut lists = Vec::new();
        let mut probes = Vec::new();
        for (number, ((slot, length), by_text)) in planned.into_iter().enumerate() {
            if number >= PROBES_MAX {
                rest.extend(by_text.into_values().flatten());
                continue;
            }
            probes.push(Probe { slot, length, lists: table_of(by_text, &entries, &mut lists) });
        }
        rest.sort_unstable();
        Self { entries, probes: probes.into(), lists: lists.into(), rest: rest.into() }
    }

    /// The first entry all of whose conditions hold, of a message that was not asked for anything yet. Where
    /// one way leads to all entries, nothing is remembered: what for.
    #[inline(always)]
    pub(crate) fn first_of_all<F: Facts>(&self, facts: &F, slots: &[Slot]) -> Option<u32> {
        let ([probe], []) = (&*self.probes, &*self.rest) else {
            return self.asked(facts, slots, None);
        };
        match probe.entries(only_value(facts, slots, probe.slot)?)? {
            Entries::Sole(index) => Some(index),
            Entries::Many(from, to) => self.asked(facts, slots, Some((from, to))),
        }
    }

    /// The same where more has to be asked for: of so many entries, or of all.
    #[inline(never)]
    fn asked<F: Facts>(
        &self,
        facts: &F,
        slots: &[Slot],
        among: Option<(u32, u32)>,
    ) -> Option<u32> {
        let mut ask = Ask::new(facts, slots);
        let Some((from, to)) = among else { return self.first(&mut ask) };
        let best = self.first_of(self.list(from, to), u32::MAX, &mut ask);
        (best != u32::MAX).then_some(best)
    }

    /// The first entry all of whose conditions hold.
    pub(crate) fn first<F: Facts>(&self, ask: &mut Ask<'_, F>) -> Option<u32> {
        let found = self.probes.iter().fold(u32::MAX, |best, probe| self.found(probe, best, ask));
        let best = self.first_of(&self.rest, found, ask);
        (best != u32::MAX).then_some(best)
    }

    /// The first entry that a way leads to, unless that of another way comes before it.
    fn found<F: Facts>(&self, probe: &Probe, best: u32, ask: &mut Ask<'_, F>) -> u32 {
        match ask.value(probe.slot).and_then(|value| probe.entries(value)) {
            Some(Entries::Sole(index)) => best.min(index),
            Some(Entries::Many(from, to)) => self.first_of(self.list(from, to), best, ask),
            None => best,
        }
    }

    fn list(&self, from: u32, to: u32) -> &[u32] {
        self.lists.get(from as usize..to as usize).unwrap_or_default()
    }

    #[inline(never)]
    fn first_of<F: Facts>(&self, list: &[u32], best: u32, ask: &mut Ask<'_, F>) -> u32 {
        for index in list {
            if *index >= best {
                break;
            }
            let conditions = self.entries.get(*index as usize);
            if conditions.is_some_and(|all| all.iter().all(|condition| condition.holds(ask))) {
                return *index;
            }
        }
        best
    }

    /// Why an entry is not for the message: the first of its conditions that does not hold.
    pub(crate) fn why_not<F: Facts>(
        &self,
        entry: usize,
        ask: &mut Ask<'_, F>,
        slots: &[Slot],
    ) -> Option<String> {
        let condition = self.entries.get(entry)?.iter().find(|it| !it.holds(ask))?;
        let mut words = condition.words(slots);
        if let Subject::Value(slot, _) = &condition.subject {
            let _ = match ask.value(*slot) {
                Some(value) => write!(words, "; here it is {:?}", String::from_utf8_lossy(value)),
                None => write!(words, "; this message has none"),
            };
        }
        Some(words)
    }

    /// The conditions of each entry.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &[Condition]> {
        self.entries.iter().map(|entry| &**entry)
    }

    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let of = |condition: &Condition| match &condition.subject {
            Subject::Value(_, test) => test.bytes(),
            Subject::Source(networks) => size_of_val(&**networks),
        };
        let conditions = self.entries.iter().flatten();
        conditions.map(|it| size_of::<Condition>() + of(it)).sum::<usize>()
            + self.lists.len() * 4
            + self.probes.iter().map(|probe| probe.lists.bytes()).sum::<usize>()
    }
}

/// A slot, and how much of its value counts.
type Way = (SlotId, Option<u16>);

/// How many entries lie on each way, and under each text there.
struct Ways<'e> {
    entries: HashMap<Way, usize>,
    under: HashMap<(Way, &'e [u8]), usize>,
}

impl<'e> Ways<'e> {
    fn of(entries: &'e [Box<[Condition]>]) -> Self {
        let mut ways = Self { entries: HashMap::new(), under: HashMap::new() };
        for (way, text) in entries.iter().flatten().filter_map(way_of) {
            *ways.entries.entry(way).or_default() += 1;
            *ways.under.entry((way, text)).or_default() += 1;
        }
        ways
    }

    /// The way on which an entry has the fewest others beside it; of equal ones the most used, so
    /// that there are few.
    fn best(&self, conditions: &'e [Condition]) -> Option<(Way, &'e [u8])> {
        let found = conditions.iter().filter_map(way_of);
        found.min_by_key(|(way, text)| {
            let beside = self.under.get(&(*way, *text)).copied().unwrap_or(0);
            // Lists of a few are as good as lists of one: fewer ways are better.
            let others = std::cmp::Reverse(self.entries.get(way).copied().unwrap_or(0));
            (beside / 4, others, *way)
        })
    }
}

/// The way that leads to a condition, if one does.
fn way_of(condition: &Condition) -> Option<(Way, &[u8])> {
    match &condition.subject {
        _ if condition.is_not || condition.without => None,
        Subject::Value(slot, Test::Exact(exact)) => Some(((*slot, None), exact)),
        Subject::Value(slot, Test::Prefix(prefix)) if !prefix.is_empty() => {
            let length = u16::try_from(prefix.len()).ok()?;
            Some(((*slot, Some(length)), prefix))
        }
        _ => None,
    }
}

fn table_of(
    by_text: HashMap<&[u8], Vec<u32>>,
    all: &[Box<[Condition]>],
    lists: &mut Vec<u32>,
) -> ByName<List> {
    let number = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
    let mut table = ByName::default();
    for (text, entries) in by_text {
        let entries = match sole(&entries, all) {
            Some(index) => Entries::Sole(index),
            None => {
                let start = lists.len();
                lists.extend(&entries);
                Entries::Many(number(start), number(start + entries.len()))
            }
        };
        let make = || List { text: text.into(), entries };
        table.find_or_make(Name::of(text), |list| *list.text == *text, make);
    }
    table
}

/// The only entry of a text, if it asks for nothing else.
fn sole(entries: &[u32], all: &[Box<[Condition]>]) -> Option<u32> {
    let [index] = entries else { return None };
    let [_] = &**all.get(*index as usize)? else { return None };
    Some(*index)
}
