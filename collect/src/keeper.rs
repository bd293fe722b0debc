//! The thread that keeps the books, and how others reach it: batches are handed over within a bound
//! on their bytes, questions are functions that run between two batches.

use crate::batch::Batch;
use crate::books::Books;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

type Question = Box<dyn FnOnce(&mut Books, u64) + Send>;

enum Message {
    Batch(Box<Batch>, Grant),
    Question(Question),
}

/// Room for bytes that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Grant(Option<OwnedSemaphorePermit>);

/// The unit of room.
const UNIT: usize = 1024;
/// How long who sends spans waits for room before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Messages on their way to the thread.
const MESSAGES_MAX: usize = 1024;

/// What came and was not taken, counted where it was noticed.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// Requests and datagrams for which there was no room.
    pub(crate) no_room: AtomicU64,
    /// Requests and datagrams that could not be read.
    pub(crate) malformed: AtomicU64,
    /// Requests that were too long.
    pub(crate) too_long: AtomicU64,
    /// Requests that were not forwarded: no room to wait, or refused at the other end.
    pub(crate) not_forwarded: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    /// Blocks that did not get to the disk.
    pub(crate) not_written: AtomicU64,
}

/// A way to the books.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    sender: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    units: usize,
    pub(crate) losses: Arc<Losses>,
    /// What of the budget is for bodies, batches and answers.
    pub(crate) budget: usize,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Batch(..) => "Batch",
            Self::Question(_) => "Question",
        })
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Keeper {
    /// Starts the thread, which ends when nobody can reach it any more.
    pub(crate) fn start(mut books: Books, memory: usize, losses: Arc<Losses>) -> io::Result<Self> {
        let (sender, mut receiver) = mpsc::channel(MESSAGES_MAX);
        let units = (memory / 100 * 8 / UNIT).max(64);
        let keep = move || {
            while let Some(message) = receiver.blocking_recv() {
                match message {
                    Message::Batch(batch, grant) => {
                        books.take(&batch, now_ns());
                        drop(grant);
                    }
                    Message::Question(question) => question(&mut books, now_ns()),
                }
            }
        };
        thread::Builder::new().name("books".into()).spawn(keep)?;
        let room = Arc::new(Semaphore::new(units));
        Ok(Self { sender, room, units, losses, budget: memory })
    }

    /// What a body may weigh.
    pub(crate) fn body_max(&self) -> usize {
        (self.units * UNIT / 2).min(16 << 20)
    }

    /// Room for so many more bytes; none where there is none for too long.
    pub(crate) async fn room(&self, bytes: usize, grant: &mut Grant) -> Option<()> {
        let units = u32::try_from((bytes / UNIT + 1).min(self.units)).ok()?;
        let asked = Arc::clone(&self.room).acquire_many_owned(units);
        let permit = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?;
        add(grant, permit);
        Some(())
    }

    /// Hands over spans, with the room that their body was read into.
    pub(crate) async fn take(&self, batch: Batch, mut grant: Grant, read: usize) -> Option<()> {
        let more = batch.bytes().saturating_sub(read);
        // Who has some room must not wait for long for more of it: others wait for what it has.
        self.room(more.min(self.units * UNIT / 4), &mut grant).await?;
        self.sender.send(Message::Batch(Box::new(batch), grant)).await.ok()
    }

    /// The same for datagrams, which do not wait.
    pub(crate) fn take_at_once(&self, batch: Batch) -> Option<()> {
        let mut grant = Grant::default();
        let units = u32::try_from((batch.bytes() / UNIT + 1).min(self.units)).ok()?;
        add(&mut grant, Arc::clone(&self.room).try_acquire_many_owned(units).ok()?);
        self.sender.try_send(Message::Batch(Box::new(batch), grant)).ok()
    }

    /// What the books say; none when their thread has ended.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Books, u64) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |books, now_ns| {
            // Whoever asked may have gone.
            let _ = answer.send(question(books, now_ns));
        });
        self.sender.send(Message::Question(question)).await.ok()?;
        answered.await.ok()
    }
}

fn add(grant: &mut Grant, permit: OwnedSemaphorePermit) {
    match &mut grant.0 {
        Some(all) => all.merge(permit),
        None => grant.0 = Some(permit),
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
