//! Completions, the man page and the table of settings, made of the command line itself, so that
//! they cannot lag behind.

use crate::{args, exit::Exit, setting::Setting, table::table};
use clap_complete::Shell;
use std::{
    fmt::Write as _,
    io::{Write, stdout},
};

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

/// Writes docs/SETTINGS.md to standard output.
pub(crate) fn settings() -> Exit {
    let mut out = String::from(
        "# Settings of netra\n\n\
         Made by `netra settings`, of the table that the program itself reads; a test compares. Each is a variable \
         and a flag\nof the same name (`NETRA_SPIN_US` is `--spin-us`); flag over variable over default.\n",
    );
    section(&mut out, "", |setting| !setting.later);
    let later = "\n## Checked, but not acted on by this build\n";
    section(&mut out, later, |setting| setting.later);
    let _ = stdout().write_all(out.as_bytes());
    Exit::DONE
}

fn section(out: &mut String, heading: &str, is_wanted: impl Fn(&Setting) -> bool) {
    let mut rows = table().filter(|setting| is_wanted(setting)).peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ =
        write!(out, "{heading}\n| variable | default | allowed | meaning |\n|---|---|---|---|\n");
    for setting in rows {
        let names: Vec<&str> =
            std::iter::once(&setting.name).chain(setting.also).copied().collect();
        let default = match setting.default {
            "" if setting.required => "required",
            "" => "not set",
            default => default,
        };
        let cells = [&names.join(", "), default, &setting.parse.allowed(), setting.doc];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
}
