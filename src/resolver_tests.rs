//! Names against a name server of the test's own.

use super::*;
use hickory_resolver::{
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use netra_codecs::route::Target;
use std::{net::UdpSocket, sync::mpsc as channel, thread};

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A name server that says the same of every name, for a second.
pub(crate) struct NameServer {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    says: tokio::sync::watch::Sender<Vec<IpAddr>>,
    /// Questions for A, and for AAAA.
    asked: [AtomicU64; 2],
    is_silent_to_v6: std::sync::atomic::AtomicBool,
}

/// Which family the question is for; its length without what comes after it.
fn question(query: &[u8]) -> (usize, usize) {
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
    let end = 12 + name + 1;
    (usize::from(query[end..end + 2] == [0, 28]), end + 4)
}

impl NameServer {
    pub(crate) fn start(says: &[&str]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let server = Self { port, state: Arc::clone(&state) };
        server.say(says);
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((_, client)) = socket.recv_from(&mut query) {
                let (family, end) = question(&query);
                state.asked[family].fetch_add(1, Relaxed);
                if family == 1 && state.is_silent_to_v6.load(Relaxed) {
                    continue;
                }
                drop(socket.send_to(&state.answer(&query[..end], family), client));
            }
        });
        server
    }

    /// From now on.
    pub(crate) fn say(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        self.state.says.send_replace(addresses);
    }

    /// Questions for addresses of IPv4.
    pub(crate) fn asked(&self) -> u64 {
        self.state.asked[0].load(Relaxed)
    }

    /// Asks this server, for no shard.
    pub(crate) fn names(&self) -> Names {
        Names::start_with(NAMES_MAX, self.make(), |_, _| std::future::ready(()))
    }

    fn make(&self) -> Make {
        asking(self.port)
    }

    pub(crate) async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl State {
    /// An answer without error to the same question: each address with the name above, IN, a second.
    fn answer(&self, question: &[u8], family: usize) -> Vec<u8> {
        let says = self.says.borrow();
        let all: Vec<_> = says.iter().filter(|ip| usize::from(ip.is_ipv6()) == family).collect();
        let mut answer = question.to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[4..12].copy_from_slice(&[0, 1, 0, u8::try_from(all.len()).unwrap(), 0, 0, 0, 0]);
        for ip in all {
            let (kind, bytes) = match ip {
                IpAddr::V4(v4) => (1, v4.octets().to_vec()),
                IpAddr::V6(v6) => (28, v6.octets().to_vec()),
            };
            let len = u8::try_from(bytes.len()).unwrap();
            answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 1, 0, len]);
            answer.extend(bytes);
        }
        answer
    }
}

pub(super) fn asking(port: u16) -> Make {
    Box::new(move || {
        let make = |strategy| {
            let mut connection = ConnectionConfig::udp();
            connection.port = port;
            let mut server = NameServerConfig::udp(IpAddr::V4(Ipv4Addr::LOCALHOST));
            server.connections = vec![connection];
            let config = ResolverConfig::from_parts(None, vec![], vec![server]);
            let provider = TokioRuntimeProvider::default();
            let mut builder = TokioResolver::builder_with_config(config, provider);
            set(builder.options_mut(), strategy);
            builder.build()
        };
        Ok(System {
            hosts: "10.9.9.9 of.hosts other # not.this\nfd00::9\tOF.HOSTS\nnonsense of.hosts\n"
                .into(),
            both: make(LookupIpStrategy::Ipv4AndIpv6)?,
            either: make(LookupIpStrategy::Ipv4thenIpv6)?,
        })
    })
}

async fn ask(names: &Names, host: &str) -> Result<Vec<String>, Unresolved> {
    let answer = names.question(host).unwrap().await.unwrap();
    answer.addresses.map(|all| all.iter().map(IpAddr::to_string).collect())
}

#[test]
fn an_address_is_remembered_as_long_as_it_lives() {
    block_on(async {
        let server = NameServer::start(&["10.1.2.3"]);
        let names = server.names();
        for name in ["backend.test", "BACKEND.test"].into_iter().cycle().take(10) {
            assert_eq!(ask(&names, name).await.unwrap(), ["10.1.2.3"]);
        }
        assert_eq!(server.asked(), 1);
        server.say(&["10.1.2.4"]);
        tokio::time::sleep(TTL_MIN + Duration::from_millis(50)).await;
        assert_eq!(ask(&names, "backend.test").await.unwrap(), ["10.1.2.4"]);
        assert_eq!(server.asked(), 2);
    });
}

#[test]
fn what_nobody_knows_is_remembered_for_a_moment() {
    block_on(async {
        let server = NameServer::start(&[]);
        let names = server.names();
        assert_eq!(ask(&names, "lost.test").await, Err(Unresolved::Unknown));
        let asked = server.asked();
        for _ in 0..10 {
            assert_eq!(ask(&names, "lost.test").await, Err(Unresolved::Unknown));
        }
        assert_eq!(server.asked(), asked);
        server.say(&["10.1.2.3"]);
        tokio::time::sleep(UNKNOWN_TTL + Duration::from_millis(50)).await;
        assert_eq!(ask(&names, "lost.test").await.unwrap(), ["10.1.2.3"]);
    });
}

