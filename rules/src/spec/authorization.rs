//! Authorization and DubboAuthorizationPolicy.

use super::{About, AuthorizationSpec, Condition, Reader, TestSpec, ports_of, test_of_word};
use crate::yaml::Node;

/// Pairs of `from` and `to` of one rule, at most: each is looked at for each message.
const PAIRS_MAX: usize = 256;

impl Reader<'_> {
    pub(super) fn authorization(&mut self, spec: &Node) -> Option<AuthorizationSpec> {
        let mut rules = Vec::new();
        for rule in spec.list("rules") {
            let from: Vec<_> = rule.list("from").iter().map(|it| self.networks(it)).collect();
            let to: Vec<_> = rule.list("to").iter().map(|it| self.attributes(Some(it))).collect();
            self.pair(rule, &from, &to, &mut rules);
        }
        let protocol = spec.get("protocol");
        let protocol = protocol.and_then(|it| Some((it.text()?.to_owned(), self.place(it))));
        Some(self.policy(spec, protocol, rules))
    }

    pub(super) fn dubbo_authorization(&mut self, spec: &Node) -> Option<AuthorizationSpec> {
        let mut rules = Vec::new();
        for rule in spec.list("rules") {
            let to: Vec<_> = rule
                .list("to")
                .iter()
                .map(|it| it.get("operation").map_or_else(Vec::new, |it| self.operation(it)))
                .collect();
            self.pair(rule, &[], &to, &mut rules);
        }
        let protocol = Some(("dubbo".to_owned(), self.document.start()));
        Some(self.policy(spec, protocol, rules))
    }

    fn policy(
        &mut self,
        spec: &Node,
        protocol: Option<(String, crate::trouble::Place)>,
        rules: Vec<Vec<Condition>>,
    ) -> AuthorizationSpec {
        let denies = spec.text_of("action") == Some("DENY");
        if rules.is_empty() {
            self.warn(
                spec,
                match denies {
                    true => "no rules: it denies nothing",
                    false => {
                        "no rules: nothing is allowed by it, and all that no other document \
                          allows is refused"
                    }
                },
            );
        }
        AuthorizationSpec {
            name: self.document.full_name(),
            place: self.document.start(),
            denies,
            is_shadow: spec.text_of("mode") == Some("shadow"),
            protocol,
            ports: ports_of(spec, "ports"),
            rules,
        }
    }

    /// One of `from` and one of `to`: every pair is a rule of its own.
    fn pair(
        &mut self,
        rule: &Node,
        from: &[Vec<Condition>],
        to: &[Vec<Condition>],
        rules: &mut Vec<Vec<Condition>>,
    ) {
        let everything = [Vec::new()];
        let from = if from.is_empty() { &everything } else { from };
        let to = if to.is_empty() { &everything } else { to };
        if from.len() * to.len() > PAIRS_MAX {
            let what =
                format!("{} pairs of from and to: allowed is {PAIRS_MAX}", from.len() * to.len());
            return self.error(rule, what);
        }
        for from in from {
            rules.extend(to.iter().map(|to| from.iter().chain(to).cloned().collect::<Vec<_>>()));
        }
    }

    fn networks(&self, from: &Node) -> Vec<Condition> {
        let condition = |name: &str, is_not: bool| {
            let node = from.get(name).filter(|it| !it.items().is_empty())?;
            let networks = from.texts_of(name).map(|(text, _)| text.to_owned()).collect();
            let (about, test) = (About::Source, TestSpec::Networks(networks));
            Some(Condition { about, place: self.place(node), is_not, test })
        };
        condition("cidrs", false).into_iter().chain(condition("notCidrs", true)).collect()
    }

    fn operation(&self, operation: &Node) -> Vec<Condition> {
        let condition = |(name, attribute, is_not): (&str, &str, bool)| {
            let node = operation.get(name).filter(|it| !it.items().is_empty())?;
            let words = operation.texts_of(name).map(|(word, _)| test_of_word(word)).collect();
            Some(Condition {
                about: About::Attribute(attribute.to_owned()),
                place: self.place(node),
                is_not,
                test: TestSpec::OneOf(words),
            })
        };
        let parts = [
            ("interfaces", "interface", false),
            ("notInterfaces", "interface", true),
            ("methods", "method", false),
            ("notMethods", "method", true),
        ];
        parts.into_iter().filter_map(condition).collect()
    }
}
