//! `netra pause`: does nothing until SIGTERM. For the container that holds a pod's network where
//! nothing else does: Docker takes the network away with the container that it belongs to, and an
//! application that restarts would come back without rules and sidecar.

use crate::exit::Exit;
use nix::sys::signal::{SigSet, Signal};

/// Waits. Blocked signals are heard also by the first process of a container.
pub(crate) fn run() -> Exit {
    let endings = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    let heard = endings.thread_block().and_then(|()| endings.wait());
    match heard {
        Ok(_) => Exit::DONE,
        Err(errno) => {
            eprintln!("netra pause: {errno}");
            Exit::OS
        }
    }
}
