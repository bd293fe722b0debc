//! Which protocol is read where: by port, and by address where that is said.

use std::cmp::Reverse;
use std::error;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::network::Network;
use crate::tap::protocol::Protocol;

/// Rows with an address or network that there can be: those of one port are looked at one by one for
/// each of its connections.
const NETWORKS_MAX: usize = 256;

/// Ports with the protocol that is read on each, parsed once from text such as
/// `6379=redis,10.0.0.0/8:9090=thrift`. Empty text (or blanks alone) names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtocolPorts {
    /// By port; of one port the narrowest network first, and last the row for all addresses.
    sorted: Box<[Row]>,
}

/// What is read where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    port: u16,
    protocol: Protocol,
    /// None is every address.
    within: Option<Network>,
}

impl Row {
    /// Reads `PORT=protocol`, `ADDRESS:PORT=protocol` or `NETWORK:PORT=protocol`.
    fn parse(piece: &str, protocols: &[&[Protocol]]) -> Option<Self> {
        let (place, name) = piece.split_once('=')?;
        let mut all = protocols.iter().copied().flatten();
        let protocol = *all.find(|protocol| protocol.name() == name.trim())?;
        let (within, digits) = match place.trim().rsplit_once(':') {
            Some((network, digits)) => (Some(network_of(network)?), digits),
            None => (None, place.trim()),
        };
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let port = digits.parse().ok().filter(|port| is_number && *port > 0)?;
        Some(Self { port, protocol, within })
    }

    /// What it stands behind in order.
    fn order(&self) -> (u16, Reverse<Option<u32>>) {
        (self.port, Reverse(self.within.as_ref().map(Network::bits)))
    }
}

/// A network before a port: with colons of its own it is in brackets, with its bits or before them.
fn network_of(text: &str) -> Option<Network> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) if inside.contains(':') => Network::parse(inside),
        _ if text.contains(':') && !text.starts_with('[') => None,
        _ => Network::parse(text),
    }
}

impl ProtocolPorts {
    /// The protocol that is read there, by the narrowest network that has the address; asked once for
    /// each connection.
    pub fn get(&self, to: SocketAddr) -> Option<Protocol> {
        let from = self.sorted.partition_point(|row| row.port < to.port());
        let of_port = self.sorted[from..].iter().take_while(|row| row.port == to.port());
        let has = |row: &&Row| row.within.is_none_or(|network| network.has(to.ip()));
        of_port.into_iter().find(has).map(|row| row.protocol)
    }

    /// Whether no port is named.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The protocols that are named, each once: those that are built in, in the order of
    /// [`Protocol::ALL`], and behind them the others.
    pub fn protocols(&self) -> impl Iterator<Item = Protocol> + '_ {
        let is_named =
            |protocol: &Protocol| self.sorted.iter().any(|row| row.protocol == *protocol);
        let built_in = Protocol::ALL.iter().copied().filter(is_named);
        let others = self.sorted.iter().enumerate().filter_map(|(index, row)| {
            let is_new = self.sorted[..index].iter().all(|before| before.protocol != row.protocol);
            (is_new && matches!(row.protocol, Protocol::Private(_))).then_some(row.protocol)
        });
        built_in.chain(others)
    }

    /// Parses rows separated by commas: a port, or an address or network with a port, and behind `=`
    /// the protocol. Blanks around each are allowed, a place that comes twice is not. Protocols are
    /// those that are built in and these.
    ///
    /// # Errors
    /// The piece that is no such row.
    pub fn parse(text: &str, others: &[Protocol]) -> Result<Self, ProtocolPortsError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut sorted: Vec<Row> = Vec::new();
        for piece in text.split(',') {
            let refused = || ProtocolPortsError { piece: piece.trim().into() };
            let row = Row::parse(piece, &[Protocol::ALL, others]).ok_or_else(refused)?;
            let is_same = |known: &Row| (known.port, known.within) == (row.port, row.within);
            let networks = sorted.iter().filter(|known| known.within.is_some()).count();
            let is_too_many = row.within.is_some() && networks == NETWORKS_MAX;
            if is_too_many || sorted.iter().any(is_same) {
                return Err(refused());
            }
            sorted.push(row);
        }
        sorted.sort_by_key(Row::order);
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
        for (index, row) in self.sorted.iter().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            if let Some(network) = &row.within {
                write!(f, "{network}:")?;
            }
            write!(f, "{}={}", row.port, row.protocol.about().name)?;
        }
        Ok(())
    }
}

