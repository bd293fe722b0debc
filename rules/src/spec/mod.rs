//! What documents say, in types: defaults filled in, and what is wrong beyond the shape found.

mod annotations;
mod authorization;
mod policy;
mod redis;
mod router;
mod service;

use crate::{
    document::Document,
    kinds::Role,
    shape::{short, time_ns, whole},
    trouble::{Place, Troubles},
    verdict::Retry,
    yaml::Node,
};
use std::collections::HashMap;

pub(crate) use policy::{HashSpec, PolicySpec};
pub(crate) use service::{EndpointSpec, PortSpec, ServiceSpec, SubsetsSpec, network};

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Specs {
    pub(crate) routers: Vec<RouterSpec>,
    pub(crate) authorizations: Vec<AuthorizationSpec>,
    pub(crate) services: Vec<ServiceSpec>,
    /// By host.
    pub(crate) subsets: HashMap<String, SubsetsSpec>,
    /// Names of protocols that documents give, with those of netra's codecs.
    pub(crate) protocols: HashMap<String, (String, Place)>,
}

/// Routes, faults and limits for one host.
#[derive(Debug)]
pub(crate) struct RouterSpec {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) host: String,
    pub(crate) protocol: Option<(String, Place)>,
    /// None are all.
    pub(crate) ports: Vec<u16>,
    pub(crate) routes: Vec<RouteSpec>,
    pub(crate) passes_unrouted: bool,
    pub(crate) faults: Vec<FaultSpec>,
    pub(crate) limits: Vec<LimitSpec>,
}

#[derive(Debug)]
pub(crate) struct RouteSpec {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) to: Vec<DestinationSpec>,
    pub(crate) request: Vec<MutationSpec>,
    pub(crate) response: Vec<MutationSpec>,
    pub(crate) first_byte_ns: u64,
    pub(crate) idle_ns: u64,
    /// When it may be asked again, after it was sent.
    pub(crate) retry: Retry,
    /// Operations that may be asked again, or beginnings of them with `*` behind; none is what the
    /// protocol says.
    pub(crate) repeats: Vec<(String, Place)>,
    pub(crate) fault: Option<Fault>,
    pub(crate) hash_on: Vec<(String, Place)>,
    pub(crate) mirror: Option<MirrorSpec>,
}

/// Where copies of messages go; parts are of 0.0001 percent.
#[derive(Debug)]
pub(crate) struct MirrorSpec {
    pub(crate) to: DestinationSpec,
    pub(crate) parts: u32,
}

impl RouteSpec {
    /// Everywhere that its messages, or copies of them, go.
    pub(crate) fn destinations(&self) -> impl Iterator<Item = &DestinationSpec> {
        self.to.iter().chain(self.mirror.iter().map(|mirror| &mirror.to))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct DestinationSpec {
    pub(crate) host: String,
    pub(crate) subset: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) weight: u32,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) struct MutationSpec {
    pub(crate) key: String,
    /// None takes out what is there.
    pub(crate) value: Option<String>,
    pub(crate) place: Place,
}

/// Something that a message must have.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) about: About,
    pub(crate) place: Place,
    /// Whether it must not.
    pub(crate) is_not: bool,
    pub(crate) test: TestSpec,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The value of this name.
    Attribute(String),
    /// The asker's address.
    Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TestSpec {
    Present,
    Exact(String),
    Prefix(String),
    /// Without regard to case.
    PrefixAnyCase(String),
    Suffix(String),
    Regex(String),
    OneOf(Vec<Self>),
    /// A network or an address.
    Networks(Vec<String>),
}

/// A fault that a router has for messages, whatever their route.
#[derive(Debug)]
pub(crate) struct FaultSpec {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) fault: Fault,
}

/// A fault; parts are of 0.0001 percent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) delay_parts: u32,
    pub(crate) delay_ns: u64,
    pub(crate) abort_parts: u32,
    pub(crate) http_status: u16,
    pub(crate) message: Option<String>,
}

#[derive(Debug)]
pub(crate) struct LimitSpec {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) tokens_max: u32,
    pub(crate) tokens_per_fill: u32,
    pub(crate) fill_interval_ns: u64,
    pub(crate) per_key: Option<PerKeySpec>,
}

#[derive(Clone, Debug)]
pub(crate) struct PerKeySpec {
    pub(crate) attribute: String,
    pub(crate) place: Place,
    pub(crate) keys_max: u32,
}

/// Who may ask what of this service.
#[derive(Debug)]
pub(crate) struct AuthorizationSpec {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) denies: bool,
    pub(crate) is_shadow: bool,
    pub(crate) protocol: Option<(String, Place)>,
    /// None are all.
    pub(crate) ports: Vec<u16>,
    pub(crate) rules: Vec<Vec<Condition>>,
}

