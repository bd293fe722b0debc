//! What messages must have, as it is compared.

use super::Compiler;
use crate::{
    key::{Key, Protocol, SlotId},
    matcher::{Condition, Subject},
    pattern::{Network, Regex, Test},
    shape::short,
    spec::{self, About, TestSpec, network},
    trouble::Place,
};

/// What all regular expressions of a table may take together.
const REGEX_BYTES_MAX: usize = 16 << 20;

impl Compiler<'_> {
    /// The slot of an attribute of messages of one of these protocols; what is wrong with it is
    /// noted.
    pub(super) fn slot(
        &mut self,
        name: &str,
        candidates: &[Protocol],
        place: &Place,
    ) -> Option<SlotId> {
        let slot = self.slots.of(name, candidates);
        if slot.is_none() {
            let has: Vec<_> = candidates
                .iter()
                .map(|protocol| format!("{protocol} has {}", protocol.attributes()))
                .collect();
            let what = format!("no attribute {:?}: {}", short(name), has.join("; "));
            self.troubles.error(place.clone(), what);
        } else {
            self.warn_of_slips(name, candidates, place);
        }
        slot
    }

    /// Where messages carry fields of any name, a misspelt attribute is one that nobody sends: a route
    /// that is never taken, a DENY that denies nobody.
    fn warn_of_slips(&mut self, name: &str, candidates: &[Protocol], place: &Place) {
        let keys = candidates.iter().filter_map(|protocol| protocol.key(name));
        if keys.into_iter().any(|key| !matches!(key, Key::Pair(_))) {
            return;
        }
        let mut meant = candidates.iter().filter_map(|protocol| protocol.may_mean(name));
        if let Some(meant) = meant.next() {
            let what = format!(
                "attribute {:?}: messages may carry something of this name, and only that is \
                 asked for. If {meant:?} is meant, write that",
                short(name)
            );
            self.troubles.warn(place.clone(), what);
        }
    }

    /// Conditions that all have to hold. `denies`: what cannot be asked counts against the asker.
    pub(super) fn conditions(
        &mut self,
        conditions: &[spec::Condition],
        candidates: &[Protocol],
        denies: bool,
    ) -> Vec<Condition> {
        let mut made = Vec::new();
        for condition in conditions {
            let subject = match (&condition.about, &condition.test) {
                (About::Source, TestSpec::Networks(texts)) => {
                    self.networks(texts, &condition.place)
                }
                (About::Attribute(name), test) => {
                    let slot = self.slot(name, candidates, &condition.place);
                    let test = self.test(test, &condition.place);
                    slot.zip(test).map(|(slot, test)| Subject::Value(slot, test))
                }
                _ => None,
            };
            let is_not = condition.is_not;
            made.extend(subject.map(|subject| Condition {
                subject,
                is_not,
                without: is_not && denies,
            }));
        }
        made
    }

    fn networks(&mut self, texts: &[String], place: &Place) -> Option<Subject> {
        let mut networks = Vec::new();
        for text in texts {
            match network(text) {
                Some((address, length)) => networks.push(Network::new(address, length)),
                None => {
                    let what = format!("{:?}: allowed is an address or a network", short(text));
                    self.troubles.error(place.clone(), what);
                }
            }
        }
        (networks.len() == texts.len()).then(|| Subject::Source(networks.into()))
    }

    fn test(&mut self, test: &TestSpec, place: &Place) -> Option<Test> {
        let bytes = |text: &String| text.as_bytes().into();
        Some(match test {
            TestSpec::Present => Test::Present,
            TestSpec::Exact(text) => Test::Exact(bytes(text)),
            TestSpec::Prefix(text) => Test::Prefix(bytes(text)),
            TestSpec::PrefixAnyCase(text) => Test::PrefixAnyCase(bytes(text)),
            TestSpec::Suffix(text) => Test::Suffix(bytes(text)),
            TestSpec::OneOf(tests) => {
                Test::OneOf(tests.iter().filter_map(|test| self.test(test, place)).collect())
            }
            TestSpec::Regex(pattern) => Test::Regex(Box::new(self.regex(pattern, place)?)),
            TestSpec::Networks(_) => return None,
        })
    }

    fn regex(&mut self, pattern: &str, place: &Place) -> Option<Regex> {
        let what = match Regex::new(pattern) {
            Ok(regex) if self.regex_bytes + regex.bytes() > REGEX_BYTES_MAX => {
                format!("with it regular expressions take more than {REGEX_BYTES_MAX} bytes")
            }
            Ok(regex) => {
                self.regex_bytes += regex.bytes();
                return Some(regex);
            }
            Err(why) => format!("regex={:?} is none of RE2: {why}", short(pattern)),
        };
        self.troubles.error(place.clone(), what);
        None
    }
}
