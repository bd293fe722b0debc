//! netramesh's counters over UDP: `PREFIX.inbound.200:N|c`, one for each status of a response to an
//! inbound request. Sent once a second from the control thread, as what has been added since; who
//! sums up gets the same. The only user of cadence.

use cadence::{BufferedUdpMetricSink, Counted, StatsdClient};
use netra_perf::Recorder;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{net::lookup_host, time::sleep};
use tracing::{info, warn};

/// What a datagram may weigh, to pass any network whole.
const PACKET_BYTES_MAX: usize = 1400;
/// How long to wait before a name that is not known is asked for again.
const RETRY: Duration = Duration::from_secs(5);

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
    target: Arc<OnceLock<SocketAddr>>,
    client: Option<StatsdClient>,
    sent: BTreeMap<u16, u64>,
}

impl Statsd {
    /// Looks the receiver's name up in the background; until then nothing is lost.
    pub(crate) fn start(settings: &StatsdSettings, recorders: Vec<Arc<Recorder>>) -> Option<Self> {
        if !settings.is_enabled {
            return None;
        }
        let target = Arc::new(OnceLock::new());
        tokio::spawn(resolve(settings.address.clone(), Arc::clone(&target)));
        let prefix = settings.prefix.clone();
        Some(Self { prefix, recorders, target, client: None, sent: BTreeMap::new() })
    }

    /// Sends what has been counted since the last time.
    pub(crate) fn send(&mut self) {
        let Some(target) = self.target.get() else { return };
        if self.client.is_none() {
            self.client = match client(&self.prefix, *target) {
                Ok(client) => Some(client),
                Err(error) => return warn!(error = %error, "no socket for statsd"),
            };
        }
        let Some(client) = &self.client else { return };
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

async fn resolve(address: String, target: Arc<OnceLock<SocketAddr>>) {
    let mut is_first = true;
    loop {
        let found = lookup_host(&address).await.map(|mut found| found.next());
        match found {
            Ok(Some(found)) => {
                info!(address, target = %found, "statsd");
                let _ = target.set(found);
                return;
            }
            Ok(None) | Err(_) if !std::mem::take(&mut is_first) => {}
            Ok(None) => warn!(address, "statsd's name has no address; asking again"),
            Err(error) => warn!(address, error = %error, "statsd's name; asking again"),
        }
        sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_sent_in_few_datagrams_and_nothing_twice() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let recorders: Vec<Arc<Recorder>> = (0..2).map(|_| Arc::default()).collect();
        let target = Arc::new(OnceLock::from(receiver.local_addr().unwrap()));
        let mut statsd = Statsd {
            prefix: "shop.mesh".into(),
            recorders: recorders.clone(),
            target,
            client: None,
            sent: BTreeMap::new(),
        };
        let receive = || {
            let mut packet = [0; 2048];
            let len = receiver.recv(&mut packet).unwrap_or(0);
            let text = String::from_utf8(packet[..len].to_vec()).unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        recorders[0].count_status(200);
        recorders[1].count_status(200);
        recorders[1].count_status(503);
        statsd.send();
        assert_eq!(receive(), ["shop.mesh.inbound.200:2|c", "shop.mesh.inbound.503:1|c"]);
        recorders[0].count_status(200);
        statsd.send();
        assert_eq!(receive()[0], "shop.mesh.inbound.200:1|c");
        for status in 100..1000 {
            recorders[0].count_status(status);
        }
        statsd.send();
        let mut lines = Vec::new();
        loop {
            let some = receive();
            if some.is_empty() {
                break;
            }
            lines.extend(some);
        }
        let added = lines.iter().filter(|line| line.ends_with(":1|c")).count();
        assert_eq!(added, 900);
    }
}
