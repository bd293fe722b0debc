//! Who stays connected to a port of netra's own, and who goes when others come. Three pools with a
//! share each, so that none can be filled from outside of it: those that have not asked anything
//! yet, those that have, and those that last asked a probe. A flood of one kind costs that kind.

use std::{collections::HashMap, net::IpAddr};
use tokio::time::{Duration, Instant};

/// How long a head may take.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a connection may idle between two requests: longer than anybody scrapes or probes.
const IDLE_MAX: Duration = Duration::from_secs(150);
/// How long an answer may take to be read.
const UNREAD_MAX: Duration = Duration::from_secs(60);

/// What a connection shares its place with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// No head has come whole.
    New,
    Asked,
    /// What it asked last was a probe.
    Probes,
}

impl Pool {
    const fn places(self) -> usize {
        match self {
            Self::New => 64,
            Self::Asked => 32,
            Self::Probes => 16,
        }
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has come since the last answer, or ever.
    Idle,
    /// A head has begun.
    Head,
    /// Its answer is being made.
    Thinking,
    /// Its answer, of so many bytes, is not read yet.
    Unread(usize),
}

impl Stage {
    /// Who goes first.
    fn rank(self) -> u8 {
        match self {
            Self::Idle | Self::Head => 0,
            Self::Unread(_) => 1,
            Self::Thinking => 2,
        }
    }
}

#[derive(Debug)]
struct Place<T> {
    id: u64,
    /// None is the unix socket's.
    peer: Option<IpAddr>,
    pool: Pool,
    stage: Stage,
    since: Instant,
    connection: T,
}

impl<T> Place<T> {
    fn unread_bytes(&self) -> usize {
        if let Stage::Unread(bytes) = self.stage { bytes } else { 0 }
    }
}

/// The connections of a listener; `T` is what cuts one.
#[derive(Debug)]
pub(super) struct Room<T> {
    places: Vec<Place<T>>,
    /// How long an answer may be in the making.
    think_max: Duration,
    /// What answers may weigh that wait to be read. A single one may weigh more.
    unread_bytes_max: usize,
}

impl<T> Room<T> {
    pub(super) fn new(think_max: Duration, unread_bytes_max: usize) -> Self {
        Self { places: Vec::new(), think_max, unread_bytes_max }
    }

    /// Takes a connection in; whom it costs the place is returned.
    pub(super) fn enter(
        &mut self,
        id: u64,
        peer: Option<IpAddr>,
        connection: T,
        now: Instant,
    ) -> Option<T> {
        let (pool, stage) = (Pool::New, Stage::Idle);
        self.places.push(Place { id, peer, pool, stage, since: now, connection });
        self.make_room(pool, id)
    }

    /// Bytes came.
    pub(super) fn hears(&mut self, id: u64, now: Instant) {
        if let Some(place) = self.place(id)
            && place.stage == Stage::Idle
        {
            // A new connection's time began when it was taken in.
            let since = if place.pool == Pool::New { place.since } else { now };
            (place.stage, place.since) = (Stage::Head, since);
        }
    }

    /// A head came whole; whom that costs the place is returned.
    pub(super) fn asks(&mut self, id: u64, pool: Pool, now: Instant) -> Option<T> {
        let place = self.place(id)?;
        (place.stage, place.since) = (Stage::Thinking, now);
        let is_new = std::mem::replace(&mut place.pool, pool) != pool;
        if is_new { self.make_room(pool, id) } else { None }
    }

    /// Its answer is there. Others may have to go, so that answers nobody reads stay few.
    pub(super) fn answers(&mut self, id: u64, bytes: usize, now: Instant) -> Vec<T> {
        if let Some(place) = self.place(id) {
            (place.stage, place.since) = (Stage::Unread(bytes), now);
        }
        let mut cut = Vec::new();
        while self.places.iter().map(Place::unread_bytes).sum::<usize>() > self.unread_bytes_max {
            let others = self.places.iter().enumerate();
            let unread = others.filter(|(_, it)| it.id != id && it.unread_bytes() > 0);
            let Some((oldest, _)) = unread.min_by_key(|(_, it)| it.since) else { break };
            cut.push(self.places.swap_remove(oldest).connection);
        }
        cut
    }

