//! Names of services against a name server of the test's own.

use crate::resolver::tests::{asking, block_on};
use crate::resolver::{ADDRESSES_MAX, Names, UNKNOWN};
use hickory_resolver::{
    lookup::Lookup,
    proto::{
        op::Query,
        rr::{Name, RData, Record, RecordType, rdata::SRV},
    },
};
use netra_codecs::route::Target;
use netra_rules::ServiceRecord;
use netra_shards::{Resolver, ToResolve, Unresolved};
use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

const NAME: &str = "_redis._tcp.cache.test";
const A: u8 = 1;
const SRV_TYPE: u8 = 33;

/// One record: its name, its type, its TTL, its data.
type Said = (String, u8, u32, Vec<u8>);

/// What a name server has, and what it puts beside answers.
#[derive(Default)]
struct Zone {
    has: Vec<Said>,
    beside: Vec<Said>,
    /// Names that it says nothing about, not even that it has none.
    silent: Vec<String>,
}

struct ZoneServer {
    port: u16,
    zone: Arc<tokio::sync::watch::Sender<Zone>>,
    asked: Arc<AtomicU64>,
}

/// As it is on the wire.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.trim_end_matches('.').split('.').filter(|it| !it.is_empty());
    let label = |it: &str| [&[u8::try_from(it.len()).unwrap()], it.as_bytes()].concat();
    labels.flat_map(label).chain([0]).collect()
}

fn a(name: &str, ttl: u32, last: u8) -> Said {
    (name.to_owned(), A, ttl, vec![10, 0, 0, last])
}

fn srv(ttl: u32, [priority, weight, port]: [u16; 3], target: &str) -> Said {
    let numbers = [priority, weight, port].map(u16::to_be_bytes).concat();
    (NAME.to_owned(), SRV_TYPE, ttl, [numbers, wire(target)].concat())
}

impl Zone {
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let end = 12 + query[12..].iter().position(|byte| *byte == 0)? + 1;
        let (name, kind) = (query[12..end].to_ascii_lowercase(), query[end + 1]);
        if self.silent.iter().any(|it| wire(it) == name) {
            return None;
        }
        let is_it = |it: &&Said| wire(&it.0) == name && it.1 == kind;
        let found: Vec<_> = self.has.iter().filter(is_it).collect();
        let beside: Vec<_> =
            self.beside.iter().filter(|_| !found.is_empty() && kind == SRV_TYPE).collect();
        let mut answer = query[..end + 4].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        let count = |all: &[&Said]| u8::try_from(all.len()).unwrap();
        answer[4..12].copy_from_slice(&[0, 1, 0, count(&found), 0, 0, 0, count(&beside)]);
        for (name, kind, ttl, data) in found.into_iter().chain(beside) {
            answer.extend(wire(name));
            answer.extend([0, *kind, 0, 1]);
            answer.extend(ttl.to_be_bytes());
            answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            answer.extend(data);
        }
        Some(answer)
    }
}

impl ZoneServer {
    fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let server = Self {
            port,
            zone: Arc::new(tokio::sync::watch::Sender::new(zone)),
            asked: Arc::default(),
        };
        let (zone, asked) = (Arc::clone(&server.zone), Arc::clone(&server.asked));
        thread::spawn(move || {
            let mut query = [0; 4096];
            while let Ok((len, client)) = socket.recv_from(&mut query) {
                asked.fetch_add(1, Relaxed);
                let answer = zone.borrow().answer(&query[..len]);
                if let Some(answer) = answer {
                    drop(socket.send_to(&answer, client));
                }
            }
        });
        server
    }

    fn names(&self) -> Names {
        Names::start_with(64, asking(self.port), |_, _| std::future::ready(()))
    }
}

/// What is said of the name, in words; and for how many seconds.
async fn ask(names: &Names) -> (Vec<String>, u64) {
    let answer = names.question(NAME).unwrap().await.unwrap();
    assert!(answer.addresses.is_err());
    let word = |it: &ServiceRecord| {
        let addresses: Vec<_> = it.addresses.iter().map(ToString::to_string).collect();
        let ServiceRecord { priority, weight, port, target, .. } = it;
        format!("{priority} {weight} {port} {target} {}", addresses.join(" ")).trim_end().to_owned()
    };
    let left = answer.until.saturating_duration_since(Instant::now());
    (
        answer.services.iter().map(word).collect(),
        u64::try_from(left.as_millis().div_ceil(1000)).unwrap(),
    )
}

