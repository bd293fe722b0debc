//! RedisService: where keys are, and faults by command.

use super::{
    About, Condition, DestinationSpec, Fault, FaultSpec, MirrorSpec, Reader, RouteSpec, RouterSpec,
    TestSpec, port_of, time_of,
};
use crate::{
    shape::{percent_parts, switch},
    trouble::Place,
    verdict::Retry,
    yaml::Node,
};
use netra_codecs::tap;
use std::cmp::Reverse;

impl Reader<'_> {
    /// A router for each of its hosts.
    pub(super) fn redis(&mut self, spec: &Node) -> Vec<RouterSpec> {
        let name = self.document.full_name();
        if spec.list("host").is_empty() {
            self.error(spec, "no host: allowed is one or several");
        }
        let settings = spec.get("settings");
        let is_any_case = settings.and_then(|it| it.get("caseInsensitive")).and_then(switch);
        let time = settings.map_or(0, |settings| time_of(settings, "opTimeout"));
        let hosts: Vec<_> = spec.texts_of("host").map(|(host, _)| host.to_owned()).collect();
        let is_alone = hosts.len() == 1;
        hosts
            .into_iter()
            .map(|host| {
                let name = if is_alone { name.clone() } else { format!("{name}/{host}") };
                let routes = self.key_routes(spec, &name, is_any_case == Some(true), time);
                RouterSpec {
                    place: self.document.start(),
                    protocol: Some(("redis".to_owned(), self.document.start())),
                    ports: Vec::new(),
                    passes_unrouted: routes.is_empty(),
                    routes,
                    faults: self.command_faults(spec, &name),
                    limits: Vec::new(),
                    host,
                    name,
                }
            })
            .collect()
    }

    /// The longest prefix first: which one that is does not depend on the order of the document.
    fn key_routes(
        &mut self,
        spec: &Node,
        name: &str,
        is_any_case: bool,
        first_byte_ns: u64,
    ) -> Vec<RouteSpec> {
        let mut routes: Vec<(usize, RouteSpec)> = Vec::new();
        for (index, node) in spec.list("redis").iter().enumerate() {
            let key = node.at(&["match", "key", "prefix"]);
            let prefix = key.and_then(Node::text).unwrap_or_default();
            let condition = key.filter(|_| !prefix.is_empty()).map(|key| Condition {
                about: About::Attribute("key".to_owned()),
                place: self.place(key),
                is_not: false,
                test: match is_any_case {
                    true => TestSpec::PrefixAnyCase(prefix.to_ascii_lowercase()),
                    false => TestSpec::Prefix(prefix.to_owned()),
                },
            });
            let to = node.get("route").and_then(|to| self.redis_destination(to));
            if let Some((_, twin)) = routes.iter().find(|(_, other)| {
                let tests = |route: &[Condition]| route.iter().map(|it| it.test.clone()).collect();
                let (one, two): (Vec<_>, Vec<_>) =
                    (tests(&other.conditions), tests(condition.as_slice()));
                one == two
            }) {
                let what = format!("the same commands as {} at {}", twin.name, twin.place);
                self.error(node, what);
            }
            let route = |name: String, conditions, mirror| RouteSpec {
                name,
                place: self.document.place(node.spot),
                conditions,
                to: to.iter().cloned().collect(),
                request: Vec::new(),
                response: Vec::new(),
                first_byte_ns,
                idle_ns: 0,
                retry: Retry::NEVER,
                repeats: Vec::new(),
                fault: None,
                hash_on: Vec::new(),
                mirror,
            };
            let name = format!("{name}/redis{index}");
            let conditions: Vec<_> = condition.into_iter().collect();
            let plain = route(name.clone(), conditions.clone(), None);
            let reads = only_reads(&conditions, &plain.place);
            let reads = route(format!("{name}/reads"), reads, None);
            let (mirror, without_reads) = self.key_mirror(node);
            routes.push((prefix.len(), RouteSpec { mirror, ..plain }));
            if without_reads {
                // Of those of one length it stands first.
                let place = routes.len() - 1;
                routes.insert(place, (prefix.len(), reads));
            }
        }
        routes.sort_by_key(|(length, _)| Reverse(*length));
        routes.into_iter().map(|(_, route)| route).collect()
    }

    fn redis_destination(&self, to: &Node) -> Option<DestinationSpec> {
        Some(DestinationSpec {
            host: to.text_of("host")?.to_owned(),
            subset: None,
            port: port_of(to, "port"),
            weight: 1,
            place: self.place(to),
        })
    }

    /// Where copies of commands go, and whether those that change nothing have none.
    fn key_mirror(&mut self, route: &Node) -> (Option<MirrorSpec>, bool) {
        let [first, others @ ..] = route.list("mirror") else { return (None, false) };
        if let Some(second) = others.first() {
            let what = format!("{} mirrors: allowed is one", others.len() + 1);
            self.error(second, what);
        }
        let parts = first.at(&["percentage", "value"]).and_then(percent_parts);
        let to = first.get("route").and_then(|to| self.redis_destination(to));
        let without_reads = first.get("excludeReadCommands").and_then(switch) == Some(true);
        (to.map(|to| MirrorSpec { to, parts: parts.unwrap_or(1_000_000) }), without_reads)
    }

    fn command_faults(&mut self, spec: &Node, name: &str) -> Vec<FaultSpec> {
        let mut faults = Vec::new();
        for (index, node) in spec.list("faults").iter().enumerate() {
            let (is_delay, delay_ns) =
                (node.text_of("type") == Some("DELAY"), time_of(node, "delay"));
            if is_delay && delay_ns == 0 {
                self.error(node, "delay is missing: allowed is a time of at least 1 ms");
            }
            if !is_delay && delay_ns > 0 {
                self.warn(node, "an ERROR without its delay: a fault of the type DELAY has one");
            }
            let parts = node.at(&["percentage", "value"]).and_then(percent_parts);
            let parts = parts.unwrap_or(1_000_000);
            let commands: Vec<_> = node
                .texts_of("commands")
                .map(|(command, _)| TestSpec::Exact(command.to_ascii_uppercase()))
                .collect();
            let condition = (!commands.is_empty()).then(|| Condition {
                about: About::Attribute("command".to_owned()),
                place: self.place(node),
                is_not: false,
                test: TestSpec::OneOf(commands),
            });
            faults.push(FaultSpec {
                name: format!("{name}/fault{index}"),
                place: self.place(node),
                conditions: condition.into_iter().collect(),
                fault: match is_delay {
                    true => Fault { delay_parts: parts, delay_ns, ..Fault::default() },
                    false => Fault { abort_parts: parts, http_status: 503, ..Fault::default() },
                },
            });
        }
        faults
    }
}

/// These conditions, of commands that change nothing.
fn only_reads(conditions: &[Condition], place: &Place) -> Vec<Condition> {
    let redis = tap::Protocol::Redis;
    let names = (0..=u8::MAX).zip(redis.about().operations);
    let reads = names.filter(|(operation, _)| redis.is_read(*operation) == Some(true));
    let reads = reads.map(|(_, command)| TestSpec::Exact((*command).to_owned()));
    let is_read = Condition {
        about: About::Attribute("command".to_owned()),
        place: place.clone(),
        is_not: false,
        test: TestSpec::OneOf(reads.collect()),
    };
    conditions.iter().cloned().chain([is_read]).collect()
}
