//! The calls of Kafka, by api key: <https://kafka.apache.org/protocol#protocol_api_keys>, to
//! version 4.1.

use crate::codec::Kind;
use crate::kafka::layout::{Step, layout};

/// A call.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) name: &'static str,
    /// The first version with short lengths and tagged fields.
    flexible: u8,
    /// The last version whose layout is known.
    newest: u8,
    request: &'static [Step],
    response: &'static [Step],
}

impl Api {
    /// Whether a version has tagged fields.
    pub(super) fn is_flexible(&self, version: u8) -> bool {
        version >= self.flexible
    }

    /// Whether a version may well be one: clients are newer than this table.
    pub(super) fn is_plausible(&self, version: u8) -> bool {
        version <= self.newest + 8
    }

    pub(super) fn request(&self, version: u8) -> &'static [Step] {
        if version <= self.newest { self.request } else { &[] }
    }

    pub(super) fn response(&self, version: u8) -> &'static [Step] {
        if version <= self.newest { self.response } else { &[] }
    }
}

pub(super) const PRODUCE: u8 = 0;
pub(super) const FETCH: u8 = 1;
pub(super) const JOIN_GROUP: u8 = 11;
pub(super) const SYNC_GROUP: u8 = 14;
pub(super) const SASL_HANDSHAKE: u8 = 17;
pub(super) const API_VERSIONS: u8 = 18;
pub(super) const SASL_AUTHENTICATE: u8 = 36;
pub(super) const SHARE_FETCH: u8 = 78;

/// The operation of every call that is not listed.
#[allow(clippy::cast_possible_truncation)]
pub(super) const OTHER: u8 = APIS.len() as u8;

/// The first version of `Produce` that names topics by their ids alone.
pub(super) const PRODUCE_BY_ID: u8 = 13;

/// What a call is for.
pub(super) fn kind(key: u8) -> Kind {
    match key {
        FETCH | JOIN_GROUP | SYNC_GROUP | SHARE_FETCH => Kind::Blocking,
        SASL_HANDSHAKE | API_VERSIONS | SASL_AUTHENTICATE => Kind::Handshake,
        _ => Kind::Request,
    }
}

/// What an operation is by the conventions for messaging.
pub(super) const OPERATION_TYPES: &[(&str, &str)] = &[
    ("Produce", "send"),
    ("Fetch", "receive"),
    ("ShareFetch", "receive"),
    ("OffsetCommit", "settle"),
    ("TxnOffsetCommit", "settle"),
    ("ShareAcknowledge", "settle"),
];

/// The names, by operation.
pub(super) const NAMES: &[&str] = &{
    let mut names = ["other"; APIS.len() + 1];
    let mut index = 0;
    while index < APIS.len() {
        names[index] = APIS[index].name;
        index += 1;
    }
    names
};

/// No version is flexible.
const NEVER: u8 = u8::MAX;

macro_rules! apis {
    ($($name:ident $flexible:tt $newest:literal $request:literal $response:literal;)*) => {
        &[$(Api {
            name: stringify!($name),
            flexible: $flexible,
            newest: $newest,
            request: layout!($request),
            response: layout!($response),
        },)*]
    };
}

