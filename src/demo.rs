//! `netra demo`: a pod in a fresh network namespace, real rules, the real sidecar, real requests
//! both ways, and what it cost; then three services, one request through all of them, its trace.
//!
//! Nothing needs cleaning up. Namespaces live by descriptors of this process, the sidecar has asked
//! the kernel to die with it, and no file is written: however the demo ends, nothing is left.

mod check;
mod collector;
mod dubbo;
mod http1;
mod journey;
mod mesh;
mod metrics;
mod namespace;
mod open;
mod parts;
mod pod;
mod redis;
mod report;
mod server;
mod service;
mod sidecar;
mod stage;
mod store;
mod story;
mod thrift;
mod trace;
mod traffic;
mod waterfall;

use crate::json;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::process::ExitCode;

/// Show interception on this machine, in namespaces of its own
#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoArgs {
    /// Requests on an open connection, each way, directly and through netra
    #[arg(long, value_name = "N", default_value_t = 2_000,
        value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    requests: u32,
    /// Stay up until Ctrl-C, with the commands to look around
    #[arg(long)]
    hold: bool,
    /// Services with a slow database, a failing canary and a retry storm, and the page that shows them,
    /// until Ctrl-C
    #[arg(long, conflicts_with_all = ["hold", "json"])]
    open: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    part: Option<parts::Part>,
}

/// What can go wrong, as one line for people.
type Result<T> = std::result::Result<T, String>;

/// Runs the demo; 0 when everything that was checked holds.
pub(crate) fn run(args: DemoArgs) -> ExitCode {
    let done = match &args.part {
        Some(part) => parts::run(part),
        None => match stage::enter() {
            Ok(stage::Entered::Here(lane)) if args.open => open::run(&lane),
            Ok(stage::Entered::Here(lane)) => perform(&args, &lane),
            Ok(stage::Entered::Elsewhere(code)) => return code,
            Err(what) => Err(what),
        },
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            eprintln!("netra demo: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Builds, sends, measures, reports. True when every check holds.
fn perform(args: &DemoArgs, lane: &stage::Lane) -> Result<bool> {
    let pod = amid_threads(|| pod::Pod::build(lane))?;
    let report = report::Report::new(&pod, traffic::run(&pod, args.requests)?)?;
    if !args.json {
        print!("{}", report.text());
    }
    let mut mesh = amid_threads(|| mesh::Mesh::build(lane))?;
    let story = story::Story::new(&mut mesh)?;
    let holds = report.checks.iter().chain(&story.checks).all(|check| check.holds);
    if args.json {
        print!("{}", as_json(&report, &story, holds));
    } else {
        print!("{}{}", story.text(waterfall::Paint::for_stdout()), story.ending(holds));
    }
    if args.hold {
        mask(SigmaskHow::SIG_BLOCK)?;
        print!("{}", report::how_to_look(&pod, &mesh));
        endings().wait().map_err(|errno| format!("waiting for Ctrl-C: {errno}"))?;
    }
    pod.leave()?;
    mesh.leave()?;
    Ok(holds)
}

/// Signals are blocked while threads start, so that they inherit it: only this thread takes Ctrl-C,
/// by dying of it now, and by waiting for it in `hold`.
fn amid_threads<T>(build: impl FnOnce() -> Result<T>) -> Result<T> {
    mask(SigmaskHow::SIG_BLOCK)?;
    let built = build()?;
    mask(SigmaskHow::SIG_UNBLOCK)?;
    Ok(built)
}

/// For programs: one object on one line.
fn as_json(report: &report::Report, story: &story::Story, holds: bool) -> String {
    let object = json::object(|object| {
        report.put_json(object);
        story.put_json(object);
        let checks = report.checks.iter().chain(&story.checks).map(check::Check::json);
        object.raw("checks", &json::list(checks));
        object.raw("holds", &holds.to_string());
    });
    object + "\n"
}

/// Signals that end the demo.
fn endings() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM])
}

fn mask(how: SigmaskHow) -> Result<()> {
    let set = endings().thread_swap_mask(how);
    set.map(drop).map_err(|errno| format!("signal mask: {errno}"))
}