#[test]
fn families_take_turns_and_are_bounded() {
    block_on(async {
        for (says, expected) in [
            (&["10.0.0.1", "fd00::1"][..], &["10.0.0.1", "fd00::1"][..]),
            (&["fd00::1"], &["fd00::1"]),
            (
                &["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"],
                &["10.0.0.1", "fd00::1", "10.0.0.2", "10.0.0.3"],
            ),
        ] {
            let server = NameServer::start(says);
            let found = ask(&server.names(), "backend.test").await.unwrap();
            let (mut found, mut expected) = (found, expected.to_vec());
            // Servers, and hickory, turn the addresses of a family round.
            let families: Vec<bool> = found.iter().map(|ip| ip.contains(':')).collect();
            assert_eq!(families, expected.iter().map(|ip| ip.contains(':')).collect::<Vec<_>>());
            found.sort();
            expected.sort_unstable();
            assert_eq!(found, expected);
        }
        let many: Vec<String> = (1..30).map(|last| format!("10.0.0.{last}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let server = NameServer::start(&many);
        assert_eq!(ask(&server.names(), "backend.test").await.unwrap().len(), 29);
        let many: Vec<IpAddr> = (1..200).map(|last| Ipv4Addr::new(10, 0, 0, last).into()).collect();
        assert_eq!(in_order(&many).len(), ADDRESSES_MAX);
    });
}

/// This host's own file goes before name servers, for both families.
#[test]
fn names_of_the_hosts_file_are_asked_of_nobody() {
    block_on(async {
        let server = NameServer::start(&["10.0.0.1"]);
        let names = server.names();
        assert_eq!(ask(&names, "of.hosts").await.unwrap(), ["10.9.9.9", "fd00::9"]);
        assert_eq!(ask(&names, "other.").await.unwrap(), ["10.9.9.9"]);
        assert_eq!(server.asked(), 0);
        assert_eq!(ask(&names, "not.this").await.unwrap(), ["10.0.0.1"]);
    });
}

/// A name server that does not answer to AAAA costs a second, once for each TTL, and no answer.
#[test]
fn silence_to_one_family_is_not_waited_for() {
    block_on(async {
        let server = NameServer::start(&["10.0.0.1"]);
        server.state.is_silent_to_v6.store(true, Relaxed);
        let begun = Instant::now();
        assert_eq!(ask(&server.names(), "backend.test").await.unwrap(), ["10.0.0.1"]);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_name_server_that_is_gone_is_given_up_on() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    block_on(async {
        let make = asking(silent.local_addr().unwrap().port());
        let names = Names::start_with(NAMES_MAX, make, |_, _| std::future::ready(()));
        let begun = Instant::now();
        assert_eq!(ask(&names, "backend.test").await, Err(Unresolved::Unknown));
        assert!(begun.elapsed() < PATIENCE + Duration::from_secs(5));
    });
}

/// A storm of names against a name server that is silent: so many look-ups and no more, equal names
/// share one, and the rest are refused at once. Receivers of netra's own are heard all the same.
#[test]
fn a_storm_of_names_is_bounded_before_any_work() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    block_on(async {
        let (tell, told) = channel::channel();
        let mut desk = Desk::new(NAMES_MAX, asking(silent.local_addr().unwrap().port()));
        let route = |name: &str| {
            let target = Target::parse(name.as_bytes()).unwrap();
            Question::Shards(Box::new(ToResolve::of_nobody(target)))
        };
        let mut refused = 0;
        for number in 0..8000 {
            if let Some((answer, _)) = desk.hear(route(&format!("n{number}.test"))) {
                assert!(matches!(answer.addresses, Err(Unresolved::TooMany)));
                refused += 1;
            }
        }
        assert_eq!((desk.look_ups.len(), refused), (LOOK_UPS_MAX, 8000 - LOOK_UPS_MAX));
        // Equal names, also of other ports and case, wait for the one look-up.
        for _ in 0..2 * NAMES_MAX {
            desk.hear(route("N1.test:81"));
        }
        assert_eq!((desk.look_ups.len(), desk.waiters), (LOOK_UPS_MAX, NAMES_MAX));
        let own = Question::Own("statsd.test".into(), oneshot::channel().0);
        assert!(desk.hear(own).is_none());
        assert_eq!(desk.look_ups.len(), LOOK_UPS_MAX + 1);
        // All that wait are told, and nothing is left behind.
        let answer = Answer::lasting(Err(Unresolved::Unknown), UNKNOWN_TTL);
        let names: Vec<Box<str>> = desk.waiting.keys().cloned().collect();
        for name in names {
            let waiters = desk.found(name, &answer);
            tell.send(waiters.len()).unwrap();
        }
        assert_eq!(told.try_iter().sum::<usize>(), NAMES_MAX + 1);
        assert_eq!(desk.waiters, 0);
        // What is remembered is bounded, too.
        for number in 0..2 * NAMES_MAX {
            desk.found(format!("m{number}.test").into(), &answer);
        }
        assert_eq!(desk.known.len(), NAMES_MAX);
    });
}
