//! A copy on disk: blocks as they were ended, in one file of redb, the oldest of which go when they
//! weigh too much. A thread of its own writes, so that no span waits for a disk.

use crate::keeper::{Losses, count};
use crate::store::Block;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// Blocks by the order in which they were ended.
const BLOCKS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("blocks-1");
/// Blocks that wait to be written.
const WAITING_MAX: usize = 16;

/// Where blocks go to be written.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    queue: SyncSender<Order>,
}

#[derive(Debug)]
enum Order {
    Write(Arc<Block>),
    /// All that was ordered before is written; tell.
    Flush(SyncSender<()>),
}

/// The file, opened, with how much each block weighs.
#[derive(Debug)]
struct File {
    database: Database,
    bytes_max: u64,
    bytes: u64,
    blocks: VecDeque<(u64, u64)>,
}

type Result<T> = std::result::Result<T, redb::Error>;

impl Disk {
    /// Opens the file, hands what is in it to `restore`, the newest last and no more than
    /// `restore_max` bytes, and starts the thread that writes.
    pub(crate) fn open(
        path: &Path,
        bytes_max: u64,
        restore_max: u64,
        losses: Arc<Losses>,
        mut restore: impl FnMut(Block),
    ) -> std::result::Result<Self, String> {
        let told = |error: redb::Error| format!("{}: {error}", path.display());
        let file = File::open(path, bytes_max).map_err(told)?;
        file.read(restore_max, &mut restore).map_err(told)?;
        let (queue, orders) = sync_channel(WAITING_MAX);
        let spawned = thread::Builder::new()
            .name("disk".into())
            .spawn(move || write_all(file, &orders, &losses));
        spawned.map_err(|error| format!("a thread for the disk: {error}"))?;
        Ok(Self { queue })
    }

    /// Has a block written; false when too many wait already.
    pub(crate) fn write(&self, block: Arc<Block>) -> bool {
        self.queue.try_send(Order::Write(block)).is_ok()
    }

    /// Waits until everything is written.
    pub(crate) fn flush(&self) {
        let (tell, told) = sync_channel(1);
        if self.queue.send(Order::Flush(tell)).is_ok() {
            let _ = told.recv();
        }
    }
}

fn write_all(mut file: File, orders: &Receiver<Order>, losses: &Losses) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Write(block) => {
                if file.write(&block).is_err() {
                    count(&losses.not_written);
                }
            }
            Order::Flush(tell) => {
                let _ = tell.send(());
            }
        }
    }
}

impl File {
    fn open(path: &Path, bytes_max: u64) -> Result<Self> {
        let database = Database::builder().set_cache_size(2 << 20).create(path)?;
        let write = database.begin_write()?;
        let mut blocks = VecDeque::new();
        let mut bytes = 0;
        {
            let table = write.open_table(BLOCKS)?;
            for entry in table.iter()? {
                let (key, value) = entry?;
                let weight = value.value().len() as u64;
                blocks.push_back((key.value(), weight));
                bytes += weight;
            }
        }
        write.commit()?;
        Ok(Self { database, bytes_max, bytes, blocks })
    }

    fn read(&self, restore_max: u64, restore: &mut impl FnMut(Block)) -> Result<()> {
        let mut sum = 0;
        let newest = self.blocks.iter().rev().take_while(|(_, weight)| {
            sum += weight;
            sum <= restore_max
        });
        let keys: Vec<u64> = newest.map(|(key, _)| *key).collect();
        let table = self.database.begin_read()?.open_table(BLOCKS)?;
        for key in keys.into_iter().rev() {
            let value = table.get(key)?;
            if let Some(block) = value.and_then(|value| Block::read(value.value())) {
                restore(block);
            }
        }
        Ok(())
    }

    fn write(&mut self, block: &Block) -> Result<()> {
        let bytes = block.write();
        let weight = bytes.len() as u64;
        let key = self.blocks.back().map_or(0, |(key, _)| key + 1);
        let write = self.database.begin_write()?;
        let mut gone = 0;
        {
            let mut table = write.open_table(BLOCKS)?;
            let mut left = self.bytes + weight;
            for (key, weight) in &self.blocks {
                if left <= self.bytes_max {
                    break;
                }
                table.remove(key)?;
                left -= weight;
                gone += 1;
            }
            table.insert(key, &bytes[..])?;
        }
        write.commit()?;
        self.bytes += weight;
        for (_, weight) in self.blocks.drain(..gone) {
            self.bytes -= weight;
        }
        self.blocks.push_back((key, weight));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Kind;
    use crate::batch::tests::{BEGIN, batch, made};
    use crate::books::Books;

    fn block(service: &'static str, traces: std::ops::Range<u128>) -> Arc<Block> {
        let mut books = Books::new(32 << 20);
        let spans: Vec<_> = traces.map(|id| made(service, Kind::Server, (id, 1, 0))).collect();
        books.take(&batch(&spans), BEGIN);
        books.take_sealed(true).remove(0)
    }

    fn open(path: &Path, bytes_max: u64) -> (Disk, Vec<Block>) {
        let mut found = Vec::new();
        let disk = Disk::open(path, bytes_max, u64::MAX, Arc::default(), |block| found.push(block));
        (disk.unwrap(), found)
    }

    #[test]
    fn what_is_written_is_there_after_a_restart_and_the_oldest_goes() {
        let folder = std::env::temp_dir().join(format!("netra-collect-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("spans.redb");
        let (disk, found) = open(&path, 60_000);
        assert!(found.is_empty());
        for n in 1..=20u128 {
            assert!(disk.write(block("shop", n * 1000..n * 1000 + 100)));
            disk.flush();
        }
        drop(disk);
        // The thread lets go of the file a moment later.
        let found = (0..100).find_map(|_| {
            std::thread::yield_now();
            let mut found = Vec::new();
            let disk =
                Disk::open(&path, 60_000, u64::MAX, Arc::default(), |block| found.push(block));
            if disk.is_err() {
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
            disk.ok().map(|_| found)
        });
        let found = found.unwrap();
        assert!(found.len() < 15 && found.len() > 3, "{}", found.len());
        let last = found.last().unwrap();
        assert_eq!(last.rows[0].trace, [0, 20_000]);
        assert_eq!(last.service(&last.rows[0]), "shop");
        let mut books = Books::new(32 << 20);
        let count = found.len() as u64 * 100;
        for block in found {
            books.restore(block, BEGIN);
        }
        assert_eq!((books.counts.restored, books.counts.spans), (count, count));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
