//! The codecs that are built in.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ptr;
use std::str::FromStr;

use crate::amqp::Amqp;
use crate::brpc::Brpc;
use crate::codec::{
    About, Asked, CannotEdit, Codec, Edits, Event, Head, Key, Leaves, Pair, Pairs, Refusal,
    Replied, Way,
};
use crate::dubbo::Dubbo;
use crate::kafka::Kafka;
use crate::limits::Limits;
use crate::memcached::Memcached;
use crate::mongodb::Mongodb;
use crate::mqtt::Mqtt;
use crate::mysql::Mysql;
use crate::nats::Nats;
use crate::postgresql::Postgresql;
use crate::private::{self, Private};
use crate::redis::Redis;
use crate::thrift::Thrift;
use crate::trpc::Trpc;
use crate::zookeeper::Zookeeper;

macro_rules! protocols {
    ($($(#[$doc:meta])* $variant:ident = $codec:ty,)*) => {
        /// A protocol that there is a codec for.
        #[derive(Clone, Copy, Debug)]
        pub enum Protocol {
            $($(#[$doc])* $variant,)*
            /// One that is not built in.
            Private(&'static Private),
        }

        impl Protocol {
            /// Every protocol that is built in, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What its codec says about itself.
            pub fn about(self) -> &'static About {
                match self {
                    $(Self::$variant => <$codec as Codec>::ABOUT,)*
                    Self::Private(private) => private.about(),
                }
            }

            /// Its place in [`ALL`](Self::ALL); all that are not built in share the one behind.
            pub fn index(self) -> usize {
                match self {
                    $(Self::$variant => BuiltIn::$variant as usize,)*
                    Self::Private(_) => Self::ALL.len(),
                }
            }

            /// Whether some of its messages can be given pairs that travel with them.
            pub fn edits(self) -> bool {
                match self {
                    $(Self::$variant => <$codec as Codec>::EDITS,)*
                    Self::Private(private) => private.reader().edits(),
                }
            }

            /// Whether requests of one connection may go to different servers.
            pub fn moves(self) -> bool {
                match self {
                    $(Self::$variant => <$codec as Codec>::MOVES,)*
                    Self::Private(private) => private.reader().moves(),
                }
            }

            /// Whether requests of this operation change nothing, so that they may be sent twice; None
            /// where operations of the protocol do not say it.
            pub fn is_read(self, operation: u8) -> Option<bool> {
                match self {
                    $(Self::$variant => <$codec as Codec>::is_read(operation),)*
                    Self::Private(_) => None,
                }
            }

            pub(super) fn leaves(self, head: &Head, bytes: &[u8]) -> Leaves {
                match self {
                    $(Self::$variant => <$codec as Codec>::leaves(head, bytes),)*
                    Self::Private(private) => private.reader().leaves(head, bytes),
                }
            }

            pub(super) fn value<'b>(self, head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
                match self {
                    $(Self::$variant => <$codec as Codec>::value(head, bytes, key),)*
                    Self::Private(private) => private.reader().value(head, bytes, key),
                }
            }

            pub(super) fn number(self, head: &Head, bytes: &[u8], key: Key) -> Option<u32> {
                match self {
                    $(Self::$variant => <$codec as Codec>::number(head, bytes, key),)*
                    Self::Private(private) => private.reader().number(head, bytes, key),
                }
            }

            pub(super) fn pairs<'b>(self, head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
                match self {
                    $(Self::$variant => <$codec as Codec>::pairs(head, bytes, take),)*
                    Self::Private(private) => private.reader().pairs(head, bytes, take),
                }
            }

            pub(super) fn edit(
                self,
                head: &Head,
                bytes: &[u8],
                pairs: &Pairs,
                edits: &mut Edits,
            ) -> Result<(), CannotEdit> {
                match self {
                    $(Self::$variant => <$codec as Codec>::edit(head, bytes, pairs, edits),)*
                    Self::Private(private) => private.reader().edit(head, bytes, pairs, edits),
                }
            }

            pub(super) fn reply(
                self,
                head: &Head,
                bytes: &[u8],
                refusal: &Refusal<'_>,
                out: &mut Vec<u8>,
            ) -> Replied {
                match self {
                    $(Self::$variant => <$codec as Codec>::reply(head, bytes, refusal, out),)*
                    Self::Private(private) => private.reader().reply(head, bytes, refusal, out),
                }
            }

            pub(super) fn operation_name<'b>(self, head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
                match self {
                    $(Self::$variant => <$codec as Codec>::name(head, bytes),)*
                    Self::Private(private) => private.reader().name(head, bytes),
                }
            }
        }

        /// The codec of a connection.
        // A number that says which, not a value that one of them never has: it is asked often.
        #[derive(Debug)]
        #[repr(u8)]
        pub(super) enum AnyCodec {
            $($variant($codec),)*
            Private(&'static Private, Box<dyn private::Opened>),
        }

        /// The places of those that are built in.
        enum BuiltIn { $($variant,)* }

        impl AnyCodec {
            pub(super) fn new(protocol: Protocol) -> Self {
                match protocol {
                    $(Protocol::$variant => Self::$variant(<$codec>::default()),)*
                    Protocol::Private(private) => Self::Private(private, private.open()),
                }
            }

            pub(super) fn protocol(&self) -> Protocol {
                match self {
                    $(Self::$variant(_) => Protocol::$variant,)*
                    Self::Private(private, _) => Protocol::Private(private),
                }
            }

            #[inline]
            pub(super) fn advance(
                &mut self,
                way: Way,
                input: &[u8],
                asked: Option<Asked>,
                limits: &Limits,
                head: &mut Head,
            ) -> Event {
                match self {
                    $(Self::$variant(codec) => codec.advance(way, input, asked, limits, head),)*
                    Self::Private(_, codec) => codec.advance(way, input, asked, limits, head),
                }
            }

            pub(super) fn passable(&self, way: Way) -> u64 {
                match self {
                    $(Self::$variant(codec) => codec.passable(way),)*
                    Self::Private(_, codec) => codec.passable(way),
                }
            }

            pub(super) fn passed(&mut self, way: Way, count: u64) -> bool {
                match self {
                    $(Self::$variant(codec) => codec.passed(way, count),)*
                    Self::Private(_, codec) => codec.passed(way, count),
                }
            }

            pub(super) fn held_head(&self, way: Way) -> &[u8] {
                match self {
                    $(Self::$variant(codec) => codec.held_head(way),)*
                    Self::Private(_, codec) => codec.held_head(way),
                }
            }

            pub(super) fn held(&self) -> usize {
                match self {
                    $(Self::$variant(codec) => codec.held(),)*
                    Self::Private(_, codec) => codec.held(),
                }
            }

            pub(super) fn release_memory(&mut self) {
                match self {
                    $(Self::$variant(codec) => codec.release_memory(),)*
                    Self::Private(_, codec) => codec.release_memory(),
                }
            }
        }
    };
}

protocols! {
    /// Redis: RESP2 and RESP3.
    Redis = Redis,
    /// Dubbo 2.
    Dubbo = Dubbo,
    /// Apache Thrift, in any of its framings and encodings.
    Thrift = Thrift,
    /// PostgreSQL: protocol 3.
    Postgresql = Postgresql,
    /// Kafka.
    Kafka = Kafka,
    /// Memcached: text, meta commands and binary.
    Memcached = Memcached,
    /// MongoDB.
    Mongodb = Mongodb,
    /// MySQL and MariaDB.
    Mysql = Mysql,
    /// brpc: baidu_std and its streams.
    Brpc = Brpc,
    /// tRPC: calls and streams.
    Trpc = Trpc,
    /// NATS, and JetStream over it.
    Nats = Nats,
    /// MQTT 3.1, 3.1.1 and 5.
    Mqtt = Mqtt,
    /// ZooKeeper.
    Zookeeper = Zookeeper,
    /// AMQP 0-9-1, as RabbitMQ speaks it.
    Amqp = Amqp,
}

impl Protocol {
    /// Its name in settings and labels.
    pub fn name(self) -> &'static str {
        self.about().name
    }
}

impl Protocol {
    /// Its place among all, those that are not built in included.
    fn rank(&self) -> (usize, usize) {
        let address = match self {
            Self::Private(private) => ptr::from_ref::<Private>(private).addr(),
            _ => 0,
        };
        (self.index(), address)
    }
}

impl PartialEq for Protocol {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl PartialOrd for Protocol {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Protocol {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Hash for Protocol {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.rank().hash(hasher);
    }
}

impl Eq for Protocol {}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = ();

    /// The protocol of that name, which is built in.
    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|protocol| protocol.name() == name).ok_or(())
    }
}

const _: () = assert!(size_of::<AnyCodec>() <= 288);
