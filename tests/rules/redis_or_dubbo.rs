//! Three servers of Redis or Dubbo that nobody here wrote, a route that lets reads be sent again, and a client that
//! tells reads from what changes something.

use crate::{
    connections, peer,
    routes_of_others::redis,
    support::{
        PATIENCE,
        netra::Setup,
        programs::{Server, tool},
        script,
        spans::python_path,
        wait_until,
        world::{CLIENT_V4, World},
    },
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    net::TcpStream,
    path::PathBuf,
};

pub(crate) const SERVERS: u16 = 3;
const INTERFACE: &str = "org.apache.dubbo.samples.basic.api.DemoService";

/// A protocol, as its clients and rules have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dubbo,
    Redis,
}

impl Kind {
    pub(crate) fn port(self) -> u16 {
        if self == Self::Redis { 6379 } else { 20880 }
    }

    pub(crate) fn name(self) -> &'static str {
        if self == Self::Redis { "redis" } else { "dubbo" }
    }

    /// Three servers of one host, of which a route lets reads be sent again: when it does.
    pub(crate) fn rules(self, retry: &str, annotations: &str) -> String {
        let (host, name, named) = match self {
            Self::Redis => ("cache".to_owned(), "tcp-redis", ""),
            Self::Dubbo => {
                let named = ", operations: [sayHello]";
                (INTERFACE.to_lowercase(), "tcp-metaprotocol-dubbo", named)
            }
        };
        let (first, protocol) = (self.port(), self.name());
        let endpoints: String = (first..first + SERVERS)
            .map(|port| format!("  - {{address: {CLIENT_V4}, ports: {{{name}: {port}}}}}\n"))
            .collect();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\nspec:\n  \
             hosts: [{host}]\n  ports: [{{number: {first}, name: {name}}}]\n  resolution: STATIC\n  \
             endpoints:\n{endpoints}---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: it, \
             annotations: {{{annotations}}}}}\nspec:\n  host: {host}\n  trafficPolicy: \
             {{loadBalancer: {{simple: ROUND_ROBIN}}, \
             retryBudget: {{percent: 100, minRetryConcurrency: 50}}}}\n---\n\
             apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
             hosts: [{host}]\n  protocol: {protocol}\n  routes: [{{route: [{{destination: \
             {{host: {host}}}}}], retry: {{{retry}, attempts: 2{named}}}}}]\n"
        )
    }

    pub(crate) fn setup(self, setup: Setup) -> Setup {
        setup.env("NETRA_PROTOCOLS", format!("{}={}", self.port(), self.name()))
    }

    /// What changes nothing, and is answered `hello` and the name.
    pub(crate) fn read(self, id: u64, name: u64) -> Vec<u8> {
        match self {
            Self::Redis => format!("GET read:{name}\r\n").into_bytes(),
            Self::Dubbo => call(id, "sayHello", &name.to_string()),
        }
    }

    /// Its server says that it cannot serve that.
    pub(crate) fn is_closed(self, answer: &[u8], id: u64) -> bool {
        match self {
            Self::Redis => answer.starts_with(b"-MASTERDOWN ") && answer.ends_with(b"\r\n"),
            Self::Dubbo => answer[3] != 20 && answer[4..12] == id.to_be_bytes(),
        }
    }

    pub(crate) fn is_read(self, answer: &[u8], id: u64, name: u64) -> bool {
        let said = format!("hello {name}");
        match self {
            Self::Redis => answer == format!("${}\r\n{said}\r\n", said.len()).as_bytes(),
            Self::Dubbo => is_answered(answer, id, &said),
        }
    }

    /// What is counted by the server that has it.
    pub(crate) fn write(self, id: u64, name: &str) -> Vec<u8> {
        match self {
            Self::Redis => format!("INCR write:{name}\r\n").into_bytes(),
            Self::Dubbo => call(id, "note", name),
        }
    }

    pub(crate) fn is_written(self, answer: &[u8], id: u64, name: &str) -> bool {
        match self {
            Self::Redis => answer == b":1\r\n",
            Self::Dubbo => is_answered(answer, id, name),
        }
    }

    /// The length of the answer that is there whole.
    fn whole(self, held: &[u8]) -> Option<usize> {
        let len = match self {
            Self::Redis => {
                let line = held.windows(2).position(|two| two == b"\r\n")? + 2;
                match std::str::from_utf8(&held[1..line - 2]).ok()?.parse::<usize>() {
                    Ok(len) if held[0] == b'$' => line + len + 2,
                    _ => line,
                }
            }
            Self::Dubbo => {
                16 + usize::try_from(u32::from_be_bytes(held.get(12..16)?.try_into().ok()?)).ok()?
            }
        };
        (held.len() >= len).then_some(len)
    }
}

