//! What can be asked of a message, and of which protocols.

use crate::near::nearest;
use netra_codecs::{codec, tap};
use std::fmt;

/// The index of a value that rules ask for, among all of a table.
pub(crate) type SlotId = u16;

/// The protocol of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1, whose heads netra edits itself.
    Http1,
    /// One that there is a codec for.
    Of(tap::Protocol),
}

impl Protocol {
    /// Its name in settings and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Of(protocol) => protocol.name(),
        }
    }

    /// A small number of its own.
    #[inline]
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Http1 => 0,
            Self::Of(protocol) => 1 + protocol.index(),
        }
    }

    /// Every protocol that is built in, by index.
    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Http1).chain(tap::Protocol::ALL.iter().copied().map(Self::Of))
    }

    /// The protocol of that name, of those that are built in.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "http1" => Some(Self::Http1),
            name => name.parse().ok().map(Self::Of),
        }
    }
}

/// How ports are named that say what is spoken there.
impl Protocol {
    /// The name of the protocol that a port's name begins with, in Aeraki's form
    /// (`tcp-metaprotocol-dubbo-orders`, `tcp-redis-cache`) or Istio's (`redis-cache`). Behind
    /// `tcp-metaprotocol` any name may stand, of a protocol that is not built in, or that nobody knows.
    pub fn named_by_port(name: &str) -> Option<&str> {
        let mut words = name.split('-');
        let word = match (words.next()?, words.next()) {
            ("tcp", Some("metaprotocol")) => return words.next().filter(|it| !it.is_empty()),
            ("tcp", Some(word)) => word,
            (word, _) => word,
        };
        Self::from_word(word).map(Self::name)
    }

    /// The protocol that is built in and that a port is named by: its name, or what Kubernetes and
    /// Istio call it.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "http" => Some(Self::Http1),
            "mongo" => Self::from_name("mongodb"),
            "postgres" => Self::from_name("postgresql"),
            word => Self::from_name(word),
        }
    }
}

/// A protocol, or any: soon asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spoken {
    /// None is any.
    index: Option<u8>,
    only: Option<Protocol>,
}

impl Spoken {
    /// None is any.
    pub(crate) fn new(only: Option<Protocol>) -> Self {
        let index = only.and_then(|only| u8::try_from(only.index()).ok());
        Self { index, only }
    }

    /// The only one, if it is one.
    pub(crate) fn only(self) -> Option<Protocol> {
        self.only
    }

    #[inline(always)]
    pub(crate) fn has(&self, protocol: Protocol) -> bool {
        match self.index {
            None => true,
            Some(index) if usize::from(index) != protocol.index() => false,
            // Those that are not built in share an index.
            Some(_) => !protocol.is_private() || self.only == Some(protocol),
        }
    }
}

impl Protocol {
    /// Whether it is none that is built in.
    #[inline]
    fn is_private(self) -> bool {
        matches!(self, Self::Of(tap::Protocol::Private(_)))
    }

    /// The key that an attribute means in messages of the protocol, if they can have it.
    /// Names are compared without regard to case.
    pub fn key(self, attribute: &str) -> Option<Key> {
        let name = attribute.to_ascii_lowercase();
        match self {
            Self::Http1 => Some(http_key(attribute, &name)),
            Self::Of(protocol) => codec_key(protocol, &name),
        }
    }

    /// The key that an attribute means in messages of protocols that are not built in: of which one
    /// they are does not matter, as each message says whether it has the value.
    pub(crate) fn private_key(attribute: &str) -> Option<Key> {
        let name = attribute.to_ascii_lowercase();
        match name.as_str() {
            "operation" => Some(Key::Operation),
            name => match codec::Key::ALL.iter().find(|key| key.name() == name) {
                Some(key) => Some(Key::Of(*key)),
                None => Some(Key::Pair(name.into())),
            },
        }
    }

    /// The attributes that messages of the protocol can have, in words.
    pub fn attributes(self) -> String {
        match self {
            Self::Http1 => "method, path, host, cookie.NAME, query.NAME and names of fields".into(),
            Self::Of(protocol) => {
                let names = self.names();
                let more = if has_pairs(protocol) { " and names of what it carries" } else { "" };
                match names.is_empty() {
                    true => format!("none{more}"),
                    false => format!("{}{more}", names.join(", ")),
                }
            }
        }
    }

