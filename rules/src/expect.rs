//! What users expect of their rules, as a text that is run.

use crate::{
    balance::Seat,
    compile::{Compiled, Context, Documents},
    decide::decide,
    document::Source,
    example::Example,
    explain::{explain, in_words},
    facts::{Direction, Facts},
    key::{Key, Protocol},
    locality::Locality,
    shape::{Field, Judge, Shape, field, needed, time_ns, whole},
    srv::ServiceRecord,
    state::State,
    table::Table,
    trouble::{Place, Troubles},
    verdict::{Action, Verdict},
    yaml::{self, Node},
};
use netra_codecs::tap;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

const FILE: &[Field] = &[
    field("rules", &Shape::List(&Shape::Filled), "Files and directories, from the file's own"),
    field("service", &Shape::Filled, "What this service is called"),
    field("locality", &Shape::Filled, "Where it stands: region/zone/subzone"),
    field("labels", &Shape::Map(&Shape::Text), "Labels of its workload"),
    field("addresses", &Shape::Map(&Shape::List(&Shape::Filled)), "Addresses of hosts"),
    field(
        "services",
        &Shape::Map(&Shape::List(&Shape::Filled)),
        "Records of names of services: priority, weight, port, and the target's address",
    ),
    needed("tests", &Shape::List(&Shape::Object(TEST)), "What is expected"),
];

const TEST: &[Field] = &[
    needed("name", &Shape::Filled, "What it is about"),
    needed("protocol", &Shape::Filled, "The protocol of the messages"),
    needed("to", &Shape::Filled, "Address and port of the original destination"),
    field("from", &Shape::Filled, "The asker's address"),
    field("direction", &Shape::Word(&["outbound", "inbound"]), "outbound when it is not said"),
    field("set", &Shape::Map(&Shape::Text), "Attributes of the messages"),
    field("times", &Shape::Whole(1, 1_000_000), "How many messages; 1"),
    field("every", &Shape::Time(0), "Time between them; 0"),
    field("connections", &Shape::Whole(1, 1_000_000), "Connections that take turns; 1"),
    needed("expect", &Shape::Object(EXPECT), "What becomes of them"),
];

const EXPECT: &[Field] = &[
    field("action", &Shape::Word(&["pass", "route", "refuse"]), "Of all of them"),
    field("rule", &Shape::Text, "The rule that decides, or the end of its name"),
    field("cluster", &Shape::Filled, "Where all of them go"),
    field("endpoint", &Shape::Filled, "Its address and port"),
    field("refusal", &Shape::Filled, "Why all of them are refused"),
    field("mirror", &Shape::Filled, "Where a copy of all of them goes: a cluster, as in `cluster`"),
    field("delay", &Shape::Time(0), "How long each of them waits"),
    field("request", &Shape::Map(&Shape::Text), "What each of them is given"),
    field("response", &Shape::Map(&Shape::Text), "What each answer is given"),
    field("shadow", &Shape::Text, "What would have refused them, or the end of its name"),
    field(
        "counts",
        &Shape::Map(&Shape::Whole(0, 1_000_000)),
        "How many go to which cluster, or endpoint, `pass`, or are `refused`, `delayed` or `mirrored`",
    ),
];

/// A file of expectations.
#[derive(Debug)]
pub struct Expectations {
    file: Arc<str>,
    root: Node,
}

/// What came of one expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// Its name.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// What is not as expected, and why it is as it is; empty if all is well.
    pub wrong: Vec<String>,
}

impl Expectations {
    /// Reads a text.
    pub fn read(source: &Source) -> Result<Self, Troubles> {
        let mut troubles = Troubles::default();
        let file: Arc<str> = source.name.as_str().into();
        let mut roots = match yaml::read(&source.text) {
            Ok(roots) => roots,
            Err(wrong) => {
                troubles.error(Place::new(&file, wrong.spot), wrong.what);
                return Err(troubles);
            }
        };
        if roots.len() != 1 {
            let place = Place { file: Arc::clone(&file), line: 0, column: 0 };
            troubles.error(place, format!("{} documents: allowed is one", roots.len()));
            return Err(troubles);
        }
        let root = roots.remove(0);
        Judge { file: &file, troubles: &mut troubles }.judge(&root, &Shape::Object(FILE), "file");
        match troubles.is_good() {
            true => Ok(Self { file, root }),
            false => Err(troubles),
        }
    }

    /// The files and directories with the rules, as they are written.
    pub fn rules(&self) -> Vec<&str> {
        self.root.texts_of("rules").map(|(path, _)| path).collect()
    }

