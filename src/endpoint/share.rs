//! What pages may take of the control thread, on which probes and signals have to be answered as well.

use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::{
    sync::Mutex,
    time::{Duration, Instant, sleep_until},
};

/// For each moment that pages are made, so many pass in which none is begun.
const OTHERS: u32 = 3;

/// Counts the time that pages take; one for each port.
#[derive(Debug)]
pub(super) struct Share {
    begun: Instant,
    /// Who waits longest has it.
    turn: Mutex<()>,
    /// When the next page may begin, in nanoseconds since then.
    next_ns: AtomicU64,
}

impl Share {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), turn: Mutex::default(), next_ns: AtomicU64::new(0) }
    }

    /// Makes a page when it is its turn.
    pub(super) async fn make<T>(&self, page: impl Future<Output = T>) -> T {
        let turn = self.turn.lock().await;
        loop {
            let next = self.begun + Duration::from_nanos(self.next_ns.load(Relaxed));
            if next <= Instant::now() {
                break;
            }
            sleep_until(next).await;
        }
        // The next one looks again when this one has begun: they share a thread.
        drop(turn);
        let mut page = pin!(page);
        std::future::poll_fn(|context| {
            let from = Instant::now();
            let made = page.as_mut().poll(context);
            self.took(from.elapsed());
            made
        })
        .await
    }

    fn took(&self, time: Duration) {
        let now = Instant::now().duration_since(self.begun);
        let next = now.max(Duration::from_nanos(self.next_ns.load(Relaxed)));
        let next = next.saturating_add(time * OTHERS).as_nanos();
        self.next_ns.store(u64::try_from(next).unwrap_or(u64::MAX), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// A page that keeps the thread.
    async fn page(time: Duration) {
        let until = std::time::Instant::now() + time;
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn pages_leave_three_parts_of_four() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let share = Arc::new(Share::new());
            let begun = Instant::now();
            share.make(page(Duration::from_millis(5))).await;
            assert!(begun.elapsed() < Duration::from_millis(20), "the first one waits for nothing");
            let begun = Instant::now();
            let pages = (0..10).map(|_| {
                let share = Arc::clone(&share);
                tokio::spawn(async move { share.make(page(Duration::from_millis(5))).await })
            });
            for made in pages.collect::<Vec<_>>() {
                made.await.unwrap();
            }
            assert!(begun.elapsed() >= Duration::from_millis(195), "{:?}", begun.elapsed());
        });
    }
}
