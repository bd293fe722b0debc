//! Many connections that do nothing: does the target hold them, and are they alive afterwards?

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::http::{MessageParser, Role};
use crate::machine::Machine;
use crate::plan::{CONNECTIONS_MAX, Payload, RequestSpec, Target};
use crate::report::write_json;
use crate::run::raise_file_limit;
use crate::sys;

const TIMEOUT: Duration = Duration::from_secs(5);

/// How many connections, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct IdlePlan {
    target: SocketAddr,
    request: Payload,
    connections: usize,
    hold: Duration,
}

impl IdlePlan {
    pub(crate) fn new(target: &Target, connections: usize, hold: Duration) -> Result<Self> {
        if connections == 0 || connections > CONNECTIONS_MAX {
            return Err(Error::usage(format!("connections must be 1 to {CONNECTIONS_MAX}")));
        }
        let (path, host) = (target.path.clone(), target.host.clone());
        let request = RequestSpec { path, host, ..RequestSpec::default() }.encode()?;
        Ok(Self { target: target.addr, request, connections, hold })
    }
}

/// What became of the connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct IdleReport {
    pub(crate) machine: Machine,
    pub(crate) connections: usize,
    pub(crate) setup_seconds: f64,
    pub(crate) hold_seconds: f64,
    /// Connections that answered again at the end.
    pub(crate) alive: usize,
}

/// Opens the connections, asks once on each, holds them, and asks again.
pub(crate) fn run(plan: &IdlePlan, json: Option<&Path>) -> Result<()> {
    raise_file_limit(plan.connections + 64)?;
    let start = Instant::now();
    let mut held = Vec::with_capacity(plan.connections);
    for index in 0..plan.connections {
        if sys::is_interrupted() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        held.push(open(plan).map_err(|cause| {
            let message = format!("connection {index} to {}: {cause}", plan.target);
            Error::new(Kind::Target, message)
        })?);
    }
    let setup_seconds = start.elapsed().as_secs_f64();
    // Whoever measures the target reads this line to know when to look.
    crate::say::result(format_args!(
        "holding {} connections, opened in {setup_seconds:.3} s\n",
        held.len()
    ));
    let start = Instant::now();
    while start.elapsed() < plan.hold && !sys::is_interrupted() {
        sys::pause(plan.hold.saturating_sub(start.elapsed()).max(Duration::from_millis(1)));
    }
    let hold_seconds = start.elapsed().as_secs_f64();
    let alive = held.iter().filter(|stream| ask(stream, &plan.request).is_ok()).count();
    crate::say::result(format_args!(
        "{alive} of {} answer after {hold_seconds:.1} s\n",
        held.len()
    ));
    let machine = Machine::here();
    let connections = plan.connections;
    let report = IdleReport { machine, connections, setup_seconds, hold_seconds, alive };
    if let Some(path) = json {
        write_json(path, &report)?;
    }
    match connections - alive {
        0 => Ok(()),
        lost => Err(Error::new(Kind::Failed, format!("{lost} idle connections were lost"))),
    }
}

fn open(plan: &IdlePlan) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&plan.target, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    ask(&stream, &plan.request)?;
    Ok(stream)
}

fn ask(mut stream: &TcpStream, request: &Payload) -> io::Result<()> {
    stream.write_all(request.bytes())?;
    let mut parser = MessageParser::new(Role::Response);
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parser.feed(&buffer[..count]) {
            Ok(None) => {}
            Ok(Some(_)) if parser.status() < 400 && parser.is_keep_alive() => return Ok(()),
            Ok(Some(_)) => {
                let message = format!("status {} or no keep-alive", parser.status());
                return Err(io::Error::other(message));
            }
            Err(cause) => return Err(io::Error::other(cause.to_string())),
        }
    }
}
