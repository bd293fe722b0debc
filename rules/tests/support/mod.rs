//! A table, and messages that are decided about by it.

// Each test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

use netra_rules::{
    Action, Compiled, Concern, Context, Direction, Documents, Example, Process, Protocol,
    RefusalKind, Source, State, Table, Verdict, decide,
};
use std::sync::Arc;

pub struct World {
    pub table: Arc<Table>,
    pub process: Arc<Process>,
    pub state: State,
    pub now_ns: u64,
    pub connection: u64,
    /// Chance: no fault strikes by this one.
    pub random: u64,
}

pub fn compile(text: &str, context: &Context) -> Compiled {
    let source = Source { name: "rules.yaml".into(), text: text.into() };
    Documents::read(&[source]).compile(context)
}

pub fn errors(text: &str) -> Vec<String> {
    let compiled = compile(text, &Context::default());
    assert_eq!(compiled.table.is_some(), compiled.troubles.is_good());
    compiled.troubles.errors().iter().map(ToString::to_string).collect()
}

pub fn warnings(text: &str) -> Vec<String> {
    let compiled = compile(text, &Context::default());
    assert!(compiled.troubles.is_good(), "{}", compiled.troubles);
    compiled.troubles.warnings().iter().map(ToString::to_string).collect()
}

impl World {
    pub fn new(text: &str) -> Self {
        Self::of(text, &Context::default())
    }

    pub fn of(text: &str, context: &Context) -> Self {
        let Compiled { table, troubles, .. } = compile(text, context);
        let table = table.unwrap_or_else(|| panic!("{troubles}"));
        let process = Arc::new(table.process(None, 0));
        let state = State::new(&table, &process, 1);
        Self { table, process, state, now_ns: 0, connection: 0, random: u64::MAX }
    }

    pub fn decide(&mut self, example: &Example) -> Verdict {
        decide(&self.table, example, &mut self.state, self.now_ns, self.random)
    }

    /// A message of a protocol.
    pub fn ask(
        &mut self,
        protocol: &str,
        direction: Direction,
        to: &str,
        values: &[(&str, &str)],
    ) -> Verdict {
        let protocol = Protocol::from_name(protocol).unwrap();
        let mut example = Example::new(protocol, to.parse().unwrap());
        (example.direction, example.connection) = (direction, self.connection);
        for (name, value) in values {
            example.set(name, value).unwrap();
        }
        self.decide(&example)
    }

    pub fn dubbo(&mut self, to: &str, values: &[(&str, &str)]) -> Verdict {
        self.ask("dubbo", Direction::Outbound, to, values)
    }

    pub fn dubbo_in(&mut self, to: &str, values: &[(&str, &str)]) -> Verdict {
        self.ask("dubbo", Direction::Inbound, to, values)
    }

    pub fn cluster(&self, verdict: &Verdict) -> String {
        let Action::Route(route) = verdict.action else { return format!("{verdict:?}") };
        self.table.cluster(route.cluster).unwrap().name.to_string()
    }

    pub fn endpoint(&self, verdict: &Verdict) -> String {
        let Action::Route(route) = verdict.action else { return format!("{verdict:?}") };
        self.table.endpoint(route).unwrap().address.to_string()
    }

    pub fn refusal(&self, verdict: &Verdict) -> Option<RefusalKind> {
        match verdict.action {
            Action::Refuse(refusal) => Some(refusal.kind),
            _ => None,
        }
    }

    pub fn text(&self, verdict: &Verdict) -> String {
        self.table.refusal_text(verdict).to_owned()
    }

    pub fn rule(&self, verdict: &Verdict) -> String {
        let rule = verdict.rule.and_then(|rule| self.table.rule(rule));
        rule.map_or(String::new(), |rule| rule.name.to_string())
    }

    pub fn concern(&self, direction: Direction, to: &str) -> Option<Concern> {
        let dubbo = Protocol::from_name("dubbo").unwrap();
        self.table.concern(direction, to.parse().unwrap(), dubbo)
    }
}
