//! A message that nobody has sent, for questions about rules.

use crate::{
    facts::{Direction, Facts},
    key::{Key, Protocol},
};
use std::net::{IpAddr, SocketAddr};

/// A message as somebody describes it.
#[derive(Clone, Debug)]
pub struct Example {
    /// Where its connection goes.
    pub direction: Direction,
    /// The original destination.
    pub destination: SocketAddr,
    /// Who asks.
    pub source: Option<IpAddr>,
    /// The number of its connection.
    pub connection: u64,
    protocol: Protocol,
    values: Vec<(Key, String)>,
}

impl Example {
    /// A call of the application.
    pub fn new(protocol: Protocol, destination: SocketAddr) -> Self {
        let (direction, values) = (Direction::Outbound, Vec::new());
        Self { direction, destination, source: None, connection: 0, protocol, values }
    }

    /// Gives it a value; an error says which attributes the protocol has.
    pub fn set(&mut self, attribute: &str, value: &str) -> Result<(), String> {
        let Some(key) = self.protocol.key(attribute) else {
            let (protocol, has) = (self.protocol, self.protocol.attributes());
            return Err(format!("no attribute {attribute:?}: {protocol} has {has}"));
        };
        // One that is set again is another value of the same.
        self.values.retain(|(known, _)| *known != key);
        self.values.push((key, value.to_owned()));
        Ok(())
    }
}

impl Facts for Example {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn destination(&self) -> SocketAddr {
        self.destination
    }

    fn source(&self) -> Option<IpAddr> {
        self.source
    }

    fn connection(&self) -> u64 {
        self.connection
    }

    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn value(&self, key: &Key) -> Option<&[u8]> {
        let found = self.values.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_bytes())
    }
}
