//! The load generator: everything is in the library, so that tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    netra_loadtest::main(std::env::args_os())
}
