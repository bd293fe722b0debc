//! Clients that measure the same server: ours, a raw one, and programs of others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Kind, Result};
use crate::http::{MessageParser, Role};
use crate::pacer::Arrival;
use crate::plan::{LoadPlan, Pace, RequestSpec};
use crate::run;
use crate::topology::run as run_tool;

use super::CheckArgs;

/// A client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tool {
    /// A blocking socket and the clock of the system, nothing else.
    Raw,
    /// Ours, each connection asking again as soon as it is answered.
    Closed,
    /// Ours, at this rate.
    Open(f64),
    Wrk,
    /// ApacheBench.
    Ab,
}

/// What to send where.
#[derive(Clone, Debug)]
pub(super) struct Load {
    addr: SocketAddr,
    connections: usize,
    seconds: Duration,
    cpu: Option<usize>,
}

/// What a client measured: microseconds, and answers per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: Option<f64>,
    pub(super) rate: f64,
}

impl Load {
    pub(super) fn new(args: &CheckArgs, addr: SocketAddr, connections: usize) -> Self {
        Self { addr, connections, seconds: args.seconds, cpu: args.load_cpu }
    }
}

impl Tool {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Raw => "raw client".to_owned(),
            Self::Closed => "netra-loadtest, closed loop".to_owned(),
            Self::Open(rate) => format!("netra-loadtest, open loop {rate:.0}/s"),
            Self::Wrk => "wrk".to_owned(),
            Self::Ab => "ab".to_owned(),
        }
    }

    /// The program of somebody else that is needed.
    pub(super) fn program(&self) -> Option<&'static str> {
        match self {
            Self::Wrk => Some("wrk"),
            Self::Ab => Some("ab"),
            Self::Raw | Self::Closed | Self::Open(_) => None,
        }
    }

    pub(super) fn measure(&self, load: &Load) -> Result<Figures> {
        match self {
            Self::Raw => raw(load),
            Self::Closed => ours(load, Pace::Closed),
            Self::Open(rate) => ours(load, Pace::Open { rate: *rate, arrival: Arrival::Constant }),
            Self::Wrk => wrk(load),
            Self::Ab => ab(load),
        }
    }
}

