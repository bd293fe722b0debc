//! A message as it is shown to the caller.

use crate::codec::{CannotEdit, Edits, Head, Key, Kind, Leaves, Pair, Pairs, Refusal, Replied};
use crate::tap::protocol::Protocol;

/// A message whose head is known. Values are looked for when they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Message<'b> {
    protocol: Protocol,
    head: &'b Head,
    bytes: &'b [u8],
}

impl<'b> Message<'b> {
    pub(super) fn new(protocol: Protocol, head: &'b Head, bytes: &'b [u8]) -> Self {
        Self { protocol, head, bytes }
    }

    /// The bytes of its head.
    pub fn bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// Bytes that were taken with it and begin the next message.
    pub fn behind(&self) -> usize {
        self.head.behind.into()
    }

    /// The protocol that it is of.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        self.head.kind
    }

    /// Index of its operation in [`About::operations`](crate::codec::About::operations).
    pub fn operation(&self) -> u8 {
        self.head.operation
    }

    /// What the protocol calls the exchange, 0 where it has no ids.
    pub fn id(&self) -> u64 {
        self.head.id
    }

    /// The parts of the operation's name, to be written one behind the other: `GET`;
    /// `org.demo.Greeter`, `/`, `sayHello`; `hello`. Empty in an answer.
    pub fn name(&self) -> [&'b [u8]; 3] {
        self.protocol.operation_name(self.head, self.bytes)
    }

    /// The value of a key; None when it has none, or when it lies further behind than is read.
    pub fn value(&self, key: Key) -> Option<&'b [u8]> {
        self.protocol.value(self.head, self.bytes, key)
    }

    /// The number of a key that has one; None as for a value.
    pub fn number(&self, key: Key) -> Option<u32> {
        self.protocol.number(self.head, self.bytes, key)
    }

    /// What travels with the message beside its content, name by name: attachments of Dubbo, key
    /// and value of Thrift's headers. Trace contexts are among them.
    pub fn pairs(&self, mut take: impl FnMut(Pair<'b>)) {
        self.protocol.pairs(self.head, self.bytes, &mut take);
    }

    /// Edits its head so that these pairs travel with it, in the place of those that have their
    /// names: what [`Edits::pieces`] makes of [`bytes`](Self::bytes) is to be sent then. Without
    /// edits where that cannot be, and where there are no pairs.
    ///
    /// # Errors
    /// [`CannotEdit`].
    pub fn edit(&self, pairs: &Pairs, edits: &mut Edits) -> Result<(), CannotEdit> {
        edits.clear();
        if pairs.is_empty() {
            return Ok(());
        }
        let edited = self.protocol.edit(self.head, self.bytes, pairs, edits);
        edited.inspect_err(|_| edits.clear())
    }

    /// Whether it changes nothing, so that it may be sent twice; None where operations of its protocol do
    /// not say it.
    #[inline]
    pub fn is_read(&self) -> Option<bool> {
        self.protocol.is_read(self.head.operation)
    }

    /// What it leaves behind at its server for the requests after it.
    pub fn leaves(&self) -> Leaves {
        self.protocol.leaves(self.head, self.bytes)
    }

    /// Writes what its client is told in the place of an answer behind `out`.
    pub fn reply(&self, refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        self.protocol.reply(self.head, self.bytes, refusal, out)
    }
}
