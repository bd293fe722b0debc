//! Which protocol is read on which port.

use std::error;
use std::fmt;
use std::str::FromStr;

use crate::tap::protocol::Protocol;

/// Ports with the protocol that is read on each, parsed once from text such as
/// `6379=redis,20880=dubbo`. Empty text (or blanks alone) names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtocolPorts {
    /// By port, each once.
    sorted: Box<[(u16, Protocol)]>,
}

impl ProtocolPorts {
    /// The protocol that is read on `port`; asked once for each connection.
    pub fn get(&self, port: u16) -> Option<Protocol> {
        let found = self.sorted.binary_search_by_key(&port, |(port, _)| *port).ok()?;
        Some(self.sorted[found].1)
    }

    /// Whether no port is named.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The ports in rising order.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.sorted.iter().map(|(port, _)| *port)
    }

    /// The protocols that are named, each once: those that are built in, in the order of
    /// [`Protocol::ALL`], and behind them the others.
    pub fn protocols(&self) -> impl Iterator<Item = Protocol> + '_ {
        let is_named = |protocol: &Protocol| self.sorted.iter().any(|(_, named)| named == protocol);
        let built_in = Protocol::ALL.iter().copied().filter(is_named);
        let others = self.sorted.iter().enumerate().filter_map(|(index, (_, named))| {
            let is_new = self.sorted[..index].iter().all(|(_, before)| before != named);
            (is_new && matches!(named, Protocol::Private(_))).then_some(*named)
        });
        built_in.chain(others)
    }

    /// Parses pairs of port and protocol separated by commas; blanks around each are allowed, a
    /// port that comes twice is not. Protocols are those that are built in and these.
    ///
    /// # Errors
    /// The piece that is no such pair.
    pub fn parse(text: &str, others: &[Protocol]) -> Result<Self, ProtocolPortsError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let named = |name: &str| {
            let mut all = Protocol::ALL.iter().chain(others);
            all.find(|protocol| protocol.name() == name).copied()
        };
        let mut sorted: Vec<(u16, Protocol)> = Vec::new();
        for piece in text.split(',') {
            let refused = || ProtocolPortsError { piece: piece.trim().into() };
            let (port, name) = piece.split_once('=').ok_or_else(refused)?;
            let port = port.trim().parse().ok().filter(|port| *port > 0).ok_or_else(refused)?;
            let protocol = named(name.trim()).ok_or_else(refused)?;
            if sorted.iter().any(|(named, _)| *named == port) {
                return Err(refused());
            }
            sorted.push((port, protocol));
        }
        sorted.sort_unstable_by_key(|(port, _)| *port);
        Ok(Self { sorted: sorted.into() })
    }
}

impl FromStr for ProtocolPorts {
    type Err = ProtocolPortsError;

    /// As [`parse`](Self::parse), of protocols that are built in alone.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, &[])
    }
}

impl fmt::Display for ProtocolPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (port, protocol)) in self.sorted.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{port}={}", protocol.about().name)?;
        }
        Ok(())
    }
}

/// A piece that is no pair of port and protocol, or names a port again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolPortsError {
    piece: Box<str>,
}

impl fmt::Display for ProtocolPortsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no port=protocol of its own", self.piece)
    }
}

impl error::Error for ProtocolPortsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_by_port_and_shown_as_they_are_written() {
        let ports: ProtocolPorts = " 20880=dubbo, 6379 = redis ,6380=redis".parse().unwrap();
        assert_eq!(ports.to_string(), "6379=redis,6380=redis,20880=dubbo");
        assert_eq!(ports.get(6380), Some(Protocol::Redis));
        assert_eq!(ports.get(80), None);
        assert!(ports.protocols().eq([Protocol::Redis, Protocol::Dubbo]));
        assert!(ports.ports().eq([6379, 6380, 20880]));
        assert!(" ".parse::<ProtocolPorts>().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_pair_of_its_own_is_refused_and_named() {
        for (text, piece) in [
            ("6379", "6379"),
            ("6379=redis,", ""),
            ("0=redis", "0=redis"),
            ("65536=redis", "65536=redis"),
            ("1=gopher", "1=gopher"),
            ("1=redis,1=dubbo", "1=dubbo"),
        ] {
            let refused = text.parse::<ProtocolPorts>().unwrap_err();
            assert_eq!(refused.to_string(), format!("{piece:?} is no port=protocol of its own"));
        }
    }
}