/// A piece that is no row, names a place again, or is one too many.
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

    fn at(ports: &ProtocolPorts, to: &str) -> Option<Protocol> {
        ports.get(to.parse().unwrap())
    }

    #[test]
    fn rows_are_found_by_port_and_shown_as_they_are_written() {
        let ports: ProtocolPorts = " 20880=dubbo, 6379 = redis ,6380=redis".parse().unwrap();
        assert_eq!(ports.to_string(), "6379=redis,6380=redis,20880=dubbo");
        assert_eq!(at(&ports, "10.0.0.1:6380"), Some(Protocol::Redis));
        assert_eq!(at(&ports, "[fd00::1]:6380"), Some(Protocol::Redis));
        assert_eq!(at(&ports, "10.0.0.1:80"), None);
        assert!(ports.protocols().eq([Protocol::Redis, Protocol::Dubbo]));
        assert!(" ".parse::<ProtocolPorts>().unwrap().is_empty());
    }

    #[test]
    fn the_narrowest_network_says_what_is_read() {
        let text = "9090=redis,10.0.0.0/8:9090=thrift,10.1.0.0/16:9090=dubbo,10.1.0.9:9090=kafka,\
                    [fd00::]/8:9090=mysql,[fd00::7]:9090=nats,[fd01::/16]:7=mqtt,10.0.0.0/8:6379=redis";
        let ports: ProtocolPorts = text.parse().unwrap();
        for (to, protocol) in [
            ("10.1.0.9:9090", Some(Protocol::Kafka)),
            ("[::ffff:10.1.0.9]:9090", Some(Protocol::Kafka)),
            ("10.1.0.8:9090", Some(Protocol::Dubbo)),
            ("10.2.0.1:9090", Some(Protocol::Thrift)),
            ("11.0.0.1:9090", Some(Protocol::Redis)),
            ("[fd00::7]:9090", Some(Protocol::Nats)),
            ("[fd12::7]:9090", Some(Protocol::Mysql)),
            ("[fe00::7]:9090", Some(Protocol::Redis)),
            ("[fd01::7]:7", Some(Protocol::Mqtt)),
            ("[fd02::7]:7", None),
            ("10.9.9.9:6379", Some(Protocol::Redis)),
            ("192.168.0.1:6379", None),
        ] {
            assert_eq!(at(&ports, to), protocol, "{to}");
        }
        let shown = ports.to_string();
        assert_eq!(shown.parse(), Ok(ports.clone()), "{shown}");
        assert!(ports.protocols().eq(Protocol::ALL.iter().copied().filter(|it| {
            ["redis", "thrift", "dubbo", "kafka", "mysql", "nats", "mqtt"].contains(&it.name())
        })));
    }

    #[test]
    fn what_is_no_row_of_its_own_is_refused_and_named() {
        for (text, piece) in [
            ("6379", "6379"),
            ("6379=redis,", ""),
            ("0=redis", "0=redis"),
            ("65536=redis", "65536=redis"),
            ("+1=redis", "+1=redis"),
            ("1=gopher", "1=gopher"),
            ("1=redis,1=dubbo", "1=dubbo"),
            (":1=redis", ":1=redis"),
            ("shop:1=redis", "shop:1=redis"),
            ("10.0.0.0/8=redis", "10.0.0.0/8=redis"),
            ("10.0.0.0/8:=redis", "10.0.0.0/8:=redis"),
            ("10.0.0.0/8:0=redis", "10.0.0.0/8:0=redis"),
            ("10.0.0.1/8:1=redis", "10.0.0.1/8:1=redis"),
            ("10.0.0.0/33:1=redis", "10.0.0.0/33:1=redis"),
            ("fd00::1:1=redis", "fd00::1:1=redis"),
            ("fd00::/8:1=redis", "fd00::/8:1=redis"),
            ("[fd00::1=redis", "[fd00::1=redis"),
            ("[10.0.0.1]:1=redis", "[10.0.0.1]:1=redis"),
            ("[fd00::/8]/9:1=redis", "[fd00::/8]/9:1=redis"),
            ("10.0.0.1:1=redis,10.0.0.1/32:1=dubbo", "10.0.0.1/32:1=dubbo"),
        ] {
            let refused = text.parse::<ProtocolPorts>().expect_err(text);
            assert_eq!(refused.to_string(), format!("{piece:?} is no port=protocol of its own"));
        }
        let row = |number: usize| format!("10.0.{}.{}:1=redis", number / 256, number % 256);
        let rows = |count: usize| (0..count).map(row).collect::<Vec<_>>().join(",");
        assert!(rows(NETWORKS_MAX).parse::<ProtocolPorts>().is_ok());
        assert!(rows(NETWORKS_MAX + 1).parse::<ProtocolPorts>().is_err());
    }
}
