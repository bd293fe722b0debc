//! The command line: one flag for each row of the table, and what is to be done. Values stay text
//! here; what they mean is for `config.rs`, where flags and variables are judged by the same rules.

use crate::{
    codec_check::CodecArgs,
    collect::{self, CollectArgs},
    demo::DemoArgs,
    doctor::DoctorArgs,
    exit,
    inject::InjectArgs,
    ready::ReadyArgs,
    rules::RulesArgs,
    setting::Setting,
    show::Shape,
    support::SupportArgs,
    table::table,
    top::TopArgs,
    webhook::WebhookArgs,
};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use clap_complete::Shell;
use std::ffi::OsString;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Task {
    /// Run the sidecar.
    Serve,
    /// Validate and end.
    CheckConfig,
    /// Show every setting and end.
    PrintConfig(Shape),
    /// Take spans, and show who calls whom.
    Collect(CollectArgs),
    /// Show interception at work, in namespaces of its own.
    Demo(DemoArgs),
    /// Add the sidecar to manifests.
    Inject(Box<InjectArgs>),
    /// Look at the machine.
    Doctor(DoctorArgs),
    /// Write the completions of a shell.
    Completions(Shell),
    /// Write the man page.
    Man,
    /// Write the table of settings.
    Settings,
    /// Inject as the API server asks for it.
    Webhook(Box<WebhookArgs>),
    /// Gather what whoever helps asks for.
    Support(SupportArgs),
    /// Watch a running netra in a terminal.
    Top(TopArgs),
    /// Say by exit code whether netra is ready.
    Ready(ReadyArgs),
    /// Say what rules mean.
    Rules(Box<RulesArgs>),
    /// Hold a network for other containers.
    Pause,
    /// Look at the description of a protocol.
    Codec(CodecArgs),
}

/// A command line, read.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) task: Task,
    /// Settings given as flags.
    pub(crate) flags: Vec<(&'static str, String)>,
}

/// Reads the command line; the error is also how `--help` and `--version` come out.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let matches = command().try_get_matches_from(with_double_dashes(args))?;
    Ok(Invocation { task: task(&matches)?, flags: flags(&matches) })
}

/// The command line, which is also the source of completions and man page.
pub(crate) fn command() -> Command {
    Command::new("netra")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Transparent sidecar proxy: relays what the rules redirect to it")
        .override_usage("netra --service-name NAME [FLAGS]\n       netra COMMAND [FLAGS]")
        .subcommand(collect::command(COLLECT))
        .subcommand(DemoArgs::augment_args(Command::new(DEMO)))
        .subcommand(InjectArgs::augment_args(Command::new(INJECT)))
        .subcommand(TopArgs::augment_args(Command::new(TOP)))
        .subcommand(WebhookArgs::augment_args(Command::new(WEBHOOK)))
        .subcommand(SupportArgs::augment_args(Command::new(SUPPORT)))
        .subcommand(ReadyArgs::augment_args(Command::new(READY)))
        .subcommand(RulesArgs::augment_args(Command::new(RULES)))
        .subcommand(codec_command())
        .subcommands(small_commands())
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .after_help(exit::HELP)
        .next_help_heading("Settings (flag over environment over default)")
        .args(table().map(flag))
        .next_help_heading("Instead of running")
        .arg(
            Arg::new(CHECK)
                .long(CHECK)
                .action(ArgAction::SetTrue)
                .help("Say whether the settings are good, and end"),
        )
        .arg(
            Arg::new(PRINT)
                .long(PRINT)
                .value_name("text|json")
                .value_parser(["text", "json"])
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("text")
                .help("Show every setting with its value and origin, and end"),
        )
}

fn codec_command() -> Command {
    let check = CodecArgs::augment_args(Command::new(CODEC_CHECK)).about(CODEC_ABOUT);
    Command::new(CODEC).about(CODEC_ABOUT).subcommand_required(true).subcommand(check)
}

