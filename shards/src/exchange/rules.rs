//! The rules that shards decide by: how they get them, what they ask of them, and where they leave
//! them.

use super::decide::{Asker, Decide, MirrorTo, Place, Routed, Ruling, Seating, Sits};
use crate::{error::Direction, patience::Allowed, sys::Nanos};
use netra_codecs::{
    codec::{Pairs, Refusal, Why},
    route::Target,
    tap::{self, Message},
};
use netra_rules::{
    Action, Concern, EndpointAddress, Facts, Hits, Key, Mutation, MutationsId, Process, Protocol,
    RefusalKind, Route, Seat, State, Table, Verdict, decide,
};
use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

/// A shard's rules: the table that it shares, and what it remembers of its own decisions.
#[derive(Debug)]
pub(crate) struct ShardRules {
    table: Arc<Table>,
    state: State,
    /// Some answers are given something, or may be withheld.
    holds_answers: bool,
    /// Those before it that say what answers are given, the newest first.
    old: Vec<Arc<Table>>,
}

impl ShardRules {
    /// For one of `shards` shards; `process` is of the same table.
    pub(crate) fn new(table: &Arc<Table>, process: &Arc<Process>, shards: usize) -> Self {
        Self {
            table: Arc::clone(table),
            state: State::new(table, process, shards),
            holds_answers: table.edits_answers() || table.withholds_answers(),
            old: Vec::new(),
        }
    }

    /// The table. Whoever keeps a verdict keeps it, until nothing of the verdict is left to do.
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The protocol beside HTTP that documents say is spoken there.
    pub(crate) fn spoken_at(&self, to: SocketAddr) -> Option<tap::Protocol> {
        match self.table.protocol(to)? {
            Protocol::Of(protocol) => Some(protocol),
            Protocol::Http1 => None,
        }
    }

    /// The name of the rule that decided, empty where none did.
    #[inline]
    pub(crate) fn name_of(&self, verdict: &Verdict) -> &str {
        verdict.rule.and_then(|rule| self.table.rule(rule)).map_or("", |rule| &rule.name)
    }

    /// How long the answer may take.
    #[inline]
    pub(crate) fn allowed(&self, verdict: &Verdict) -> Allowed<'_> {
        let &Verdict { first_byte_ns, idle_ns, .. } = verdict;
        let is_timed = first_byte_ns > 0 || idle_ns > 0;
        let text = if is_timed { self.table.timeout_text(verdict) } else { "" };
        Allowed { first_byte_ns, idle_ns, text }
    }

    /// What is counted.
    pub(crate) fn hits(&self) -> &Arc<Hits> {
        self.state.hits()
    }

    /// The seat that a connection has at an endpoint that was just decided for.
    pub(crate) fn seat_at(&self, route: Route, now: Option<&Seat>) -> Seating {
        self.state.seat(route, now).map_or(Seating::Same, Seating::New)
    }

    /// What is to be done with a request of whatever protocol.
    pub(crate) fn rule(&mut self, facts: &impl Facts, now_ns: u64, random: u64) -> Verdict {
        decide(&self.table, facts, &mut self.state, now_ns, random)
    }
}

/// Old tables whose answers may still come: as many changes of rules as one exchange can outlive
/// without its answer losing what it was to be given.
const OLD_MAX: usize = 4;

impl ShardRules {
    /// Takes the place of these: answers to what they decided are still given what they said.
    pub(crate) fn take_over(&mut self, old: &Self) {
        let tables = std::iter::once(&old.table).chain(&old.old);
        let edits_answers = |table: &&Arc<Table>| table.edits_answers();
        self.old = tables.filter(edits_answers).take(OLD_MAX).cloned().collect();
    }

    /// Whether answers to requests of HTTP are given anything on a connection of theirs, or may be withheld.
    pub(crate) fn holds_answers_to(&self, asker: &Asker) -> bool {
        let concern = || {
            let direction = direction_of(asker.direction);
            self.table.concern(direction, asker.original_dst, Protocol::Http1)
        };
        let holds = |it: Concern| it.edits_responses || it.withholds_responses;
        self.holds_answers && concern().is_some_and(holds)
    }

    /// What the answer to a request is given, by the number that it was decided with.
    pub(crate) fn given(&self, number: u32) -> &[Mutation] {
        let of = |table: &&Arc<Table>| table.generation() & 0xfff == u64::from(number >> 20);
        let table = std::iter::once(&self.table).chain(&self.old).find(of);
        let id = (number & 0xf_ffff).checked_sub(1).map(MutationsId);
        table.zip(id).map_or(&[], |(table, id)| table.mutations(id))
    }