fn raw(load: &Load) -> Result<Figures> {
    let mut stream = TcpStream::connect(load.addr)?;
    stream.set_nodelay(true)?;
    let mut parser = MessageParser::new(Role::Response);
    let (begun, mut taken) = (Instant::now(), Vec::new());
    let mut buffer = [0; 4096];
    while begun.elapsed() < load.seconds {
        let start = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: raw\r\n\r\n")?;
        loop {
            let count = stream.read(&mut buffer)?;
            let end = parser.feed(&buffer[..count]).context(|| "raw client".to_owned())?;
            if count == 0 || end.is_some() {
                break;
            }
        }
        taken.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let seconds = begun.elapsed().as_secs_f64();
    taken.sort_by(f64::total_cmp);
    let at = |percent: usize| taken.get(taken.len() * percent / 100).copied().unwrap_or(0.0);
    let rate = crate::clock::float(taken.len() as u64) / seconds;
    Ok(Figures { p50: at(50), p99: at(99), max: taken.last().copied(), rate })
}

fn ours(load: &Load, pace: Pace) -> Result<Figures> {
    let host = load.addr.to_string();
    let spec = RequestSpec { path: "/".to_owned(), host, ..RequestSpec::default() };
    let report = run::execute(
        &LoadPlan {
            scenario: "http".to_owned(),
            target: load.addr,
            payload: spec.encode()?,
            pace,
            connections: load.connections,
            is_fresh: false,
            duration: load.seconds,
            warm_up: Duration::ZERO,
            timeout: Duration::from_secs(10),
            threads: 1,
            cpus: load.cpu.into_iter().collect(),
            is_busy: false,
            seed: 1,
        },
        false,
    )?;
    report.fault().map_or(Ok(()), Err)?;
    let latency = &report.latency;
    let (p50, p99, max) = (latency.p50, latency.p99, Some(latency.max));
    Ok(Figures { p50, p99, max, rate: report.rate })
}

/// Starts a program on the CPU of the generators.
fn program(load: &Load, words: &str) -> Result<String> {
    let pinned = load.cpu.map(|cpu| format!("taskset -c {cpu} {words}"));
    let words = pinned.as_deref().unwrap_or(words);
    let mut words = words.split(' ');
    let name = words.next().unwrap_or_default();
    run_tool(name, &words.collect::<Vec<_>>(), None)
}

fn wrk(load: &Load) -> Result<Figures> {
    let seconds = load.seconds.as_secs().max(1);
    let (count, addr) = (load.connections, load.addr);
    let said = program(load, &format!("wrk -t1 -c{count} -d{seconds} --latency http://{addr}/"))?;
    parse_wrk(&said).ok_or_else(|| Error::new(Kind::Tool, format!("wrk said: {said}")))
}

fn parse_wrk(said: &str) -> Option<Figures> {
    let word = |start: &str, index: usize| {
        let line = said.lines().find(|line| line.trim_start().starts_with(start))?;
        line.split_whitespace().nth(index)
    };
    let (p50, p99) = (micros(word("50%", 1)?)?, micros(word("99%", 1)?)?);
    let max = micros(word("Latency  ", 3)?)?;
    Some(Figures { p50, p99, max: Some(max), rate: word("Requests/sec:", 1)?.parse().ok()? })
}

/// A duration as wrk writes it.
fn micros(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let value: f64 = text[..at].parse().ok()?;
    let factor = match &text[at..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some(value * factor)
}

fn ab(load: &Load) -> Result<Figures> {
    let csv: PathBuf =
        std::env::temp_dir().join(format!("netra-loadtest-ab-{}.csv", std::process::id()));
    let (count, addr) = (load.connections, load.addr);
    let seconds = load.seconds.as_secs().max(1);
    let words = format!("ab -q -k -c {count} -t {seconds} -n 1000000 -e {}", csv.display());
    let said = program(load, &format!("{words} http://{addr}/"))?;
    let percentiles = std::fs::read_to_string(&csv).unwrap_or_default();
    let _ = std::fs::remove_file(&csv);
    let refuse = || Error::new(Kind::Tool, format!("ab said: {said}{percentiles}"));
    parse_ab(&said, &percentiles).ok_or_else(refuse)
}

fn parse_ab(said: &str, csv: &str) -> Option<Figures> {
    let at = |percent: &str| -> Option<f64> {
        let line = csv.lines().find_map(|line| line.strip_prefix(percent)?.strip_prefix(','))?;
        Some(line.trim().parse::<f64>().ok()? * 1e3)
    };
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests per second:"))?;
    let rate = rate.split_whitespace().next()?.parse().ok()?;
    // Of fewer than about fifty requests ab writes the p99 from behind the end of its table: zero.
    let p99 = at("99").filter(|p99| *p99 > 0.0).or_else(|| at("100"))?;
    Some(Figures { p50: at("50")?, p99, max: at("100"), rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_print_is_read() {
        let wrk = "Running 1s test @ http://x/\n  1 threads and 2 connections\n  \
            Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
            Latency    20.49ms  431.78us  27.04ms   95.11%\n    \
            Req/Sec    48.60      3.50    50.00     88.00%\n  Latency Distribution\n     \
            50%   20.37ms\n     75%   20.42ms\n     90%   20.59ms\n     99%   1.02s\n  \
            488 requests in 10.00s, 0.52MB read\nRequests/sec:     48.78\nTransfer/sec: 1KB\n";
        let want = Figures { p50: 20_370.0, p99: 1_020_000.0, max: Some(27_040.0), rate: 48.78 };
        assert_eq!(parse_wrk(wrk), Some(want));
        let csv = "Percentage served,Time in ms\n0,20.1\n50,20.250\n99,21.5\n100,23\n";
        let said = "Requests per second:    49.12 [#/sec] (mean)\n";
        let want = Figures { p50: 20_250.0, p99: 21_500.0, max: Some(23_000.0), rate: 49.12 };
        assert_eq!(parse_ab(said, csv), Some(want));
        let beyond = parse_ab(said, &csv.replace("21.5", "0.000")).expect("figures");
        assert_eq!(beyond.p99, 23_000.0);
        assert_eq!(parse_wrk("unable to connect"), None);
        assert_eq!(micros("12.5min"), None);
    }
}
