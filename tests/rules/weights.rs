//! Weights that move from nothing to all in ten steps, as a canary's, while requests of HTTP and commands of
//! Redis go on over the same connections: nobody sees an error, and each step parts as it says.

use crate::{
    in_cells,
    routes_of_others::{route, router, versions},
    support::{
        matrix::cells_with,
        netra::{Netra, Setup},
        script, wait_until,
        world::{CLIENT_V4, World},
    },
    write,
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

/// Messages that a step is judged by, at least.
const LEAST: u64 = 1_000;
/// Connections of each protocol, each of which has one message under way.
const CONNECTIONS: usize = 3;

/// A protocol: its host, the ports of its two versions and of a third where nobody is, the name of its
/// port; what a client sends, and how an answer begins, behind which the version stands.
struct Kind {
    host: &'static str,
    ports: [u16; 3],
    name: &'static str,
    attribute: &'static str,
    request: &'static [u8],
    answer: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind {
        host: "svc",
        ports: [8080, 8081, 8099],
        name: "http-svc",
        attribute: "path: {prefix: /}",
        request: b"GET /x HTTP/1.1\r\nHost: svc\r\n\r\n",
        answer: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
    },
    Kind {
        host: "cache",
        ports: [6379, 6380, 6399],
        name: "tcp-redis",
        attribute: "key: {prefix: k}",
        request: b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        answer: "$1\r\n",
    },
];

impl Kind {
    fn is_http(&self) -> bool {
        self.host == "svc"
    }

    fn rules(&self, canary: u8) -> String {
        let shares = [(1, 100 - canary), (2, canary)];
        let routes = route(self.host, "split", self.attribute, &shares);
        let text = versions(self.host, self.ports, self.name) + &router(self.host, &routes);
        text.replace("{name: it}", &format!("{{name: {}}}", self.host)) + "---\n"
    }

    fn answer(&self, version: char) -> Vec<u8> {
        let end = if self.is_http() { "" } else { "\r\n" };
        format!("{}{version}{end}", self.answer).into_bytes()
    }

    /// The servers of both versions; they end with the test.
    fn serve(&'static self, world: &World) {
        for (version, port) in ['1', '2'].into_iter().zip(self.ports) {
            let bound = world.client.enter(|| TcpListener::bind((CLIENT_V4, port)));
            let (listener, answer) = (bound.expect("a free port"), self.answer(version));
            thread::spawn(move || {
                for mut peer in listener.incoming().flatten() {
                    let answer = answer.clone();
                    thread::spawn(move || while self.take(&mut peer, &answer).is_ok() {});
                }
            });
        }
    }

    /// Answers all requests that have come whole.
    fn take(&self, peer: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
        let mut bytes = [0; 4096];
        let mut len = 0;
        let end: &[u8] = if self.is_http() { b"\r\n\r\n" } else { b"k\r\n" };
        while !bytes[..len].ends_with(end) {
            match peer.read(&mut bytes[len..])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => len += count,
            }
        }
        peer.write_all(answer)
    }
}

/// What the clients of a protocol have got.
#[derive(Default)]
struct Tally {
    versions: [AtomicU64; 2],
    errors: AtomicU64,
}

impl Tally {
    fn now(&self) -> [u64; 2] {
        self.versions.each_ref().map(|count| count.load(Relaxed))
    }

    /// Asks on one connection until all is over.
    fn ask(&self, kind: &Kind, mut peer: TcpStream, is_over: &AtomicBool) {
        peer.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
        peer.set_nodelay(true).expect("a socket option");
        let answers = ['1', '2'].map(|version| kind.answer(version));
        let mut got = vec![0; answers[0].len()];
        while !is_over.load(Relaxed) {
            let asked = peer.write_all(kind.request).and_then(|()| peer.read_exact(&mut got));
            let version = answers.iter().position(|answer| *answer == got);
            let Some(version) = version.filter(|_| asked.is_ok()) else {
                self.errors.fetch_add(1, Relaxed);
                return;
            };
            self.versions[version].fetch_add(1, Relaxed);
        }
    }
}

/// One step: other rules are in force, and both protocols part as they say.
fn step(netra: &Netra<'_>, folder: &Path, tallies: &[Tally; 2], canary: u8) -> Result<(), String> {
    let generation = netra.scrape().sum("netra_rules_generation", &[]);
    write(folder, &KINDS.each_ref().map(|kind| kind.rules(canary)).concat());
    netra.scrape_until("the rules are in force", |scrape| {
        scrape.sum("netra_rules_generation", &[]) > generation
    })?;
    judge(tallies, canary)
}

/// From here on both protocols part like this.
fn judge(tallies: &[Tally; 2], canary: u8) -> Result<(), String> {
    let before = tallies.each_ref().map(Tally::now);
    let since = |index: usize| {
        let (before, now) = (before[index], tallies[index].now());
        [now[0] - before[0], now[1] - before[1]]
    };
    let is_enough = || (0..2).all(|index| since(index).iter().sum::<u64>() >= LEAST);
    if !wait_until(Duration::from_secs(60), is_enough) {
        return Err(format!("{canary} %: too few in a minute: {:?}, {:?}", since(0), since(1)));
    }
    for (index, kind) in KINDS.iter().enumerate() {
        let [old, new] = since(index);
        let all = old + new;
        // 1 %, in hundredths.
        if (100 * new).abs_diff(u64::from(canary) * all) > all {
            return Err(format!("{}: {new} of {all} where {canary} % were said", kind.host));
        }
        if tallies[index].errors.load(Relaxed) > 0 {
            return Err(format!("{}: an error at {canary} %", kind.host));
        }
    }
    Ok(())
}

#[test]
fn weights_move_in_ten_steps_under_load() {
    let Some(world) = World::new() else { return };
    KINDS.iter().for_each(|kind| kind.serve(&world));
    let begin = KINDS.each_ref().map(|kind| kind.rules(0)).concat();
    let http = |setup: Setup| setup.env("NETRA_HTTP_PORTS", 8080);
    in_cells(&world, &cells_with(2), &begin, http, |netra, folder| {
        let tallies = [Tally::default(), Tally::default()];
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for (kind, tally) in KINDS.iter().zip(&tallies) {
                for _ in 0..CONNECTIONS {
                    let peer = script::connect(&world.pod, (CLIENT_V4, kind.ports[0]).into());
                    let (peer, is_over) = (peer.expect("netra accepts"), &is_over);
                    scope.spawn(move || tally.ask(kind, peer, is_over));
                }
            }
            let mut steps = (1..=10).map(|tenth| 10 * tenth);
            let first = judge(&tallies, 0);
            let done =
                first.and_then(|()| steps.try_for_each(|it| step(netra, folder, &tallies, it)));
            is_over.store(true, Relaxed);
            done
        })
    });
}