    /// Its answer has been read.
    pub(super) fn is_read(&mut self, id: u64, now: Instant) {
        if let Some(place) = self.place(id) {
            (place.stage, place.since) = (Stage::Idle, now);
        }
    }

    pub(super) fn leaves(&mut self, id: u64) {
        self.places.retain(|place| place.id != id);
    }

    /// Until when it may go on with what it does.
    pub(super) fn due(&mut self, id: u64) -> Option<Instant> {
        let think_max = self.think_max;
        let place = self.place(id)?;
        Some(
            place.since
                + match (place.stage, place.pool) {
                    (Stage::Head, _) | (Stage::Idle, Pool::New) => HEAD_MAX,
                    (Stage::Idle, _) => IDLE_MAX,
                    (Stage::Thinking, _) => think_max,
                    (Stage::Unread(_), _) => UNREAD_MAX,
                },
        )
    }

    fn place(&mut self, id: u64) -> Option<&mut Place<T>> {
        self.places.iter_mut().find(|place| place.id == id)
    }

    /// Of a pool that has one too many somebody goes, though not whoever came: who does the least
    /// first, of these whose address has the most places, of these who has done so the longest.
    fn make_room(&mut self, pool: Pool, came: u64) -> Option<T> {
        let mut of_peer: HashMap<Option<IpAddr>, usize> = HashMap::new();
        let mut count = 0;
        for place in self.places.iter().filter(|place| place.pool == pool) {
            *of_peer.entry(place.peer).or_default() += 1;
            count += 1;
        }
        if count <= pool.places() {
            return None;
        }
        let others = self.places.iter().enumerate();
        let others = others.filter(|(_, it)| it.pool == pool && it.id != came);
        let places_of = |peer: &Option<IpAddr>| of_peer.get(peer).copied().unwrap_or_default();
        let first = others.min_by_key(|(_, it)| {
            (it.stage.rank(), std::cmp::Reverse(places_of(&it.peer)), it.since)
        });
        let (first, _) = first?;
        Some(self.places.swap_remove(first).connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNREAD_BYTES_MAX: usize = 1 << 20;

    /// A room, a clock, and numbers for connections and addresses.
    struct Scene {
        room: Room<u64>,
        now: Instant,
        last: u64,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                room: Room::new(Duration::from_secs(5), UNREAD_BYTES_MAX),
                now: Instant::now(),
                last: 0,
            }
        }

        fn tick(&mut self) -> Instant {
            self.now += Duration::from_millis(1);
            self.now
        }

        /// One more connection from an address, and who had to go.
        fn enter(&mut self, peer: u8) -> (u64, Option<u64>) {
            self.last += 1;
            let (id, now) = (self.last, self.tick());
            (id, self.room.enter(id, Some(IpAddr::from([10, 0, 0, peer])), id, now))
        }

        /// It asks, is answered, and reads.
        fn exchange(&mut self, id: u64, pool: Pool) -> Option<u64> {
            let now = self.tick();
            self.room.hears(id, now);
            let cut = self.room.asks(id, pool, now);
            assert!(self.room.answers(id, 9, now).is_empty());
            self.room.is_read(id, now);
            cut
        }

        fn has(&mut self, id: u64) -> bool {
            self.room.place(id).is_some()
        }
    }

    #[test]
    fn silence_costs_the_silent_only() {
        let mut scene = Scene::new();
        let (probe, _) = scene.enter(1);
        scene.exchange(probe, Pool::Probes);
        let (scraper, _) = scene.enter(1);
        scene.exchange(scraper, Pool::Asked);
        let first = scene.last + 1;
        for n in 0..1000 {
            let (_, cut) = scene.enter(9);
            assert_eq!(cut, (n >= 64).then(|| first + n - 64), "the oldest goes");
        }
        assert!(scene.has(probe) && scene.has(scraper));
        // One that comes in the middle of it has all the time that it needs.
        let (late, _) = scene.enter(1);
        for _ in 0..1000 {
            scene.enter(9);
        }
        assert_eq!(scene.exchange(late, Pool::Probes), None);
    }