    /// Runs them all on rules, which may name these protocols beside those that are built in; the
    /// error is what is wrong with the rules.
    pub fn run(
        &self,
        documents: &Documents,
        private: &[tap::Protocol],
    ) -> Result<Vec<Tested>, Troubles> {
        let mut context = Context {
            own_name: self.root.text_of("service").unwrap_or_default().to_owned(),
            locality: self.root.text_of("locality").map(Locality::parse),
            labels: (self.root.get("labels").map_or(&[][..], Node::entries).iter())
                .filter_map(|(name, value)| Some((name.text.to_string(), value.text()?.to_owned())))
                .collect(),
            ..Context::default().with_private(private)
        };
        for (host, addresses) in self.root.get("addresses").map_or(&[][..], Node::entries) {
            let addresses = addresses.items().iter().filter_map(|it| it.text()?.parse().ok());
            context.addresses.insert(host.text.to_string(), addresses.collect());
        }
        let mut troubles = Troubles::default();
        for (name, records) in self.root.get("services").map_or(&[][..], Node::entries) {
            let records = records.items().iter().filter_map(|node| {
                let record = ServiceRecord::parse(node.text()?);
                if record.is_none() {
                    let what =
                        "allowed is priority, weight, port and an address: 0 10 6379 10.0.0.1";
                    troubles.error(Place::new(&self.file, node.spot), what.to_owned());
                }
                record
            });
            context.services.insert(name.text.to_string(), records.collect());
        }
        if !troubles.is_good() {
            return Err(troubles);
        }
        match documents.compile(&context) {
            Compiled { table: Some(table), .. } => {
                let tests = self.root.list("tests").iter();
                Ok(tests.map(|node| self.test(&table, node, &context)).collect())
            }
            Compiled { troubles, .. } => Err(troubles),
        }
    }

    fn test(&self, table: &Table, node: &Node, context: &Context) -> Tested {
        let name = node.text_of("name").unwrap_or_default().to_owned();
        let place = Place::new(&self.file, node.spot);
        let wrong = match example_of(node, context) {
            Err(wrong) => vec![wrong],
            Ok(example) => run(table, node, example),
        };
        Tested { name, place, wrong }
    }
}

/// The message that a test is about.
fn example_of(node: &Node, context: &Context) -> Result<Example, String> {
    let text = |name: &str| node.text_of(name).unwrap_or_default();
    let protocol = text("protocol");
    let protocol =
        context.protocol(protocol).ok_or_else(|| format!("protocol={protocol:?} is unknown"))?;
    let to = text("to");
    let to = to.parse().map_err(|_| format!("to={to:?}: allowed is an address with a port"))?;
    let mut example = Example::new(protocol, to);
    if text("direction") == "inbound" {
        example.direction = Direction::Inbound;
    }
    if let Some(from) = node.text_of("from") {
        let from = from.parse().map_err(|_| format!("from={from:?}: allowed is an address"))?;
        example.source = Some(from);
    }
    for (name, value) in node.get("set").map_or(&[][..], Node::entries) {
        example.set(&name.text, value.text().unwrap_or_default())?;
    }
    Ok(example)
}

fn run(table: &Table, node: &Node, mut example: Example) -> Vec<String> {
    let number = |name: &str| node.get(name).and_then(whole).unwrap_or(1);
    let every_ns = node.text_of("every").and_then(time_ns).unwrap_or(0);
    let (times, connections) = (number("times"), number("connections"));
    let Some(expect) = node.get("expect") else { return Vec::new() };
    let process = Arc::new(table.process(None, 0));
    let mut state = State::new(table, &process, 1);
    let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
    // Connections keep their endpoints, and each message is answered before the next one.
    let mut seats: BTreeMap<u64, Seat> = BTreeMap::new();
    for turn in 0..times {
        example.connection = turn % connections;
        // Chance that is the same each time.
        let random = crate::hash::mix(turn.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let seat = seats.get(&example.connection);
        let seated = Seated { example: &example, seat };
        let verdict = decide(table, &seated, &mut state, turn * every_ns, random);
        if let Action::Route(route) = verdict.action
            && let Some(next) = state.seat(route, seat)
        {
            next.connected();
            seats.insert(example.connection, next);
        }
        count(table, &verdict, &mut counts);
        if wrong.is_empty() {
            wrong = differences(table, &verdict, expect);
        }
    }
    for (name, expected) in expect.get("counts").map_or(&[][..], Node::entries) {
        let (expected, found) =
            (whole(expected).unwrap_or(0), counts.get(&*name.text).copied().unwrap_or(0));
        if expected != found {
            wrong.push(format!("expected are {expected} of {:?}, there are {found}", name.text));
        }
    }
    if !wrong.is_empty() {
        wrong.extend(explain(table, &example).1);
    }
    wrong
}

/// A message of a connection that has been somewhere.
struct Seated<'e> {
    example: &'e Example,
    seat: Option<&'e Seat>,
}

