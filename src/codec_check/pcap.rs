//! Connections of TCP in a capture of packets, as far as somebody reads them to the end: what comes twice counts once,
//! what is missing ends a way.

use super::Parts;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use netra_codecs::codec::Way;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

/// Connections that are told apart.
const CONNECTIONS_MAX: usize = 256;
/// Segments of a way that wait for one before them.
const EARLY_MAX: usize = 1024;

/// Whether these are the first bytes of a capture of packets.
pub(super) fn is_capture(bytes: &[u8]) -> bool {
    let magics = [
        [0xa1, 0xb2, 0xc3, 0xd4],
        [0xd4, 0xc3, 0xb2, 0xa1],
        [0xa1, 0xb2, 0x3c, 0x4d],
        [0x4d, 0x3c, 0xb2, 0xa1],
        [0x0a, 0x0d, 0x0d, 0x0a],
    ];
    bytes.first_chunk().is_some_and(|first| magics.contains(first))
}

/// The connections to a port, or to that of the first one, each with its name.
pub(super) fn connections(
    capture: &[u8],
    port: Option<u16>,
) -> Result<Vec<(String, Parts)>, String> {
    let mut found = Connections { port, order: Vec::new(), all: HashMap::new() };
    let mut reader = create_reader(1 << 16, capture).map_err(|error| error.to_string())?;
    let mut link = Linktype::ETHERNET;
    loop {
        let offset = match reader.next() {
            Ok((offset, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => link = header.network,
                    PcapBlockOwned::Legacy(packet) => found.packet(link, packet.data),
                    PcapBlockOwned::NG(Block::InterfaceDescription(it)) => link = it.linktype,
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        found.packet(link, packet.data);
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                offset
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|error| error.to_string())?;
                continue;
            }
            Err(error) => return Err(format!("{error:?}")),
        };
        reader.consume(offset);
    }
    Ok(found.told())
}

/// From the client to the server.
type Ends = (SocketAddr, SocketAddr);

struct Connections {
    port: Option<u16>,
    order: Vec<Ends>,
    all: HashMap<Ends, Connection>,
}

#[derive(Default)]
struct Connection {
    parts: Parts,
    ways: [Flow; 2],
}

#[derive(Default)]
struct Flow {
    /// The number of the byte that comes next; None before the first.
    next: Option<u32>,
    early: BTreeMap<u32, Vec<u8>>,
}

/// A segment, with what it says of its connection.
struct Segment<'p> {
    from: SocketAddr,
    to: SocketAddr,
    number: u32,
    is_first: bool,
    is_answer: bool,
    bytes: &'p [u8],
}

fn segment(link: Linktype, packet: &[u8]) -> Option<Segment<'_>> {
    let sliced = match link {
        Linktype::ETHERNET => SlicedPacket::from_ethernet(packet).ok()?,
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => SlicedPacket::from_ip(packet).ok()?,
        Linktype::LINUX_SLL => SlicedPacket::from_linux_sll(packet).ok()?,
        _ => return None,
    };
    let (from, to): (IpAddr, IpAddr) = match sliced.net? {
        NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        _ => return None,
    };
    let TransportSlice::Tcp(tcp) = sliced.transport? else { return None };
    Some(Segment {
        from: (from, tcp.source_port()).into(),
        to: (to, tcp.destination_port()).into(),
        number: tcp.sequence_number(),
        is_first: tcp.syn(),
        is_answer: tcp.ack(),
        bytes: tcp.payload(),
    })
}

