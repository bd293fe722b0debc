//! netramesh's counters over UDP: `PREFIX.inbound.200:N|c`, one for each status of a response to an
//! inbound request. Sent once a second from the control thread, as what has been added since; who
//! sums up gets the same. The only user of cadence.

use crate::{receiver::Receiver, resolver::Names};
use cadence::{BufferedUdpMetricSink, Counted, StatsdClient};
use netra_perf::Recorder;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};
use tracing::{info, warn};

/// What a datagram may weigh, to pass any network whole.
const PACKET_BYTES_MAX: usize = 1400;
/// Seconds without an address after which the log says so.
const UNKNOWN_SECONDS: u32 = 10;

/// Where the counters go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StatsdSettings {
    pub(crate) is_enabled: bool,
    /// host:port
    pub(crate) address: String,
    pub(crate) prefix: String,
}

/// The sender.
pub(crate) struct Statsd {
    prefix: String,
    recorders: Vec<Arc<Recorder>>,
    receiver: Receiver,
    /// Seconds for which it has had no address.
    unknown_for: u32,
    client: Option<(StatsdClient, SocketAddr)>,
    sent: BTreeMap<u16, u64>,
}

impl Statsd {
    /// Until the receiver's name is known, nothing is lost.
    pub(crate) fn new(
        settings: &StatsdSettings,
        recorders: Vec<Arc<Recorder>>,
        names: &Names,
    ) -> Option<Self> {
        let (host, port) = settings.address.rsplit_once(':').filter(|_| settings.is_enabled)?;
        Some(Self {
            prefix: settings.prefix.clone(),
            recorders,
            receiver: Receiver::new(names, host, port.parse().ok()?),
            unknown_for: 0,
            client: None,
            sent: BTreeMap::new(),
        })
    }

    /// Sends what has been counted since the last time.
    pub(crate) fn send(&mut self) {
        let Some(target) = self.receiver.look().and_then(|all| all.first().copied()) else {
            self.unknown_for = self.unknown_for.saturating_add(1);
            if self.unknown_for == UNKNOWN_SECONDS {
                warn!("statsd's name has no address; asking again");
            }
            return;
        };
        self.unknown_for = 0;
        if self.client.as_ref().is_none_or(|(_, known)| *known != target) {
            match client(&self.prefix, target) {
                Ok(client) => self.client = Some((client, target)),
                Err(error) => return warn!(error = %error, "no socket for statsd"),
            }
            info!(target = %target, "statsd");
        }
        let Some((client, _)) = &self.client else { return };
        for (status, total) in totals(&self.recorders) {
            let sent = self.sent.entry(status).or_default();
            let added = i64::try_from(total.wrapping_sub(*sent)).unwrap_or(0);
            *sent = total;
            // A receiver that is not there is no matter for traffic, nor for the log each second.
            let _ = client.count(&format!("inbound.{status}"), added);
        }
        let _ = client.flush();
    }
}

/// What was ever seen, over all shards.
fn totals(recorders: &[Arc<Recorder>]) -> BTreeMap<u16, u64> {
    let mut totals = BTreeMap::new();
    for (status, count) in recorders.iter().flat_map(|it| it.statuses()).filter(|it| it.1 > 0) {
        *totals.entry(status).or_default() += count;
    }
    totals
}

fn client(prefix: &str, target: SocketAddr) -> io::Result<StatsdClient> {
    let own = match target {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(own)?;
    socket.set_nonblocking(true)?;
    let sink = BufferedUdpMetricSink::with_capacity(target, socket, PACKET_BYTES_MAX);
    Ok(StatsdClient::from_sink(prefix, sink.map_err(io::Error::other)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::tests::{NameServer, block_on};
    use std::time::Duration;

    fn lines(receiver: &UdpSocket) -> Vec<String> {
        let mut packet = [0; 2048];
        let len = receiver.recv(&mut packet).unwrap_or(0);
        let text = String::from_utf8(packet[..len].to_vec()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn statsd(address: &str, names: &Names) -> (Statsd, Vec<Arc<Recorder>>) {
        let recorders: Vec<Arc<Recorder>> = (0..2).map(|_| Arc::default()).collect();
        let settings = StatsdSettings {
            is_enabled: true,
            address: address.into(),
            prefix: "shop.mesh".into(),
        };
        (Statsd::new(&settings, recorders.clone(), names).unwrap(), recorders)
    }

    /// Sends once a receiver is known.
    async fn send(statsd: &mut Statsd) {
        statsd.receiver.addresses().await.unwrap();
        statsd.send();
    }

    #[test]
    fn what_was_added_is_sent_in_few_datagrams_and_nothing_twice() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let receive = || lines(&receiver);
        block_on(async {
            let address = receiver.local_addr().unwrap().to_string();
            let (mut statsd, recorders) = statsd(&address, &Names::start_own());
            recorders[0].count_status(200);
            recorders[1].count_status(200);
            recorders[1].count_status(503);
            send(&mut statsd).await;
            assert_eq!(receive(), ["shop.mesh.inbound.200:2|c", "shop.mesh.inbound.503:1|c"]);
            recorders[0].count_status(200);
            send(&mut statsd).await;
            assert_eq!(receive()[0], "shop.mesh.inbound.200:1|c");
            for status in 100..1000 {
                recorders[0].count_status(status);
            }
            send(&mut statsd).await;
            let mut added = 0;
            loop {
                let some = receive();
                if some.is_empty() {
                    break;
                }
                added += some.iter().filter(|line| line.ends_with(":1|c")).count();
            }
            assert_eq!(added, 900);
        });
    }

    #[test]
    fn counters_follow_the_name_of_the_receiver() {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let second = UdpSocket::bind(("127.0.0.2", port)).unwrap();
        for receiver in [&first, &second] {
            receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        }
        block_on(async {
            let server = NameServer::start(&["127.0.0.1"]);
            let (mut statsd, recorders) = statsd(&format!("statsd.test:{port}"), &server.names());
            recorders[0].count_status(200);
            send(&mut statsd).await;
            assert_eq!(lines(&first), ["shop.mesh.inbound.200:1|c"]);
            server.say(&["127.0.0.2"]);
            server
                .until("the counters have followed", || {
                    recorders[0].count_status(200);
                    statsd.send();
                    !lines(&second).is_empty()
                })
                .await;
        });
    }
}
