//! Names that requests are routed to, resolved on the control thread: the system's name servers and
//! /etc/hosts, remembered for as long as their TTL says. Shards ask without waiting, and are
//! answered by a message.

use hickory_resolver::TokioResolver;
use netra_shards::{Resolved, Resolver, ToResolve};
use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::timeout};
use tracing::warn;

/// Names that are being resolved or wait for it; a shard that finds no room answers at once that
/// the target is unreachable.
const NAMES_MAX: usize = 1024;
/// Longer than a name server and its deputy take to be given up on, shorter than people wait.
const PATIENCE: Duration = Duration::from_secs(10);

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
                Some(resolver) => look_up(&resolver, &name).await,
                None => None,
            };
            tell(name, address).await;
        });
    }
}

fn system() -> Result<TokioResolver, hickory_resolver::net::NetError> {
    TokioResolver::builder_tokio()?.build()
}

async fn look_up(resolver: &TokioResolver, name: &ToResolve) -> Resolved {
    let target = &name.target;
    let found = timeout(PATIENCE, resolver.lookup_ip(target.host())).await.ok()?.ok()?;
    // One address is dialled. Of a name with both, v4: who listens on v6 alone gives its name no A.
    let address = found.iter().find(std::net::IpAddr::is_ipv4).or_else(|| found.iter().next())?;
    Some(SocketAddr::new(address, target.port))
}
