//! The command line: turns arguments and environment into a `Request`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, value_parser};

use crate::backend::Choice;
use crate::error::Result;
use crate::report::Format;
use crate::settings::{SETTINGS, Setting, Settings};
use crate::spec::{self, InterceptSpec};

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Put the rules in place.
    Apply,
    /// Leave new connections alone, and those that are open as they are.
    Release,
    /// Take every rule of ours out.
    Cleanup,
    /// Print the rules.
    Print,
    /// Compare the rules in the kernel with the wanted ones.
    Status,
    /// Send a real connection and see where it goes.
    Verify,
    /// Look at everything that can be in the way.
    Doctor,
}

const COMMANDS: &[(&str, Command, &str)] = &[
    ("apply", Command::Apply, "Put the rules in place; nothing happens if they already are"),
    (
        "release",
        Command::Release,
        "Leave new connections alone and let open ones go on; before the sidecar ends",
    ),
    ("cleanup", Command::Cleanup, "Take out every rule of netra, of every backend and family"),
    (
        "verify",
        Command::Verify,
        "Dial a test address and check that the sidecar port gets it; play a neighbour on a link",
    ),
    ("print", Command::Print, "Print the exact rules; needs no privileges"),
    ("status", Command::Status, "Compare the rules in the kernel with the wanted ones"),
    ("doctor", Command::Doctor, "Look at the machine: what is missing, what is in the way"),
];

const AFTER_HELP: &str = "\
Every setting can be given by flag or by environment variable; the flag wins. Only TCP is ever
intercepted. Lists are separated by commas, port ranges written a:b.

Exit codes: 0 done or nothing to do, 2 bad value, 3 missing capability, 4 lock held by another
program, 5 kernel or iptables cannot do it, 6 verify failed, 7 rules missing or different.";

/// One run of the program, completely parsed.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// Whether `mode` is `none`.
    pub is_disabled: bool,
    /// What to intercept.
    pub spec: InterceptSpec,
    /// Which backend to use.
    pub backend: Choice,
    /// Network namespace to enter first.
    pub netns: Option<PathBuf>,
    /// How long iptables may wait for its lock.
    pub lock_wait_seconds: u32,
    /// Whether rules of ours that are not the wanted ones are replaced.
    pub reconcile: bool,
    /// Whether no connection may begin while there is more than one transaction.
    pub guardrails: bool,
    /// How long connection tracking shall remember a half-closed connection.
    pub close_wait_seconds: Option<u32>,
    /// Time limit of the probe.
    pub verify_timeout_seconds: u32,
}

/// The command line as text: command and settings.
#[derive(Clone, Debug)]
pub struct Arguments {
    command: Command,
    /// The values of all settings.
    pub settings: Settings,
}

impl Arguments {
    /// Reads arguments (the first is the program) and environment.
    pub fn read(
        args: impl IntoIterator<Item = OsString>,
        env: impl Fn(&str) -> Option<String>,
    ) -> std::result::Result<Self, clap::Error> {
        let matches = command().try_get_matches_from(args)?;
        let name = matches.get_one::<String>("command").map_or("apply", String::as_str);
        let command =
            COMMANDS.iter().find(|entry| entry.0 == name).map_or(Command::Apply, |entry| entry.1);
        let settings = Settings::resolve(|flag| from_flag(&matches, flag), env);
        Ok(Self { command, settings })
    }

    /// Output format; text if the setting itself is bad, so that its error can be shown.
    pub fn format(&self) -> Format {
        self.settings.parse("log-format", Format::parse).unwrap_or(Format::Text)
    }

    /// Parses everything; nothing has been touched when this fails.
    pub fn request(&self) -> Result<Request> {
        let settings = &self.settings;
        settings.parse("log-format", Format::parse)?;
        let is_dry_run = settings.is_on("dry-run")?;
        let command = match self.command {
            Command::Apply if is_dry_run => Command::Print,
            command => command,
        };
        let is_released = command == Command::Release;
        Ok(Request {
            command,
            is_disabled: settings.parse("mode", parse_mode)?,
            spec: InterceptSpec { is_released, ..InterceptSpec::parse(settings)? },
            backend: settings.parse("backend", Choice::parse)?,
            netns: settings
                .parse("netns", |text| Ok((!text.is_empty()).then(|| PathBuf::from(text))))?,
            lock_wait_seconds: settings.parse("lock-wait-seconds", spec::parse_seconds)?,
            reconcile: settings.is_on("reconcile")? || is_released,
            guardrails: settings.is_on("guardrails")?,
            close_wait_seconds: settings.parse("close-wait-timeout-seconds", |text| {
                if text.is_empty() { Ok(None) } else { spec::parse_seconds(text).map(Some) }
            })?,
            verify_timeout_seconds: settings
                .parse("verify-timeout-seconds", spec::parse_seconds)?,
        })
    }
}

