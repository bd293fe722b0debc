//! The ports whose traffic is read as HTTP/1.
//!
//! netra never sniffs: what a connection speaks is decided by the port of its original destination
//! before its first byte has come, so that a server may speak first and nothing is held back.

use std::error;
use std::fmt;
use std::str::FromStr;

/// A set of TCP ports, parsed once from text such as `8080,8090`.
///
/// Sorted and without repetition; [`contains`](Self::contains) is a binary search, asked once for
/// each connection. Empty text (or blanks alone) is the empty set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortSet {
    sorted: Box<[u16]>,
}

impl PortSet {
    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.sorted.binary_search(&port).is_ok()
    }

    /// Whether the set has no port at all.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The number of different ports.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The ports in rising order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u16> + '_ {
        self.sorted.iter().copied()
    }
}

impl FromIterator<u16> for PortSet {
    /// Collects ports; 0, which no connection can have, is left out.
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut sorted: Vec<u16> = ports.into_iter().filter(|&port| port != 0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        Self { sorted: sorted.into_boxed_slice() }
    }
}

impl FromStr for PortSet {
    type Err = PortSetError;

    /// Parses a list of ports separated by commas; blanks around a port are allowed, repetition
    /// too. Fails at the first piece that is not a whole number from 1 to 65535.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        text.split(',').map(|piece| parse_port(piece.trim())).collect()
    }
}

impl fmt::Display for PortSet {
    /// Writes the ports in rising order as `8080,8090`; the empty set writes nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, port) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{port}")?;
        }
        Ok(())
    }
}

/// A piece of a port list that is no port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSetError {
    piece: String,
}

impl PortSetError {
    /// The piece of the list that could not be read, without the blanks around it.
    pub fn piece(&self) -> &str {
        &self.piece
    }
}

impl fmt::Display for PortSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.piece.is_empty() {
            f.write_str("empty piece in the port list")?;
        } else {
            write!(f, "bad port {:?}", self.piece)?;
        }
        f.write_str("; allowed are whole numbers from 1 to 65535 with commas between, ")?;
        f.write_str("for example \"8080,8090\"")
    }
}

impl error::Error for PortSetError {}

/// Reads one port. Only digits: `u16::from_str` alone would also take `+80`.
fn parse_port(piece: &str) -> Result<u16, PortSetError> {
    let digits = piece.bytes().all(|byte| byte.is_ascii_digit());
    match piece.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(PortSetError { piece: piece.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sorts_and_shows() {
        for (text, shown) in [
            ("", ""),
            ("   ", ""),
            ("80", "80"),
            ("8090,8080", "8080,8090"),
            (" 1 ,\t65535 ", "1,65535"),
            ("80,80,80", "80"),
            ("0080", "80"),
        ] {
            let set: PortSet = text.parse().unwrap();
            assert_eq!(set.to_string(), shown, "{text:?}");
            assert_eq!(set.to_string().parse(), Ok(set.clone()));
            assert_eq!(set.is_empty(), shown.is_empty());
        }
    }

    #[test]
    fn refuses_and_names_the_piece() {
        for (text, piece) in [
            (",", ""),
            ("80,", ""),
            ("80,,81", ""),
            ("0", "0"),
            ("65536", "65536"),
            ("80, http ,81", "http"),
            ("+80", "+80"),
            ("-1", "-1"),
            ("80-90", "80-90"),
            ("80 81", "80 81"),
            ("99999999999999999999", "99999999999999999999"),
        ] {
            let error = text.parse::<PortSet>().unwrap_err();
            assert_eq!(error.piece(), piece, "{text:?}");
            let message = error.to_string();
            assert!(message.contains("1 to 65535") && message.contains("8080,8090"), "{message}");
            assert!(piece.is_empty() || message.contains(piece), "{message}");
        }
    }

    #[test]
    fn contains_exactly_what_was_named() {
        let set: PortSet = "8080,80,65535,1".parse().unwrap();
        let inside: Vec<u16> = (0..=u16::MAX).filter(|&port| set.contains(port)).collect();
        assert_eq!(inside, [1, 80, 8080, 65535]);
        assert_eq!(set.len(), 4);
        assert!(!PortSet::default().contains(80));
        assert_eq!(PortSet::from_iter([0, 80, 80]).to_string(), "80");
    }
}
