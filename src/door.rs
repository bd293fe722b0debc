//! What netra says to somebody who has just met it: its version in full, and what to do next.

use netra_shards::{DriverChoice, Limits};
use std::{fmt::Write as _, io::IsTerminal as _};

/// The commit that it was built from, where the build was told (`make build`, the images, the
/// package).
const COMMIT: Option<&str> = option_env!("NETRA_COMMIT");

/// What `--version` says behind name and version: where it comes from, and what it can do here.
pub(crate) fn version_details() -> String {
    let driver = match netra_shards::choose_driver(DriverChoice::Auto, &Limits::default()) {
        Ok((driver, None)) => driver.to_string(),
        Ok((driver, Some(why))) => format!("{driver}, as io_uring is refused: {why}"),
        Err(why) => format!("none: {why}"),
    };
    let with = |is_in: bool| if is_in { "with" } else { "without" };
    let mut out = String::new();
    let _ = writeln!(
        out,
        "commit    {}",
        COMMIT.filter(|it| !it.is_empty()).unwrap_or("not told to the build")
    );
    let _ = writeln!(out, "driver    {driver} (of io_uring, epoll)");
    let _ = writeln!(
        out,
        "features  {} glommio, {} jaeger-sdk",
        with(cfg!(feature = "glommio")),
        with(cfg!(feature = "jaeger-sdk"))
    );
    out
}

/// What to do next, for somebody who typed `netra` at a terminal and nothing more.
pub(crate) fn next_steps(is_bare: bool) -> Option<&'static str> {
    (is_bare && std::io::stderr().is_terminal()).then_some(NEXT_STEPS)
}

const NEXT_STEPS: &str = "
netra relays the TCP connections that netra-init's rules redirect to it. What to do next:
  netra demo                      see it work, in network namespaces of its own; leaves nothing behind
  netra --service-name shop       run it beside an application; without more it only relays
  netra --service-name shop --http-ports 8080
                                  read HTTP on port 8080: spans, metrics, routes
  netra inject -f app.yaml        add it to the pods of a Kubernetes manifest
  netra doctor                    look at what this machine gives it
  netra --help                    every setting and command
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_where_it_comes_from_and_what_it_can_do() {
        let said = version_details();
        let words: Vec<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(words, ["commit", "driver", "features"], "{said}");
        assert!(said.contains("glommio") && said.contains("epoll"), "{said}");
    }

    #[test]
    fn scripts_are_told_nothing_more() {
        assert_eq!(next_steps(false), None);
    }
}
