//! The kinds of documents, and what each may say.

mod aeraki;
mod istio;
mod own;
mod router;

use crate::shape::{Field, Shape, field, needed};

/// What a kind of document is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Aeraki's, and our own with more of it.
    Router,
    DestinationRule,
    ServiceEntry,
    ApplicationProtocol,
    DubboAuthorization,
    RedisService,
    RedisDestination,
    Authorization,
}

/// A kind of document.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) role: Role,
    pub(crate) group: &'static str,
    pub(crate) versions: &'static [&'static str],
    pub(crate) name: &'static str,
    pub(crate) document: Shape,
}

/// Every kind that is read.
pub(crate) const KINDS: &[Kind] = &[
    kind(
        Role::Router,
        OWN,
        &["v1alpha1"],
        "Router",
        &[
            API,
            KIND,
            METADATA,
            STATUS,
            needed("spec", &Shape::Object(router::ROUTER), "Routes and limits of one host"),
        ],
    ),
    kind(
        Role::Authorization,
        OWN,
        &["v1alpha1"],
        "Authorization",
        &[
            API,
            KIND,
            METADATA,
            STATUS,
            needed("spec", &Shape::Object(own::AUTHORIZATION), "Who may ask what of this service"),
        ],
    ),
    kind(
        Role::Router,
        METAPROTOCOL,
        &["v1alpha1"],
        "MetaRouter",
        &[
            API,
            KIND,
            METADATA,
            STATUS,
            needed("spec", &Shape::Object(router::META_ROUTER), "Routes and limits of one host"),
        ],
    ),
    kind(
        Role::ApplicationProtocol,
        METAPROTOCOL,
        &["v1alpha1"],
        "ApplicationProtocol",
        &[
            API,
            KIND,
            METADATA,
            STATUS,
            needed("spec", &Shape::Object(aeraki::APPLICATION_PROTOCOL), "A name for a codec"),
        ],
    ),
    kind(
        Role::DubboAuthorization,
        "dubbo.aeraki.io",
        &["v1alpha1"],
        "DubboAuthorizationPolicy",
        &[
            API,
            KIND,
            METADATA,
            STATUS,
            needed(
                "spec",
                &Shape::Object(aeraki::DUBBO_AUTHORIZATION),
                "Who may call which methods",
            ),
        ],
    ),
    kind(
        Role::RedisService,
        REDIS,
        &["v1alpha1"],
        "RedisService",
        &[
            API,
            KIND,
            METADATA,
            STATUS,
            needed("spec", &Shape::Object(aeraki::REDIS_SERVICE), "Where keys are, and faults"),
        ],
    ),
    kind(
        Role::RedisDestination,
        REDIS,
        &["v1alpha1"],
        "RedisDestination",
        &[
            API,
            KIND,
            METADATA,
            STATUS,
            needed("spec", &Shape::Object(aeraki::REDIS_DESTINATION), "How a Redis is reached"),
        ],
    ),
    kind(
        Role::DestinationRule,
        ISTIO,
        ISTIO_VERSIONS,
        "DestinationRule",
        &[
            API,
            KIND,
            METADATA,
            STATUS,
            needed(
                "spec",
                &Shape::Object(istio::DESTINATION_RULE),
                "Subsets of a host, and balancing",
            ),
        ],
    ),
    kind(
        Role::ServiceEntry,
        ISTIO,
        ISTIO_VERSIONS,
        "ServiceEntry",
        &[
            API,
            KIND,
            METADATA,
            STATUS,
            needed("spec", &Shape::Object(istio::SERVICE_ENTRY), "Addresses and ports of hosts"),
        ],
    ),
];

/// The group of netra's own kinds.
const OWN: &str = "netra.io";
const METAPROTOCOL: &str = "metaprotocol.aeraki.io";
const REDIS: &str = "redis.aeraki.io";
const ISTIO: &str = "networking.istio.io";
const ISTIO_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// Groups whose other kinds steer traffic, too: one that is not read is an error, because nobody
/// should believe that it has an effect.
pub(crate) const GROUPS: &[&str] = &[
    OWN,
    METAPROTOCOL,
    "dubbo.aeraki.io",
    REDIS,
    ISTIO,
    "security.istio.io",
    "gateway.networking.k8s.io",
];

const API: Field = needed("apiVersion", &Shape::Filled, "Group and version of the kind");
const KIND: Field = needed("kind", &Shape::Filled, "The kind");
const STATUS: Field = field("status", &Shape::Any, "Written by Kubernetes; not looked at");
const METADATA: Field = needed(
    "metadata",
    &Shape::Object(&[
        needed("name", &Shape::Filled, "The name of the document"),
        field("namespace", &Shape::Filled, "Its namespace; `default` when it is not said"),
        field("annotations", &Shape::Map(&Shape::Text), "Not looked at, but for `interface`"),
        field("labels", &Shape::Map(&Shape::Text), "Not looked at"),
        field("uid", &Shape::Any, "Written by Kubernetes"),
        field("resourceVersion", &Shape::Any, "Written by Kubernetes"),
        field("generation", &Shape::Any, "Written by Kubernetes"),
        field("creationTimestamp", &Shape::Any, "Written by Kubernetes"),
        field("deletionTimestamp", &Shape::Any, "Written by Kubernetes"),
        field("deletionGracePeriodSeconds", &Shape::Any, "Written by Kubernetes"),
        field("generateName", &Shape::Any, "Written by Kubernetes"),
        field("selfLink", &Shape::Any, "Written by Kubernetes"),
        field("ownerReferences", &Shape::Any, "Written by Kubernetes"),
        field("finalizers", &Shape::Any, "Written by Kubernetes"),
        field("managedFields", &Shape::Any, "Written by Kubernetes"),
    ]),
    "Name and namespace",
);

const fn kind(
    role: Role,
    group: &'static str,
    versions: &'static [&'static str],
    name: &'static str,
    fields: &'static [Field],
) -> Kind {
    Kind { role, group, versions, name, document: Shape::Object(fields) }
}

/// Names of namespaces that others may use a document from: everything of a directory is used here.
const EXPORT_TO: Field = crate::shape::warned(
    "exportTo",
    &Shape::List(&Shape::Filled),
    "has no effect: all documents of the directory are for this sidecar",
);
