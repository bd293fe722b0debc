//! Which operations a route lets be asked again, and where that would be said in vain.

use super::Compiler;
use crate::{
    key::{Key, Protocol},
    pattern::Test,
    shape::short,
    spec::RouteSpec,
    table::Repeats,
};
use netra_codecs::{codec::Correlation, tap};

/// What netra knows of operations.
fn knows_reads(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Http1 => true,
        Protocol::Of(protocol) => protocol.is_read(0).is_some(),
    }
}

/// Somebody can tell what was answered when an upstream ends, and the requests may go elsewhere.
fn may_repeat(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Http1 => true,
        Protocol::Of(it) => it.moves() && it.about().correlation != Correlation::Loose,
    }
}

/// Its answers say whether a server cannot serve now, or what was asked cannot be served by anybody.
fn tells_servers_apart(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Http1 => true,
        // A server of memcached says `SERVER_ERROR` of what is too large, too.
        Protocol::Of(tap::Protocol::Memcached | tap::Protocol::Private(_)) => false,
        Protocol::Of(_) => may_repeat(protocol),
    }
}

/// The attribute that names what a request asks for.
fn operation_of(protocol: Protocol) -> &'static str {
    match protocol {
        // What messages of some carry under any name may be called so, too.
        Protocol::Of(_) if protocol.key("operation") == Some(Key::Operation) => "operation",
        _ => "method",
    }
}

impl Compiler<'_> {
    /// Nothing is promised that nobody would do.
    pub(super) fn complain_of_retry(&mut self, route: &RouteSpec, candidates: &[Protocol]) {
        let names: Vec<_> = candidates.iter().map(|protocol| protocol.name()).collect();
        let names = names.join(", ");
        let retry = &route.retry;
        let what = if !candidates.iter().any(|it| may_repeat(*it)) {
            format!("retry: requests of {names} are never sent twice. Take it out")
        } else if candidates.contains(&Protocol::Http1) {
            return;
        } else if retry.on_gateway_error && !candidates.iter().any(|it| tells_servers_apart(*it)) {
            format!(
                "retry: answers of {names} do not say that a server cannot serve now. Take \
                 `gateway-error` out"
            )
        } else if (retry.on_timeout || retry.on_gateway_error) && !retry.on_reset {
            let on = if retry.on_timeout { "timeout" } else { "gateway-error" };
            format!(
                "retry: of {names} `{on}` acts with `reset` alone, as all that waits goes elsewhere. \
                 Put `reset` in"
            )
        } else if !retry.is_named && !candidates.iter().any(|it| knows_reads(*it)) {
            format!(
                "retry: what operations of {names} change nobody knows. Name those that may be sent \
                 twice: `operations: [getPrice, \"find*\"]`"
            )
        } else {
            return;
        };
        self.troubles.error(route.place.clone(), what);
    }

    /// Which operations may be asked again; None where the route names none.
    pub(super) fn repeats(
        &mut self,
        route: &RouteSpec,
        candidates: &[Protocol],
    ) -> Option<Box<Repeats>> {
        let (_, place) = route.repeats.first()?;
        let [protocol] = *candidates else {
            let what = "retry.operations: what they are called depends on the protocol, which the \
                        router has to say then: `protocol: dubbo`";
            self.troubles.error(place.clone(), what.to_owned());
            return None;
        };
        let slot = self.slot(operation_of(protocol), candidates, place)?;
        let is_upper = matches!(protocol, Protocol::Http1 | Protocol::Of(tap::Protocol::Redis));
        let mut tests = Vec::new();
        for (name, place) in &route.repeats {
            let text = if is_upper { name.to_ascii_uppercase() } else { name.clone() };
            let (begin, is_prefix) =
                text.strip_suffix('*').map_or((&*text, false), |it| (it, true));
            if begin.contains('*') {
                let what = format!(
                    "retry.operations: {:?}: allowed is a name, or its beginning with * behind",
                    short(name)
                );
                self.troubles.error(place.clone(), what);
                continue;
            }
            let begin = begin.as_bytes().into();
            tests.push(if is_prefix { Test::Prefix(begin) } else { Test::Exact(begin) });
        }
        Some(Box::new(Repeats { slot, test: Test::OneOf(tests.into()) }))
    }
}
