//! Plays a neighbour on a link: what it routes through this machine must not reach the sidecar.
//!
//! On a link of our own with both ends here, it sends the first packets of connections and looks
//! which of them the sidecar's port was asked by. A packet to an address of ours is the control:
//! if that does not arrive, nothing is proved.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use crate::links::Loop;
use crate::sys;

/// Names of the link's ends, for as long as the probe takes.
const ENDS: [&str; 2] = ["netra-try0", "netra-try1"];
/// Hardware addresses that nobody was given ("netra" behind the mark of those).
const HARDWARE: [[u8; 6]; 2] = [*b"\x02netra", *b"\x06netra"];
/// Of RFC 5737 TEST-NET-1 and of the RFC 6666 discard prefix: ours, and the neighbour's.
const OURS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)),
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 9)),
];
const NEIGHBOURS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 10)),
];
const PREFIX_LENS: [u8; 2] = [29, 125];
/// Hosts that nobody has (RFC 5737 TEST-NET-2, RFC 3849), and what is ours alone. The kernel itself
/// takes no ::1 from a link.
const THIRD_HOSTS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
];
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Source ports of the neighbour begin here.
const SOURCE_PORT_MIN: u16 = 0x8000;
/// The kernel needs microseconds for a packet, and now and then a second for a new link.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);
const SEND_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// What came of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The neighbour reaches our address, and nothing else.
    Safe,
    /// The neighbour reaches this through the sidecar.
    Reached(IpAddr),
    /// Nothing is proved: not even our address was reached.
    NoControl,
}

/// Plays a neighbour that dials a port that is intercepted. `redirect_port` must be free.
pub(crate) fn probe(v4: bool, port: u16, redirect_port: u16) -> io::Result<Outcome> {
    let family = usize::from(!v4);
    let link = Loop::new(ENDS[0], ENDS[1], HARDWARE[0])?;
    link.add_address(OURS[family], PREFIX_LENS[family])?;
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let _listener = TcpListener::bind((any[family], redirect_port))?;
    let mut frames = sys::frame_socket(link.far_index()?)?;
    let others = [Some(THIRD_HOSTS[family]), v4.then_some(LOOPBACK)];
    // Connection tracking remembers what it did with a run before this one.
    let mut random = [0; 2];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random))?;
    let control = SOURCE_PORT_MIN | (u16::from_ne_bytes(random) & 0x3fff);
    let others: Vec<_> = (control + 1..).zip(others.into_iter().flatten()).collect();
    let asked = |source_port| is_asked(v4, redirect_port, source_port);
    let deadline = Instant::now() + ARRIVES_WITHIN;
    while !asked(control) {
        if Instant::now() >= deadline {
            return Ok(Outcome::NoControl);
        }
        // Again and again: a link that was just made loses frames. The control goes last: when it
        // is there, the others have been there.
        for &(source_port, target) in others.iter().chain(&[(control, OURS[family])]) {
            let from = SocketAddr::new(NEIGHBOURS[family], source_port);
            frames.write_all(&frame(from, SocketAddr::new(target, port)))?;
        }
        thread::park_timeout(SEND_AGAIN_AFTER);
    }
    let reached = others.into_iter().find(|(source_port, _)| asked(*source_port));
    Ok(reached.map_or(Outcome::Safe, |(_, target)| Outcome::Reached(target)))
}

/// Whether a connection from a port of the neighbour has begun on the sidecar's port.
fn is_asked(v4: bool, redirect_port: u16, source_port: u16) -> bool {
    let table = if v4 { "tcp" } else { "tcp6" };
    let sockets = fs::read_to_string(format!("/proc/thread-self/net/{table}"));
    begins(&sockets.unwrap_or_default(), redirect_port, source_port)
}

fn begins(sockets: &str, local_port: u16, remote_port: u16) -> bool {
    let (local, remote) = (format!(":{local_port:04X}"), format!(":{remote_port:04X}"));
    let syn_received = "03";
    sockets.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        words.next().is_some_and(|word| word.ends_with(&local))
            && words.next().is_some_and(|word| word.ends_with(&remote))
            && words.next() == Some(syn_received)
    })
}

/// The first packet of a connection as the link carries it, from the far end to the near one.
fn frame(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut segment = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0]); // Its number is 1, and it acknowledges nothing.
    segment.extend([TCP_HEADER_LEN << 2, SYN, 0xff, 0xff, 0, 0, 0, 0]);
    let len = u16::from(TCP_HEADER_LEN);
    let (ethertype, header, addresses) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let total = IPV4_HEADER_LEN + len;
            let mut header = vec![0x45, 0];
            header.extend(total.to_be_bytes());
            header.extend([0, 0, 0x40, 0, HOPS, TCP, 0, 0]);
            header.extend(&addresses);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum);
            ([0x08, 0x00], header, addresses)
        }
        (from, to) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            let addresses = [octets(from), octets(to)].concat();
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(len.to_be_bytes());
            header.extend([TCP, HOPS]);
            header.extend(&addresses);
            ([0x86, 0xdd], header, addresses)
        }
    };
    // The pseudo header: addresses, length and protocol, in any order of words.
    let pseudo = [&addresses[..], &len.to_be_bytes(), &[0, TCP]].concat();
    let sum = checksum(&[&pseudo[..], &segment].concat());
    segment[16..18].copy_from_slice(&sum);
    [&HARDWARE[0][..], &HARDWARE[1], &ethertype, &header, &segment].concat()
}

const IPV4_HEADER_LEN: u16 = 20;
const TCP_HEADER_LEN: u8 = 20;
const TCP: u8 = 6;
const HOPS: u8 = 64;
const SYN: u8 = 2;

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checksum over what has its checksum in it is zero.
    #[test]
    fn frames_are_sound() {
        for (from, to) in NEIGHBOURS.into_iter().zip(THIRD_HOSTS) {
            let frame = frame(SocketAddr::new(from, 40_000), SocketAddr::new(to, 1404));
            let (header_len, addresses) = if from.is_ipv4() { (20, 26..34) } else { (40, 22..54) };
            let segment = &frame[14 + header_len..];
            assert_eq!(segment.len(), 20);
            assert_eq!(segment[..4], [0x9c, 0x40, 0x05, 0x7c]);
            if from.is_ipv4() {
                assert_eq!(checksum(&frame[14..34]), [0, 0]);
            }
            let pseudo = [&frame[addresses], &[0, 20, 0, TCP], segment].concat();
            assert_eq!(checksum(&pseudo), [0, 0]);
        }
    }

    #[test]
    fn beginnings_are_told_from_connections() {
        let line = |state| format!("  1: 090200C0:3A6C 0A0200C0:9C40 {state} 00000000:00000000");
        assert!(begins(&line("03"), 14956, 40_000));
        assert!(!begins(&line("01"), 14956, 40_000));
        assert!(!begins(&line("03"), 14956, 40_001));
        assert!(!begins(&line("03"), 14957, 40_000));
    }
}
