//! MetaRouter, and Router, which is the same with more.

use super::EXPORT_TO;
use crate::shape::{Field, Shape, field, needed, refused};

pub(super) const META_ROUTER: &[Field] = &[
    HOSTS,
    GATEWAYS,
    EXPORT_TO,
    field("routes", &Shape::List(&META_ROUTE), ROUTES),
    LIMIT,
    GLOBAL,
];

pub(super) const ROUTER: &[Field] = &[
    HOSTS,
    GATEWAYS,
    EXPORT_TO,
    field("protocol", &Shape::Filled, "The protocol that the rules are for; else any"),
    field(
        "ports",
        &Shape::List(&Shape::Whole(1, 65535)),
        "The ports of the host that the rules are for; else all",
    ),
    field("routes", &Shape::List(&OWN_ROUTE), ROUTES),
    field(
        "default",
        &Shape::Word(&["refuse", "originalDst"]),
        "What becomes of a message that no route is for; refuse when it is not said",
    ),
    TIMEOUT,
    FAULT,
    HASH_ON,
    field("localRateLimit", &OWN_LIMIT, "Limits of messages to this service"),
    GLOBAL,
];

const ROUTES: &str = "The first that fits a message from here decides";

const HOSTS: Field = needed("hosts", &Shape::List(&Shape::Host), "The host; exactly one");
const GATEWAYS: Field = field(
    "gateways",
    &Shape::List(&Shape::Filled),
    "Without `mesh` among them, the document is for gateways alone and left out",
);
const GLOBAL: Field = refused(
    "globalRateLimit",
    "a limit that sidecars share is not in this version of netra: localRateLimit is one for each \
     sidecar. Take the field out",
);

const META_ROUTE: Shape = Shape::Object(&[
    NAME,
    MATCH,
    ROUTE,
    MIRROR,
    MIRROR_PERCENTAGE,
    REQUEST_MUTATION,
    RESPONSE_MUTATION,
]);

const OWN_ROUTE: Shape = Shape::Object(&[
    NAME,
    MATCH,
    ROUTE,
    MIRROR,
    MIRROR_PERCENTAGE,
    REQUEST_MUTATION,
    RESPONSE_MUTATION,
    REQUEST_REMOVAL,
    RESPONSE_REMOVAL,
    TIMEOUT,
    RETRY,
    FAULT,
    HASH_ON,
]);

const NAME: Field = field("name", &Shape::Filled, "Its name in metrics and logs; else its place");
const MATCH: Field =
    field("match", &MATCHES, "What a message must have, all of it; nothing fits every message");
const ROUTE: Field = needed(
    "route",
    &Shape::List(&Shape::Object(&[
        needed("destination", &DESTINATION, "Where messages go"),
        field("weight", &Shape::Whole(0, 100), "Of 100, where there are several"),
    ])),
    "Where messages go; several share by weight",
);
const MIRROR: Field =
    field("mirror", &DESTINATION, "Where a copy of each message goes, whose answer nobody gets");
const MIRROR_PERCENTAGE: Field = field(
    "mirrorPercentage",
    &Shape::Object(&[needed("value", &Shape::Percent, "Percent")]),
    "Of messages; 100",
);
const REQUEST_MUTATION: Field =
    field("requestMutation", &MUTATIONS, "Values that each request is given, in place of its own");
const RESPONSE_MUTATION: Field =
    field("responseMutation", &MUTATIONS, "Values that each answer is given (Aeraki: none)");

const REQUEST_REMOVAL: Field =
    field("requestRemoval", &NAMES, "Fields of HTTP that are taken out of each request");
const RESPONSE_REMOVAL: Field =
    field("responseRemoval", &NAMES, "Fields of HTTP that are taken out of each answer");
const NAMES: Shape = Shape::List(&Shape::Filled);

const MATCHES: Shape = Shape::Object(&[ATTRIBUTES]);
const ATTRIBUTES: Field = field(
    "attributes",
    &Shape::Map(&Shape::Match),
    "Values by name; names without regard to case, values with it",
);

const DESTINATION: Shape = Shape::Object(&[
    needed("host", &Shape::Host, "The host"),
    field("subset", &Shape::Filled, "One of the host's DestinationRule"),
    field(
        "port",
        &Shape::Object(&[needed("number", &Shape::Whole(1, 65535), "The port")]),
        "The port of the host; else the one that was asked for",
    ),
]);

