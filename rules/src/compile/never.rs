//! Rules that can never decide, as far as that can be known.

use super::Compiler;
use crate::spec::{About, Condition, RouterSpec};
use std::collections::HashMap;

/// Conditions of a route whose parts are looked at, at most: they are 2 to this power.
const CONDITIONS_MAX: usize = 5;

impl Compiler<'_> {
    /// Marks rules of the router whose landing was noted last.
    pub(super) fn find_what_never_decides(&mut self, spec: &RouterSpec, first_rule: usize) {
        let landing = self.landings.last();
        let nowhere = landing.filter(|landing| landing.places.is_empty()).map(|landing| {
            format!(
                "nothing leads to the host {}: no ServiceEntry has addresses or endpoints for \
                 it, its name has no address, and it is not this service",
                landing.host
            )
        });
        if let Some(why) = nowhere {
            for rule in &mut self.table.rules[first_rule..] {
                rule.never = Some(why.as_str().into());
            }
        }
        let mut earlier: HashMap<Vec<String>, &str> = HashMap::new();
        // The router's own rule is before those of its routes.
        for (route, rule) in spec.routes.iter().zip(first_rule + 1..) {
            let own: Vec<_> = words(&route.conditions);
            if let Some(first) = parts(&own).find_map(|part| earlier.get(&part)) {
                let why = format!("{first} before it fits every message that it fits");
                self.table.rules[rule].never.get_or_insert(why.into());
            }
            earlier.entry(own).or_insert(&route.name);
        }
        let is_all = spec.routes.iter().any(|route| route.conditions.is_empty());
        if let (true, Some(rule)) = (is_all, self.table.rules.get_mut(first_rule)) {
            let why = "one of its routes fits every message";
            rule.never.get_or_insert(why.into());
        }
    }
}

/// Conditions as words, in an order of their own.
fn words(conditions: &[Condition]) -> Vec<String> {
    let word = |condition: &Condition| {
        let about = match &condition.about {
            About::Attribute(name) => name.to_ascii_lowercase(),
            About::Source => String::new(),
        };
        format!("{about} {} {:?}", condition.is_not, condition.test)
    };
    let mut words: Vec<_> = conditions.iter().map(word).collect();
    words.sort_unstable();
    words
}

/// Every part of a set of conditions, all of it included: whatever asks for a part only, fits more.
fn parts(words: &[String]) -> impl Iterator<Item = Vec<String>> {
    let count = if words.len() > CONDITIONS_MAX { 0 } else { 1_u32 << words.len() };
    (0..count).map(|chosen| {
        let is_chosen = |(index, _): &(usize, &String)| chosen & (1 << index) != 0;
        words.iter().enumerate().filter(is_chosen).map(|(_, word)| word.clone()).collect()
    })
}
