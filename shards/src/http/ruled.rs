//! What rules say of HTTP requests.

use crate::{
    exchange::{
        Asker, MirrorTo, Observer, OpenSpan, Seating, ShardRules, Sits, direction_of, target_of,
        why_of,
    },
    patience::Allowed,
    sys::Nanos,
};
use netra_codecs::{
    codec::Why,
    h1::{Fields, HeadPatch, RequestHead},
    route::{Target, cookie_value},
    trace::SpanText,
};
use netra_perf::{Key as PerfKey, Recorder};
use netra_rules::{Action, Direction, Facts, Key, Mutation, Protocol, Retry, Seat, Verdict};
use std::net::{IpAddr, SocketAddr};

/// What is done with a request.
#[derive(Debug, Default)]
pub(crate) struct Ruled<'t> {
    /// Where it is to go; the inner None is the original destination, the outer one is where no rule
    /// says anything.
    pub(crate) target: Option<Option<Target>>,
    /// The endpoint that it goes to.
    pub(crate) seating: Seating,
    /// How long it waits first; 0 is not at all.
    pub(crate) delay_ns: Nanos,
    /// It goes nowhere.
    pub(crate) refused: Option<Box<Refused>>,
    /// How long its answer may take.
    pub(crate) allowed: Allowed<'t>,
    /// What [`ShardRules::given`] is asked for when its answer comes; 0 is nothing.
    pub(crate) answer: u32,
    /// When it may be asked again.
    pub(crate) retry: Retry,
    /// Where a copy of it goes.
    pub(crate) mirror: Option<MirrorTo>,
}

/// What the client of a refused request is told.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) why: Why,
}

/// Asks the rules, and gives the request what they say it is given.
pub(crate) fn rule<'t>(
    (asker, sits, rules): (&Asker, Sits<'_>, &'t mut ShardRules),
    head: &RequestHead<'_>,
    (patch, recorder): (&mut HeadPatch, &Recorder),
    (now, span, observer): (Nanos, Option<OpenSpan>, &mut Observer),
) -> Ruled<'t> {
    let random = observer.random.u64(..);
    let verdict = rules.rule(&OfHead { head, asker, sits }, now, random);
    if verdict == Verdict::NONE {
        return Ruled::default();
    }
    if let (Some(span), name @ [_, ..]) = (span, rules.name_of(&verdict).as_bytes()) {
        observer.record_mut(span).put(SpanText::Rule, name);
    }
    let table = rules.table();
    let mutations = verdict.request.map_or(&[][..], |id| table.mutations(id));
    mutate(patch, head.fields(), mutations, recorder);
    let mut seating = Seating::None;
    let (target, refused) = match verdict.action {
        Action::Refuse(refusal) => {
            let (status, text) = (refusal.http_status, table.refusal_text(&verdict).to_owned());
            let why = why_of(refusal.kind);
            recorder.bump(PerfKey::refused(why as usize));
            (None, Some(Box::new(Refused { status, text, why })))
        }
        Action::Pass => (Some(None), None),
        Action::Route(route) => {
            seating = rules.seat_at(route, sits.now);
            (Some(target_of(table, route, asker.original_dst)), None)
        }
    };
    let (allowed, answer) = (rules.allowed(&verdict), rules.answer_number(verdict.response));
    let (Verdict { delay_ns, retry, .. }, mirror) = (verdict, rules.mirror_of(&verdict));
    Ruled { target, seating, delay_ns, refused, allowed, answer, retry, mirror }
}

/// Gives a head what rules say it is given; what there is no room for is counted.
pub(super) fn mutate(
    patch: &mut HeadPatch,
    fields: Fields<'_>,
    mutations: &[Mutation],
    recorder: &Recorder,
) {
    for mutation in mutations {
        let name = mutation.name.as_bytes();
        let is_done = match &mutation.value {
            Some(value) => patch.set(fields, name, value),
            None => patch.remove(fields, name),
        };
        if is_done.is_err() {
            recorder.bump(PerfKey::PATCH_FULL);
        }
    }
}

/// What is known of a request of HTTP.
struct OfHead<'h, 'b> {
    head: &'h RequestHead<'b>,
    asker: &'h Asker,
    sits: Sits<'h>,
}

impl Facts for OfHead<'_, '_> {
    fn direction(&self) -> Direction {
        direction_of(self.asker.direction)
    }

    fn destination(&self) -> SocketAddr {
        self.asker.original_dst
    }

    fn source(&self) -> Option<IpAddr> {
        self.asker.source
    }

    fn connection(&self) -> u64 {
        self.asker.connection
    }

    fn seat(&self) -> Option<&Seat> {
        self.sits.now
    }

    fn other_seat(&self, is_it: impl Fn(&Seat) -> bool) -> Option<&Seat> {
        self.sits.others.iter().map(|(_, seat)| seat).find(|seat| is_it(seat))
    }

    fn protocol(&self) -> Protocol {
        Protocol::Http1
    }

    fn value(&self, key: &Key) -> Option<&[u8]> {
        match key {
            Key::Operation => Some(self.head.method()),
            Key::Of(_) => None,
            Key::Pair(name) => self.head.field(name.as_bytes()),
            Key::Path => Some(self.head.target_parts().path()),
            Key::Host => self.head.host().map(without_port),
            Key::Cookie(name) => {
                let mut cookies = self.head.fields().named(b"cookie");
                cookies.find_map(|cookies| cookie_value(cookies, name.as_bytes()))
            }
            Key::Query(name) => {
                let target = self.head.target();
                let query = target.iter().position(|byte| *byte == b'?')? + 1;
                target[query..].split(|byte| *byte == b'&').find_map(|pair| {
                    let value = pair.strip_prefix(name.as_bytes())?;
                    if value.is_empty() { Some(value) } else { value.strip_prefix(b"=") }
                })
            }
        }
    }
}

/// A host, without its port and the brackets of IPv6.
fn without_port(host: &[u8]) -> &[u8] {
    let colon = host.iter().rposition(|byte| *byte == b':');
    let end = colon.filter(|at| host[at + 1..].iter().all(u8::is_ascii_digit));
    // Without brackets several colons are an address of IPv6 alone.
    let is_bare_v6 = !host.ends_with(b"]")
        && !host.starts_with(b"[")
        && host.iter().filter(|byte| **byte == b':').count() > 1;
    let host = if is_bare_v6 { host } else { end.map_or(host, |end| &host[..end]) };
    let inside = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    inside.unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_no_port() {
        for (given, host) in [
            ("shop", "shop"),
            ("shop:80", "shop"),
            ("10.0.0.1:8080", "10.0.0.1"),
            ("[::1]:80", "::1"),
            ("[::1]", "::1"),
            ("fd00::1", "fd00::1"),
            ("shop:", "shop"),
            ("", ""),
        ] {
            assert_eq!(without_port(given.as_bytes()), host.as_bytes(), "{given}");
        }
    }
}