/// By api key: name, first flexible version, last version that is known, layouts of request and
/// answer ([`layout`](super::layout)). The messages are described in Apache Kafka's
/// `clients/src/main/resources/common/message`.
#[rustfmt::skip]
pub(super) const APIS: &[Api] = apis! {
    Produce 9 13 "s:3+ 2 4 [ t:0-12 16:13+ [ 4 r ] ]"
        "[ s:0-12 16:13+ [ 4 e 8 8:2+ 8:5+ [:8+ 4 s ] s:8+ ] ]";
    Fetch 12 18 "4:0-14 4 4 4:3+ 1:4+ 4:7+ 4:7+ [ t:0-12 . ]"
        "4:1+ e:7+ 4:7+ [ s:0-12 16:13+ [ 4 e 8 8:4+ 8:5+ [:4+ 8 8 ] 4:11+ b ] ]";
    ListOffsets 6 11 "4 1:2+ [ t . ]" "4:2+ [ s [ 4 e *8:0 8:1+ 8:1+ 4:4+ ] ]";
    Metadata 9 13 "[ 16:10+ t . ]"
        "4:3+ [ 4 s 4 s:1+ ] s:2+ 4:1+ [ e s 16:10+ 1:1+ [ 2 4 4 4:7+ *4 *4 *4:5+ ] 4:8+ ] 4:8-10 e:13+";
    LeaderAndIsr 4 7 "" "e";
    StopReplica 2 4 "" "e";
    UpdateMetadata 6 8 "" "e";
    ControlledShutdown 3 3 "" "e";
    OffsetCommit 8 10 "g 4:1+ s:1+ s:7+ 8:2-4 [ t:0-9 . ]" "4:3+ [ s:0-9 16:10+ [ 4 e ] ]";
    OffsetFetch 6 10 "g:0-7 [:0-7 t . ] [:8+ g s:9+ 4:9+ [ t:8-9 . ] ]"
        "4:3+ [:0-7 s [ 4 8 4:5+ s e ] ] e:2-7 [:8+ s [ s:8-9 16:10+ [ 4 8 4 s e ] ] e ]";
    FindCoordinator 3 6 "" "4:1+ e:0-3 [:4+ s 4 s 4 e s ]";
    JoinGroup 6 9 "g" "4:2+ e";
    Heartbeat 4 4 "g" "4:1+ e";
    LeaveGroup 4 5 "g" "4:1+ e [:3+ s s e ]";
    SyncGroup 4 5 "g" "4:1+ e";
    DescribeGroups 5 6 "*g" "4:1+ [ e . ]";
    ListGroups 3 5 "" "4:1+ e";
    SaslHandshake NEVER 1 "" "e";
    ApiVersions 3 4 "" "e";
    CreateTopics 5 7 "[ t . ]" "4:2+ [ s 16:7+ e s:1+ 4:5+ 2:5+ [:5+ s s 1 1 1 ] ]";
    DeleteTopics 4 6 "*t:0-5 [:6+ t . ]" "4:1+ [ s 16:6+ e s:5+ ]";
    DeleteRecords 2 2 "[ t . ]" "4 [ s [ 4 8 e ] ]";
    InitProducerId 2 6 "" "4 e";
    OffsetForLeaderEpoch 4 4 "4:3+ [ t . ]" "4:2+ [ s [ e 4 4:1+ 8 ] ]";
    AddPartitionsToTxn 3 5 "s:0-3 8:0-3 2:0-3 [:0-3 t . ] [:4+ s 8 2 1 [ t . ] ]"
        "4 e:4+ [:4+ s [ s [ 4 e ] ] ] [:0-3 s [ 4 e ] ]";
    AddOffsetsToTxn 3 4 "s 8 2 g" "4 e";
    EndTxn 3 5 "" "4 e";
    WriteTxnMarkers 1 2 "[ 8 2 1 [ t . ] ]" "[ 8 [ s [ 4 e ] ] ]";
    TxnOffsetCommit 3 5 "s g 8 2 4:3+ s:3+ s:3+ [ t . ]" "4 [ s [ 4 e ] ]";
    DescribeAcls 2 3 "" "4 e";
    CreateAcls 2 3 "" "4 [ e s ]";
    DeleteAcls 2 3 "" "4 [ e . ]";
    DescribeConfigs 4 4 "" "4 [ e . ]";
    AlterConfigs 2 2 "" "4 [ e s 1 s ]";
    AlterReplicaLogDirs 2 2 "[ s [ t . ] ]" "4 [ s [ 4 e ] ]";
    DescribeLogDirs 2 5 "[ t . ]" "4 e:3+ [ e . ]";
    SaslAuthenticate 2 2 "" "e";
    CreatePartitions 2 3 "[ t . ]" "4 [ s e s ]";
    CreateDelegationToken 2 3 "" "e";
    RenewDelegationToken 2 2 "" "e";
    ExpireDelegationToken 2 2 "" "e";
    DescribeDelegationToken 2 3 "" "e";
    DeleteGroups 2 2 "*g" "4 [ s e ]";
    ElectLeaders 2 2 "1:1+ [ t . ]" "4 e:1+ [ s [ 4 e s ] ]";
    IncrementalAlterConfigs 1 1 "" "4 [ e s 1 s ]";
    AlterPartitionReassignments 0 1 "4 1:1+ [ t . ]" "4 1:1+ e s [ s [ 4 e s ] ]";
    ListPartitionReassignments 0 0 "4 [ t . ]" "4 e";
    OffsetDelete NEVER 0 "g [ t . ]" "e 4 [ s [ 4 e ] ]";
    DescribeClientQuotas 1 1 "" "4 e";
    AlterClientQuotas 1 1 "" "4 [ e s [ s s ] ]";
    DescribeUserScramCredentials 0 0 "" "4 e";
    AlterUserScramCredentials 0 0 "" "4 [ s e s ]";
    Vote 0 2 "" "e";
    BeginQuorumEpoch 1 1 "" "e";
    EndQuorumEpoch 1 1 "" "e";
    DescribeQuorum 0 2 "[ t . ]" "e";
    AlterPartition 0 3 "" "4 e";
    UpdateFeatures 0 2 "" "4 e";
    Envelope 0 0 "" "b e";
    FetchSnapshot 0 1 "" "4 e";
    DescribeCluster 0 2 "" "4 e";
    DescribeProducers 0 0 "[ t . ]" "4 [ s [ 4 e . ] ]";
    BrokerRegistration 0 4 "" "4 e";
    BrokerHeartbeat 0 1 "" "4 e";
    UnregisterBroker 0 0 "" "4 e";
    DescribeTransactions 0 0 "" "4 [ e . ]";
    ListTransactions 0 2 "" "4 e";
    AllocateProducerIds 0 0 "" "4 e";
    ConsumerGroupHeartbeat 0 1 "g" "4 e";
    ConsumerGroupDescribe 0 1 "*g" "4 [ e . ]";
    ControllerRegistration 0 0 "" "4 e";
    GetTelemetrySubscriptions 0 0 "" "4 e";
    PushTelemetry 0 0 "" "4 e";
    AssignReplicasToDirs 0 0 "" "4 e";
    ListConfigResources 0 1 "" "4 e";
    DescribeTopicPartitions 0 0 "[ t . ]" "4 [ e . ]";
    ShareGroupHeartbeat 0 1 "g" "4 e";
    ShareGroupDescribe 0 1 "*g" "4 [ e . ]";
    ShareFetch 0 2 "g" "4 e";
    ShareAcknowledge 0 2 "g" "4 e";
    AddRaftVoter 0 1 "" "4 e";
    RemoveRaftVoter 0 0 "" "4 e";
    UpdateRaftVoter 0 0 "" "4 e";
    InitializeShareGroupState 0 0 "" "";
    ReadShareGroupState 0 0 "" "";
    WriteShareGroupState 0 1 "" "";
    DeleteShareGroupState 0 0 "" "";
    ReadShareGroupStateSummary 0 1 "" "";
    StreamsGroupHeartbeat 0 0 "g" "4 e";
    StreamsGroupDescribe 0 0 "*g" "4 [ e . ]";
    DescribeShareGroupOffsets 0 0 "" "";
    AlterShareGroupOffsets 0 0 "g" "";
    DeleteShareGroupOffsets 0 0 "g" "";
};

const _: () = assert!(APIS.len() < 256);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_places_in_the_table() {
        for (key, name) in [
            (PRODUCE, "Produce"),
            (FETCH, "Fetch"),
            (JOIN_GROUP, "JoinGroup"),
            (SYNC_GROUP, "SyncGroup"),
            (SASL_HANDSHAKE, "SaslHandshake"),
            (API_VERSIONS, "ApiVersions"),
            (SASL_AUTHENTICATE, "SaslAuthenticate"),
            (42, "DeleteGroups"),
            (68, "ConsumerGroupHeartbeat"),
            (75, "DescribeTopicPartitions"),
            (SHARE_FETCH, "ShareFetch"),
            (92, "DeleteShareGroupOffsets"),
            (OTHER, "other"),
        ] {
            assert_eq!(NAMES[usize::from(key)], name);
        }
    }
}