/// A call of Dubbo 2 in Hessian 2, with one text.
fn call(id: u64, method: &str, value: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for text in ["2.0.2", INTERFACE, "0.0.0", method, "Ljava/lang/String;", value] {
        let len = u8::try_from(text.len()).expect("short");
        body.extend_from_slice(if len < 32 { &[] } else { b"\x30" });
        body.push(len);
        body.extend_from_slice(text.as_bytes());
    }
    body.extend_from_slice(b"HZ");
    let len = u32::try_from(body.len()).expect("short");
    [&b"\xda\xbb\xc2\0"[..], &id.to_be_bytes(), &len.to_be_bytes(), &body].concat()
}

fn is_answered(answer: &[u8], id: u64, said: &str) -> bool {
    // 20: OK.
    answer[3] == 20 && answer[4..12] == id.to_be_bytes() && answer.ends_with(said.as_bytes())
}

/// The servers of a host, and what they hold when they are killed.
pub(crate) struct Fleet<'w> {
    pub(crate) world: &'w World,
    kind: Kind,
    pub(crate) servers: BTreeMap<u16, Server>,
}

impl<'w> Fleet<'w> {
    pub(crate) fn start(world: &'w World, kind: Kind) -> Self {
        let mut fleet = Self { world, kind, servers: BTreeMap::new() };
        for port in kind.port()..kind.port() + SERVERS {
            drop(fs::remove_dir_all(fleet.folder(port)));
            fs::create_dir_all(fleet.folder(port)).expect("a folder");
            fleet.revive(port);
            if kind == Kind::Redis {
                let keys = "for i = 0, 63 do redis.call('SET', 'read:' .. i, 'hello ' .. i) end";
                redis(&world.client, port, &["EVAL", keys, "0"]);
            }
        }
        fleet
    }

    fn folder(&self, port: u16) -> PathBuf {
        self.world.dir().join(format!("fleet-{port}"))
    }

    /// A server that holds what the one before it on this port was told.
    pub(crate) fn revive(&mut self, port: u16) {
        let (world, text, folder) = (self.world, port.to_string(), self.folder(port));
        let server = match self.kind {
            Kind::Redis => {
                let mut command = world.client.command(tool("redis-server", "redis-server"));
                // What was answered is with the kernel, and outlives the process.
                command.args(["--port", &text, "--save", "", "--appendonly", "yes"]);
                command.args(["--appendfsync", "no", "--protected-mode", "no", "--dir"]);
                command.arg(folder).args(["--bind", "0.0.0.0"]);
                Server::start(world, &world.client, command, port)
            }
            Kind::Dubbo => {
                let mut command = world.client.command(python_path());
                command.args([&peer("dubbo_peer.py"), "server", &text, "hello"]);
                command.arg(folder.join("notes"));
                Server::start(world, &world.client, command, port)
            }
        };
        if self.kind == Kind::Redis {
            let is_up = || redis(&world.client, port, &["PING"]) == "PONG";
            assert!(wait_until(PATIENCE, is_up), "redis-server on port {port} still loads");
        }
        self.servers.insert(port, server);
    }