impl Connections {
    fn packet(&mut self, link: Linktype, packet: &[u8]) {
        let Some(segment) = segment(link, packet) else { return };
        if self.port.is_none() && segment.is_first {
            let server = if segment.is_answer { segment.from } else { segment.to };
            self.port = Some(server.port());
        }
        let Some(port) = self.port else { return };
        let (ends, way) = if segment.to.port() == port {
            ((segment.from, segment.to), Way::Request)
        } else if segment.from.port() == port {
            ((segment.to, segment.from), Way::Response)
        } else {
            return;
        };
        if !self.all.contains_key(&ends) {
            if self.order.len() == CONNECTIONS_MAX {
                return;
            }
            self.order.push(ends);
        }
        let Connection { parts, ways } = self.all.entry(ends).or_default();
        ways[way as usize].take(&segment, |bytes| parts.push((way, bytes)));
    }

    fn told(mut self) -> Vec<(String, Parts)> {
        let parts = |ends: &Ends| Some((*ends, self.all.remove(ends)?.parts));
        let read = self.order.iter().filter_map(parts).filter(|(_, parts)| !parts.is_empty());
        read.map(|((client, server), parts)| (format!("{client} -> {server}"), parts)).collect()
    }
}

impl Flow {
    fn take(&mut self, segment: &Segment<'_>, mut pass: impl FnMut(Vec<u8>)) {
        if segment.is_first {
            // A SYN has a number of its own.
            self.next = Some(segment.number.wrapping_add(1));
            return;
        }
        if segment.bytes.is_empty() {
            return;
        }
        self.next.get_or_insert(segment.number);
        if self.early.len() < EARLY_MAX {
            self.early.insert(segment.number, segment.bytes.to_vec());
        }
        while let Some((bytes, next)) = self.due() {
            self.next = Some(next);
            if !bytes.is_empty() {
                pass(bytes);
            }
        }
    }

    /// The bytes that come next, and the number behind them; none where some are missing.
    fn due(&mut self) -> Option<(Vec<u8>, u32)> {
        let next = self.next?;
        // So far before what comes next, of numbers that begin again behind the highest.
        let ahead = |number: u32| next.wrapping_sub(number);
        let (number, _) = self.early.iter().find(|(number, _)| ahead(**number) < 1 << 31)?;
        let (number, bytes) = self.early.remove_entry(&{ *number })?;
        let known = (ahead(number) as usize).min(bytes.len());
        let rest = bytes[known..].to_vec();
        let len = u32::try_from(rest.len()).ok()?;
        Some((rest, next.wrapping_add(len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(segments: &[(u32, &[u8])]) -> Vec<u8> {
        let end: SocketAddr = ([10, 0, 0, 1], 1).into();
        let mut flow = Flow { next: Some(segments[0].0), ..Flow::default() };
        let mut read = Vec::new();
        for (number, bytes) in &segments[1..] {
            let (number, is_first, is_answer) = (*number, false, true);
            let segment = Segment { from: end, to: end, number, is_first, is_answer, bytes };
            flow.take(&segment, |bytes| read.extend(bytes));
        }
        read
    }

    #[test]
    fn segments_are_put_in_order_and_count_once() {
        let mixed: [(u32, &[u8]); 6] =
            [(7, b""), (10, b"defg"), (7, b"abc"), (7, b"abcd"), (12, b"fghi"), (16, b"j")];
        assert_eq!(flow(&mixed), b"abcdefghij");
        assert_eq!(flow(&[(7, b""), (7, b"ab"), (10, b"d")]), b"ab", "one is missing");
        let around: [(u32, &[u8]); 4] =
            [(u32::MAX - 1, b""), (1, b"def"), (u32::MAX - 1, b"ab"), (0, b"cd")];
        assert_eq!(flow(&around), b"abcdef");
    }

    #[test]
    fn what_is_no_capture_is_none() {
        assert!(is_capture(b"\xd4\xc3\xb2\xa1") && is_capture(b"\x0a\x0d\x0d\x0a\0"));
        assert!(!is_capture(b"\xd4\xc3\xb2") && !is_capture(b"GET /"));
        for odd in [&b"\xd4\xc3\xb2\xa1"[..], &[0xd4, 0xc3, 0xb2, 0xa1].repeat(40)] {
            assert!(connections(odd, None).is_err());
        }
    }
}
