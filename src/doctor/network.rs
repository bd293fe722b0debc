//! Whether those whom netra asks and sends to answer: name servers, receivers of spans, the sampling
//! manager, statsd. Each is asked once, all at the same time.

use super::Check;
use crate::{
    config::Config,
    export,
    failure::Failure,
    http_client::{Client, Terms},
    receiver::Receiver,
    resolver::Names,
};
use hyper::{Method, body::Bytes, header::HeaderMap};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{net::UdpSocket, runtime, time::timeout};

const NAME_SERVER_PATIENCE: Duration = Duration::from_secs(2);
/// Receivers of spans have a limit of their own, that of sending.
const PATIENCE: Duration = Duration::from_secs(10);
const DNS_PORT: u16 = 53;
/// As many as the system itself asks.
const NAME_SERVERS_MAX: usize = 3;

const NO_SPANS: &str = "spans are lost until it answers: is it there, is the address right, does a \
                        network policy let netra through? (JAEGER_*, OTEL_*)";

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            let (servers, spans, others) =
                tokio::join!(name_servers(), spans(config), others(config));
            servers.into_iter().chain(spans).chain(others).collect()
        }),
        Err(error) => vec![Check::odd("network", error, "nothing was tried")],
    }
}

async fn spans(config: &Config) -> Option<Check> {
    let plan = &config.tracing.as_ref()?.export;
    let tried = timeout(PATIENCE, export::try_out(plan)).await;
    let (name, to) = ("spans", &plan.reporter);
    Some(match tried {
        Ok(None) => Check::good(name, format!("{to}: nobody to try")),
        Ok(Some(Ok(()))) => Check::good(name, format!("{to}: takes them")),
        Ok(Some(Err(error))) => Check::odd(name, format!("{to}: {error}"), NO_SPANS),
        Err(_) => Check::odd(name, format!("{to}: no answer within {PATIENCE:?}"), NO_SPANS),
    })
}

async fn others(config: &Config) -> Vec<Check> {
    let names = Names::start_own();
    let mut checks = Vec::new();
    if let Some(remote) = config.tracing.as_ref().and_then(|traces| traces.remote.as_ref()) {
        let terms =
            Terms { is_http2: false, limit: Duration::from_secs(5), answer_bytes_max: 1 << 20 };
        let answer = match Client::new(&names, remote.url.clone(), &remote.reach, terms) {
            Ok(client) => client.send(Method::GET, &HeaderMap::new(), Bytes::new()).await,
            Err(error) => Err(error),
        };
        let name = "sampling manager";
        let advice = "new traces are sampled by the settings alone: JAEGER_SAMPLER_TYPE=const needs \
                      no manager, JAEGER_SAMPLER_MANAGER_HOST_PORT says where it is";
        checks.push(match answer {
            Ok(answer) if answer.status().is_success() => Check::good(name, &remote.url),
            Ok(answer) => {
                Check::odd(name, format!("{} answered {}", remote.url, answer.status()), advice)
            }
            Err(error) => Check::odd(name, format!("{}: {error}", remote.url), advice),
        });
    }
    if let Some((host, port)) =
        config.statsd.address.rsplit_once(':').filter(|_| config.statsd.is_enabled)
    {
        let found = Receiver::new(&names, host, port.parse().unwrap_or(0)).addresses().await;
        checks.push(match found {
            Ok(addresses) => Check::good("statsd", format!("{addresses:?}, over UDP")),
            Err(error) => Check::odd("statsd", error, "NETRA_STATSD_ADDRESS"),
        });
    }
    checks
}

async fn name_servers() -> Vec<Check> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut checks = Vec::new();
    for server in servers(&text).into_iter().take(NAME_SERVERS_MAX) {
        let asked = timeout(NAME_SERVER_PATIENCE, ask((server, DNS_PORT).into())).await;
        let what: Result<(), String> = match asked {
            Ok(asked) => asked.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {NAME_SERVER_PATIENCE:?}")),
        };
        checks.push(match what {
            Ok(()) => Check::good("name server", format!("{server} answers")),
            Err(why) => Check::odd(
                "name server",
                format!("{server}: {why}"),
                "names of receivers and routes are not found: /etc/resolv.conf, dnsPolicy, docker \
                 --dns",
            ),
        });
    }
    checks
}

/// The name servers of resolv.conf(5).
fn servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let is_server = words.next() == Some("nameserver");
        words.next().filter(|_| is_server)?.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

/// Asks for the name servers of the root, which each of them knows or refuses to tell.
async fn ask(server: SocketAddr) -> Result<(), Failure> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    // RFC 1035, section 4.1: id, recursion desired, one question; the root; type NS, class IN.
    // Whoever could guess it has nothing of it: only that there is an answer counts.
    let [.., high, low] = std::process::id().to_be_bytes();
    let question = [high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    socket.send(&question).await?;
    let mut answer = [0; 512];
    loop {
        let len = socket.recv(&mut answer).await?;
        if len >= 12 && answer[..2] == [high, low] {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_asked() {
        let text = "# a\nsearch x\nnameserver 10.0.0.10\nnameserver fe80::1%eth0\nnameserver no\n";
        let found: Vec<IpAddr> = vec!["10.0.0.10".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(servers(text), found);
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let to = server.local_addr().unwrap();
            let answer = async {
                let mut asked = [0; 64];
                let (len, from) = server.recv_from(&mut asked).await.unwrap();
                // Another's answer first.
                server.send_to(&[0; 12], from).await.unwrap();
                server.send_to(&asked[..len], from).await.unwrap();
            };
            let (asked, ()) = tokio::join!(ask(to), answer);
            asked.unwrap();
            drop(server);
            let refused = ask(to).await.unwrap_err().to_string();
            assert!(refused.contains("refused"), "{refused}");
        });
    }
}
