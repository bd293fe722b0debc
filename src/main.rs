//! netra, with the protocols that are built in.

use std::process::ExitCode;

fn main() -> ExitCode {
    netra::run(Vec::new())
}
