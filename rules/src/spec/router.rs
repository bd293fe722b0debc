//! MetaRouter and Router.

use super::{
    Condition, DestinationSpec, Fault, FaultSpec, LimitSpec, MirrorSpec, MutationSpec, PerKeySpec,
    Reader, RouteSpec, RouterSpec, number_of, port_of, ports_of, time_of,
};
use crate::{
    shape::{percent_parts, short},
    trouble::Place,
    verdict::Retry,
    yaml::Node,
};

const KEYS_MAX: u32 = 1024;
const ABORT_STATUS: u16 = 503;
const RETRIES: u32 = 2;
const NS_PER_MS: u64 = 1_000_000;
const ALL_PARTS: u32 = 1_000_000;

impl Reader<'_> {
    /// None where the document is not for sidecars.
    pub(super) fn router(&mut self, spec: &Node) -> Option<RouterSpec> {
        let gateways = spec.list("gateways");
        if !gateways.is_empty() && !gateways.iter().any(|it| it.text() == Some("mesh")) {
            let what = "it is for gateways alone, \"mesh\" is not among them: left out";
            self.warn(&gateways[0], what);
            return None;
        }
        let name = self.document.full_name();
        let hosts = spec.list("hosts");
        if let Some(hosts) = spec.get("hosts").filter(|_| hosts.len() != 1) {
            self.error(hosts, format!("{} hosts: allowed is exactly one", hosts.items().len()));
        }
        let host = hosts.first().and_then(Node::text)?.to_owned();
        let own = Defaults { times: times(spec), hash_on: self.names(spec, "hashOn") };
        let routes = self.routes(spec, &name, &own);
        let fault = spec.get("fault").filter(|it| !it.is_null());
        let faults = fault.map(|node| FaultSpec {
            name: format!("{name}/fault"),
            place: self.place(node),
            conditions: Vec::new(),
            fault: fault_of(node),
        });
        Some(RouterSpec {
            host,
            place: self.document.start(),
            protocol: spec
                .get("protocol")
                .and_then(|it| Some((it.text()?.to_owned(), self.place(it)))),
            ports: ports_of(spec, "ports"),
            passes_unrouted: routes.is_empty() || spec.text_of("default") == Some("originalDst"),
            routes,
            faults: faults.into_iter().collect(),
            limits: self.limits(spec, &name),
            name,
        })
    }

    fn names(&self, node: &Node, name: &str) -> Vec<(String, Place)> {
        let texts = node.texts_of(name);
        texts.map(|(text, spot)| (text.to_owned(), self.document.place(spot))).collect()
    }

    fn routes(&mut self, spec: &Node, name: &str, own: &Defaults) -> Vec<RouteSpec> {
        let nodes = spec.list("routes");
        let routes: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(index, node)| self.route(node, index, name, own))
            .collect();
        let behind = routes.iter().position(|route| route.conditions.is_empty());
        if let Some(first) = behind.filter(|first| first + 1 < routes.len()) {
            let what = format!("no message comes here: {} before it fits all", routes[first].name);
            self.warn(&nodes[first + 1], what);
        }
        routes
    }

    fn route(&mut self, node: &Node, index: usize, name: &str, own: &Defaults) -> RouteSpec {
        let given = node.text_of("name").map_or_else(|| format!("route{index}"), str::to_owned);
        let (first_byte_ns, idle_ns) = times(node);
        let mut hash_on = self.names(node, "hashOn");
        if hash_on.is_empty() {
            hash_on.clone_from(&own.hash_on);
        }
        RouteSpec {
            name: format!("{name}/{given}"),
            place: self.place(node),
            conditions: self.attributes(node.get("match")),
            to: self.destinations(node),
            request: self.mutations(node, ["requestMutation", "requestRemoval"]),
            response: self.mutations(node, ["responseMutation", "responseRemoval"]),
            first_byte_ns: if first_byte_ns > 0 { first_byte_ns } else { own.times.0 },
            idle_ns: if idle_ns > 0 { idle_ns } else { own.times.1 },
            retry: self.retry(node),
            repeats: node.get("retry").map_or_else(Vec::new, |it| self.names(it, "operations")),
            fault: node.get("fault").filter(|it| !it.is_null()).map(fault_of),
            mirror: self.mirror(node),
            hash_on,
        }
    }

    /// When a request may be asked again; never where nothing is said of it.
    fn retry(&mut self, route: &Node) -> Retry {
        let Some(node) = route.get("retry").filter(|it| !it.is_null()) else { return Retry::NEVER };
        let on: Vec<_> = node.list("on").iter().filter_map(Node::text).collect();
        let attempts =
            if on.is_empty() { 0 } else { number_of(node, "attempts").unwrap_or(RETRIES) };
        let per_try_ms = time_of(node, "perTryTimeout").div_ceil(NS_PER_MS);
        let on_timeout = on.contains(&"timeout");
        if on_timeout != (per_try_ms > 0) && attempts > 0 {
            let what = "retry: `on: [timeout]` and `perTryTimeout` need each other";
            self.error(node, what);
        }
        Retry {
            attempts: u8::try_from(attempts).unwrap_or(0),
            on_reset: on.contains(&"reset"),
            on_timeout,
            on_gateway_error: on.contains(&"gateway-error"),
            per_try_ms: u32::try_from(per_try_ms).unwrap_or(u32::MAX),
            is_named: !node.list("operations").is_empty(),
        }
    }

    fn destinations(&mut self, route: &Node) -> Vec<DestinationSpec> {
        let Some(list) = route.get("route") else { return Vec::new() };
        let nodes = list.items();
        let weights: Vec<_> = nodes.iter().map(|node| number_of(node, "weight")).collect();
        let sum: u32 = weights.iter().flatten().sum();
        match nodes {
            [] => self.error(list, "no destination: allowed is one or several"),
            [_] => {}
            _ if weights.contains(&None) => {
                self.error(
                    list,
                    "several destinations, and not all have a weight: their sum has \
                                  to be 100",
                );
            }
            _ if sum != 100 => {
                self.error(list, format!("weights are {sum} together: allowed is 100"))
            }
            _ => {}
        }
        let destination = |(node, weight): (&Node, &Option<u32>)| {
            // Alone it has everything, whatever its weight.
            let weight = if nodes.len() == 1 { 1 } else { weight.unwrap_or(0) };
            self.destination(node.get("destination")?, weight)
        };
        nodes.iter().zip(&weights).filter_map(destination).collect()
    }

    fn destination(&self, to: &Node, weight: u32) -> Option<DestinationSpec> {
        Some(DestinationSpec {
            host: to.text_of("host")?.to_owned(),
            subset: to.text_of("subset").map(str::to_owned),
            port: to.get("port").and_then(|port| port_of(port, "number")),
            weight,
            place: self.place(to),
        })
    }

    fn mirror(&mut self, route: &Node) -> Option<MirrorSpec> {
        let percentage = route.get("mirrorPercentage").filter(|it| !it.is_null());
        let Some(to) = route.get("mirror").filter(|it| !it.is_null()) else {
            if let Some(percentage) = percentage {
                self.error(percentage, "mirrorPercentage: there is no mirror beside it");
            }
            return None;
        };
        let parts = percentage.and_then(|it| it.get("value")).and_then(percent_parts);
        Some(MirrorSpec { to: self.destination(to, 1)?, parts: parts.unwrap_or(ALL_PARTS) })
    }

    fn mutations(&self, node: &Node, [given, removed]: [&str; 2]) -> Vec<MutationSpec> {
        let mutation = |node: &Node| {
            Some(MutationSpec {
                key: node.text_of("key")?.to_owned(),
                value: Some(node.text_of("value")?.to_owned()),
                place: self.place(node),
            })
        };
        let removal = |node: &Node| {
            Some(MutationSpec {
                key: node.text()?.to_owned(),
                value: None,
                place: self.place(node),
            })
        };
        let given = node.list(given).iter().filter_map(mutation);
        given.chain(node.list(removed).iter().filter_map(removal)).collect()
    }

    /// Conditions in their order, and what is for all other messages behind them.
    fn limits(&mut self, spec: &Node, name: &str) -> Vec<LimitSpec> {
        let Some(node) = spec.get("localRateLimit").filter(|it| !it.is_null()) else {
            return Vec::new();
        };
        let (conditions, rest) = (node.list("conditions"), node.get("tokenBucket"));
        let rest = rest.filter(|it| !it.is_null());
        if conditions.is_empty() && rest.is_none() {
            self.error(node, "neither tokenBucket nor conditions: allowed is one of them, or both");
        }
        let mut limits = Vec::new();
        for (index, condition) in conditions.iter().enumerate() {
            let asked = self.attributes(condition.get("match"));
            if asked.is_empty() {
                self.error(
                    condition,
                    "no attributes in match: what is for all messages is the \
                                       tokenBucket beside conditions",
                );
            }
            let name = format!("{name}/limit{index}");
            let bucket = condition.get("tokenBucket");
            limits.extend(bucket.map(|bucket| self.limit(bucket, condition, name, asked)));
        }
        limits.extend(rest.map(|it| self.limit(it, node, format!("{name}/limit"), Vec::new())));
        limits
    }

    fn limit(
        &mut self,
        bucket: &Node,
        around: &Node,
        name: String,
        conditions: Vec<Condition>,
    ) -> LimitSpec {
        if bucket.get("tokensPerFill").is_none_or(Node::is_null) {
            self.warn(bucket, "tokensPerFill is missing: one token comes with each interval");
        }
        let per_key = around.get("perKey").and_then(|node| {
            let attribute = node.get("attribute")?;
            Some(PerKeySpec {
                attribute: attribute.text()?.to_owned(),
                place: self.place(attribute),
                keys_max: number_of(node, "maxKeys").unwrap_or(KEYS_MAX),
            })
        });
        LimitSpec {
            name,
            place: self.place(bucket),
            conditions,
            tokens_max: number_of(bucket, "maxTokens").unwrap_or(1),
            tokens_per_fill: number_of(bucket, "tokensPerFill").unwrap_or(1),
            fill_interval_ns: time_of(bucket, "fillInterval").max(1),
            per_key,
        }
    }
}

/// What routes have that say nothing of their own.
struct Defaults {
    times: (u64, u64),
    hash_on: Vec<(String, Place)>,
}

/// Times for the first byte and for standing still.
fn times(node: &Node) -> (u64, u64) {
    let timeout = node.get("timeout");
    timeout.map_or((0, 0), |node| (time_of(node, "firstByte"), time_of(node, "idle")))
}

fn fault_of(node: &Node) -> Fault {
    let part = |name: &str| node.get(name).filter(|it| !it.is_null());
    let parts = |node: &Node| node.get("percentage").and_then(percent_parts).unwrap_or(ALL_PARTS);
    let (delay, abort) = (part("delay"), part("abort"));
    let status = abort.and_then(|abort| port_of(abort, "httpStatus"));
    Fault {
        delay_parts: delay.map_or(0, parts),
        delay_ns: delay.map_or(0, |delay| time_of(delay, "fixedDelay")),
        abort_parts: abort.map_or(0, parts),
        http_status: status.unwrap_or(ABORT_STATUS),
        message: abort.and_then(|abort| abort.text_of("message")).map(short),
    }
}