impl Facts for Seated<'_> {
    fn direction(&self) -> Direction {
        self.example.direction
    }

    fn destination(&self) -> SocketAddr {
        self.example.destination
    }

    fn source(&self) -> Option<IpAddr> {
        self.example.source
    }

    fn connection(&self) -> u64 {
        self.example.connection
    }

    fn seat(&self) -> Option<&Seat> {
        self.seat
    }

    fn protocol(&self) -> Protocol {
        self.example.protocol()
    }

    fn value(&self, key: &Key) -> Option<&[u8]> {
        self.example.value(key)
    }
}

fn count(table: &Table, verdict: &Verdict, counts: &mut BTreeMap<String, u64>) {
    let mut add = |name: String| *counts.entry(name).or_default() += 1;
    match verdict.action {
        Action::Pass => add("pass".to_owned()),
        Action::Refuse(_) => add("refused".to_owned()),
        Action::Route(route) => {
            let cluster = table.cluster(route.cluster);
            cluster.into_iter().for_each(|cluster| add(cluster.name.to_string()));
            let endpoint = table.endpoint(route);
            endpoint.into_iter().for_each(|endpoint| add(endpoint.address.to_string()));
        }
    }
    if verdict.delay_ns > 0 {
        add("delayed".to_owned());
    }
    if verdict.mirror.is_some() {
        add("mirrored".to_owned());
    }
}

/// What of a verdict is not as expected.
fn differences(table: &Table, verdict: &Verdict, expect: &Node) -> Vec<String> {
    let rule_name = |rule| table.rule(rule).map_or(String::new(), |rule| rule.name.to_string());
    let cluster_name = |id| Some(table.cluster(id)?.name.to_string());
    let (cluster, endpoint, refusal) = match verdict.action {
        Action::Pass => Default::default(),
        Action::Refuse(refusal) => (String::new(), String::new(), refusal.kind.name().to_owned()),
        Action::Route(route) => (
            cluster_name(route.cluster).unwrap_or_default(),
            table.endpoint(route).map_or(String::new(), |it| it.address.to_string()),
            String::new(),
        ),
    };
    let action = match verdict.action {
        Action::Pass => "pass",
        Action::Refuse(_) => "refuse",
        Action::Route(_) => "route",
    };
    let found = [
        ("action", action.to_owned()),
        ("rule", verdict.rule.map_or(String::new(), rule_name)),
        ("cluster", cluster),
        ("endpoint", endpoint),
        ("refusal", refusal),
        ("mirror", verdict.mirror.and_then(cluster_name).unwrap_or_default()),
        ("shadow", verdict.shadow.map_or(String::new(), rule_name)),
    ];
    let mut wrong = Vec::new();
    for (name, found) in found {
        let Some(expected) = expect.text_of(name) else { continue };
        let is_end = ["rule", "shadow"].contains(&name) && found.ends_with(&format!("/{expected}"));
        if found != expected && !is_end {
            wrong.push(format!("{name}: expected is {expected:?}, it is {found:?}"));
        }
    }
    if let Some(expected) = expect.text_of("delay").and_then(time_ns)
        && expected != verdict.delay_ns
    {
        wrong.push(format!("delay: expected are {expected} ns, it is {} ns", verdict.delay_ns));
    }
    for (name, id) in [("request", verdict.request), ("response", verdict.response)] {
        let given = id.map_or(&[][..], |id| table.mutations(id));
        for (key, value) in expect.get(name).map_or(&[][..], Node::entries) {
            let found = given.iter().find(|it| it.name == key.text);
            let found = found.and_then(|it| it.value.as_deref()).map(String::from_utf8_lossy);
            if found.as_deref() != value.text() {
                let expected = value.text().unwrap_or_default();
                let key = &key.text;
                wrong.push(format!("{name}: expected is {key}={expected:?}, it is {found:?}"));
            }
        }
    }
    if !wrong.is_empty() {
        wrong.push(format!("it is {}", in_words(table, verdict)));
    }
    wrong
}