const MUTATIONS: Shape = Shape::List(&Shape::Object(&[
    needed("key", &Shape::Filled, "The name"),
    needed("value", &Shape::Text, "The value"),
]));

const BUCKET: Shape = Shape::Object(&[
    needed("maxTokens", &Shape::Whole(1, U32_MAX), "Messages at once, at most"),
    field("tokensPerFill", &Shape::Whole(1, U32_MAX), "Messages more after each interval; 1"),
    needed("fillInterval", &Shape::Time(50), "The interval"),
]);
const U32_MAX: u64 = u32::MAX as u64;

const LIMIT: Field = field(
    "localRateLimit",
    &Shape::Object(&[
        field("tokenBucket", &BUCKET, "For messages that no condition is for"),
        field(
            "conditions",
            &Shape::List(&Shape::Object(&[
                needed("match", &MATCHES, "What a message must have"),
                needed("tokenBucket", &BUCKET, "For messages that have it, and for no others"),
            ])),
            "The first that fits a message decides",
        ),
    ]),
    "Limits of messages to this service, one budget for the sidecar",
);

const OWN_LIMIT: Shape = Shape::Object(&[
    field("tokenBucket", &BUCKET, "For messages that no condition is for"),
    PER_KEY,
    field(
        "conditions",
        &Shape::List(&Shape::Object(&[
            needed("match", &MATCHES, "What a message must have"),
            needed("tokenBucket", &BUCKET, "For messages that have it, and for no others"),
            PER_KEY,
        ])),
        "The first that fits a message decides",
    ),
]);

const PER_KEY: Field = field(
    "perKey",
    &Shape::Object(&[
        needed("attribute", &Shape::Filled, "Each of its values has a bucket of its own"),
        field("maxKeys", &Shape::Whole(1, 65536), "Values that are remembered; 1024"),
    ]),
    "A bucket for each value of an attribute; messages without one share one",
);

const TIMEOUT: Field = field(
    "timeout",
    &Shape::Object(&[
        field("firstByte", &Shape::Time(1), "How long the answer's first byte may take"),
        field("idle", &Shape::Time(1), "How long an answer that has begun may stand still"),
    ]),
    "How long answers may take; there is no time for all of an answer",
);

const RETRY: Field = field(
    "retry",
    &Shape::Object(&[
        needed(
            "on",
            &Shape::List(&Shape::Word(&["reset", "timeout", "gateway-error"])),
            "What is tried again: `reset` is an upstream that ends before anything of the answer came, \
             `timeout` one that has not begun to answer within `perTryTimeout`, `gateway-error` an answer \
             by which it cannot serve now: 502, 503 or 504, and what counts as a fault of other protocols",
        ),
        field("attempts", &Shape::Whole(1, 2), "How often, at most; 2"),
        field(
            "perTryTimeout",
            &Shape::Time(1),
            "How long the first byte of each try's answer may take, with `on: [timeout]`",
        ),
        field(
            "operations",
            &NAMES,
            "Operations that may be sent twice, by name or by how it begins (`find*`): of Redis, memcached and \
             HTTP fewer than those that read, of others all that are",
        ),
    ]),
    "GET, HEAD, OPTIONS and TRACE of HTTP/1 without a body, reads of Redis and memcached, and operations that \
     are named are asked again at another endpoint",
);

const FAULT: Field = field(
    "fault",
    &Shape::Object(&[
        field(
            "delay",
            &Shape::Object(&[
                field("percentage", &Shape::Percent, "Of messages; 100"),
                needed("fixedDelay", &Shape::Time(1), "How long they wait"),
            ]),
            "Messages wait",
        ),
        field(
            "abort",
            &Shape::Object(&[
                field("percentage", &Shape::Percent, "Of messages; 100"),
                field("httpStatus", &Shape::Whole(200, 599), "The status of HTTP; 503"),
                field("message", &Shape::Filled, "The text of the refusal"),
            ]),
            "Messages are refused",
        ),
    ]),
    "Faults on purpose: first the delay, then the abort",
);

const HASH_ON: Field = field(
    "hashOn",
    &Shape::List(&Shape::Filled),
    "Attributes whose values say together which endpoint of the cluster is asked",
);
