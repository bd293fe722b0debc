//! A Jaeger agent: datagrams to a name that may move.

use crate::{failure::Failure, receiver::Receiver, resolver::Names};
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::net::UdpSocket;

#[derive(Debug)]
pub(super) struct Agent {
    receiver: Receiver,
    /// Addresses at which nobody listened, in a row.
    refused: usize,
    connected: Option<(UdpSocket, SocketAddr)>,
}

impl Agent {
    /// Its name is asked for again after `resolve_every` at the latest, or never.
    pub(super) fn new(
        names: &Names,
        host: &str,
        port: u16,
        resolve_every: Option<Duration>,
    ) -> Self {
        let receiver = Receiver::new(names, host, port).at_most(resolve_every);
        Self { receiver, refused: 0, connected: None }
    }

    /// Sends a datagram. Whether it arrived is not known, but for one thing: that nobody listened
    /// to the one before, which the kernel says at the next.
    pub(super) async fn send(&mut self, packet: &[u8]) -> Result<(), Failure> {
        let addresses = self.receiver.addresses().await?;
        // Go takes an IPv4 address for UDP, and so does this where there is one: they come first.
        let Some(address) = addresses.get(self.refused % addresses.len().max(1)).copied() else {
            return Err("the agent has no address".into());
        };
        let socket = match &self.connected {
            Some((socket, known)) if *known == address => socket,
            _ => &self.connected.insert((connect(address).await?, address)).0,
        };
        match socket.send(packet).await {
            Ok(_) => Ok(()),
            Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {
                self.refused = self.refused.wrapping_add(1);
                // What was refused is the last one; this one has not been sent yet, and is counted
                // in its place.
                let _ = socket.send(packet).await;
                Err(refused.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::tests::{NameServer, block_on};

    async fn receive(socket: &UdpSocket) -> Vec<u8> {
        let mut packet = [0; 16];
        let received = socket.recv(&mut packet);
        let len = tokio::time::timeout(Duration::from_secs(5), received).await.unwrap().unwrap();
        packet[..len].to_vec()
    }

    #[test]
    fn a_name_is_resolved_to_ipv4_and_stays() {
        block_on(async {
            let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let port = receiver.local_addr().unwrap().port();
            let mut agent =
                Agent::new(&Names::start_own(), "localhost", port, Some(Duration::ZERO));
            for packet in [b"a", b"b", b"c"] {
                agent.send(packet).await.unwrap();
                assert_eq!(receive(&receiver).await, packet);
            }
            let mut agent = Agent::new(&Names::start_own(), "[::1]", port, None);
            // Whether anybody hears it is another matter; here nobody does.
            agent.send(b"d").await.unwrap();
        });
    }

    #[test]
    fn nobody_listening_is_a_failure_until_somebody_does() {
        block_on(async {
            let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = taken.local_addr().unwrap();
            drop(taken);
            let mut agent = Agent::new(&Names::start_own(), "127.0.0.1", address.port(), None);
            agent.send(b"1").await.unwrap();
            for packet in [b"2", b"3", b"4"] {
                let refused = agent.send(packet).await.unwrap_err().to_string();
                assert!(refused.contains("refused"), "{refused}");
            }
            let receiver = UdpSocket::bind(address).await.unwrap();
            // The refusal of the fourth is still to be heard, and the fifth arrives.
            assert!(agent.send(b"5").await.is_err());
            agent.send(b"6").await.unwrap();
            assert_eq!(receive(&receiver).await, b"5");
            assert_eq!(receive(&receiver).await, b"6");
        });
    }

    #[test]
    fn a_name_that_means_nothing_is_said_to_be_the_reason() {
        block_on(async {
            let server = NameServer::start(&[]);
            let mut agent = Agent::new(&server.names(), "lost.test", 6831, None);
            let error = agent.send(b"1").await.unwrap_err().to_string();
            assert!(error.starts_with("cannot resolve lost.test: "), "{error}");
        });
    }

    /// The name moves, and the datagrams with it; of two addresses the one that listens is found.
    #[test]
    fn datagrams_follow_the_name() {
        block_on(async {
            let first = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let port = first.local_addr().unwrap().port();
            let second = UdpSocket::bind(("127.0.0.2", port)).await.unwrap();
            let server = NameServer::start(&["127.0.0.1"]);
            let every = Some(Duration::from_secs(30));
            let mut agent = Agent::new(&server.names(), "agent.test", port, every);
            agent.send(b"a").await.unwrap();
            assert_eq!(receive(&first).await, b"a");
            server.say(&["127.0.0.2"]);
            let mut packet = [0; 16];
            while second.try_recv(&mut packet).is_err() {
                assert!(server.asked() < 10, "the name has moved, and nobody follows");
                agent.send(b"b").await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // Nobody listens at the first of two.
            drop(first);
            server.say(&["127.0.0.3", "::1"]);
            let third = UdpSocket::bind(("::1", port)).await.unwrap();
            while third.try_recv(&mut packet).is_err() {
                assert!(server.asked() < 20, "the second address is never tried");
                let _ = agent.send(b"c").await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
}
