//! Whether the figures can be believed on this machine: the same server measured by us, by a raw
//! client and by the tools others use, in turn; a stall, in open and in closed loop; and speed.

mod tools;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::machine::Machine;
use crate::report::table::align;
use crate::report::write_json;
use crate::summary::Spread;
use crate::sys;
use crate::topology::Running;
use tools::{Figures, Load, Tool};

/// How far two tools may be apart that measure the same.
const AGREEMENT: f64 = 0.05;
/// The stall: a fifth of the time, so that it must be in the p99.
const STALL: &[&str] = &["--stall", "0.2", "--stall-every", "1"];
/// Arrivals per second of the open loops.
const RATE: f64 = 500.0;

/// What to check and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArgs {
    /// Rounds; every tool once in each
    #[arg(short, long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(short, long, default_value = "3", value_parser = clock::seconds)]
    seconds: Duration,
    /// Seconds that the server takes for each answer when the tools are compared
    #[arg(long, default_value = "0.02", value_parser = clock::seconds)]
    delay: Duration,
    /// CPU of the generators
    #[arg(long)]
    load_cpu: Option<usize>,
    /// CPU of the server
    #[arg(long)]
    server_cpu: Option<usize>,
    /// What to check
    #[arg(long, value_delimiter = ',', default_values = ["delay", "stall", "speed"])]
    parts: Vec<String>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
struct CheckReport {
    machine: Machine,
    rounds: usize,
    rows: Vec<Row>,
    missing: Vec<String>,
}

/// One tool in one part.
#[derive(Clone, Debug, Serialize)]
struct Row {
    part: &'static str,
    tool: String,
    /// Medians over the rounds: microseconds, and answers per second.
    p50: f64,
    p99: f64,
    max: Option<f64>,
    rate: f64,
    /// Lowest and highest rate.
    rates: (f64, f64),
}

/// Measures, prints, and fails when the tools do not agree.
pub(crate) fn run(args: &CheckArgs) -> Result<()> {
    if args.rounds == 0 || args.rounds > 100 || args.seconds.is_zero() {
        return Err(Error::usage("rounds must be 1 to 100, seconds above 0"));
    }
    let mut report = CheckReport {
        machine: Machine::here(),
        rounds: args.rounds,
        rows: Vec::new(),
        missing: Vec::new(),
    };
    let mut apart = Vec::new();
    for part in &args.parts {
        match part.as_str() {
            "delay" => {
                delay(args, &mut report)?;
                apart = disagreements(&report.rows);
            }
            "stall" => stall(args, &mut report)?,
            "speed" => speed(args, &mut report)?,
            other => {
                let message = format!("part `{other}`: delay, stall or speed");
                return Err(Error::usage(message));
            }
        }
    }
    report.missing.sort();
    report.missing.dedup();
    for missing in &report.missing {
        crate::say::result(format_args!("not here: {missing}\n"));
    }
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    match apart.is_empty() {
        true => Ok(()),
        false => Err(Error::new(Kind::Failed, apart.join("\n"))),
    }
}

/// The same fixed delay, measured by everybody.
fn delay(args: &CheckArgs, report: &mut CheckReport) -> Result<()> {
    let think = args.delay.as_secs_f64().to_string();
    let server = Server::start(args, &["--think", &think, "--body-size", "10"])?;
    // One request at a time, so that nothing but the server is in the way.
    let load = Load::new(args, server.addr, 1);
    let rate = 0.8 / args.delay.as_secs_f64().max(0.001);
    let tools = [Tool::Raw, Tool::Closed, Tool::Open(rate), Tool::Wrk, Tool::Ab];
    let rows = measure("delay", args, &load, &tools, report)?;
    let ms = args.delay.as_secs_f64() * 1e3;
    crate::say::result(format_args!("A server that takes {ms} ms, 1 connection\n"));
    show(&rows, None);
    report.rows.extend(rows);
    Ok(())
}

/// What a stall of 200 ms in every second looks like.
fn stall(args: &CheckArgs, report: &mut CheckReport) -> Result<()> {
    let server = Server::start(args, STALL)?;
    let (load, few) = (Load::new(args, server.addr, 256), Load::new(args, server.addr, 2));
    let mut rows = measure("stall", args, &load, &[Tool::Open(RATE)], report)?;
    rows.extend(measure("stall", args, &few, &[Tool::Closed, Tool::Ab, Tool::Wrk], report)?);
    crate::say::result(format_args!(
        "\nA server that stops for 200 ms in every second; open loop {RATE:.0}/s, closed loops over 2 \
         connections\n"
    ));
    show(&rows, None);
    report.rows.extend(rows);
    Ok(())
}

/// What one core of generator reaches.
fn speed(args: &CheckArgs, report: &mut CheckReport) -> Result<()> {
    let server = Server::start(args, &[])?;
    let load = Load::new(args, server.addr, 64);
    let rows = measure("speed", args, &load, &[Tool::Closed, Tool::Wrk], report)?;
    crate::say::result(format_args!(
        "\nOur upstream as fast as it goes, 64 connections, one thread, 1 KiB\n"
    ));
    show(&rows, Some("wrk"));
    report.rows.extend(rows);
    Ok(())
}

