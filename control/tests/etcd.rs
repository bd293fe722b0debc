//! netra-control and a real etcd: members that restart, forget, lose their leader, or are cut off.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may sleep and lock")]
#![allow(missing_docs, reason = "a test")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use support::{Place, Process, REST, ask, control, free_port, router, rules, until, until_within};

/// A member; alone, or of a cluster.
struct Etcd {
    process: Option<Process>,
    place: Place,
    name: String,
    client: u16,
    peer: u16,
    /// All members, as etcd wants to have them.
    cluster: String,
}

impl Etcd {
    fn new(name: &str) -> Self {
        let mut etcd = Self::several(name, 1).remove(0);
        etcd.start();
        until("etcd answers", || etcd.ctl(&["endpoint", "health"]));
        etcd
    }

    /// Members of one cluster, which are not started yet.
    fn several(name: &str, count: usize) -> Vec<Self> {
        let member = |at: usize| Self {
            process: None,
            place: Place::new(&format!("{name}-{at}")),
            name: format!("m{at}"),
            client: free_port(),
            peer: free_port(),
            cluster: String::new(),
        };
        let mut members: Vec<Self> = (0..count).map(member).collect();
        let peer = |it: &Self| format!("{}=http://127.0.0.1:{}", it.name, it.peer);
        let cluster = members.iter().map(peer).collect::<Vec<_>>().join(",");
        members.iter_mut().for_each(|it| it.cluster.clone_from(&cluster));
        members
    }

    fn start(&mut self) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut command = Command::new("etcd");
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.place.0.join("data"))
            .args(["--listen-client-urls", &url(self.client), "--advertise-client-urls"])
            .args([&url(self.client), "--listen-peer-urls", &url(self.peer)])
            .args(["--initial-advertise-peer-urls", &url(self.peer)])
            .args(["--initial-cluster", &self.cluster]);
        self.process = Some(Process::start(command));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(format!("127.0.0.1:{}", self.client));
        command.args(args);
        command
    }

    fn ctl(&self, args: &[&str]) -> bool {
        self.command(args).output().is_ok_and(|output| output.status.success())
    }

    fn put(&self, key: &str, value: &str) {
        until(&format!("{key} is put"), || self.ctl(&["put", "--", key, value]));
    }

    fn leads(&self) -> bool {
        let output = self.command(&["endpoint", "status", "--write-out=json"]).output().unwrap();
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let status = &told[0]["Status"];
        status["leader"].is_u64() && status["leader"] == status["header"]["member_id"]
    }
}

/// Three members with a router and its endpoints, the leader first.
fn cluster(name: &str) -> Vec<Etcd> {
    let mut members = Etcd::several(name, 3);
    members.iter_mut().for_each(Etcd::start);
    until("somebody leads", || members.iter().any(Etcd::leads));
    members.sort_by_key(|it| !it.leads());
    members[0].put("/netra/documents/router", &router("orders", 20));
    members[0].put("/netra/documents/rest", REST);
    members
}

/// A way to a member that can be cut: then nothing passes, and nobody is told.
struct Way {
    port: u16,
    is_cut: Arc<AtomicBool>,
}