/// Reads what all documents say.
pub(crate) fn read(documents: &[Document], troubles: &mut Troubles) -> Specs {
    let mut specs = Specs::default();
    for document in documents {
        let Some(spec) = document.root.get("spec") else { continue };
        let reader = &mut Reader { document, troubles };
        match document.kind.role {
            Role::Router => specs.routers.extend(reader.router(spec)),
            Role::RedisService => specs.routers.extend(reader.redis(spec)),
            Role::Authorization => specs.authorizations.extend(reader.authorization(spec)),
            Role::DubboAuthorization => {
                specs.authorizations.extend(reader.dubbo_authorization(spec));
            }
            Role::ServiceEntry => specs.services.push(reader.service(spec)),
            Role::DestinationRule => reader.destination_rule(spec, &mut specs.subsets),
            Role::ApplicationProtocol => reader.protocol(spec, &mut specs.protocols),
            // Whether it may be is all that there is to it.
            Role::RedisDestination => {}
        }
    }
    specs
}

/// One document, and where to say what is wrong with it.
struct Reader<'a> {
    document: &'a Document,
    troubles: &'a mut Troubles,
}

impl Reader<'_> {
    fn place(&self, node: &Node) -> Place {
        self.document.place(node.spot)
    }

    fn error(&mut self, node: &Node, what: impl Into<String>) {
        self.troubles.error(self.document.place(node.spot), what);
    }

    fn warn(&mut self, node: &Node, what: impl Into<String>) {
        self.troubles.warn(self.document.place(node.spot), what);
    }

    /// What the attributes of a `match` ask for.
    fn attributes(&self, node: Option<&Node>) -> Vec<Condition> {
        let attributes = node.and_then(|node| node.get("attributes"));
        let entries = attributes.map_or(&[][..], Node::entries);
        entries
            .iter()
            .map(|(key, value)| Condition {
                about: About::Attribute(key.text.to_string()),
                place: self.document.place(key.spot),
                is_not: false,
                test: test_of(value),
            })
            .collect()
    }

    fn protocol(&mut self, spec: &Node, protocols: &mut HashMap<String, (String, Place)>) {
        let (Some(name), Some(codec)) = (spec.text_of("protocol"), spec.get("codec")) else {
            return;
        };
        let codec_name = codec.text().unwrap_or_default();
        // `aeraki.meta_protocol.codec.dubbo`
        let short_name = codec_name.rsplit('.').next().unwrap_or(codec_name);
        let entry = (short_name.to_owned(), self.place(codec));
        if let Some((_, place)) = protocols.insert(name.to_owned(), entry) {
            self.error(spec, format!("the protocol {:?} is at {place}, too", short(name)));
        }
    }
}

/// What `exact`, `prefix` or `regex` asks for. Nothing asks for presence, and so do the words by
/// which people mean it: upstream drops such a condition in silence.
fn test_of(value: &Node) -> TestSpec {
    let text = |name: &str| value.get(name).filter(|it| !it.is_null()).and_then(Node::text);
    match (text("exact"), text("prefix"), text("regex")) {
        (Some(exact), ..) => TestSpec::Exact(exact.to_owned()),
        (_, Some(prefix), _) => TestSpec::Prefix(prefix.to_owned()),
        (.., Some("*" | ".*")) | (None, None, None) => TestSpec::Present,
        (.., Some(regex)) => TestSpec::Regex(regex.to_owned()),
    }
}

/// Exact, `abc*`, `*abc` or `*`.
fn test_of_word(word: &str) -> TestSpec {
    match (word.strip_prefix('*'), word.strip_suffix('*')) {
        (Some(""), _) => TestSpec::Present,
        (_, Some(prefix)) => TestSpec::Prefix(prefix.to_owned()),
        (Some(suffix), _) => TestSpec::Suffix(suffix.to_owned()),
        (None, None) => TestSpec::Exact(word.to_owned()),
    }
}

fn time_of(node: &Node, name: &str) -> u64 {
    node.text_of(name).and_then(time_ns).unwrap_or(0)
}

fn number_of(node: &Node, name: &str) -> Option<u32> {
    node.get(name).and_then(whole).and_then(|it| u32::try_from(it).ok())
}

fn port_of(node: &Node, name: &str) -> Option<u16> {
    node.get(name).and_then(whole).and_then(|it| u16::try_from(it).ok())
}

fn ports_of(node: &Node, name: &str) -> Vec<u16> {
    let numbers = node.list(name).iter().filter_map(whole);
    numbers.filter_map(|it| u16::try_from(it).ok()).collect()
}
