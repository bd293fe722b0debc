//! What a decision costs: `decide ROUTES MESSAGES HOW` decides about so many messages by a table of so
//! many routes; HOW is `address` (Thrift, by where it goes) or `name` (Dubbo, by its interface). Two runs
//! under callgrind differ by the messages alone. With `picks` as a fourth argument the host has a hundred
//! endpoints, of which each message is given one, with all that a DestinationRule can say of them: what
//! that adds to a message is what a pick costs. With `nearer` half of them are farther away than the rest.

use netra_rules::{
    Context, Direction, Documents, Facts, Key, Locality, Protocol, Source, State, decide,
};
use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

struct Call<'c> {
    protocol: Protocol,
    service: &'c [u8],
    method: &'c [u8],
}

impl Facts for Call<'_> {
    fn direction(&self) -> Direction {
        Direction::Outbound
    }
    fn destination(&self) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 9090))
    }
    fn source(&self) -> Option<IpAddr> {
        None
    }
    fn connection(&self) -> u64 {
        7
    }
    fn protocol(&self) -> Protocol {
        self.protocol
    }
    fn value(&self, key: &Key) -> Option<&[u8]> {
        match key {
            Key::Of(netra_codecs::codec::Key::Service) => Some(self.service),
            Key::Of(netra_codecs::codec::Key::Method) => Some(self.method),
            _ => None,
        }
    }
}

/// A hundred endpoints, and how they are treated.
fn hundred(nearer: &str) -> String {
    let mut text = String::from(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec:\n  \
         hosts: [org.demo.greeter]\n  ports: [{number: 9090, name: tcp}]\n  resolution: STATIC\n  \
         endpoints:\n",
    );
    for number in 1..=100 {
        let zone = ["a", "b"][number % 2];
        let _ = writeln!(text, "  - {{address: 10.0.0.{number}, locality: eu/{zone}}}");
    }
    text + "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
            metadata: {name: d, annotations: {netra.io/balance-by: message}}\nspec:\n  \
            host: org.demo.greeter\n  trafficPolicy:\n    outlierDetection: {}\n    \
            connectionPool: {tcp: {maxConnections: 1000}, http: {http2MaxRequests: 1000}}\n"
        + nearer
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = || args.next().and_then(|it| it.parse::<usize>().ok()).unwrap_or(10);
    let (routes, messages) = (number(), number());
    let is_named = args.next().as_deref() == Some("name");
    let more = args.next();
    let nearer = match more.as_deref() {
        Some("nearer") => "    loadBalancer: {localityLbSetting: {}}\n",
        _ => "",
    };
    let name = if is_named { "dubbo" } else { "thrift" };
    let mut text = format!(
        "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: r}}\nspec:\n  \
         hosts: [org.demo.greeter]\n  protocol: {name}\n  ports: [9090]\n  routes:\n"
    );
    for number in 0..routes {
        let _ = writeln!(
            text,
            "  - match: {{attributes: {{method: {{exact: sayHello{number}}}}}}}\n    \
             route: [{{destination: {{host: org.demo.greeter}}}}]"
        );
    }
    if more.is_some() {
        text += &hundred(nearer);
    }
    let address = "10.0.0.1".parse().expect("an address");
    let addresses = [("org.demo.greeter".to_owned(), vec![address])].into();
    let begun = Instant::now();
    let documents = Documents::read(&[Source { name: "rules".into(), text }]);
    let compiled = documents.compile(&Context {
        addresses,
        locality: Some(Locality::parse("eu/a")),
        ..Context::default()
    });
    let table = compiled.table.expect("good documents");
    eprintln!("{routes} routes: {:?}, {} bytes", begun.elapsed(), table.bytes());
    let process = Arc::new(table.process(None, 0));
    let mut state = State::new(&table, &process, 1);
    let method = format!("sayHello{}", routes / 2);
    let protocol = Protocol::from_name(name).expect("a protocol");
    let call = Call { protocol, service: b"org.demo.Greeter", method: method.as_bytes() };
    let begun = Instant::now();
    let mut passed = 0_usize;
    for turn in 0..messages {
        let random = (turn as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let verdict = decide(&table, &call, &mut state, turn as u64, random);
        passed += usize::from(verdict.rule.is_some());
    }
    eprintln!("{messages} messages, {passed} decided: {:?}", begun.elapsed());
}
