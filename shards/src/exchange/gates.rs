//! What a shard has for all connections whose messages are decided about or written into.

use super::{
    context::WritesContext,
    decide::{Asker, Decide},
    rules::ShardRules,
    scraps::Scraps,
};
use netra_codecs::{
    codec::{Edits, Pairs},
    tap::Protocol,
};

/// What a shard has for all its gates.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    /// Of the message that is looked at.
    pub(crate) edits: Box<Edits>,
    /// What is to travel with it.
    pub(crate) pairs: Box<Pairs>,
    /// For what is kept for a moment.
    pub(crate) scraps: Scraps,
    /// How trace contexts are written; none where they are not.
    pub(crate) writes: Option<WritesContext>,
    /// Who decides, if it is not the rules.
    pub(crate) decides: Option<Box<dyn Decide>>,
    /// The rules; none before there are any.
    pub(crate) rules: Option<Box<ShardRules>>,
}

/// What a connection has a gate for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants {
    pub(crate) writes: bool,
    pub(crate) decides: bool,
}

impl Gates {
    /// Gates that write contexts, if they do.
    pub(crate) fn new(writes: Option<WritesContext>) -> Self {
        Self { writes, ..Self::default() }
    }

    /// Who decides; nobody where there are no rules.
    pub(crate) fn decider(&self) -> Option<&dyn Decide> {
        match (&self.decides, &self.rules) {
            (Some(decides), _) => Some(&**decides),
            (None, rules) => rules.as_deref().map(|rules| rules as _),
        }
    }

    /// Whether somebody writes into, or decides about, the messages of a connection.
    pub(crate) fn wants(&self, protocol: Protocol, asker: &Asker) -> Wants {
        let decides = self.decider();
        Wants {
            writes: self.writes.is_some() && protocol.edits(),
            decides: decides.is_some_and(|it| it.concerns(asker, protocol)),
        }
    }
}
