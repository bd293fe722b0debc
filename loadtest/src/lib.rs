//! netra-loadtest: what a sidecar costs, measured so that one can believe it.
//!
//! Latency is counted from when a request should have started, not from when the generator got
//! round to it, so that a target that stalls is charged for everything it delayed. The generator
//! measures its own lateness and says when the figures are its own fault.

mod args;
mod budget;
mod bulk;
mod check;
mod client;
mod clock;
mod compare;
mod engine;
mod error;
mod http;
mod idle;
mod machine;
mod mix;
mod pacer;
mod plan;
mod procfs;
mod protocol;
mod ramp;
mod relay;
mod report;
mod run;
mod say;
mod stats;
mod subject;
mod summary;
mod sys;
mod topology;
mod upstream;

use std::ffi::OsString;
use std::process::ExitCode;

pub use error::{Error, Kind, Result};

/// Runs the program with these arguments, the first being its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match args::parse(arguments) {
        Ok(cli) => cli,
        Err(cause) => {
            // Help and version come this way as well; clap knows which stream is right.
            let _ = cause.print();
            return ExitCode::from(if cause.use_stderr() { 2 } else { 0 });
        }
    };
    match sys::catch_signals().map_err(Error::from).and_then(|()| args::dispatch(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            crate::say::progress(format_args!("netra-loadtest: {cause}"));
            ExitCode::from(cause.kind().exit_code())
        }
    }
}
