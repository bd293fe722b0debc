//! Getting the right to make namespaces: root has it, an ordinary user gets it in a user namespace.

use super::{Result, endings, mask};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::{SigmaskHow, Signal, kill};
use nix::unistd::{Pid, getppid};
use std::env;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

/// Set for the demo inside the user namespace: the lane, and the process outside.
const INSIDE: &str = "NETRA_DEMO_INSIDE";

/// How much of the pod can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Both directions: the sidecar has a user of its own.
    Both,
    /// Only inbound, because of this: rules tell the sidecar from the application by its user.
    InboundOnly(String),
}

/// Where the demo goes on.
pub(super) enum Entered {
    Here(Lane),
    /// It ran in a child, and this was its end.
    Elsewhere(ExitCode),
}

/// Goes on here as root, or inside a user namespace; else runs the demo in a new one.
pub(super) fn enter() -> Result<Entered> {
    if let Some(inside) = env::var(INSIDE).ok().filter(|value| !value.is_empty()) {
        let (outside, why) = inside.split_once(' ').unwrap_or((&inside, ""));
        die_with(outside)?;
        let lane = if why.is_empty() { Lane::Both } else { Lane::InboundOnly(why.to_owned()) };
        return Ok(Entered::Here(lane));
    }
    let may = thread::spawn(|| nix::sched::unshare(CloneFlags::CLONE_NEWNET)).join();
    match may.map_err(|_| "a thread failed".to_owned())? {
        Ok(()) => Ok(Entered::Here(Lane::Both)),
        Err(_) => in_user_namespace().map(Entered::Elsewhere),
    }
}

/// When the process outside is killed, so is this one.
fn die_with(outside: &str) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| format!("PR_SET_PDEATHSIG: {errno}"))?;
    if getppid().to_string() == outside { Ok(()) } else { Err("nobody started this".to_owned()) }
}

fn in_user_namespace() -> Result<ExitCode> {
    let why = match try_unshare(&["--map-root-user", "--map-auto"]) {
        Ok(()) => String::new(),
        Err(why) => {
            try_unshare(&["--map-root-user"]).map_err(|error| {
                format!(
                    "neither network nor user namespaces can be made here ({error}); run it as \
                     root, or allow user namespaces"
                )
            })?;
            format!("no second user can be mapped here ({why}); /etc/subuid and newuidmap give one")
        }
    };
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]);
    if why.is_empty() {
        command.arg("--map-auto");
    }
    let program = env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    command.arg("--").arg(program).args(env::args_os().skip(1));
    command.env(INSIDE, format!("{} {why}", std::process::id()));
    forward_signals_to(command)
}

fn try_unshare(map: &[&str]) -> Result<()> {
    let probe = Command::new("unshare").arg("--user").args(map).args(["--", "true"]).output();
    let output = probe.map_err(|error| format!("unshare (Debian package util-linux): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(said.lines().last().unwrap_or("unshare failed").to_owned())
}

/// Runs the child to its end; what is sent to us is for it.
fn forward_signals_to(mut command: Command) -> Result<ExitCode> {
    mask(SigmaskHow::SIG_BLOCK)?;
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("unshare (Debian package util-linux): {error}"))?;
    let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
    thread::spawn(move || {
        while let Ok(signal) = endings().wait() {
            if kill(Pid::from_raw(pid), signal).is_err() {
                break;
            }
        }
    });
    let status = child.wait().map_err(|error| format!("wait: {error}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(130)))
}
