//! Output that nobody may be reading: a closed pipe must not end a measurement half way, with
//! processes and rules left to clean up.

use std::fmt::Arguments;
use std::io::Write;

/// Prints to standard output.
pub(crate) fn result(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}

/// Prints a line of progress, or of complaint, to standard error.
pub(crate) fn progress(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
