//! DestinationRule and ServiceEntry.

use super::EXPORT_TO;
use crate::shape::{Field, Shape, WITH_LEGS, field, needed, refused, warned};

pub(super) const DESTINATION_RULE: &[Field] = &[
    needed("host", &Shape::Host, "The host"),
    field("trafficPolicy", &POLICY, "How endpoints are chosen"),
    field(
        "subsets",
        &Shape::List(&Shape::Object(&[
            needed("name", &Shape::Filled, "What routes call it"),
            field("labels", &LABELS, "What an endpoint of it has; none is every endpoint"),
            field("trafficPolicy", &POLICY, "How endpoints of it are chosen"),
        ])),
        "Endpoints of the host with certain labels",
    ),
    EXPORT_TO,
    refused(
        "workloadSelector",
        "netra does not know the labels of its own workload: put the document where only the \
         workload's sidecars read it. Take the field out",
    ),
];

const LABELS: Shape = Shape::Map(&Shape::Text);

const POLICY: Shape = Shape::Object(&[
    field("loadBalancer", &BALANCER, "How an endpoint is chosen"),
    field("connectionPool", &POOL, "Almost all of it comes with legs"),
    refused("outlierDetection", WITH_LEGS),
    refused("retryBudget", WITH_LEGS),
    warned("tls", &Shape::Any, "has no effect: netra begins and ends no TLS"),
    refused("portLevelSettings", "one policy for all ports of a host is all that netra reads"),
    refused("tunnel", WITH_LEGS),
    refused("proxyProtocol", "netra sends no PROXY protocol. Take the field out"),
]);

const BALANCER: Shape = Shape::Object(&[
    field(
        "simple",
        &Shape::Word(&[
            "UNSPECIFIED",
            "RANDOM",
            "PASSTHROUGH",
            "ROUND_ROBIN",
            "LEAST_REQUEST",
            "LEAST_CONN",
        ]),
        "How a connection's endpoint is chosen",
    ),
    field("consistentHash", &HASH, "Messages with the same value go to the same endpoint"),
    refused("localityLbSetting", WITH_LEGS),
    refused("zoneAwareLbSetting", WITH_LEGS),
    refused("warmup", WITH_LEGS),
    refused("warmupDurationSecs", WITH_LEGS),
]);

const HASH: Shape = Shape::Object(&[
    field("httpHeaderName", &Shape::Filled, "The attribute whose value counts"),
    field(
        "httpCookie",
        &Shape::Object(&[
            needed("name", &Shape::Filled, "The cookie whose value counts"),
            warned("path", &Shape::Text, NO_COOKIE),
            warned("ttl", &Shape::Time(0), NO_COOKIE),
            warned("attributes", &Shape::Any, NO_COOKIE),
        ]),
        "A cookie of HTTP",
    ),
    field("useSourceIp", &Shape::Switch, "The asker's address counts"),
    field("httpQueryParameterName", &Shape::Filled, "The parameter whose value counts"),
    warned(
        "minimumRingSize",
        &Shape::Whole(0, u64::MAX),
        "has no effect: netra hashes with a table of Maglev that fits the endpoints",
    ),
    warned(
        "ringHash",
        &Shape::Object(&[field("minimumRingSize", &Shape::Whole(0, u64::MAX), "")]),
        "has no effect: netra hashes with a table of Maglev that fits the endpoints",
    ),
    warned(
        "maglev",
        &Shape::Object(&[field("tableSize", &Shape::Whole(0, u64::MAX), "")]),
        "has no effect: netra's table of Maglev fits the endpoints",
    ),
]);
const NO_COOKIE: &str = "has no effect: netra sets no cookies; the value that is there counts";

const POOL: Shape = Shape::Object(&[
    field(
        "tcp",
        &Shape::Object(&[
            refused("maxConnections", WITH_LEGS),
            warned("connectTimeout", &Shape::Time(0), OWN_TIMES),
            warned("tcpKeepalive", &Shape::Any, OWN_TIMES),
            refused("maxConnectionDuration", "netra cuts no connection for its age. Take it out"),
            warned("idleTimeout", &Shape::Time(0), "has no effect: idle connections stay"),
        ]),
        "Of TCP",
    ),
    field(
        "http",
        &Shape::Object(&[
            refused("http1MaxPendingRequests", WITH_LEGS),
            refused("http2MaxRequests", WITH_LEGS),
            refused("maxRequestsPerConnection", WITH_LEGS),
            refused("maxRetries", WITH_LEGS),
            warned("idleTimeout", &Shape::Time(0), "has no effect: idle connections stay"),
            warned("h2UpgradePolicy", &Shape::Filled, NO_UPGRADE),
            warned("useClientProtocol", &Shape::Switch, NO_UPGRADE),
            refused("maxConcurrentStreams", WITH_LEGS),
            warned("http2KeepAlive", &Shape::Any, OWN_TIMES),
        ]),
        "Of HTTP",
    ),
]);
const OWN_TIMES: &str =
    "has no effect: connections of netra are dialled and kept alive by its own settings";
const NO_UPGRADE: &str = "has no effect: netra passes on the protocol that is spoken";

pub(super) const SERVICE_ENTRY: &[Field] = &[
    needed("hosts", &Shape::List(&Shape::Filled), "The hosts"),
    field("addresses", &Shape::List(&Shape::Filled), "Addresses and networks that stand for them"),
    field(
        "ports",
        &Shape::List(&Shape::Object(&[
            needed("number", &Shape::Whole(1, 65535), "The port"),
            field("protocol", &Shape::Filled, "HTTP says what is spoken; else the name does"),
            needed("name", &Shape::Filled, "`tcp-metaprotocol-dubbo` says what is spoken"),
            field("targetPort", &Shape::Whole(1, 65535), "The port of endpoints; else the number"),
        ])),
        "The ports, and what is spoken there",
    ),
    field(
        "location",
        &Shape::Word(&["MESH_EXTERNAL", "MESH_INTERNAL"]),
        "Not looked at: no difference here",
    ),
    field(
        "resolution",
        &Shape::Word(&["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]),
        "NONE is wherever the connection went",
    ),
    field(
        "endpoints",
        &Shape::List(&Shape::Object(&[
            needed("address", &Shape::Filled, "An address, or a name"),
            field("ports", &Shape::Map(&Shape::Whole(1, 65535)), "Its ports by name"),
            field("labels", &LABELS, "By which subsets are told apart"),
            field("weight", &Shape::Whole(0, 10_000), "Its part; 1"),
            warned("network", &Shape::Filled, "has no effect: endpoints are dialled as they are"),
            warned("locality", &Shape::Filled, "has no effect: no endpoint is preferred"),
            warned("serviceAccount", &Shape::Filled, "has no effect: netra checks no identities"),
        ])),
        "Where the hosts are",
    ),
    warned(
        "workloadSelector",
        &Shape::Any,
        "workloads are not known here: the host is found by DNS, and has no subsets. A sidecar \
         without a control plane needs endpoints",
    ),
    EXPORT_TO,
    warned("subjectAltNames", &Shape::Any, "has no effect: netra begins and ends no TLS"),
];
