//! `netra collect`: its flags and variables, and what it says when it cannot run.

use crate::{exit::Exit, mask};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use netra_collect::{Config, Failure, Setting};
use std::{
    env,
    io::{Write, stdout},
    time::Duration,
};

/// What is to be collected, and how.
#[derive(Debug)]
pub(crate) struct CollectArgs {
    task: Task,
    /// Settings given as flags.
    flags: Vec<(&'static str, String)>,
}

#[derive(Debug)]
enum Task {
    Serve,
    Check,
    /// The map as text, after so many seconds at most.
    Once(u64),
    Settings,
}

const ONCE: &str = "once";
const MAP: &str = "map";
const FOR: &str = "for";
const CHECK: &str = "check-config";
const SETTINGS: &str = "settings";

/// The command line.
pub(crate) fn command(name: &'static str) -> Command {
    let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let flag = |setting: &'static Setting| {
        let default = if setting.default.is_empty() { "not set" } else { setting.default };
        let (doc, variable, allowed) = (setting.doc, setting.name, setting.allowed());
        Arg::new(setting.name)
            .long(setting.flag())
            .value_name("VALUE")
            .help(format!("{doc} [{variable}; default {default}; {allowed}]"))
    };
    Command::new(name)
        .about("Take spans from sidecars and show who calls whom: map, traces, operations")
        .arg(
            switch(ONCE)
                .help("Print the map and end: of the collector that runs here, else of what comes"),
        )
        .arg(switch(MAP).requires(ONCE).help("What --once prints, which is the map as text"))
        .arg(
            Arg::new(FOR)
                .long(FOR)
                .value_name("SECONDS")
                .value_parser(value_parser!(u64).range(1..=3600))
                .default_value("30")
                .help("How long --once waits for spans at most"),
        )
        .arg(switch(CHECK).help("Say whether the settings are good, and end"))
        .arg(switch(SETTINGS).help("Write the table of its settings in Markdown"))
        .next_help_heading("Settings (flag over environment over default)")
        .args(netra_collect::settings().iter().map(flag))
}

impl CollectArgs {
    /// What a command line asks for.
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        let task = if matches.get_flag(SETTINGS) {
            Task::Settings
        } else if matches.get_flag(CHECK) {
            Task::Check
        } else if matches.get_flag(ONCE) {
            Task::Once(matches.get_one::<u64>(FOR).copied().unwrap_or(30))
        } else {
            Task::Serve
        };
        let given = |setting: &'static Setting| {
            matches.get_one::<String>(setting.name).map(|text| (setting.name, text.clone()))
        };
        Self { task, flags: netra_collect::settings().iter().filter_map(given).collect() }
    }
}

/// Runs it to its end.
pub(crate) fn run(args: &CollectArgs) -> Exit {
    let config = Config::read(|setting| {
        let flag = args.flags.iter().find(|(name, _)| *name == setting.name);
        let flag = flag.map(|(_, text)| (text.clone(), format!("--{}", setting.flag())));
        flag.or_else(|| Some((env::var(setting.name).ok()?, "the environment".to_owned())))
    });
    let config = match config {
        Ok(config) => config,
        Err(refused) => {
            for line in refused {
                eprintln!("netra collect: {}", mask::line(&line));
            }
            return Exit::CONFIG;
        }
    };
    let done = match args.task {
        Task::Settings => Ok(netra_collect::settings_page()),
        Task::Check => Ok("netra collect: the settings are good\n".to_owned()),
        Task::Once(seconds) => netra_collect::map_once(&config, Duration::from_secs(seconds)),
        Task::Serve => netra_collect::run(&config, say).map(|()| String::new()),
    };
    match done {
        Ok(text) => {
            say(&text);
            Exit::DONE
        }
        Err(failure) => {
            eprintln!("netra collect: {}", mask::line(&failure.to_string()));
            match failure {
                Failure::Port(_) => Exit::UNAVAILABLE,
                Failure::Disk(_) | Failure::System(_) => Exit::OS,
            }
        }
    }
}

/// A reader that has gone away is no failure.
fn say(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