/// Every tool once per round, in turn.
fn measure(
    part: &'static str,
    args: &CheckArgs,
    load: &Load,
    tools: &[Tool],
    report: &mut CheckReport,
) -> Result<Vec<Row>> {
    let is_here = |tool: &&Tool| match tool.program() {
        Some(name) => crate::subject::search(name.as_ref()).is_some(),
        None => true,
    };
    let (here, missing): (Vec<&Tool>, Vec<&Tool>) = tools.iter().partition(is_here);
    report.missing.extend(missing.into_iter().map(Tool::name));
    let mut seen: Vec<Vec<Figures>> = vec![Vec::new(); here.len()];
    for _ in 0..args.rounds {
        for (tool, seen) in here.iter().zip(&mut seen) {
            if sys::is_interrupted() {
                return Err(Error::new(Kind::Interrupted, "interrupted"));
            }
            seen.push(tool.measure(load)?);
        }
    }
    let row = |(tool, seen): (&&Tool, &Vec<Figures>)| {
        let spread = |of: fn(&Figures) -> f64| {
            Spread::of(&seen.iter().map(of).collect::<Vec<_>>()).unwrap_or_default()
        };
        let maxima: Vec<f64> = seen.iter().filter_map(|figures| figures.max).collect();
        let rate = spread(|f| f.rate);
        Row {
            part,
            tool: tool.name(),
            p50: spread(|f| f.p50).median,
            p99: spread(|f| f.p99).median,
            max: Spread::of(&maxima).map(|spread| spread.median),
            rate: rate.median,
            rates: (rate.low, rate.high),
        }
    };
    Ok(here.iter().zip(&seen).map(row).collect())
}

fn show(rows: &[Row], base: Option<&str>) {
    let head = ["", "p50 us", "p99 us", "max us", "answers/s", "lowest..highest", "ratio"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    let base = base.and_then(|name| rows.iter().find(|row| row.tool == name));
    for row in rows {
        table.push(vec![
            row.tool.clone(),
            format!("{:.0}", row.p50),
            format!("{:.0}", row.p99),
            row.max.map_or("-".to_owned(), |max| format!("{max:.0}")),
            format!("{:.0}", row.rate),
            format!("{:.0}..{:.0}", row.rates.0, row.rates.1),
            base.map_or(String::new(), |base| format!("{:.2}", row.rate / base.rate)),
        ]);
    }
    crate::say::result(format_args!("{}", align(&table)));
}

/// Tools further from the raw client than they may be.
fn disagreements(rows: &[Row]) -> Vec<String> {
    let mut apart = Vec::new();
    let Some((raw, others)) = rows.split_first() else { return apart };
    for row in others {
        for (name, got, want) in [("p50", row.p50, raw.p50), ("p99", row.p99, raw.p99)] {
            let difference = got / want - 1.0;
            if difference.is_nan() || difference.abs() > AGREEMENT {
                apart.push(format!(
                    "{} and {} differ by {:.1} % at {name}: {got:.0} and {want:.0} us",
                    row.tool,
                    raw.tool,
                    difference * 100.0
                ));
            }
        }
    }
    apart
}

/// Our own upstream in a process of its own.
struct Server {
    addr: SocketAddr,
    _process: Running,
}

impl Server {
    fn start(args: &CheckArgs, words: &[&str]) -> Result<Self> {
        let program = std::env::current_exe().context(|| "our own path".to_owned())?;
        let mut command = Command::new(program);
        command.args(["upstream", "--http", "127.0.0.1:0"]).args(words);
        if let Some(cpu) = args.server_cpu {
            command.args(["--cpus", &cpu.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = sys::die_with_parent(&mut command).spawn()?;
        let stdout = child.stdout.take();
        let process = Running::from(child);
        let unexpected = || Error::new(Kind::Unexpected, "our own upstream did not start");
        let mut line = String::new();
        BufReader::new(stdout.ok_or_else(unexpected)?).read_line(&mut line)?;
        let addr = line.trim().strip_prefix("ready http ").and_then(|addr| addr.parse().ok());
        Ok(Self { addr: addr.ok_or_else(unexpected)?, _process: process })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tool: &str, p50: f64, p99: f64) -> Row {
        let (tool, rates) = (tool.to_owned(), (0.0, 0.0));
        Row { part: "delay", tool, p50, p99, max: None, rate: 0.0, rates }
    }

    #[test]
    fn five_percent_is_the_limit_either_way() {
        let raw = row("raw", 20_000.0, 21_000.0);
        let near = [raw.clone(), row("a", 20_900.0, 20_000.0), row("b", 19_100.0, 22_000.0)];
        assert!(disagreements(&near).is_empty());
        let far = [raw, row("a", 21_100.0, 21_000.0), row("b", 20_000.0, f64::NAN)];
        let told = disagreements(&far);
        assert_eq!(told.len(), 2);
        assert_eq!(told[0], "a and raw differ by 5.5 % at p50: 21100 and 20000 us");
    }
}
