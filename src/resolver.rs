//! Names that requests are routed to, resolved on the control thread: the system's name servers and
//! /etc/hosts, remembered for as long as their TTL says. Shards ask without waiting, and are
//! answered by a message.

use hickory_resolver::TokioResolver;
use netra_codecs::route::Target;
use netra_shards::{Resolved, Resolver, ToResolve};
use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::timeout};
use tracing::warn;

/// Names that are being resolved or wait for it; a shard that finds no room answers at once that
/// the target is unreachable.
const NAMES_MAX: usize = 1024;
/// As long as a dial may take by default: the request waits for both.
const PATIENCE: Duration = Duration::from_secs(5);

/// What shards ask.
pub(crate) struct Names(mpsc::Sender<ToResolve>);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Resolver for Names {
    fn ask(&self, name: ToResolve) -> bool {
        self.0.try_send(name).is_ok()
    }
}

/// What shards ask, and where it is heard.
pub(crate) fn names() -> (Arc<Names>, mpsc::Receiver<ToResolve>) {
    let (ask, asked) = mpsc::channel(NAMES_MAX);
    (Arc::new(Names(ask)), asked)
}

/// Answers for as long as the shards ask.
pub(crate) async fn answer<F>(
    mut asked: mpsc::Receiver<ToResolve>,
    tell: impl Fn(ToResolve, Resolved) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    // Made at the first name: most sidecars route by addresses, or not at all.
    let mut resolver = None;
    while let Some(name) = asked.recv().await {
        let resolver = match &resolver {
            Some(resolver) => Some(Clone::clone(resolver)),
            None => system().inspect_err(|error| warn!(%error, "names cannot be resolved")).ok(),
        }
        .inspect(|made| resolver = Some(Clone::clone(made)));
        let tell = tell.clone();
        tokio::spawn(async move {
            let address = match resolver {
                Some(resolver) => look_up(&resolver, &name.target).await,
                None => None,
            };
            tell(name, address).await;
        });
    }
}

fn system() -> Result<TokioResolver, hickory_resolver::net::NetError> {
    TokioResolver::builder_tokio()?.build()
}

async fn look_up(resolver: &TokioResolver, target: &Target) -> Resolved {
    let found = timeout(PATIENCE, resolver.lookup_ip(target.host())).await.ok()?.ok()?;
    // One address is dialled. Of a name with both, v4: who listens on v6 alone gives its name no A.
    let address = found.iter().find(std::net::IpAddr::is_ipv4).or_else(|| found.iter().next())?;
    Some(SocketAddr::new(address, target.port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::{
        config::{ConnectionConfig, NameServerConfig, ResolverConfig},
        net::runtime::TokioRuntimeProvider,
    };
    use std::{
        net::{IpAddr, Ipv4Addr, UdpSocket},
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        thread,
        time::Instant,
    };

    /// Whether the question is for an address of IPv4; its length without what comes after it.
    fn question(query: &[u8]) -> (bool, usize) {
        let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
        let end = 12 + name + 1;
        (query[end..end + 2] == [0, 1], end + 4)
    }

    /// A name server that knows one address for every name, for a second, and counts the questions
    /// for it.
    fn name_server(asked: Arc<AtomicUsize>) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((_, client)) = socket.recv_from(&mut query) {
                let (is_v4, end) = question(&query);
                // An answer without error to the same question, and nothing else yet.
                let mut answer = query[..end].to_vec();
                answer[2..4].copy_from_slice(&[0x81, 0x80]);
                answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(is_v4), 0, 0, 0, 0]);
                if is_v4 {
                    asked.fetch_add(1, Relaxed);
                    // The name above, A, IN, a second, four bytes.
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 1, 2, 3]);
                }
                drop(socket.send_to(&answer, client));
            }
        });
        port
    }

    fn asking(port: u16) -> TokioResolver {
        let mut connection = ConnectionConfig::udp();
        connection.port = port;
        let mut server = NameServerConfig::udp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        server.connections = vec![connection];
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        let provider = TokioRuntimeProvider::default();
        TokioResolver::builder_with_config(config, provider).build().unwrap()
    }

    #[test]
    fn an_address_is_remembered_as_long_as_it_lives() {
        let asked = Arc::new(AtomicUsize::new(0));
        let resolver_port = name_server(Arc::clone(&asked));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let resolver = asking(resolver_port);
            let target = Target::parse(b"backend.test:8081").unwrap();
            let address = Some("10.1.2.3:8081".parse().unwrap());
            for _ in 0..10 {
                assert_eq!(look_up(&resolver, &target).await, address);
            }
            assert_eq!(asked.load(Relaxed), 1);
            let begun = Instant::now();
            while asked.load(Relaxed) == 1 {
                assert!(begun.elapsed() < Duration::from_secs(10), "remembered for ever");
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert_eq!(look_up(&resolver, &target).await, address);
            }
            // This host's own file goes before name servers.
            let local = look_up(&resolver, &Target::parse(b"localhost:81").unwrap()).await;
            assert!(local.is_some_and(|address| address.ip().is_loopback()), "{local:?}");
        });
    }

    #[test]
    fn a_name_server_that_is_gone_is_given_up_on() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let resolver = asking(silent.local_addr().unwrap().port());
            let begun = Instant::now();
            let target = Target::parse(b"backend.test").unwrap();
            assert_eq!(look_up(&resolver, &target).await, None);
            assert!(begun.elapsed() < PATIENCE + Duration::from_secs(5));
        });
    }
}