    /// The attributes that have a name of their own.
    fn names(self) -> Vec<&'static str> {
        let Self::Of(protocol) = self else { return vec!["method", "path", "host", "authority"] };
        let mut names: Vec<_> = protocol.about().keys.iter().map(|key| key.name()).collect();
        names.extend(has_operation(protocol).then_some("operation"));
        match protocol {
            tap::Protocol::Dubbo => names.push("interface"),
            tap::Protocol::Trpc => names.extend(["callee", "func"]),
            tap::Protocol::Redis => names.push("command"),
            _ => {}
        }
        names
    }

    /// The attribute that may be meant by one that is taken for something which messages carry under
    /// any name, a field of HTTP or an attachment, and that differs from it by a slip of the hand.
    pub(crate) fn may_mean(self, attribute: &str) -> Option<String> {
        if !matches!(self.key(attribute), Some(Key::Pair(_))) {
            return None;
        }
        let name = attribute.to_ascii_lowercase();
        if let (Self::Http1, Some((of, rest))) = (self, name.split_once('.')) {
            return nearest(of, ["cookie", "query"]).map(|of| format!("{of}.{rest}"));
        }
        nearest(&name, self.names()).map(str::to_owned)
    }

    /// Whether requests of one connection may go to different servers.
    pub fn moves(self) -> bool {
        match self {
            Self::Http1 => true,
            Self::Of(protocol) => protocol.moves(),
        }
    }

    /// Whether a value of this key lies behind the body of a request, so that all of it has to be
    /// held for it.
    pub(crate) fn lies_behind(self, key: &Key) -> bool {
        let is_behind = matches!(key, Key::Pair(_) | Key::Of(codec::Key::Group));
        self == Self::Of(tap::Protocol::Dubbo) && is_behind
    }
}

/// Names of cookies and of parameters have a case.
fn http_key(given: &str, name: &str) -> Key {
    match name {
        "method" | ":method" => Key::Operation,
        "path" | ":path" => Key::Path,
        "host" | "authority" | ":authority" => Key::Host,
        _ => match given.split_once('.') {
            Some((of, cookie)) if of.eq_ignore_ascii_case("cookie") => Key::Cookie(cookie.into()),
            Some((of, query)) if of.eq_ignore_ascii_case("query") => Key::Query(query.into()),
            _ => Key::Pair(name.into()),
        },
    }
}

/// Whether the first word of what a request asks for says it: of calls of methods it does not.
fn has_operation(protocol: tap::Protocol) -> bool {
    use tap::Protocol::{Kafka, Memcached, Mongodb, Mysql, Postgresql, Private, Redis};
    matches!(protocol, Kafka | Memcached | Mongodb | Mysql | Postgresql | Redis | Private(_))
}

/// Whether its messages carry pairs of any names: of others no more than a trace context is read.
fn has_pairs(protocol: tap::Protocol) -> bool {
    use tap::Protocol::{Kafka, Mongodb, Postgresql};
    protocol.about().carries_context && !matches!(protocol, Kafka | Mongodb | Postgresql)
}

fn codec_key(protocol: tap::Protocol, name: &str) -> Option<Key> {
    let about = protocol.about();
    let known = match (protocol, name) {
        (tap::Protocol::Redis, "command") => return Some(Key::Operation),
        (protocol, "operation") if has_operation(protocol) => return Some(Key::Operation),
        (tap::Protocol::Dubbo, "interface") => "service",
        (tap::Protocol::Dubbo, "dubbo") => "protocol_version",
        (tap::Protocol::Trpc, "callee") => "service",
        (tap::Protocol::Trpc, "func") => "method",
        (_, name) => name,
    };
    let key = about.keys.iter().find(|key| key.name() == known);
    match key {
        Some(key) => Some(Key::Of(*key)),
        None => has_pairs(protocol).then(|| Key::Pair(name.into())),
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What rules ask of a message. Names of pairs are in small letters, and are compared with what a
/// message has without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// What the request asks for, as its codec lists it (`GET`); the method of HTTP.
    Operation,
    /// A value that the codec knows by this key.
    Of(codec::Key),
    /// What travels with the message under this name: a field of HTTP, an attachment of Dubbo,
    /// a header of Thrift.
    Pair(Box<str>),
    /// The path of an HTTP request, without its query.
    Path,
    /// The host that an HTTP request is for, without its port.
    Host,
    /// A cookie of an HTTP request.
    Cookie(Box<str>),
    /// A parameter of an HTTP request's query, as it is written.
    Query(Box<str>),
}
