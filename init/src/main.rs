//! The program: see the library of the same name.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use netra_init::cli::Arguments;
use netra_init::report::Reporter;

fn main() -> ExitCode {
    let environment = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
    let arguments = match Arguments::read(std::env::args_os(), environment) {
        Ok(arguments) => arguments,
        // clap prints help and version to standard output with 0, the rest to standard error.
        Err(error) => error.exit(),
    };
    let reporter = Reporter::new(arguments.format());
    if let Some(warning) = arguments.settings.service_links() {
        reporter.warn("service-links", &warning);
    }
    match arguments.request().and_then(|request| netra_init::run(&request, reporter)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            reporter.error(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}