    /// A server that cannot serve reads from here on, and says so: redis-server as the replica of nobody, dubbo-py
    /// by an exception that its method knows nothing of.
    pub(crate) fn close(&self, port: u16) {
        if self.kind == Kind::Dubbo {
            return fs::write(self.folder(port).join("notes.closed"), "").expect("a file");
        }
        let say = |args: &[&str]| redis(&self.world.client, port, args);
        say(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
        say(&["REPLICAOF", "127.0.0.1", "1"]);
        let said = say(&["GET", "read:1"]);
        assert!(said.starts_with("MASTERDOWN"), "{said}");
    }

    pub(crate) fn kill(&mut self, port: u16) {
        drop(self.servers.remove(&port));
    }

    /// How often each write was done, by all servers together.
    pub(crate) fn held(&self) -> BTreeMap<String, u64> {
        let list = "local r = {} for _, k in ipairs(redis.call('KEYS', 'write:*')) \
                    do r[#r + 1] = string.sub(k, 7) .. ' ' .. redis.call('GET', k) end return r";
        let mut held = BTreeMap::new();
        for port in self.servers.keys() {
            let text = match self.kind {
                Kind::Redis => redis(&self.world.client, *port, &["EVAL", list, "0"]),
                Kind::Dubbo => fs::read_to_string(self.folder(*port).join("notes")).expect("notes"),
            };
            for line in text.lines().filter(|line| !line.is_empty()) {
                let (name, count) = line.split_once(' ').unwrap_or((line, "1"));
                *held.entry(name.to_owned()).or_default() += count.parse::<u64>().expect("count");
            }
        }
        held
    }
}

/// A client that asks one thing at a time.
pub(crate) struct Client {
    kind: Kind,
    stream: TcpStream,
    held: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(world: &World, kind: Kind) -> io::Result<Self> {
        let stream = script::connect(&world.pod, (CLIENT_V4, kind.port()).into())?;
        Ok(Self { kind, stream, held: Vec::new() })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(crate) fn answer(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(len) = self.kind.whole(&self.held) {
                let rest = self.held.split_off(len);
                return Ok(std::mem::replace(&mut self.held, rest));
            }
            match script::read(&mut self.stream, &mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.held.extend_from_slice(&bytes[..len]),
            }
        }
    }

    pub(crate) fn ask(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.send(bytes)?;
        self.answer()
    }

    /// A read that has to be answered well.
    pub(crate) fn reads(&mut self, id: u64, name: u64) -> Result<(), String> {
        let answer = self.ask(&self.kind.read(id, name));
        self.expect(answer, id, name)
    }

    fn expect(&self, answer: io::Result<Vec<u8>>, id: u64, name: u64) -> Result<(), String> {
        match answer {
            Ok(answer) if self.kind.is_read(&answer, id, name) => Ok(()),
            Ok(answer) => Err(format!("{id}: {:?}", String::from_utf8_lossy(&answer))),
            Err(error) => Err(format!("{id}: {error}")),
        }
    }
}

/// Where the only connection leads now.
pub(crate) fn upstream(world: &World) -> Result<u16, String> {
    let page = connections(world)?;
    let shown = page["connections"][0]["upstream"].as_str();
    let port = shown.and_then(|it| it.rsplit_once(':')?.1.parse().ok());
    port.ok_or_else(|| format!("no upstream in {page:#}"))
}

/// Reads with these numbers, and a write behind those of one number where that is asked for.
pub(crate) fn batch(kind: Kind, ids: std::ops::Range<u64>, write: Option<(u64, &str)>) -> Vec<u8> {
    ids.flat_map(|id| match write {
        Some((at, name)) if at == id => kind.write(id, name),
        _ => kind.read(id, id % 64),
    })
    .collect()
}

/// Waits for the answers to reads of these numbers, in whatever order.
pub(crate) fn answers(client: &mut Client, ids: std::ops::Range<u64>) -> Result<(), String> {
    let mut left: Vec<_> = ids.collect();
    while !left.is_empty() {
        let answer = client.answer().map_err(|it| format!("{it} instead of {left:?}"))?;
        let is_it = |id: &u64| client.kind.is_read(&answer, *id, *id % 64);
        // Those of Redis say in no other way which request it was.
        let found = if client.kind == Kind::Redis {
            left.first().filter(|it| is_it(it)).map(|_| 0)
        } else {
            left.iter().position(is_it)
        };
        let place = found.ok_or_else(|| {
            format!("{:?} answers none of {left:?}", String::from_utf8_lossy(&answer))
        })?;
        left.remove(place);
    }
    Ok(())
}
