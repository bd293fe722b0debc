//! netra, the sidecar: flags and environment in, a set of shards and a control thread out.
#![forbid(unsafe_code)]

mod access_log;
mod admin;
mod args;
mod config;
mod control;
mod cpus;
mod demo;
mod doctor;
mod endpoint;
mod exit;
mod export;
mod health;
mod http_client;
mod inject;
mod json;
mod log;
mod notify;
mod pages;
mod pause;
mod ready;
mod resolver;
mod sampling;
mod setting;
mod show;
mod statsd;
mod table;
mod throttle;
mod top;
mod traces;

use args::Task;
use config::{Loaded, Sources};
use cpus::{Machine, Plan};
use exit::Exit;
use std::{
    env,
    fmt::Display,
    io::{Write, stdout},
    process::ExitCode,
};

/// Small blocks without a lock between threads; without huge pages, which would pin megabytes for
/// an idle sidecar (`no_thp`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let invocation = match args::parse(env::args_os()) {
        Ok(invocation) => invocation,
        Err(answer) => return answer_of(&answer).into(),
    };
    let sources = Sources { flags: invocation.flags, environment: environment() };
    match (invocation.task, prepare(&sources)) {
        (Task::Demo(args), _) => demo::run(args),
        (Task::Inject(args), _) => inject::run(&args).into(),
        (Task::Doctor(shape), prepared) => doctor::run(&prepared, shape).into(),
        (Task::Completions(shell), _) => pages::completions(shell).into(),
        (Task::Man, _) => pages::man().into(),
        (Task::Settings, _) => pages::settings().into(),
        (Task::Pause, _) => pause::run().into(),
        (Task::Ready(args), _) => ready::run(&args).into(),
        (Task::Top(args), _) => top::run(&args).into(),
        (_, Err(refused)) => refuse(&refused).into(),
        (Task::Serve, Ok((loaded, plan))) => control::run(&loaded, plan).into(),
        (Task::CheckConfig, Ok((loaded, _))) => check(&loaded).into(),
        (Task::PrintConfig(shape), Ok((loaded, plan))) => print(&loaded, &plan, shape).into(),
    }
}

/// Everything that can be judged before anything starts.
fn prepare(sources: &Sources) -> Result<(Loaded, Plan), Vec<String>> {
    let loaded = config::load(sources).map_err(|refused| lines(&refused))?;
    let (config, machine) = (&loaded.config, Machine::read());
    let plan = cpus::plan(&machine, config.shards, &config.cpus)
        .map_err(|allowed| lines(&[loaded.refuse("NETRA_CPUS", allowed)]))?;
    Ok((loaded, plan))
}

fn lines(values: &[impl Display]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn environment() -> Vec<(String, String)> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// What clap has to say instead of an invocation: help, the version, or what is wrong.
fn answer_of(answer: &clap::Error) -> Exit {
    let _ = answer.print();
    if answer.use_stderr() { Exit::CONFIG } else { Exit::DONE }
}

fn refuse(refused: &[String]) -> Exit {
    for line in refused {
        eprintln!("netra: {line}");
    }
    Exit::CONFIG
}

fn check(loaded: &Loaded) -> Exit {
    warn(loaded);
    to_stdout("netra: the settings are good\n")
}

fn print(loaded: &Loaded, plan: &Plan, shape: show::Shape) -> Exit {
    warn(loaded);
    to_stdout(&show::show(&loaded.effective, &plan.decided(), shape))
}

fn warn(loaded: &Loaded) {
    for warning in &loaded.warnings {
        eprintln!("netra: warning: {warning}");
    }
}

/// A reader that has gone away (`netra --print-config | head`) is no failure.
fn to_stdout(text: &str) -> Exit {
    let _ = stdout().write_all(text.as_bytes());
    Exit::DONE
}
