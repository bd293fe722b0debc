//! Completions and the man page, made of the command line itself, so that they cannot lag behind.

use crate::{args, exit::Exit};
use clap_complete::Shell;
use std::io::{Write, stdout};

/// Writes the completions of a shell to standard output.
pub(crate) fn completions(shell: Shell) -> Exit {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "netra", &mut out);
    let _ = stdout().write_all(&out);
    Exit::DONE
}

/// Writes netra(8) to standard output.
pub(crate) fn man() -> Exit {
    let mut out = Vec::new();
    let page = clap_mangen::Man::new(args::command()).section("8").manual("netra");
    if let Err(error) = page.render(&mut out) {
        eprintln!("netra man: {error}");
        return Exit::INTERNAL;
    }
    let _ = stdout().write_all(&out);
    Exit::DONE
}
