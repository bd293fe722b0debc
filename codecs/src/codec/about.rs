//! Words that all codecs share, and what a codec says about itself.

use std::fmt;

/// One of a connection's two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From downstream to upstream.
    Request,
    /// From upstream to downstream.
    Response,
}

impl Way {
    /// Both, the request's first.
    pub const BOTH: [Self; 2] = [Self::Request, Self::Response];
}

/// What a message is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Asks, and waits for an answer.
    #[default]
    Request,
    /// Asks to wait: the server answers when something happens, so that the time it takes says
    /// nothing about the server (Redis `BLPOP`).
    Blocking,
    /// Asks for messages that are then pushed; answered as well.
    Subscribe,
    /// Tells something and is never answered.
    Oneway,
    /// Tells something and is answered only where there is something to say: it went wrong, a value is
    /// there. What such an answer is as well.
    Quiet,
    /// Sets the connection up: version, database, credentials. Answered.
    Handshake,
    /// Answers a request.
    Response,
    /// Keeps the connection alive, or answers that.
    Heartbeat,
    /// Comes from the server without having been asked for.
    Push,
    /// A call of the server to the client over the same connection, or its answer.
    Callback,
    /// An answer that nobody waits for, in a protocol where it cannot be taken for another's.
    Stray,
    /// Neither the beginning nor the end of what a request has begun: data of a stream, a step of a
    /// longer agreement.
    Part,
}

impl Kind {
    /// Every kind, in order of declaration; the index is `kind as usize`.
    pub const ALL: &'static [Self] = &[
        Self::Request,
        Self::Blocking,
        Self::Subscribe,
        Self::Oneway,
        Self::Quiet,
        Self::Handshake,
        Self::Response,
        Self::Heartbeat,
        Self::Push,
        Self::Callback,
        Self::Stray,
        Self::Part,
    ];

    /// The word, in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Blocking => "blocking",
            Self::Subscribe => "subscribe",
            Self::Oneway => "oneway",
            Self::Quiet => "quiet",
            Self::Handshake => "handshake",
            Self::Response => "response",
            Self::Heartbeat => "heartbeat",
            Self::Push => "push",
            Self::Callback => "callback",
            Self::Stray => "stray",
            Self::Part => "part",
        }
    }

    /// Whether a message of this kind opens an exchange when it comes as a request.
    pub const fn opens(self) -> bool {
        matches!(
            self,
            Self::Request
                | Self::Blocking
                | Self::Subscribe
                | Self::Oneway
                | Self::Quiet
                | Self::Handshake
        )
    }

    /// Whether the client of such a request goes on without an answer.
    #[inline]
    pub const fn is_silent(self) -> bool {
        matches!(self, Self::Oneway | Self::Quiet)
    }
}

/// How an exchange came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered, and nothing is wrong.
    #[default]
    Ok,
    /// The service says no: an error reply, an exception that was thrown or declared.
    AppError,
    /// The framework on the other side says no: no such method, overload, cannot decode.
    ProtocolError,
    /// Told, and no answer is due.
    Sent,
    /// The connection ended before the answer was whole.
    Unanswered,
    /// The tap was given up before the answer: nobody knows.
    Unseen,
}

impl Outcome {
    /// Every outcome, in order of declaration; the index is `outcome as usize`.
    pub const ALL: &'static [Self] = &[
        Self::Ok,
        Self::AppError,
        Self::ProtocolError,
        Self::Sent,
        Self::Unanswered,
        Self::Unseen,
    ];

    /// The label value, in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::AppError => "app_error",
            Self::ProtocolError => "protocol_error",
            Self::Sent => "sent",
            Self::Unanswered => "unanswered",
            Self::Unseen => "unseen",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How an answer finds its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correlation {
    /// By order: the oldest open one.
    Fifo,
    /// By an id that clients may repeat; among equal ones by order.
    Repeated,
    /// By an id of its own: an answer that nobody waits for harms no other.
    Unique,
    /// By an id of its own; what answers nothing is a message like others.
    Loose,
}

/// Who sends the first byte of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// The client.
    ClientFirst,
    /// The server.
    ServerFirst,
}

/// The semantic convention by which exchanges are told, with the system's name in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// `db.system.name`.
    Db(&'static str),
    /// `db.system.name`, of a database that is spoken to in SQL: what is done is its summary.
    Sql(&'static str),
    /// `rpc.system.name`.
    Rpc(&'static str),
    /// `messaging.system`.
    Messaging {
        /// The system.
        system: &'static str,
        /// `messaging.operation.type` of the operations that have one.
        types: &'static [(&'static str, &'static str)],
    },
}

/// What can be asked of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The first key of a Redis command.
    RedisKey,
    /// The index of the database that `SELECT` asks for; the name of the one that is in use.
    Database,
    /// The service: Dubbo's interface, the prefix of a multiplexed Thrift name.
    Service,
    /// The method.
    Method,
    /// The version of the service.
    ServiceVersion,
    /// The group of the service.
    Group,
    /// The version of the protocol that the client says it has.
    ProtocolVersion,
    /// The state of the transaction behind an answer: `idle`, `open`, `failed`.
    Transaction,
    /// The first topic.
    Topic,
    /// How many topics; a number.
    TopicCount,
    /// How many messages; a number.
    MessageCount,
    /// The group that consumes together.
    ConsumerGroup,
    /// What the client calls itself.
    ClientId,
}

impl Key {
    /// Every key, in order of declaration.
    pub const ALL: &'static [Self] = &[
        Self::RedisKey,
        Self::Database,
        Self::Service,
        Self::Method,
        Self::ServiceVersion,
        Self::Group,
        Self::ProtocolVersion,
        Self::Transaction,
        Self::Topic,
        Self::TopicCount,
        Self::MessageCount,
        Self::ConsumerGroup,
        Self::ClientId,
    ];

    /// The word of the key in settings and rules.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RedisKey => "key",
            Self::Database => "database",
            Self::Service => "service",
            Self::Method => "method",
            Self::ServiceVersion => "version",
            Self::Group => "group",
            Self::ProtocolVersion => "protocol_version",
            Self::Transaction => "transaction",
            Self::Topic => "topic",
            Self::TopicCount => "topic_count",
            Self::MessageCount => "message_count",
            Self::ConsumerGroup => "consumer_group",
            Self::ClientId => "client_id",
        }
    }
}

/// What a codec says about itself.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name in settings and labels.
    pub name: &'static str,
    /// All operations that metrics tell apart; messages name theirs by index.
    pub operations: &'static [&'static str],
    /// The port that servers listen on unless told otherwise.
    pub port: u16,
    /// Who speaks first.
    pub speaks: Speaks,
    /// How answers find their request.
    pub correlation: Correlation,
    /// The keys that its messages may have values for.
    pub keys: &'static [Key],
    /// Whether its requests can carry a trace context: pairs of name and value.
    pub carries_context: bool,
    /// How its exchanges are told.
    pub convention: Convention,
}
