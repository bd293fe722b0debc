//! Asking sidecars for their own metrics, where a setting says so: driver, drops, why connections are
//! opaque. A span says where a sidecar is, so that only private addresses are asked, by one port and
//! path, a few at a time, and what they answer is bounded.

use crate::keeper::Keeper;
use crate::reporters::{Reporter, Reporters};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

/// netra's own port for metrics.
const PORT: u16 = 14958;
const EVERY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(2);
/// Sidecars that are asked at the same time.
const AT_ONCE: usize = 16;
/// Sidecars that are asked in one round.
const ASKED_MAX: usize = 512;
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Series that are kept of a sidecar.
const SERIES_MAX: usize = 40;

/// Asks for as long as the runtime lives.
pub(crate) async fn ask_all(keeper: Keeper) {
    let mut rounds = interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let Some(places) = keeper.ask(|books, _| places(&books.reporters)).await else { return };
        for some in places.chunks(AT_ONCE) {
            let asked: JoinSet<()> = some
                .iter()
                .map(|(key, address)| ask_one(keeper.clone(), key.clone(), *address))
                .collect();
            asked.join_all().await;
        }
    }
}

/// Those that do not answer keep what they said before.
async fn ask_one(keeper: Keeper, key: Key, address: IpAddr) {
    let Ok(Some(text)) = timeout(PATIENCE, get(address)).await else { return };
    let series = series(&text);
    keeper
        .ask(move |books, _| {
            if let Some(reporter) = books.reporters.all.get_mut(&key) {
                reporter.series = series;
            }
        })
        .await;
}

type Key = (u32, Box<str>);

/// Sidecars that say where they are.
fn places(reporters: &Reporters) -> Vec<(Key, IpAddr)> {
    let places = reporters.all.iter().filter_map(|(key, reporter)| {
        let address = reporter.tag(&["ip", "host.ip", "k8s.pod.ip"])?.parse().ok()?;
        (is_sidecar(reporter) && is_private(address)).then(|| (key.clone(), address))
    });
    places.take(ASKED_MAX).collect()
}

fn is_sidecar(reporter: &Reporter) -> bool {
    reporter.tag(&["jaeger.version"]).is_some_and(|version| version.starts_with("netra-"))
        || reporter.tag(&["telemetry.sdk.name"]) == Some("netra")
}

/// Neither this machine alone, nor the link, where metadata services are, nor the world.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

async fn get(address: IpAddr) -> Option<String> {
    let place = SocketAddr::from((address, PORT));
    let stream = TcpStream::connect(place).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get("/metrics").header("host", place.to_string());
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).ok()?).await.ok()?;
    let is_good = answer.status().is_success();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.ok()?;
    String::from_utf8(body.to_bytes().to_vec()).ok().filter(|_| is_good)
}

/// What the page shows of a sidecar's metrics: series that are not zero.
fn series(text: &str) -> Vec<(Box<str>, f64)> {
    const SHOWN: [&str; 5] = [
        "netra_io_driver",
        "netra_opaque_total",
        "netra_spans_total",
        "netra_connections_active",
        "netra_rules_generation",
    ];
    let lines = text.lines().filter(|line| !line.starts_with('#') && line.len() < 256);
    let wanted = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let family = name.split('{').next()?;
        let value: f64 = value.parse().ok()?;
        (SHOWN.contains(&family) && value != 0.0).then(|| (Box::from(name), value))
    });
    wanted.take(SERIES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Item, Value};

    #[test]
    fn only_sidecars_on_private_addresses_are_asked() {
        let mut reporters = Reporters::new(1 << 20);
        for (instance, ip, version) in [
            ("a", "10.1.2.3", "netra-0.1.0"),
            ("b", "169.254.169.254", "netra-0.1.0"),
            ("c", "127.0.0.1", "netra-0.1.0"),
            ("d", "8.8.8.8", "netra-0.1.0"),
            ("e", "10.1.2.4", "Python-4.8.0"),
            ("f", "fd00::1", "netra-0.1.0"),
            ("g", "no address", "netra-0.1.0"),
        ] {
            let items = [
                Item::Tag("client-uuid", Value::Text(instance)),
                Item::Tag("ip", Value::Text(ip)),
                Item::Tag("jaeger.version", Value::Text(version)),
            ];
            reporters.note((1, "shop"), items.into_iter(), (1, 0), 1);
        }
        let mut asked: Vec<_> = places(&reporters).into_iter().map(|(key, _)| key.1).collect();
        asked.sort();
        assert_eq!(asked, ["a".into(), "f".into()]);
    }

    #[test]
    fn what_is_not_zero_is_kept() {
        let text = "# HELP netra_io_driver x\nnetra_io_driver{driver=\"epoll\"} 1\n\
            netra_io_driver{driver=\"io_uring\"} 0\nnetra_opaque_total{reason=\"a b\"} 7\n\
            other_total 9\nnetra_spans_total{result=\"lost\"} x\n";
        let series = series(text);
        let shown: Vec<_> = series.iter().map(|(name, value)| (&**name, *value)).collect();
        assert_eq!(
            shown,
            [
                ("netra_io_driver{driver=\"epoll\"}", 1.0),
                ("netra_opaque_total{reason=\"a b\"}", 7.0)
            ]
        );
    }
}
