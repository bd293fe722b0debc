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
    field("connectionPool", &POOL, "How much there may be at once"),
    field("outlierDetection", &OUTLIER, "When an endpoint is left out for a while"),
    field(
        "retryBudget",
        &Shape::Object(&[
            field("percent", &Shape::Percent, "Of messages without an answer; 20"),
            field("minRetryConcurrency", &Shape::Whole(0, U32_MAX), "As many in any case; 3"),
            warned("budgetInterval", &Shape::Time(0), "has no effect: what is under way counts"),
        ]),
        "How many messages may be tried again at a time, where a dial has failed",
    ),
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
        "How an endpoint is chosen; LEAST_REQUEST",
    ),
    field("consistentHash", &HASH, "Messages with the same value go to the same endpoint"),
    field("localityLbSetting", &NEARER, "Who is nearer is asked first"),
    refused("zoneAwareLbSetting", WITH_LEGS),
    field(
        "warmup",
        &Shape::Object(&[
            needed("duration", &Shape::Time(1), "For so long a new endpoint gets less"),
            field("minimumPercent", &Shape::Percent, "Of its part, at first; 10"),
            field("aggression", &Shape::Percent, "Above 1 its part grows faster at first; 1"),
        ]),
        "How endpoints begin that come later than others",
    ),
    field("warmupDurationSecs", &Shape::Time(0), "The same in an older document"),
]);

const NEARER: Shape = Shape::Object(&[
    field("enabled", &Shape::Switch, "Whether it has an effect; true"),
    field(
        "failover",
        &Shape::List(&Shape::Object(&[
            needed("from", &Shape::Filled, "A region"),
            needed("to", &Shape::Filled, "The region that is asked when nobody of it is well"),
        ])),
        "Where those of a region go; else any region is as good",
    ),
    field(
        "distribute",
        &Shape::List(&Shape::Object(&[
            needed("from", &Shape::Filled, "Who is there: region/zone/*"),
            needed("to", &Shape::Map(&Shape::Whole(0, 100)), "What percent go where"),
        ])),
        "Parts by where endpoints are, in the place of failover",
    ),
    field(
        "failoverPriority",
        &Shape::List(&Shape::Filled),
        "Labels, or label=value: whoever has more of the first of them is asked first",
    ),
]);

const OUTLIER: Shape = Shape::Object(&[
    field("consecutive5xxErrors", &Shape::Whole(0, U32_MAX), "Faults in a row; 5, 0 is never"),
    field("consecutiveErrors", &Shape::Whole(0, U32_MAX), "The same in an older document"),
    field(
        "consecutiveGatewayErrors",
        &Shape::Whole(0, U32_MAX),
        "502, 503, 504 in a row; 0 is never",
    ),
    field(
        "consecutiveLocalOriginFailures",
        &Shape::Whole(0, U32_MAX),
        "Failed dials and connections that end unanswered in a row, where they are split; 5",
    ),
    field(
        "splitExternalLocalOriginErrors",
        &Shape::Switch,
        "Failed dials are counted for themselves; else they are faults",
    ),
    field("interval", &Shape::Time(1), "For each that went well an ejection is forgotten; 10s"),
    field("baseEjectionTime", &Shape::Time(1), "How long the first ejection takes; 30s"),
    field(
        "maxEjectionPercent",
        &Shape::Whole(0, 100),
        "Endpoints that are out at a time, one in any case unless it is 0, the last never; 10",
    ),
    field(
        "minHealthPercent",
        &Shape::Whole(0, 100),
        "Nobody more is left out where fewer would be left; 0",
    ),
    refused(
        "outlierDetectionHttpErrorCodes",
        "what counts as a fault is for the protocol to say: 5xx of HTTP. Take the field out",
    ),
]);
const U32_MAX: u64 = u32::MAX as u64;

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
    field("minimumRingSize", &Shape::Whole(0, u64::MAX), "A ring, of so many points at least"),
    field(
        "ringHash",
        &Shape::Object(&[field("minimumRingSize", &Shape::Whole(0, u64::MAX), "Points; 1024")]),
        "A ring in the place of a table of Maglev",
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
            field("maxConnections", &Shape::Whole(0, U32_MAX), "Connections to the endpoints"),
            field("connectTimeout", &Shape::Time(0), "How long a dial may take"),
            warned("tcpKeepalive", &Shape::Any, OWN_TIMES),
            refused("maxConnectionDuration", "netra cuts no connection for its age. Take it out"),
            warned("idleTimeout", &Shape::Time(0), "has no effect: idle connections stay"),
        ]),
        "Of connections",
    ),
    field(
        "http",
        &Shape::Object(&[
            field(
                "http1MaxPendingRequests",
                &Shape::Whole(0, U32_MAX),
                "Messages that wait for a connection",
            ),
            field(
                "http2MaxRequests",
                &Shape::Whole(0, U32_MAX),
                "Messages without an answer, of whatever protocol",
            ),
            refused("maxRequestsPerConnection", WITH_LEGS),
            field(
                "maxRetries",
                &Shape::Whole(0, U32_MAX),
                "Messages that are tried again at a time",
            ),
            warned("idleTimeout", &Shape::Time(0), "has no effect: idle connections stay"),
            warned("h2UpgradePolicy", &Shape::Filled, NO_UPGRADE),
            warned("useClientProtocol", &Shape::Switch, NO_UPGRADE),
            refused("maxConcurrentStreams", WITH_LEGS),
            warned("http2KeepAlive", &Shape::Any, OWN_TIMES),
        ]),
        "Of messages",
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
            field("locality", &Shape::Filled, "Where it is: region/zone/subzone"),
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