fn parse_mode(text: &str) -> std::result::Result<bool, String> {
    match text {
        "redirect" => Ok(false),
        "none" => Ok(true),
        _ => Err("allowed are redirect and none".to_owned()),
    }
}

fn from_flag(matches: &ArgMatches, flag: &str) -> Option<String> {
    (matches.value_source(flag) == Some(ValueSource::CommandLine))
        .then(|| matches.get_one::<String>(flag).cloned())
        .flatten()
}

/// The clap description of the command line; also the source of man page and completions.
pub fn command() -> clap::Command {
    let names = COMMANDS.iter().map(|&(name, _, help)| PossibleValue::new(name).help(help));
    clap::Command::new("netra-init")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Redirects the TCP connections of a network namespace to the netra sidecar")
        .after_help(AFTER_HELP)
        .max_term_width(100)
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .help("What to do; apply if not given")
                .value_parser(clap::builder::PossibleValuesParser::new(names)),
        )
        .args(SETTINGS.iter().map(argument))
}

fn argument(setting: &'static Setting) -> Arg {
    let mut help = setting.help.to_owned();
    if let Some(variable) = setting.env {
        help += &format!(" [env: {variable}]");
    }
    if !setting.default.is_empty() && setting.value.is_some() {
        help += &format!(" [default: {}]", setting.default);
    }
    let arg = Arg::new(setting.flag)
        .long(setting.flag)
        .visible_aliases(setting.alias)
        .help(help)
        .help_heading(setting.group)
        .action(ArgAction::Set)
        .value_parser(value_parser!(String));
    match setting.value {
        Some(name) => arg.value_name(name).allow_hyphen_values(true),
        None => arg
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(args: &[&str]) -> Result<Request> {
        let args = ["netra-init"].iter().chain(args).map(OsString::from);
        Arguments::read(args, |_| None).unwrap().request()
    }

    #[test]
    fn clap_description_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn commands_and_switches() {
        assert_eq!(request(&[]).unwrap().command, Command::Apply);
        assert_eq!(request(&["--dry-run"]).unwrap().command, Command::Print);
        assert_eq!(request(&["--dry-run", "cleanup"]).unwrap().command, Command::Cleanup);
        assert_eq!(request(&["--ipv6", "off", "status"]).unwrap().command, Command::Status);
        assert_eq!(request(&["apply", "--dry-run=false"]).unwrap().command, Command::Apply);
        assert!(request(&["--mode", "none"]).unwrap().is_disabled);
        assert_eq!(request(&["--uid", "7"]).unwrap().spec.outbound.own_uid, 7);
    }

    #[test]
    fn bad_values_outside_the_spec() {
        let seconds = "allowed are whole seconds from 1 to 3600";
        let backends = "allowed are auto, nft-native, iptables-nft and iptables-legacy";
        for (flag, value, allowed) in [
            ("mode", "off", "allowed are redirect and none"),
            ("dry-run", "maybe", "allowed are true and false"),
            ("reconcile", "maybe", "allowed are true and false"),
            ("guardrails", "maybe", "allowed are true and false"),
            ("close-wait-timeout-seconds", "0", seconds),
            ("close-wait-timeout-seconds", "1h", seconds),
            ("lock-wait-seconds", "-1", seconds),
            ("lock-wait-seconds", "3601", seconds),
            ("verify-timeout-seconds", "0", seconds),
            ("log-format", "xml", "allowed are text and json"),
            ("backend", "pf", backends),
        ] {
            let error = request(&[&format!("--{flag}={value}")]).unwrap_err();
            assert_eq!(error.message, format!("--{flag}: bad value \"{value}\": {allowed}"));
            assert_eq!(error.kind.exit_code(), 2);
        }
    }
}
