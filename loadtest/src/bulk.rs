//! Large transfers: bytes per second, and how long the first byte takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::machine::Machine;
use crate::report::write_json;
use crate::sys;

/// A transfer without progress for this long has failed.
const STALL_MAX: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 1 << 20;

/// Transfers, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct BulkPlan {
    target: SocketAddr,
    bytes: u64,
    count: usize,
    is_upload: bool,
}

impl BulkPlan {
    pub(crate) fn new(
        target: SocketAddr,
        bytes: u64,
        count: usize,
        is_upload: bool,
    ) -> Result<Self> {
        if bytes == 0 || count == 0 || count > 10_000 {
            return Err(Error::usage("bytes must be above 0, count 1 to 10000"));
        }
        Ok(Self { target, bytes, count, is_upload })
    }
}

/// What the transfers took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BulkReport {
    pub(crate) machine: Machine,
    pub(crate) bytes: u64,
    pub(crate) is_upload: bool,
    /// Bytes per second of each transfer.
    pub(crate) rates: Vec<f64>,
    /// Microseconds to the first byte of each download; for an upload, to its confirmation.
    pub(crate) first_bytes: Vec<f64>,
    pub(crate) seconds: f64,
}

/// Runs the transfers and reports them.
pub(crate) fn run(plan: &BulkPlan, json: Option<&Path>) -> Result<()> {
    let started = Instant::now();
    let mut report = BulkReport {
        machine: Machine::here(),
        bytes: plan.bytes,
        is_upload: plan.is_upload,
        rates: Vec::new(),
        first_bytes: Vec::new(),
        seconds: 0.0,
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    for _ in 0..plan.count {
        let start = Instant::now();
        let first =
            if plan.is_upload { upload(plan, &mut buffer)? } else { download(plan, &mut buffer)? };
        report.rates.push(crate::clock::float(plan.bytes) / start.elapsed().as_secs_f64());
        report.first_bytes.push(first.as_secs_f64() * 1e6);
    }
    report.seconds = started.elapsed().as_secs_f64();
    for (rate, first) in report.rates.iter().zip(&report.first_bytes) {
        crate::say::result(format_args!(
            "{:>9.3} GB/s   first byte after {first:.1} us\n",
            rate / 1e9
        ));
    }
    json.map_or(Ok(()), |path| write_json(path, &report))
}

fn dial(plan: &BulkPlan, verb: &str) -> Result<TcpStream> {
    let target = plan.target;
    let open = || {
        let mut stream = TcpStream::connect_timeout(&target, STALL_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALL_MAX))?;
        stream.set_write_timeout(Some(STALL_MAX))?;
        stream.write_all(format!("{verb} {}\n", plan.bytes).as_bytes())?;
        Ok(stream)
    };
    open().map_err(|cause: std::io::Error| {
        Error::new(Kind::Target, format!("cannot connect to {target}: {cause}"))
    })
}

fn broken(done: u64, plan: &BulkPlan, why: impl std::fmt::Display) -> Error {
    let message = format!("transfer broke after {done} of {} bytes: {why}", plan.bytes);
    Error::new(Kind::Failed, message)
}

fn check_interrupt() -> Result<()> {
    if sys::is_interrupted() { Err(Error::new(Kind::Interrupted, "interrupted")) } else { Ok(()) }
}

fn download(plan: &BulkPlan, buffer: &mut [u8]) -> Result<Duration> {
    let stream = dial(plan, "GET")?;
    let (start, mut first, mut done) = (Instant::now(), None, 0);
    while done < plan.bytes {
        check_interrupt()?;
        // The kernel drops the bytes instead of copying them: we are not to be the bottleneck.
        match recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Ok(0) => return Err(broken(done, plan, "closed")),
            Ok(count) => {
                first.get_or_insert_with(|| start.elapsed());
                done += count as u64;
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => return Err(broken(done, plan, "no progress")),
            Err(cause) => return Err(broken(done, plan, cause)),
        }
    }
    Ok(first.unwrap_or_default())
}

fn upload(plan: &BulkPlan, buffer: &mut [u8]) -> Result<Duration> {
    let mut stream = dial(plan, "PUT")?;
    let (start, mut done) = (Instant::now(), 0);
    while done < plan.bytes {
        check_interrupt()?;
        let left = usize::try_from(plan.bytes - done).unwrap_or(usize::MAX);
        match stream.write(&buffer[..left.min(buffer.len())]) {
            Ok(count) => done += count as u64,
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(broken(done, plan, cause)),
        }
    }
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).map_err(|cause| broken(done, plan, cause))?;
    if &answer == b"OK\n" { Ok(start.elapsed()) } else { Err(broken(done, plan, "not confirmed")) }
}
