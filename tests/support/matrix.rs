//! The combinations that every property must hold on: drivers, shards, address families, ways.

use super::world::{CLIENT_V4, CLIENT_V6, Namespace, POD_V4, POD_V6, World};
use std::fmt;
use std::net::IpAddr;

/// How netra does its I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Epoll,
    IoUring,
}

impl Driver {
    pub const ALL: [Self; 2] = [Self::Epoll, Self::IoUring];

    pub fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::IoUring => "io_uring",
        }
    }
}

/// One configuration of netra.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub driver: Driver,
    pub shards: u8,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.driver.name(), self.shards)
    }
}

/// Both drivers with one, two and four shards. `NETRA_TEST_CELLS=epoll-1,io_uring-4` picks some.
pub fn cells() -> Vec<Cell> {
    let all =
        Driver::ALL.into_iter().flat_map(|driver| [1, 2, 4].map(|shards| Cell { driver, shards }));
    let Ok(wanted) = std::env::var("NETRA_TEST_CELLS") else { return all.collect() };
    let picked: Vec<_> =
        all.filter(|cell| wanted.split(',').any(|name| name == cell.to_string())).collect();
    assert!(!picked.is_empty(), "NETRA_TEST_CELLS={wanted} names no cell such as epoll-1");
    picked
}

/// The cells with this many shards; of those that `NETRA_TEST_CELLS` names where it names any of
/// them, else those of the drivers that it names: a test of two shards has no other cells.
pub fn cells_with(shards: u8) -> Vec<Cell> {
    let named = cells();
    let exact: Vec<_> = named.iter().filter(|cell| cell.shards == shards).copied().collect();
    if !exact.is_empty() {
        return exact;
    }
    let drivers = Driver::ALL.into_iter().filter(|it| named.iter().any(|cell| cell.driver == *it));
    drivers.map(|driver| Cell { driver, shards }).collect()
}

/// From where to where a connection goes.
#[derive(Clone, Copy, Debug)]
pub struct Route<'w> {
    pub name: &'static str,
    pub direction: &'static str,
    pub client: &'w Namespace,
    pub server: &'w Namespace,
    pub address: IpAddr,
}

/// Into the pod and out of it, over both address families.
pub fn routes(world: &World) -> [Route<'_>; 4] {
    let inbound = |name, address| Route {
        name,
        direction: "inbound",
        client: &world.client,
        server: &world.pod,
        address,
    };
    let outbound = |name, address| Route {
        name,
        direction: "outbound",
        client: &world.pod,
        server: &world.client,
        address,
    };
    [
        inbound("inbound v4", POD_V4),
        inbound("inbound v6", POD_V6),
        outbound("outbound v4", CLIENT_V4),
        outbound("outbound v6", CLIENT_V6),
    ]
}

/// What went wrong in which cell; all of it, not only the first.
#[derive(Debug, Default)]
pub struct Findings(Vec<String>);

impl Findings {
    pub fn note(&mut self, cell: impl fmt::Display, what: impl fmt::Display) {
        self.0.push(format!("[{cell}] {what}"));
    }

    pub fn check(&mut self, cell: impl fmt::Display, result: Result<(), String>) {
        if let Err(what) = result {
            self.note(cell, what);
        }
    }

    /// Fails the test when there is anything.
    pub fn conclude(self) {
        assert!(self.0.is_empty(), "{} findings:\n{}", self.0.len(), self.0.join("\n"));
    }
}
