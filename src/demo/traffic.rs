//! The clients of the demo: the same requests directly and through netra, in turn, timed.

use super::Result;
use super::namespace::Namespace;
use super::pod::{APP, CLIENT, DIRECT, ELSEWHERE, POD, Pod, has_ipv6};
use super::stage::Lane;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of an ordinary answer.
const SMALL: usize = 1 << 10;
/// Bytes of a large answer.
pub(super) const BULK: usize = 128 << 20;
/// Requests that are not counted, to warm both paths.
const WARM: u32 = 50;

/// Durations of one kind, sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    fn sorted(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Microseconds below which this share (in permille) of them lies.
    pub(super) fn micros(&self, permille: usize) -> f64 {
        let index = (self.0.len() * permille / 1000).min(self.0.len().saturating_sub(1));
        self.0.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    }
}

/// What one path did.
#[derive(Clone, Debug, Default)]
pub(super) struct Path {
    /// A new connection until it is connected.
    pub(super) connect: Times,
    /// A new connection until its first answer is there.
    pub(super) first_answer: Times,
    /// A request on an open connection.
    pub(super) request: Times,
    /// Bytes per second of a large answer.
    pub(super) bulk: f64,
}

/// One destination and how often it was dialled.
#[derive(Clone, Debug)]
pub(super) struct Dialled {
    pub(super) destination: SocketAddr,
    pub(super) connections: u64,
    /// Answers from a server that was reached by this very address.
    pub(super) reached: u64,
    pub(super) answers: u64,
}

/// One direction, both paths.
#[derive(Clone, Debug)]
pub(super) struct Leg {
    pub(super) direction: &'static str,
    pub(super) dialled: Vec<Dialled>,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) direct: Path,
    pub(super) netra: Path,
}

/// All legs that the lane allows.
pub(super) fn run(pod: &Pod, requests: u32) -> Result<Vec<Leg>> {
    let mut legs = vec![leg("inbound", &pod.client, POD, APP, requests)?];
    if pod.lane == Lane::Both {
        legs.push(leg("outbound", &pod.pod, CLIENT, ELSEWHERE, requests)?);
    }
    Ok(legs)
}

fn leg(
    direction: &'static str,
    from: &Namespace,
    to: [IpAddr; 2],
    port: u16,
    requests: u32,
) -> Result<Leg> {
    let families = if has_ipv6() { &to[..] } else { &to[..1] };
    let measured = from.enter(|| measure(families, port, requests))?;
    let (direct, netra) = measured.map_err(|error| format!("{direction}: {error}"))?;
    Ok(Leg {
        direction,
        dialled: netra.dialled,
        sent: netra.sent,
        received: netra.received,
        direct: direct.path,
        netra: netra.path,
    })
}

/// A client of one path, counting what it does.
struct Client {
    port: u16,
    dialled: Vec<Dialled>,
    sent: u64,
    received: u64,
    path: Path,
    bytes: Vec<u8>,
}

impl Client {
    fn new(families: &[IpAddr], port: u16) -> Self {
        let none = |ip: &IpAddr| Dialled {
            destination: (*ip, port).into(),
            connections: 0,
            reached: 0,
            answers: 0,
        };
        let dialled = families.iter().map(none).collect();
        Self {
            port,
            dialled,
            sent: 0,
            received: 0,
            path: Path::default(),
            bytes: vec![0; 64 << 10],
        }
    }

    fn connect(&mut self, family: usize) -> std::io::Result<TcpStream> {
        let dialled = &mut self.dialled[family];
        let stream = TcpStream::connect_timeout(&dialled.destination, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        dialled.connections += 1;
        Ok(stream)
    }

    /// One request and its whole answer.
    fn ask(&mut self, family: usize, mut stream: &TcpStream, size: usize) -> std::io::Result<()> {
        let request = format!("GET /{size} HTTP/1.1\r\nHost: demo:{}\r\n\r\n", self.port);
        stream.write_all(request.as_bytes())?;
        self.sent += request.len() as u64;
        let bytes = &mut self.bytes;
        let (mut got, mut head_len) = (0, None);
        let mut reached = false;
        while head_len.is_none_or(|head| got < head + size) {
            let len = stream.read(bytes)?;
            if len == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if head_len.is_none() {
                let text = String::from_utf8_lossy(&bytes[..len]);
                let Some(end) = text.find("\r\n\r\n") else {
                    return Err(std::io::Error::other("an answer in pieces too small"));
                };
                head_len = Some(end + 4);
                let destination = self.dialled[family].destination;
                reached = text.contains(&format!("\r\nReached: {destination}\r\n"));
            }
            got += len;
        }
        self.received += got as u64;
        self.dialled[family].answers += 1;
        self.dialled[family].reached += u64::from(reached);
        Ok(())
    }
}

/// Directly and through netra in turn, so that both meet the same noise.
fn measure(families: &[IpAddr], port: u16, requests: u32) -> std::io::Result<(Client, Client)> {
    let mut clients = [Client::new(families, port + DIRECT), Client::new(families, port)];
    fresh_connections(&mut clients, families.len(), (requests / 10).clamp(100, 1_000))?;
    open_connections(&mut clients, requests)?;
    for client in &mut clients {
        let stream = client.connect(0)?;
        let started = Instant::now();
        client.ask(0, &stream, BULK)?;
        client.path.bulk = BULK as f64 / started.elapsed().as_secs_f64();
    }
    let [direct, netra] = clients;
    Ok((direct, netra))
}

fn fresh_connections(
    clients: &mut [Client; 2],
    families: usize,
    count: u32,
) -> std::io::Result<()> {
    let mut times = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    for round in 0..count as usize + 4 {
        for (which, client) in clients.iter_mut().enumerate() {
            let family = round % families;
            let started = Instant::now();
            let stream = client.connect(family)?;
            let connected = started.elapsed();
            client.ask(family, &stream, SMALL)?;
            // The first of each family meet unknown neighbours.
            if round >= 4 {
                times[which].0.push(connected);
                times[which].1.push(started.elapsed());
            }
        }
    }
    for (client, (connect, answer)) in clients.iter_mut().zip(times) {
        client.path.connect = Times::sorted(connect);
        client.path.first_answer = Times::sorted(answer);
    }
    Ok(())
}

fn open_connections(clients: &mut [Client; 2], requests: u32) -> std::io::Result<()> {
    let streams = [clients[0].connect(0)?, clients[1].connect(0)?];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..WARM + requests {
        // Who goes first changes.
        for turn in [round % 2, (round + 1) % 2] {
            let which = turn as usize;
            let started = Instant::now();
            clients[which].ask(0, &streams[which], SMALL)?;
            if round >= WARM {
                times[which].push(started.elapsed());
            }
        }
    }
    for (client, times) in clients.iter_mut().zip(times) {
        client.path.request = Times::sorted(times);
    }
    Ok(())
}
