//! What the allocator keeps of memory that nobody needs any more.

use netra_perf::process::Process;
use std::hint::black_box;

const BLOCK: usize = 1 << 20;

/// A page of a busy netra, ten times a second for half an hour. It kept 1 KB of each for good, where it
/// chose the addresses of the kernel's blocks by itself (`.cargo/config.toml`).
#[test]
fn blocks_that_come_and_go_leave_nothing() {
    let come_and_go = |count: usize| {
        for _ in 0..count {
            let mut block = vec![0_u8; BLOCK];
            black_box(&mut block)[0] = 1;
        }
    };
    come_and_go(100);
    let before = Process::read().resident_bytes.unwrap();
    come_and_go(16_000);
    let grown = Process::read().resident_bytes.unwrap().saturating_sub(before);
    assert!(grown < 6 << 20, "{} KiB are left of 16,000 blocks", grown >> 10);
}