#[test]
fn targets_are_found_beside_the_answer_or_by_a_question_of_their_own() {
    block_on(async {
        for (what, zone, expected, seconds) in [
            ("no such name", Zone::default(), &[][..], 2),
            (
                "addresses beside it",
                Zone {
                    has: vec![srv(30, [2, 5, 7002], "B.test"), srv(30, [1, 6, 7001], "a.test")],
                    beside: vec![a("a.test", 20, 1), a("b.test", 9, 2), a("b.test", 9, 3)],
                    ..Zone::default()
                },
                &["1 6 7001 a.test. 10.0.0.1", "2 5 7002 b.test. 10.0.0.2 10.0.0.3"],
                9,
            ),
            (
                "one of them is to be asked for, and what is beside it of others is nobody's",
                Zone {
                    has: vec![
                        srv(30, [0, 0, 7001], "a.test"),
                        srv(30, [0, 0, 7002], "b.test"),
                        a("b.test", 5, 2),
                    ],
                    beside: vec![a("a.test", 60, 1), a("evil.test", 1, 9)],
                    ..Zone::default()
                },
                &["0 0 7001 a.test. 10.0.0.1", "0 0 7002 b.test. 10.0.0.2"],
                5,
            ),
            (
                "no service, no port, and twice the same",
                Zone {
                    has: vec![
                        srv(30, [0, 0, 0], "."),
                        srv(30, [0, 0, 0], "a.test"),
                        srv(30, [0, 3, 7001], "a.test"),
                        srv(30, [0, 3, 7001], "a.test"),
                        a("a.test", 3600, 1),
                    ],
                    ..Zone::default()
                },
                &["0 3 7001 a.test. 10.0.0.1"],
                30,
            ),
            (
                "a target that nobody knows is asked for again soon",
                Zone { has: vec![srv(30, [0, 0, 7001], "a.test")], ..Zone::default() },
                &["0 0 7001 a.test."],
                2,
            ),
            (
                "in this host's own file",
                Zone { has: vec![srv(600, [0, 0, 7001], "of.hosts")], ..Zone::default() },
                &["0 0 7001 of.hosts. 10.9.9.9 fd00::9"],
                60,
            ),
        ] {
            let server = ZoneServer::start(zone);
            assert_eq!(
                ask(&server.names()).await,
                (expected.iter().map(|it| (*it).to_owned()).collect(), seconds),
                "{what}"
            );
        }
    });
}

/// The answer is remembered as long as the least of its TTLs says, and read anew then.
#[test]
fn records_come_and_go_by_their_ttl() {
    block_on(async {
        let has = vec![srv(60, [0, 0, 7001], "a.test"), a("a.test", 1, 1)];
        let server = ZoneServer::start(Zone { has, ..Zone::default() });
        let names = server.names();
        assert_eq!(ask(&names).await.0, ["0 0 7001 a.test. 10.0.0.1"]);
        let asked = server.asked.load(Relaxed);
        let has = vec![srv(60, [0, 0, 7009], "b.test"), a("b.test", 1, 2)];
        server.zone.send_modify(|zone| zone.has = has);
        assert_eq!(ask(&names).await.0, ["0 0 7001 a.test. 10.0.0.1"]);
        assert_eq!(server.asked.load(Relaxed), asked);
        tokio::time::sleep(Duration::from_millis(1050)).await;
        assert_eq!(ask(&names).await.0, ["0 0 7009 b.test. 10.0.0.2"]);
    });
}

/// A target whose name server is silent keeps nobody else waiting for ever, and costs others nothing.
#[test]
fn a_silent_target_is_without_addresses_and_others_are_there() {
    block_on(async {
        let has = vec![
            srv(60, [0, 0, 7001], "a.test"),
            srv(60, [0, 0, 7002], "b.test"),
            a("a.test", 60, 1),
        ];
        let server =
            ZoneServer::start(Zone { has, silent: vec!["b.test".into()], ..Zone::default() });
        let begun = Instant::now();
        let found = ask(&server.names()).await;
        assert_eq!(found, (vec!["0 0 7001 a.test. 10.0.0.1".into(), "0 0 7002 b.test.".into()], 2));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    });
}

/// However many records and addresses there are, so many are taken: of the lowest priorities.
#[test]
fn records_and_addresses_are_bounded() {
    block_on(async {
        let of = |count: u16, per_target: u8| {
            let record = |it: u16| srv(60, [200 - it, 0, 7000 + it], &format!("t{it}.test"));
            let address =
                |it: u16| (0..per_target).map(move |last| a(&format!("t{it}.test"), 60, last));
            let has = (0..count).map(record).chain((0..count).flat_map(address)).collect();
            Zone { has, ..Zone::default() }
        };
        let (found, _) = ask(&ZoneServer::start(of(5, 20)).names()).await;
        let counts: Vec<_> = found.iter().map(|it| it.matches("10.0.0.").count()).collect();
        assert_eq!(counts, [20, 20, 20, 4, 0]);
    });
}

#[test]
fn records_of_the_lowest_priorities_are_taken() {
    let name = Name::from_ascii(NAME).unwrap();
    let record = |it: u16| {
        let target = Name::from_ascii(format!("t{it}.test.")).unwrap();
        Record::from_rdata(name.clone(), 60, RData::SRV(SRV::new(500 - it, 0, 7000 + it, target)))
    };
    let query = Query::query(name.clone(), RecordType::SRV);
    let found = super::records_of(&Lookup::new_with_max_ttl(query, (1..=300).map(record)));
    assert_eq!((found.len(), found[0].priority, found[63].priority), (ADDRESSES_MAX, 200, 263));
}

/// Whoever dials has a port already: a service has no address, and nobody is asked for one.
#[test]
fn nobody_dials_the_name_of_a_service() {
    block_on(async {
        let server = ZoneServer::start(Zone::default());
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let names = Names::start_with(64, asking(server.port), move |_, found| {
            let tell = tell.clone();
            async move { tell.send(found).await.unwrap() }
        });
        let unknown = UNKNOWN.load(Relaxed);
        let target = Target::parse(NAME.as_bytes()).unwrap();
        assert!(names.ask(ToResolve::of_nobody(target)));
        assert_eq!(told.recv().await, Some(Err(Unresolved::Unknown)));
        assert_eq!(server.asked.load(Relaxed), 0);
        assert!(UNKNOWN.load(Relaxed) > unknown);
    });
}