fn small_commands() -> [Command; 5] {
    let format = Arg::new("format")
        .long("format")
        .value_name("text|json")
        .value_parser(["text", "json"])
        .default_value("text")
        .help("For people, or one object to a line");
    let shell = Arg::new("shell").required(true).value_parser(value_parser!(Shell));
    [
        Command::new(DOCTOR)
            .about("Look at what this machine gives the sidecar, with advice; change nothing")
            .after_help(DOCTOR_HELP)
            .arg(format)
            .arg(
                Arg::new(NO_NETWORK)
                    .long(NO_NETWORK)
                    .action(ArgAction::SetTrue)
                    .help("Ask neither name servers nor receivers of spans, and dial nobody"),
            ),
        Command::new(COMPLETIONS).about("Write the completions of a shell").arg(shell),
        Command::new(PAUSE).about(PAUSE_ABOUT),
        Command::new(MAN).about("Write the man page netra(8)"),
        Command::new(SETTINGS).about("Write the table of all settings in Markdown"),
    ]
}

const DOCTOR: &str = "doctor";
const DOCTOR_HELP: &str = "\
Settings are those of its own environment, limits and user its own: start it as netra is started.
Exit codes: 0 nothing keeps netra from starting; 64 a setting is bad; 69 a port is taken;
71 the kernel refuses what is needed.";
const NO_NETWORK: &str = "no-network";
const COMPLETIONS: &str = "completions";
const MAN: &str = "man";
const SETTINGS: &str = "settings";
const COLLECT: &str = "collect";
const DEMO: &str = "demo";
const INJECT: &str = "inject";
const TOP: &str = "top";
const WEBHOOK: &str = "webhook";
const SUPPORT: &str = "support";
const PAUSE: &str = "pause";
const PAUSE_ABOUT: &str = "Do nothing until SIGTERM: for the container that holds a pod's network";
const CODEC: &str = "codec";
const CODEC_CHECK: &str = "check";
const CODEC_ABOUT: &str =
    "Say whether the description of a protocol is good, and what it makes of a capture";
const READY: &str = "ready";
const RULES: &str = "rules";
const CHECK: &str = "check-config";
const PRINT: &str = "print-config";

fn flag(setting: &'static Setting) -> Arg {
    let default = match setting.default {
        "" if setting.required => "required".to_owned(),
        "" => "not set".to_owned(),
        default => format!("default {default}"),
    };
    let names: Vec<&str> = std::iter::once(&setting.name).chain(setting.also).copied().collect();
    let (names, allowed) = (names.join(", "), setting.parse.allowed());
    Arg::new(setting.name)
        .long(setting.flag())
        .value_name(setting.parse.placeholder())
        .help(format!("{} [{names}; {default}; {allowed}]", setting.doc))
}

fn task(matches: &ArgMatches) -> Result<Task, clap::Error> {
    if let Some(collect) = matches.subcommand_matches(COLLECT) {
        return Ok(Task::Collect(CollectArgs::of(collect)));
    }
    if let Some(demo) = matches.subcommand_matches(DEMO) {
        return DemoArgs::from_arg_matches(demo).map(Task::Demo);
    }
    if let Some(top) = matches.subcommand_matches(TOP) {
        return TopArgs::from_arg_matches(top).map(Task::Top);
    }
    if let Some(webhook) = matches.subcommand_matches(WEBHOOK) {
        return WebhookArgs::from_arg_matches(webhook).map(Box::new).map(Task::Webhook);
    }
    if let Some(support) = matches.subcommand_matches(SUPPORT) {
        return SupportArgs::from_arg_matches(support).map(Task::Support);
    }
    if let Some(ready) = matches.subcommand_matches(READY) {
        return ReadyArgs::from_arg_matches(ready).map(Task::Ready);
    }
    if let Some(inject) = matches.subcommand_matches(INJECT) {
        return InjectArgs::from_arg_matches(inject).map(Box::new).map(Task::Inject);
    }
    if let Some(rules) = matches.subcommand_matches(RULES) {
        return RulesArgs::from_arg_matches(rules).map(Box::new).map(Task::Rules);
    }
    if let Some((CODEC, codec)) = matches.subcommand()
        && let Some(check) = codec.subcommand_matches(CODEC_CHECK)
    {
        return CodecArgs::from_arg_matches(check).map(Task::Codec);
    }
    match matches.subcommand() {
        Some((DOCTOR, doctor)) => {
            let is_json = doctor.get_one::<String>("format").is_some_and(|text| text == "json");
            let shape = if is_json { Shape::Json } else { Shape::Text };
            return Ok(Task::Doctor(DoctorArgs {
                shape,
                has_network: !doctor.get_flag(NO_NETWORK),
            }));
        }
        Some((COMPLETIONS, arguments)) => {
            let shell = arguments.get_one::<Shell>("shell").copied().unwrap_or(Shell::Bash);
            return Ok(Task::Completions(shell));
        }
        Some((PAUSE, _)) => return Ok(Task::Pause),
        Some((MAN, _)) => return Ok(Task::Man),
        Some((SETTINGS, _)) => return Ok(Task::Settings),
        _ => {}
    }
    Ok(match matches.get_one::<String>(PRINT).map(String::as_str) {
        Some("json") => Task::PrintConfig(Shape::Json),
        Some(_) => Task::PrintConfig(Shape::Text),
        None if matches.get_flag(CHECK) => Task::CheckConfig,
        None => Task::Serve,
    })
}

