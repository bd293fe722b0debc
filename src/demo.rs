//! `netra demo`: a pod in a fresh network namespace, real rules, the real sidecar, real requests
//! both ways, and what it cost.
//!
//! Nothing needs cleaning up. Namespaces live by descriptors of this process, the sidecar has asked
//! the kernel to die with it, and no file is written: however the demo ends, nothing is left.

mod namespace;
mod pod;
mod report;
mod server;
mod stage;
mod traffic;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::process::ExitCode;

/// Shows interception on this machine, in namespaces of its own.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Requests on an open connection, each way, directly and through netra
    #[arg(long, value_name = "N", default_value_t = 2_000,
        value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    requests: u32,
    /// Stay up until Ctrl-C, with the commands to look around
    #[arg(long)]
    hold: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

/// What can go wrong, as one line for people.
type Result<T> = std::result::Result<T, String>;

/// Runs the demo; 0 when everything that was checked holds.
pub(crate) fn run(args: DemoArgs) -> ExitCode {
    let done = match stage::enter() {
        Ok(stage::Entered::Here(lane)) => perform(&args, lane),
        Ok(stage::Entered::Elsewhere(code)) => return code,
        Err(what) => Err(what),
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
fn perform(args: &DemoArgs, lane: stage::Lane) -> Result<bool> {
    // Blocked while threads start, so that they inherit it: only this thread takes Ctrl-C, by
    // dying of it now, and by waiting for it in `hold`.
    mask(SigmaskHow::SIG_BLOCK)?;
    let pod = pod::Pod::build(lane)?;
    mask(SigmaskHow::SIG_UNBLOCK)?;
    let legs = traffic::run(&pod, args.requests)?;
    let report = report::Report::new(&pod, legs)?;
    print!("{}", if args.json { report.json() } else { report.text() });
    if args.hold {
        mask(SigmaskHow::SIG_BLOCK)?;
        print!("{}", report::how_to_look(&pod));
        endings().wait().map_err(|errno| format!("waiting for Ctrl-C: {errno}"))?;
    }
    let holds = report.holds();
    pod.leave()?;
    Ok(holds)
}

/// Signals that end the demo.
fn endings() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM])
}

fn mask(how: SigmaskHow) -> Result<()> {
    let set = endings().thread_swap_mask(how);
    set.map(drop).map_err(|errno| format!("signal mask: {errno}"))
}