    /// Where a copy of a message goes.
    #[inline]
    pub(crate) fn mirror_of(&self, verdict: &Verdict) -> Option<MirrorTo> {
        let cluster = verdict.mirror?;
        Some(MirrorTo { table: self.table.generation(), cluster })
    }

    /// The table, if this is of it.
    fn table_of(&self, to: MirrorTo) -> Option<&Table> {
        (to.table == self.table.generation()).then_some(&self.table)
    }

    /// A number for what answers are given: which table says it, and where.
    pub(crate) fn answer_number(&self, mutations: Option<MutationsId>) -> u32 {
        let generation = u32::try_from(self.table.generation() & 0xfff).unwrap_or(0);
        mutations.map_or(0, |MutationsId(id)| generation << 20 | ((id + 1) & 0xf_ffff))
    }
}

impl Decide for ShardRules {
    fn concerns(&self, asker: &Asker, protocol: tap::Protocol) -> bool {
        let direction = direction_of(asker.direction);
        self.table.concern(direction, asker.original_dst, Protocol::Of(protocol)).is_some()
    }

    fn leads(&self, to: SocketAddr, protocol: Protocol) -> bool {
        self.table.leads(to, protocol)
    }

    fn decide(
        &mut self,
        message: &Message<'_>,
        (asker, sits): (&Asker, Sits<'_>),
        pairs: &mut Pairs,
        now: Nanos,
        random: u64,
    ) -> Ruling<'_> {
        let facts = OfMessage { message, asker, sits };
        let verdict = decide(&self.table, &facts, &mut self.state, now, random);
        add(verdict.request.map_or(&[], |id| self.table.mutations(id)), pairs);
        let (mut refusal, mut to) = (None, Routed::Home);
        match verdict.action {
            Action::Refuse(refused) => {
                let text = self.table.refusal_text(&verdict);
                refusal = Some(Refusal { why: why_of(refused.kind), text, is_alone: false });
            }
            Action::Route(route) => {
                to = Routed::To(Place { table: self.table.generation(), route });
            }
            Action::Pass => {}
        }
        let answer = self.answer_number(verdict.response);
        let allowed = self.allowed(&verdict);
        let (rule, delay_ns) = (self.name_of(&verdict), verdict.delay_ns);
        let mirror = self.mirror_of(&verdict);
        Ruling { refusal, to, rule, delay_ns, answer, allowed, mirror, retry: verdict.retry }
    }

    fn target(&self, place: Place, original: SocketAddr) -> Option<Target> {
        target_of(&self.table, place.route, original)
    }

    fn seat(&self, place: Place, now: Option<&Seat>) -> Seating {
        self.seat_at(place.route, now)
    }

    fn mirror(&self, to: MirrorTo, original: SocketAddr, random: u64) -> Option<Target> {
        let route = self.state.mirror(self.table_of(to)?, to.cluster, random)?;
        target_of(&self.table, route, original)
    }

    fn has_mirror(&self, to: MirrorTo, target: &Target, original: SocketAddr) -> bool {
        let cluster = self.table_of(to).and_then(|table| table.cluster(to.cluster));
        let mut all = cluster.into_iter().flat_map(|cluster| &cluster.endpoints);
        all.any(|it| target_at(&it.address, original).is_some_and(|it| it == *target))
    }

    fn answer(&self, number: u32, pairs: &mut Pairs) {
        add(self.given(number), pairs);
    }
}

/// Where an endpoint is; None is the original destination.
pub(crate) fn target_of(table: &Table, route: Route, original: SocketAddr) -> Option<Target> {
    target_at(&table.endpoint(route)?.address, original)
}

/// The same of its address.
pub(crate) fn target_at(address: &EndpointAddress, original: SocketAddr) -> Option<Target> {
    let mut text = [0; 300];
    let mut rest = &mut text[..];
    let is_written = match address {
        EndpointAddress::Original => return None,
        EndpointAddress::Ip(address) => write!(rest, "{address}"),
        EndpointAddress::Name { host, port } => {
            write!(rest, "{host}:{}", port.unwrap_or(original.port()))
        }
    };
    is_written.ok()?;
    let left = rest.len();
    Target::parse(&text[..text.len() - left])
}

