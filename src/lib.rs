//! netra, the sidecar: flags and environment in, a set of shards and a control thread out.
#![forbid(unsafe_code)]

mod access_log;
mod admin;
mod args;
mod budget;
mod checks;
mod codec_check;
mod collect;
mod config;
mod control;
mod counters;
mod cpus;
mod demo;
mod doctor;
mod door;
mod endpoint;
mod event;
mod exit;
mod export;
mod failure;
mod health;
mod http_client;
mod inject;
mod inside;
mod json;
mod load;
mod log;
mod mask;
mod metrics_push;
mod no_effect;
mod notify;
mod pages;
mod pause;
mod place;
mod protocol_file;
mod reach;
mod reach_plan;
mod ready;
mod receiver;
mod resolver;
mod room;
mod rules;
mod sampling;
mod service_link;
mod setting;
mod show;
mod statsd;
mod support;
mod table;
mod texts;
mod throttle;
mod token;
mod top;
mod trace_plan;
mod traces;
mod troubles;
mod url;
mod values;
mod webhook;

pub use netra_codecs as codecs;

use args::Task;
use budget::Memory;
use cpus::{Machine, Plan};
use exit::Exit;
use load::{Loaded, Sources};
use netra_codecs::tap::Protocol;
use std::{
    env,
    fmt::Display,
    io::{Write, stdout},
    process::ExitCode,
    sync::Arc,
};

/// Small blocks without a lock between threads; without huge pages, which would pin megabytes for
/// an idle sidecar (`no_thp`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// All that the program `netra` does, by the command line and environment of this process, with the
/// protocols of `codecs` beside those that are built in. They are of
/// [`Private::coded`](codecs::private::Private::coded), and the settings know them by their names.
///
/// # Example
/// ```no_run
/// use netra::codecs::{private::Private, tap::Protocol};
///
/// // As many as one has written, of which each is a `Codec`.
/// fn main() -> std::process::ExitCode {
///     netra::run(Vec::new())
/// }
/// ```
pub fn run(codecs: Vec<Protocol>) -> ExitCode {
    let invocation = match args::parse(env::args_os()) {
        Ok(invocation) => invocation,
        Err(answer) => return answer_of(&answer).into(),
    };
    let sources = Sources { flags: invocation.flags, environment: environment(), codecs };
    match (invocation.task, prepare(&sources)) {
        (Task::Collect(args), _) => collect::run(&args).into(),
        (Task::Demo(args), _) => demo::run(args),
        (Task::Inject(args), _) => inject::run(&args).into(),
        (Task::Doctor(args), prepared) => doctor::run(&prepared, args).into(),
        (Task::Completions(shell), _) => pages::completions(shell).into(),
        (Task::Man, _) => pages::man().into(),
        (Task::Settings, _) => pages::settings().into(),
        (Task::Pause, _) => pause::run().into(),
        (Task::Codec(args), _) => codec_check::run(&args).into(),
        (Task::Ready(args), _) => ready::run(&args).into(),
        (Task::Webhook(args), _) => webhook::run(&args).into(),
        (Task::Support(args), prepared) => support::run(&prepared, &args).into(),
        (Task::Rules(args), _) => {
            // What settings are wrong is not what is asked here.
            let loaded = load::load(&sources).ok();
            let settings = loaded.as_ref().map(|it| rules::Settings {
                http: &it.config.http.ports,
                protocols: &it.config.protocols,
                detects: it.config.detects,
            });
            rules::run(&args, private(&sources), settings).into()
        }
        (Task::Top(args), _) => top::run(&args).into(),
        (_, Err(refused)) => refuse(&refused, env::args_os().len() <= 1).into(),
        (Task::Serve, Ok((loaded, plan))) => control::run(&loaded, plan).into(),
        (Task::CheckConfig, Ok((loaded, _))) => check(&loaded).into(),
        (Task::PrintConfig(shape), Ok((loaded, plan))) => print(&loaded, &plan, shape).into(),
    }
}

/// Everything that can be judged before anything starts.
fn prepare(sources: &Sources) -> Result<(Loaded, Plan), Vec<String>> {
    let mut loaded = load::load(sources).map_err(|refused| lines(&refused))?;
    if !loaded.config.admin.token_file.is_empty() {
        let token = token::Token::read(&loaded.config.admin.token_file);
        let refused = || loaded.refuse("NETRA_ADMIN_TOKEN_FILE", token::ALLOWED.into());
        loaded.config.admin.token = Some(token.ok_or_else(|| lines(&[refused()]))?);
    }
    if let Some((setting, allowed)) = loaded.config.unreadable() {
        return Err(lines(&[loaded.refuse(setting, allowed)]));
    }
    let (config, machine) = (&loaded.config, Machine::read());
    let plan = cpus::plan(&machine, config.shards, &config.cpus)
        .map_err(|allowed| lines(&[loaded.refuse("NETRA_CPUS", allowed)]))?;
    budget::apply(&mut loaded, plan.shards, &Memory::read());
    if !loaded.config.rules.is_empty() {
        let config = &loaded.config;
        let is_remote = config.remote_rules.url.is_some();
        let own = config.own();
        let first = rules::first(&config.rules, &own, is_remote);
        let read = first.map_err(|wrong| {
            let of_setting = |line| format!("NETRA_RULES: {line}");
            wrong.into_iter().map(of_setting).collect::<Vec<_>>()
        });
        let read = read?;
        let unread = rules::unread(&read, &config.http.ports, &config.protocols);
        loaded.warnings.extend(unread);
        loaded.rules = Some(Arc::new(read));
    }
    Ok((loaded, plan))
}

/// Protocols that are not built in, for who asks about rules and reads no other setting.
fn private(sources: &Sources) -> Result<Vec<Protocol>, String> {
    let setting = "NETRA_PROTOCOL_FILES";
    let files = sources.environment.iter().find(|(name, _)| name == setting);
    let files = files.map_or("", |(_, files)| files.as_str());
    protocol_file::load(files, &sources.codecs).map_err(|what| format!("{setting}: {what}"))
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
    if answer.kind() == clap::error::ErrorKind::DisplayVersion {
        return to_stdout(&door::version_details());
    }
    if answer.use_stderr() { Exit::CONFIG } else { Exit::DONE }
}

/// `is_bare`: netra was called without a word.
fn refuse(refused: &[String], is_bare: bool) -> Exit {
    for line in refused {
        eprintln!("netra: {}", mask::line(line));
    }
    if let Some(steps) = door::next_steps(is_bare) {
        eprint!("{steps}");
    }
    Exit::CONFIG
}

fn check(loaded: &Loaded) -> Exit {
    warn(loaded);
    to_stdout("netra: the settings are good\n")
}

fn print(loaded: &Loaded, plan: &Plan, shape: show::Shape) -> Exit {
    warn(loaded);
    let decided: Vec<_> = plan.decided().into_iter().chain(loaded.decided.clone()).collect();
    to_stdout(&show::show(&loaded.effective, &decided, shape))
}

fn warn(loaded: &Loaded) {
    for warning in &loaded.warnings {
        eprintln!("netra: warning: {}", mask::line(warning));
    }
}

/// A reader that has gone away (`netra --print-config | head`) is no failure.
fn to_stdout(text: &str) -> Exit {
    let _ = stdout().write_all(text.as_bytes());
    Exit::DONE
}

#[cfg(test)]
mod allocator_tests;
