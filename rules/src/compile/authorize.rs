//! Authorizations.

use super::Compiler;
use crate::{
    key::Spoken,
    matcher::{Matcher, Subject},
    table::Policy,
    verdict::RefusalKind,
};

impl Compiler<'_> {
    pub(super) fn authorizations(&mut self) {
        let specs = self.specs;
        for spec in &specs.authorizations {
            let protocol =
                spec.protocol.as_ref().and_then(|(name, place)| self.protocol(name, place));
            let candidates =
                protocol.map_or_else(|| self.context.protocols().collect(), |it| vec![it]);
            let entries: Vec<_> = spec
                .rules
                .iter()
                .map(|rule| self.conditions(rule, &candidates, spec.denies))
                .collect();
            let mode = if spec.is_shadow { ", in the shadow" } else { "" };
            let effect = match spec.denies {
                true => format!("denies what one of its {} rules fits{mode}", entries.len()),
                false => format!("allows what one of its {} rules fits{mode}", entries.len()),
            };
            let rule = self.rule(&spec.name, &spec.place, effect);
            self.refusal(
                rule,
                RefusalKind::Denied,
                match spec.denies {
                    true => format!("netra: denied ({})", spec.name),
                    false => format!("netra: not allowed ({})", spec.name),
                },
            );
            let reads_behind = entries.iter().flatten().any(|condition| match &condition.subject {
                Subject::Value(slot, _) => {
                    candidates.iter().any(|protocol| self.slots.lies_behind(*slot, *protocol))
                }
                Subject::Source(_) => false,
            });
            self.table.policies.push(Policy {
                rule,
                denies: spec.denies,
                is_shadow: spec.is_shadow,
                spoken: Spoken::new(protocol),
                ports: spec.ports.as_slice().into(),
                matcher: Matcher::new(entries),
                reads_behind,
            });
        }
    }
}