    #[test]
    fn those_that_play_probe_cost_their_own_kind_and_their_own_address() {
        let mut scene = Scene::new();
        let (probe, _) = scene.enter(1);
        scene.exchange(probe, Pool::Probes);
        for _ in 0..100 {
            let (id, _) = scene.enter(9);
            scene.exchange(id, Pool::Probes);
        }
        assert!(scene.has(probe));
        // Asking again and again does not help either.
        for _ in 0..100 {
            for id in 2..scene.last {
                if scene.has(id) {
                    assert_eq!(scene.exchange(id, Pool::Probes), None);
                }
            }
            let (id, _) = scene.enter(9);
            scene.exchange(id, Pool::Probes);
        }
        assert!(scene.has(probe));
    }

    #[test]
    fn who_idles_goes_before_who_reads_and_who_reads_before_who_waits() {
        let mut scene = Scene::new();
        let mut ids: Vec<u64> = Vec::new();
        for n in 0..32 {
            let (id, _) = scene.enter(n);
            let now = scene.tick();
            scene.room.asks(id, Pool::Asked, now);
            if n > 0 {
                scene.room.answers(id, 9, now);
            }
            if n > 1 {
                scene.room.is_read(id, now);
            }
            ids.push(id);
        }
        // Where all wait, it is one of those who have the most places.
        let of_the_many = ids[31] + 1;
        for gone in ids[2..].iter().chain([&ids[1], &of_the_many]) {
            let (id, _) = scene.enter(99);
            let now = scene.tick();
            assert_eq!(scene.room.asks(id, Pool::Asked, now), Some(*gone));
        }
    }

    #[test]
    fn answers_that_nobody_reads_are_few() {
        let mut scene = Scene::new();
        let mut unread = Vec::new();
        for n in 0..10 {
            let (id, _) = scene.enter(n);
            let now = scene.tick();
            scene.room.asks(id, Pool::Asked, now);
            let cut = scene.room.answers(id, UNREAD_BYTES_MAX / 4, now);
            unread.push(id);
            assert_eq!(cut, if n < 4 { vec![] } else { vec![unread[usize::from(n) - 4]] });
        }
        let (id, _) = scene.enter(1);
        let now = scene.tick();
        scene.room.asks(id, Pool::Asked, now);
        assert_eq!(scene.room.answers(id, UNREAD_BYTES_MAX * 2, now).len(), 4);
        assert!(scene.has(id));
    }

    #[test]
    fn each_stage_has_its_time() {
        let mut scene = Scene::new();
        let (id, _) = scene.enter(1);
        let entered = scene.now;
        assert_eq!(scene.room.due(id), Some(entered + HEAD_MAX));
        // A byte now and then buys no time.
        let now = scene.tick();
        scene.room.hears(id, now);
        assert_eq!(scene.room.due(id), Some(entered + HEAD_MAX));
        let now = scene.tick();
        scene.room.asks(id, Pool::Probes, now);
        assert_eq!(scene.room.due(id), Some(now + Duration::from_secs(5)));
        scene.room.answers(id, 9, now);
        assert_eq!(scene.room.due(id), Some(now + UNREAD_MAX));
        let now = scene.tick();
        scene.room.is_read(id, now);
        assert_eq!(scene.room.due(id), Some(now + IDLE_MAX));
        let now = scene.tick();
        scene.room.hears(id, now);
        scene.room.hears(id, now + HEAD_MAX);
        assert_eq!(scene.room.due(id), Some(now + HEAD_MAX));
        scene.room.leaves(id);
        assert_eq!(scene.room.due(id), None);
    }
}
