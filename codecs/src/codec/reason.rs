//! Why a codec gave a connection up.

use crate::reasons::reasons;

reasons! {
    " Why a tap became a tunnel: for ever, for both ways, with no byte touched.";

    /// An answer that fits none of the open requests.
    AnswerWithoutRequest = "answer_without_request",
    /// The messages are compressed.
    Compressed = "compressed",
    /// A head that somebody decides about did not come whole in time; the caller's to say.
    HeadTooSlow = "head_too_slow",
    /// Heads that come in pieces hold more than all connections may; the caller's to say.
    HeldTooMuch = "held_too_much",
    /// A length, a count or a type that no message of the protocol has.
    Malformed = "malformed",
    /// Values within values, deeper than is followed.
    NestedTooDeep = "nested_too_deep",
    /// The bytes are not of this protocol.
    NotThisProtocol = "not_this_protocol",
    /// The connection became a stream of replication.
    Replication = "replication",
    /// The client turned answers off where nobody can say which ones.
    RepliesUnclear = "replies_unclear",
    /// The server spoke before any request.
    ServerFirst = "server_first",
    /// A TLS record.
    Tls = "tls",
    /// A message, or a line of one, that says it is longer than the limit.
    TooLarge = "too_large",
    /// More requests wait for their answer than the limit.
    TooManyOpen = "too_many_open",
    /// A part of the protocol that is not read.
    Unsupported = "unsupported",
}
