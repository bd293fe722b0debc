//! A Jaeger agent: datagrams to a name that may move.

use crate::http_client::Failure;
use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::{
    net::{UdpSocket, lookup_host},
    task::JoinHandle,
};

#[derive(Debug)]
pub(super) struct Agent {
    host: String,
    port: u16,
    /// How often its name is resolved, when more than once.
    resolve_every: Option<Duration>,
    lookup: Option<JoinHandle<io::Result<SocketAddr>>>,
    asked: Option<Instant>,
    connected: Option<(UdpSocket, SocketAddr)>,
}

impl Agent {
    pub(super) fn new(host: &str, port: u16, resolve_every: Option<Duration>) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Self { host, port, resolve_every, lookup: None, asked: None, connected: None }
    }

    /// Sends a datagram. Whether it arrived is not known, but for one thing: that nobody listened
    /// to the one before, which the kernel says at the next.
    pub(super) async fn send(&mut self, packet: &[u8]) -> Result<(), Failure> {
        self.resolve().await?;
        let Some((socket, _)) = &self.connected else {
            return Err("the agent has no address".into());
        };
        match socket.send(packet).await {
            Ok(_) => Ok(()),
            Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {
                // What was refused is the last one; this one has not been sent yet, and is counted
                // in its place.
                let _ = socket.send(packet).await;
                Err(refused.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sees to it that there is an address; a known one is used while it is asked for again.
    async fn resolve(&mut self) -> Result<(), Failure> {
        let is_stale = match (self.asked, self.resolve_every) {
            (None, _) => true,
            (Some(_), _) if self.connected.is_none() => true,
            (Some(asked), Some(every)) => asked.elapsed() >= every,
            (Some(_), None) => false,
        };
        if is_stale && self.lookup.is_none() {
            self.asked = Some(Instant::now());
            self.lookup = Some(tokio::spawn(address_of(self.host.clone(), self.port)));
        }
        let must_wait = self.connected.is_none();
        let Some(lookup) = self.lookup.take_if(|lookup| must_wait || lookup.is_finished()) else {
            return Ok(());
        };
        match lookup.await.map_err(io::Error::other).and_then(|found| found) {
            Ok(address) if self.connected.as_ref().is_some_and(|(_, known)| *known == address) => {
                Ok(())
            }
            Ok(address) => {
                self.connected = Some((connect(address).await?, address));
                Ok(())
            }
            // A name server that fails for a while takes nothing away.
            Err(_) if self.connected.is_some() => Ok(()),
            Err(error) => Err(format!("cannot resolve {}: {error}", self.host).into()),
        }
    }
}

/// The first IPv4 address, as Go takes it for UDP, else the first. Agents on localhost listen on
/// 127.0.0.1, though the name may mean ::1 first.
async fn address_of(host: String, port: u16) -> io::Result<SocketAddr> {
    let found: Vec<SocketAddr> = lookup_host((host.as_str(), port)).await?.collect();
    let v4 = found.iter().find(|address| address.is_ipv4());
    v4.or_else(|| found.first()).copied().ok_or_else(|| io::Error::other("no address"))
}

async fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
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

    fn block_on(future: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future);
    }

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
            let mut agent = Agent::new("localhost", port, Some(Duration::ZERO));
            for packet in [b"a", b"b", b"c"] {
                agent.send(packet).await.unwrap();
                assert_eq!(receive(&receiver).await, packet);
            }
            let mut agent = Agent::new("[::1]", port, None);
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
            let mut agent = Agent::new("127.0.0.1", address.port(), None);
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
            let mut agent = Agent::new("no-such-host.invalid", 6831, None);
            let error = agent.send(b"1").await.unwrap_err().to_string();
            assert!(error.starts_with("cannot resolve no-such-host.invalid: "), "{error}");
        });
    }
}
