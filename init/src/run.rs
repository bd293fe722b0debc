//! Does what a `Request` asks for.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::backend::{Backends, check_capabilities};
use crate::cli::{Command, Request};
use crate::error::{Error, Kind, Result};
use crate::report::Reporter;
use crate::{conntrack, doctor, links, sys, verify};

/// Runs a request to its end.
pub fn run(request: &Request, reporter: Reporter) -> Result<()> {
    sys::claim_capabilities();
    if request.is_disabled && request.command != Command::Cleanup {
        reporter.result("disabled", "mode none: nothing to do", &[]);
        return Ok(());
    }
    if let (Some(netns), true) = (&request.netns, request.command != Command::Print) {
        enter(netns)?;
    }
    let backends = Backends {
        spec: &request.spec,
        choice: request.backend,
        lock_wait_seconds: request.lock_wait_seconds,
        reconcile: request.reconcile,
        guardrails: request.guardrails,
        reporter,
    };
    match request.command {
        Command::Apply => apply(request, &backends),
        Command::Release => release(request, &backends),
        Command::Cleanup => cleanup(request, &backends),
        Command::Print => backends.render().map(|text| reporter.raw(&text)),
        Command::Status => {
            check_capabilities(request.backend)?;
            let name = backends.status()?.name();
            if let Some(seconds) = request.close_wait_seconds {
                conntrack::expect_close_wait(seconds)?;
            }
            let message = format!("applied ({name}), nothing to change");
            reporter.result("applied", &message, &[("backend", name)]);
            Ok(())
        }
        Command::Verify => {
            warn_of_losses(request, reporter);
            verify::verify(request, reporter)
        }
        Command::Doctor => doctor::examine(request, &backends),
    }
}

fn apply(request: &Request, backends: &Backends<'_>) -> Result<()> {
    check_capabilities(request.backend)?;
    let applied = backends.apply()?;
    // Behind the rules: the sysctl is there only when connection tracking is.
    if let Some(seconds) = request.close_wait_seconds {
        conntrack::set_close_wait(seconds)?;
    }
    let (event, message) = match applied.was_there {
        true => ("already-applied", "already applied"),
        false => ("applied", "applied"),
    };
    warn_of_losses(request, backends.reporter);
    let name = applied.backend.name();
    let message = format!("{message} ({name})");
    backends.reporter.result(event, &message, &[("backend", name)]);
    backends.reporter.rules(&applied.rules);
    Ok(())
}

/// Puts rules in place that redirect nothing new: as long as there are any, what is open is translated.
fn release(request: &Request, backends: &Backends<'_>) -> Result<()> {
    check_capabilities(request.backend)?;
    let applied = backends.apply()?;
    let name = applied.backend.name();
    let message = format!(
        "released ({name}): new connections are left alone, open ones go on; cleanup when the sidecar \
         has ended"
    );
    backends.reporter.result("released", &message, &[("backend", name)]);
    Ok(())
}

/// Says what the rules lose by links that lack an address.
fn warn_of_losses(request: &Request, reporter: Reporter) {
    match links::losses(&request.spec) {
        Ok(None) => {}
        Ok(Some(losses)) => reporter.warn("links", &format!("{losses}: {}", links::ADVICE)),
        Err(error) => reporter.warn("links", &format!("cannot look at the links: {error}")),
    }
}

fn cleanup(request: &Request, backends: &Backends<'_>) -> Result<()> {
    check_capabilities(request.backend)?;
    let cleaned = backends.cleanup()?;
    let names: Vec<&str> = cleaned.iter().map(|backend| backend.name()).collect();
    let names = names.join(", ");
    match cleaned.is_empty() {
        true => backends.reporter.result("clean", "nothing to clean up", &[]),
        false => {
            let message = format!("rules removed ({names})");
            backends.reporter.result("cleaned", &message, &[("backends", &names)]);
        }
    }
    Ok(())
}

fn enter(netns: &Path) -> Result<()> {
    let path = netns.display();
    let file = File::open(netns).map_err(|source| {
        Error::new(Kind::Usage, format!("--netns: bad value \"{path}\": {source}"))
    })?;
    sys::enter_netns(file.as_fd()).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM) => {
            let message =
                format!("--netns {path}: need CAP_SYS_ADMIN to enter a network namespace");
            Error::new(Kind::Capability, message)
        }
        Some(libc::EINVAL) => {
            let message = format!("--netns: bad value \"{path}\": not a network namespace");
            Error::new(Kind::Usage, message)
        }
        _ => Error::new(Kind::Kernel, format!("--netns {path}: {source}")),
    })
}