/// Adds what a message is given; what there is no room for is counted where it is written.
fn add(mutations: &[Mutation], pairs: &mut Pairs) {
    for mutation in mutations {
        let value = mutation.value.as_deref().unwrap_or_default();
        let _ = pairs.add(mutation.name.as_bytes(), value);
    }
}

pub(crate) fn why_of(kind: RefusalKind) -> Why {
    match kind {
        RefusalKind::Denied => Why::Denied,
        RefusalKind::Limited => Why::Limited,
        RefusalKind::NoRoute => Why::NoRoute,
        RefusalKind::Fault => Why::Aborted,
        RefusalKind::NoEndpoint => Why::Unreachable,
        RefusalKind::Overflow => Why::Overflow,
    }
}

pub(crate) fn direction_of(direction: Direction) -> netra_rules::Direction {
    match direction {
        Direction::Inbound => netra_rules::Direction::Inbound,
        Direction::Outbound => netra_rules::Direction::Outbound,
    }
}

/// What is known of a message that a codec has read.
struct OfMessage<'m, 'b> {
    message: &'m Message<'b>,
    asker: &'m Asker,
    sits: Sits<'m>,
}

impl Facts for OfMessage<'_, '_> {
    fn direction(&self) -> netra_rules::Direction {
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
        Protocol::Of(self.message.protocol())
    }

    fn value(&self, key: &Key) -> Option<&[u8]> {
        match key {
            Key::Operation => operation(self.message),
            Key::Of(key) => self.message.value(*key),
            Key::Pair(wanted) => {
                let mut found = None;
                self.message.pairs(|(name, value)| {
                    if name.eq_ignore_ascii_case(wanted.as_bytes()) {
                        found = Some(value);
                    }
                });
                found
            }
            Key::Path | Key::Host | Key::Cookie(_) | Key::Query(_) => None,
        }
    }
}

/// What a request asks for. The span of one that is not built in may be called by other things.
fn operation<'b>(message: &Message<'b>) -> Option<&'b [u8]> {
    match message.protocol() {
        tap::Protocol::Private(private) => {
            let named = private.about().operations.get(usize::from(message.operation()));
            named.map(|name| name.as_bytes())
        }
        _ => message.name().first().copied().filter(|it| !it.is_empty()),
    }
}

/// Tables that were given to shards, for whoever gives them: what shards no longer want comes back
/// here, so that no shard ever frees a table.
#[derive(Debug)]
pub(crate) struct Given {
    /// The one in force is the last.
    tables: Vec<Arc<Table>>,
    back: Receiver<Box<ShardRules>>,
    way_back: Sender<Box<ShardRules>>,
}

impl Default for Given {
    fn default() -> Self {
        let (way_back, back) = channel();
        Self { tables: Vec::new(), back, way_back }
    }
}

impl Given {
    /// Where a shard sends its old rules.
    pub(crate) fn way_back(&self) -> Sender<Box<ShardRules>> {
        self.way_back.clone()
    }

    /// A table is given to all shards.
    pub(crate) fn obey(&mut self, table: &Arc<Table>) {
        self.tables.push(Arc::clone(table));
    }

    /// Frees what nobody uses any more.
    pub(crate) fn tend(&mut self) {
        self.back.try_iter().for_each(drop);
        if let Some(last) = self.tables.len().checked_sub(1) {
            let mut index = 0;
            self.tables.retain(|table| {
                index += 1;
                index > last || Arc::strong_count(table) > 1
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_freed_where_they_were_given() {
        let mut given = Given::default();
        let tables = [(); 3].map(|()| Arc::new(Table::default()));
        let weak = tables.each_ref().map(Arc::downgrade);
        let mut in_force: Option<Box<ShardRules>> = None;
        let mut held = None;
        for table in tables {
            given.obey(&table);
            let rules = ShardRules::new(&table, &Arc::new(table.process(None, 0)), 1);
            held.get_or_insert_with(|| Arc::clone(rules.table()));
            if let Some(old) = in_force.replace(Box::new(rules)) {
                given.way_back().send(old).unwrap();
            }
        }
        let alive = || weak.each_ref().map(|it| it.strong_count() > 0);
        given.tend();
        assert_eq!(alive(), [true, false, true]);
        held = None;
        assert!(held.is_none());
        given.tend();
        assert_eq!(alive(), [false, false, true]);
    }
}
