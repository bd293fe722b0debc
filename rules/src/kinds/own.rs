//! Authorization.

use crate::shape::{Field, Shape, WITH_CONTROL_PLANE, field, needed, refused};

pub(super) const AUTHORIZATION: &[Field] = &[
    field("action", &Shape::Word(&["ALLOW", "DENY"]), "ALLOW when it is not said"),
    field(
        "mode",
        &Shape::Word(&["enforce", "shadow"]),
        "shadow counts whom it would refuse, and refuses nobody; enforce when it is not said",
    ),
    field("protocol", &Shape::Filled, "The protocol that it is for; else any"),
    field("ports", &Shape::List(&Shape::Whole(1, 65535)), "Ports of this service; else all"),
    field("rules", &Shape::List(&RULE), "One that fits is enough; none fits nothing"),
];

const RULE: Shape = Shape::Object(&[
    field("from", &Shape::List(&FROM), "Who asks; one that fits is enough, none is everybody"),
    field("to", &Shape::List(&TO), "What is asked; one that fits is enough, none is everything"),
]);

const FROM: Shape = Shape::Object(&[
    field("cidrs", &CIDRS, "Networks and addresses, one of which the asker has"),
    field("notCidrs", &CIDRS, "Networks and addresses, none of which the asker has"),
    refused("namespaces", WITH_CONTROL_PLANE),
    refused("serviceAccounts", WITH_CONTROL_PLANE),
]);

const CIDRS: Shape = Shape::List(&Shape::Filled);

const TO: Shape = Shape::Object(&[needed(
    "attributes",
    &Shape::Map(&Shape::Match),
    "What the message must have, all of it",
)]);
