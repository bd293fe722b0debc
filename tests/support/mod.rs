//! What the end-to-end tests share: a world of two network namespaces, the real binary in it,
//! scripted peers, and eyes on `/metrics` and `/proc`.
//!
//! Every test builds its own [`world::World`], so that port 14956 never clashes and tests run in
//! parallel. Namespaces are held by descriptors of the test process and its children die with the
//! thread that started them, so nothing outlives a test, however it ends.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "shared by several test programs, each uses a part; tests may sleep and lock"
)]

pub mod cgroup;
pub mod docker;
pub mod good;
pub mod helper;
pub mod http;
pub mod lockstep;
pub mod matrix;
pub mod netra;
pub mod procfs;
pub mod programs;
pub mod recording;
pub mod scrape;
pub mod script;
pub mod sink;
pub mod spans;
pub mod stage;
pub mod stream;
pub mod sys;
pub mod talk;
pub mod webapp;
pub mod world;

use std::time::{Duration, Instant};

/// Longest wait for something that should happen at once, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls `probe` until it is true; false when `limit` has passed.
pub fn wait_until(limit: Duration, mut probe: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if probe() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number from the environment, to make a test longer or shorter.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}