fn flags(matches: &ArgMatches) -> Vec<(&'static str, String)> {
    let given = |setting: &'static Setting| {
        matches.get_one::<String>(setting.name).map(|text| (setting.name, text.clone()))
    };
    table().filter_map(given).collect()
}

/// Go takes `-service-name x` for `--service-name x`, and manifests written for netramesh do so.
fn with_double_dashes(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    args.map(|arg| {
        let name = arg.to_str().and_then(|text| text.strip_prefix('-')).unwrap_or_default();
        let name = name.split('=').next().unwrap_or_default();
        if table().any(|setting| setting.flag() == name) {
            let mut doubled = OsString::from("-");
            doubled.push(&arg);
            return doubled;
        }
        arg
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    fn parse_line(line: &str) -> Result<Invocation, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_are_collected_under_the_names_of_their_settings() {
        let line = "netra --service-name shop --port=1 --jaeger-sampler-type const";
        let invocation = parse_line(line).unwrap();
        assert!(matches!(invocation.task, Task::Serve));
        assert_eq!(
            invocation.flags,
            [
                ("NETRA_SERVICE_NAME", "shop".to_owned()),
                ("NETRA_PORT", "1".into()),
                ("JAEGER_SAMPLER_TYPE", "const".into()),
            ]
        );
    }

    #[test]
    fn one_dash_is_enough_as_it_is_for_go() {
        for line in ["netra -service-name shop", "netra -service-name=shop"] {
            let flags = parse_line(line).unwrap().flags;
            assert_eq!(flags, [("NETRA_SERVICE_NAME", "shop".to_owned())]);
        }
        assert_eq!(parse_line("netra -port-x 1").unwrap_err().kind(), ErrorKind::UnknownArgument);
    }

    #[test]
    fn tasks() {
        let task = |line| parse_line(line).unwrap().task;
        assert!(matches!(task("netra --check-config"), Task::CheckConfig));
        assert!(matches!(task("netra --print-config"), Task::PrintConfig(Shape::Text)));
        assert!(matches!(task("netra --print-config=json"), Task::PrintConfig(Shape::Json)));
        assert!(matches!(task("netra demo"), Task::Demo(_)));
        let error = parse_line("netra --print-config=xml").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
    }

    #[test]
    fn help_names_each_setting_its_default_and_the_exit_codes() {
        let help = parse_line("netra --help").unwrap_err();
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
        let help = help.to_string();
        for setting in table() {
            assert!(help.contains(&format!("--{}", setting.flag())), "{}", setting.name);
            assert!(help.contains(setting.name), "{}", setting.name);
        }
        assert!(help.contains("default 14956") && help.contains("  69  a port is taken"));
    }

    #[test]
    fn every_command_says_what_it_does() {
        const VERBS: [&str; 9] =
            ["Add", "Answer", "Do", "Look", "Say", "Show", "Take", "Watch", "Write"];
        for command in command().get_subcommands() {
            let (name, about) = (command.get_name(), command.get_about().unwrap().to_string());
            let verb = about.split(' ').next().unwrap();
            assert!(VERBS.contains(&verb) && about.len() > 20, "{name}: {about}");
        }
    }

    #[test]
    fn unknown_flags_are_refused() {
        for line in
            ["netra --prot 1", "netra shop", "netra --port 1 --port 2", "netra --port 1 demo"]
        {
            assert!(parse_line(line).is_err(), "{line}");
        }
    }
}