impl Way {
    fn to(member: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Self { port: listener.local_addr().unwrap().port(), is_cut: Arc::default() };
        let is_cut = way.is_cut.clone();
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", member)) else { continue };
                let ends = [(&near, &far), (&far, &near)];
                for (from, to) in ends.map(|(a, b)| (a.try_clone(), b.try_clone())) {
                    let is_cut = is_cut.clone();
                    thread::spawn(move || pass(from.unwrap(), to.unwrap(), &is_cut));
                }
            }
        });
        way
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while is_cut.load(Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
        if to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn etcd_may_restart_and_forget_and_its_changes_arrive() {
    let mut etcd = Etcd::new("etcd");
    etcd.put("/netra/documents/router", &router("orders", 20));
    etcd.put("/netra/documents/rest", REST);
    let members = format!("--etcd=127.0.0.1:{}", etcd.client);
    let control = Process::start(control(&[&members, "--without-tokens"]));
    let at = control.address();
    let has = |text: &str| rules(at, "shop", "", "", 0).text().contains(text);
    until("the router has come", || has("\"weight\":20"));
    etcd.put("/netra/documents/router", &router("orders", 30));
    until("the change has come", || has("\"weight\":30"));
    let endpoint = |at: &str| format!(r#"{{"address":"{at}","ports":{{"tcp-dubbo":20880}}}}"#);
    etcd.put("/netra/endpoints/shop/stock/1", &endpoint("10.0.0.7"));
    until("an endpoint has come", || has("10.0.0.7"));
    // While etcd is gone, what it said stands.
    etcd.process = None;
    thread::sleep(Duration::from_millis(500));
    assert!(has("\"weight\":30"));
    etcd.start();
    etcd.put("/netra/documents/router", &router("orders", 40));
    etcd.put("/netra/endpoints/shop/stock/2", &endpoint("10.0.0.8"));
    assert!(etcd.ctl(&["del", "/netra/endpoints/shop/stock/1"]));
    // What was in between is forgotten, so that a watch from there is refused.
    assert!(etcd.ctl(&["compact", "6"]), "compaction");
    until("it has caught up", || has("\"weight\":40") && has("10.0.0.8") && !has("10.0.0.7"));
}

#[test]
fn another_leader_is_no_event() {
    let mut members = cluster("leader");
    let list: Vec<String> = members.iter().map(|it| format!("127.0.0.1:{}", it.client)).collect();
    let list = format!("--etcd={}", list.join(","));
    let control = Process::start(control(&[&list, "--without-tokens"]));
    let at = control.address();
    let has = |text: &str| rules(at, "shop", "", "", 0).text().contains(text);
    until("the router has come", || has("\"weight\":20"));
    // The one that control watches.
    members[0].process = None;
    until("another one leads", || members[1..].iter().any(Etcd::leads));
    members[1].put("/netra/documents/router", &router("orders", 30));
    until("the change has come", || has("\"weight\":30"));
    // Once more: the first is back, and the one that is watched now goes.
    members[0].start();
    until("the first is back", || members[0].ctl(&["endpoint", "health"]));
    members[1].process = None;
    until("somebody leads", || [0, 2].iter().any(|at| members[*at].leads()));
    members[2].put("/netra/documents/router", &router("orders", 40));
    until("the change has come", || has("\"weight\":40"));
    // Without a majority nothing is written, and what is known stands, also for who asks now.
    members[2].process = None;
    thread::sleep(Duration::from_secs(2));
    assert!(has("\"weight\":40"));
    assert_eq!(ask(at, "GET", "/ready", &[], "").status, 200);
}

#[test]
fn a_member_that_falls_silent_is_left_and_without_any_the_rules_stand() {
    let members = cluster("partition");
    let ways: Vec<Way> = members.iter().map(|it| Way::to(it.client)).collect();
    let list: Vec<String> = ways.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect();
    let list = format!("--etcd={}", list.join(","));
    let control = Process::start(control(&[&list, "--without-tokens"]));
    let at = control.address();
    let has = |text: &str| rules(at, "shop", "", "", 0).text().contains(text);
    until("the router has come", || has("\"weight\":20"));
    // Its connection stays open, and says nothing any more.
    ways[0].is_cut.store(true, Relaxed);
    members[0].put("/netra/documents/router", &router("orders", 30));
    let patience = Duration::from_secs(60);
    until_within(patience, "another member was asked", || has("\"weight\":30"));
    // Cut off from all: sidecars wait on for what they have, and new ones get it.
    ways.iter().for_each(|it| it.is_cut.store(true, Relaxed));
    members[0].put("/netra/documents/router", &router("orders", 40));
    let tag = rules(at, "shop", "", "", 0).tag();
    let began = Instant::now();
    assert_eq!(rules(at, "shop", "", &tag, 15).status, 304);
    assert!(began.elapsed() >= Duration::from_secs(14), "{:?}", began.elapsed());
    assert!(has("\"weight\":30"));
    assert_eq!(ask(at, "GET", "/ready", &[], "").status, 200);
    assert!(control.said().contains("what was read before stands"), "{}", control.said());
    ways.iter().for_each(|it| it.is_cut.store(false, Relaxed));
    until_within(patience, "it has caught up", || has("\"weight\":40"));
}
