//! The smaller kinds of Aeraki.

use crate::shape::{Field, Shape, WITH_CONTROL_PLANE, WITH_LEGS, field, needed, refused, warned};

pub(super) const APPLICATION_PROTOCOL: &[Field] = &[
    needed("protocol", &Shape::Filled, "The name that ports say"),
    needed("codec", &Shape::Filled, "The codec, as Aeraki calls it or as netra does"),
];

pub(super) const DUBBO_AUTHORIZATION: &[Field] = &[
    field("action", &Shape::Word(&["ALLOW", "DENY"]), "ALLOW when it is not said"),
    field("rules", &Shape::List(&DUBBO_RULE), "One that fits is enough; none fits nothing"),
];

const DUBBO_RULE: Shape = Shape::Object(&[
    field(
        "from",
        &Shape::List(&Shape::Object(&[field(
            "source",
            &Shape::Object(&[
                refused("principals", WITH_CONTROL_PLANE),
                refused("notPrincipals", WITH_CONTROL_PLANE),
                refused("namespaces", WITH_CONTROL_PLANE),
                refused("notNamespaces", WITH_CONTROL_PLANE),
            ]),
            "Who asks",
        )])),
        "Who asks; none is everybody",
    ),
    field(
        "to",
        &Shape::List(&Shape::Object(&[field(
            "operation",
            &Shape::Object(&[
                field("interfaces", &WORDS, "One of them; `abc*`, `*abc` and `*` are allowed"),
                field("notInterfaces", &WORDS, "None of them"),
                field("methods", &WORDS, "One of them"),
                field("notMethods", &WORDS, "None of them"),
            ]),
            "What is asked",
        )])),
        "What is asked; one that fits is enough, none is everything",
    ),
]);

const WORDS: Shape = Shape::List(&Shape::Filled);

pub(super) const REDIS_SERVICE: &[Field] = &[
    needed("host", &Shape::List(&Shape::Host), "The hosts"),
    field("settings", &SETTINGS, "Of Envoy's proxy; few of them mean something here"),
    field("redis", &Shape::List(&KEYS), "Where keys are; of prefixes that fit the longest decides"),
    field("faults", &Shape::List(&REDIS_FAULT), "Faults on purpose; the first that fits decides"),
];

const NOT_A_PROXY: &str =
    "has no effect: netra passes commands on as they came and answers nothing on its own";

const SETTINGS: Shape = Shape::Object(&[
    field("caseInsensitive", &Shape::Switch, "Prefixes of keys without regard to case"),
    field("opTimeout", &Shape::Time(1), "How long an answer's first byte may take"),
    warned("enableCommandStats", &Shape::Switch, "has no effect: netra always counts commands"),
    warned("maxBufferSizeBeforeFlush", &Shape::Whole(0, U32_MAX), NOT_A_PROXY),
    warned("bufferFlushTimeout", &Shape::Time(0), NOT_A_PROXY),
    warned("maxUpstreamUnknownConnections", &Shape::Whole(0, U32_MAX), NOT_A_PROXY),
    refused("enableHashtagging", WITH_LEGS),
    refused("enableRedirection", WITH_LEGS),
    refused("readPolicy", WITH_LEGS),
    refused("auth", NO_AUTH),
]);
const U32_MAX: u64 = u32::MAX as u64;
const NO_AUTH: &str = "netra keeps no passwords and sends none: let the application say AUTH. \
     Take the field out";

const KEYS: Shape = Shape::Object(&[
    field(
        "match",
        &Shape::Object(&[needed(
            "key",
            &Shape::Object(&[
                needed("prefix", &Shape::Text, "What the key begins with"),
                refused(
                    "removePrefix",
                    "netra changes no keys of Redis: keys stay what the application calls them. \
                     Take the field out",
                ),
            ]),
            "The first key of the command",
        )]),
        "Which commands; none is all that no other entry is for",
    ),
    needed(
        "route",
        &Shape::Object(&[
            needed("host", &Shape::Host, "The host"),
            field("port", &Shape::Whole(1, 65535), "Its port; else the one that was asked for"),
        ]),
        "Where the commands go",
    ),
    field("mirror", &Shape::List(&REDIS_MIRROR), "Where a copy of each command goes; one at most"),
]);

const REDIS_MIRROR: Shape = Shape::Object(&[
    needed(
        "route",
        &Shape::Object(&[
            needed("host", &Shape::Host, "The host"),
            field("port", &Shape::Whole(1, 65535), "Its port; else the one that was asked for"),
        ]),
        "Where copies go, whose answers nobody gets",
    ),
    field(
        "percentage",
        &Shape::Object(&[needed("value", &Shape::Percent, "Percent")]),
        "Of commands; 100",
    ),
    field("excludeReadCommands", &Shape::Switch, "No copies of commands that change nothing"),
]);

const REDIS_FAULT: Shape = Shape::Object(&[
    needed("type", &Shape::Word(&["DELAY", "ERROR"]), "Wait, or an error"),
    field(
        "percentage",
        &Shape::Object(&[needed("value", &Shape::Percent, "Percent")]),
        "Of commands; 100",
    ),
    field("delay", &Shape::Time(1), "How long to wait"),
    field("commands", &WORDS, "Which commands; none is all"),
]);

pub(super) const REDIS_DESTINATION: &[Field] = &[
    needed("host", &Shape::Host, "The host"),
    field(
        "trafficPolicy",
        &Shape::Object(&[field(
            "connectionPool",
            &Shape::Object(&[
                refused("tcp", WITH_LEGS),
                field(
                    "redis",
                    &Shape::Object(&[
                        field("mode", &Shape::Word(&["PROXY"]), "CLUSTER comes with legs"),
                        refused("auth", NO_AUTH),
                        refused("discoveryEndpoints", WITH_LEGS),
                    ]),
                    "How it is spoken to",
                ),
            ]),
            "How it is reached",
        )]),
        "How it is reached",
    ),
];
