//! Whether the requests of a connection may go to another server from one message to the next: not
//! where the server keeps something of those before.

use crate::codec::about::Kind;

/// What a request leaves behind at its server, for those after it on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Nothing.
    Nothing,
    /// Who asks, or how it is asked: credentials, a database, a version, a mode.
    Session,
    /// The server sends of its own accord from here on, or a stream is open.
    Subscription,
    /// A transaction, until it ends.
    Transaction,
    /// The transaction is over.
    TransactionEnd,
    /// The connection is as new.
    AsNew,
}

impl Leaves {
    /// What requests of this kind leave behind where the protocol says no more.
    pub const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Handshake => Self::Session,
            Kind::Subscribe | Kind::Part | Kind::Callback => Self::Subscription,
            _ => Self::Nothing,
        }
    }
}

/// Why the requests of a connection stay with the server that they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// Connections of the protocol are sessions, or the server speaks first.
    Protocol,
    /// The server knows who asks, or how.
    Session,
    /// The server sends of its own accord.
    Subscription,
    /// A transaction is open.
    Transaction,
}

impl Stays {
    /// Every reason, in order of declaration; the index is `stays as usize`.
    pub const ALL: &'static [Self] =
        &[Self::Protocol, Self::Session, Self::Subscription, Self::Transaction];

    /// The label value, in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Session => "session",
            Self::Subscription => "subscription",
            Self::Transaction => "transaction",
        }
    }
}

/// What the requests of a connection have left behind so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Left {
    session: bool,
    subscription: bool,
    transaction: bool,
}

impl Left {
    /// A message has been passed on that leaves this behind.
    #[inline]
    pub fn note(&mut self, leaves: Leaves) {
        match leaves {
            Leaves::Nothing => {}
            Leaves::Session => self.session = true,
            Leaves::Subscription => self.subscription = true,
            Leaves::Transaction => self.transaction = true,
            Leaves::TransactionEnd => self.transaction = false,
            Leaves::AsNew => *self = Self::default(),
        }
    }

    /// Why the next request has to go where the last one went, if it has to.
    pub fn stays(self) -> Option<Stays> {
        match self {
            Self { session: true, .. } => Some(Stays::Session),
            Self { subscription: true, .. } => Some(Stays::Subscription),
            Self { transaction: true, .. } => Some(Stays::Transaction),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_ends_and_a_session_does_not() {
        let mut left = Left::default();
        left.note(Leaves::Transaction);
        assert_eq!(left.stays(), Some(Stays::Transaction));
        left.note(Leaves::TransactionEnd);
        assert_eq!(left.stays(), None);
        left.note(Leaves::Session);
        left.note(Leaves::TransactionEnd);
        assert_eq!(left.stays(), Some(Stays::Session));
        left.note(Leaves::AsNew);
        assert_eq!(left.stays(), None);
    }
}
