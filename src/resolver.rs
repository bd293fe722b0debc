//! Names: the one place where addresses are asked for, whether a stranger's request names a host or
//! a setting does. The system's name servers and /etc/hosts are asked; what they say is remembered
//! for as long as its TTL says, within bounds, and what they do not know for a moment.
//!
//! Shards ask without waiting, and are answered by a message. Whatever they ask, the work is bounded
//! before it begins: one look-up for each name, so many names at a time, so many that wait.

mod records;

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverOpts},
};
use netra_rules::{ServiceRecord, is_service_name};
use netra_shards::{Resolved, Resolver, ToResolve, Unresolved};
use std::{
    collections::HashMap,
    fmt, fs,
    future::{Future, poll_fn},
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tracing::warn;

/// Names that are remembered, connections that wait for look-ups, and questions that wait to be
/// heard: so many of each at most. A shard that finds no room answers at once that the target is
/// unreachable.
pub(crate) const NAMES_MAX: usize = 1024;
/// As many at least: settings name receivers where no request is routed.
const NAMES_MIN: usize = 16;
/// Look-ups under way: each holds sockets and some 20 KiB.
const LOOK_UPS_MAX: usize = 64;
/// As long as a dial may take by default: the request waits for both.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long both families are asked for. Name servers that do not answer to AAAA are asked again
/// for A alone.
const BOTH_PATIENCE: Duration = Duration::from_secs(1);
/// Addresses of a name that are remembered, with those of all targets of a service: a cluster has so many
/// endpoints of it. Shards try the first of them.
const ADDRESSES_MAX: usize = 64;
/// The least and the longest that addresses are remembered.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(60);
/// How long it is remembered that a name has none.
const UNKNOWN_TTL: Duration = Duration::from_secs(2);
/// Where the system keeps names of its own, and what changes when its name servers do.
const HOSTS: &str = "/etc/hosts";
const SYSTEM_FILES: [&str; 2] = [HOSTS, "/etc/resolv.conf"];
/// What of the former is read.
const HOSTS_BYTES_MAX: u64 = 1 << 20;

/// Names that were looked up with a result, and without.
pub(crate) static FOUND: AtomicU64 = AtomicU64::new(0);
pub(crate) static UNKNOWN: AtomicU64 = AtomicU64::new(0);
/// Questions that were answered from memory, or by a look-up that was under way.
pub(crate) static REMEMBERED: AtomicU64 = AtomicU64::new(0);
pub(crate) static JOINED: AtomicU64 = AtomicU64::new(0);
/// Questions that were one too many.
pub(crate) static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Whom to ask.
#[derive(Clone)]
pub(crate) struct Names(mpsc::Sender<Question>);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Resolver for Names {
    fn ask(&self, name: ToResolve) -> bool {
        let is_heard = self.0.try_send(Question::Shards(Box::new(name))).is_ok();
        if !is_heard {
            REFUSED.fetch_add(1, Relaxed);
        }
        is_heard
    }
}

/// What is known about a name, and until when.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) addresses: Resolved,
    /// Of the name of a service, which has no addresses of its own.
    pub(crate) services: Arc<[ServiceRecord]>,
    pub(crate) until: Instant,
}

enum Question {
    /// For a request that is routed.
    Shards(Box<ToResolve>),
    /// For a name that netra itself sends to.
    Own(String, oneshot::Sender<Answer>),
}

impl Names {
    /// Answers on this runtime, for as long as anybody may ask. `tell` answers shards.
    pub(crate) fn start<F>(
        names_max: usize,
        tell: impl Fn(ToResolve, Resolved) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_with(names_max, Box::new(System::of_this_host), tell)
    }

    /// The same where no shard asks.
    pub(crate) fn start_own() -> Self {
        Self::start(NAMES_MAX, |_, _| std::future::ready(()))
    }

    fn start_with<F>(
        names_max: usize,
        make: Make,
        tell: impl Fn(ToResolve, Resolved) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let names_max = names_max.max(NAMES_MIN);
        let (ask, asked) = mpsc::channel(names_max);
        tokio::spawn(answer(Desk::new(names_max, make), asked, tell));
        Self(ask)
    }

    /// Asks for a name that netra itself sends to; None when too much is asked already.
    pub(crate) fn question(&self, host: &str) -> Option<oneshot::Receiver<Answer>> {
        let (tell, told) = oneshot::channel();
        self.0.try_send(Question::Own(host.to_owned(), tell)).ok().map(|()| told)
    }
}

/// What comes next: a question, or the end of a look-up.
enum Next {
    Question(Option<Question>),
    Found(Box<str>, Answer),
}

async fn answer<F: Future<Output = ()> + Send + 'static>(
    mut desk: Desk,
    mut asked: mpsc::Receiver<Question>,
    tell: impl Fn(ToResolve, Resolved) -> F,
) {
    loop {
        let next = poll_fn(|cx| {
            // A panic in a look-up has ended the process already.
            if let Poll::Ready(Some(Ok((name, answer)))) = desk.look_ups.poll_join_next(cx) {
                return Poll::Ready(Next::Found(name, answer));
            }
            asked.poll_recv(cx).map(Next::Question)
        });
        let (answer, waiters) = match next.await {
            Next::Question(None) => return,
            Next::Question(Some(question)) => match desk.hear(question) {
                Some((answer, waiter)) => (answer, vec![waiter]),
                None => continue,
            },
            Next::Found(name, answer) => {
                let waiters = desk.found(name, &answer);
                (answer, waiters)
            }
        };
        for waiter in waiters {
            match waiter {
                Question::Shards(name) => tell(*name, answer.addresses.clone()).await,
                // Whoever asked may not want to know any more.
                Question::Own(_, tell) => drop(tell.send(answer.clone())),
            }
        }
    }
}

impl Question {
    fn host(&self) -> &str {
        match self {
            Self::Shards(name) => name.target.host(),
            Self::Own(host, _) => host,
        }
    }
}

/// What is known, what is being looked up, and who waits for it.
struct Desk {
    names_max: usize,
    look_ups_max: usize,
    make: Make,
    system: Option<(System, [Option<SystemTime>; 2])>,
    known: HashMap<Box<str>, Answer>,
    waiting: HashMap<Box<str>, Vec<Question>>,
    waiters: usize,
    look_ups: JoinSet<(Box<str>, Answer)>,
}

impl Desk {
    fn new(names_max: usize, make: Make) -> Self {
        Self {
            names_max,
            look_ups_max: (names_max / 8).min(LOOK_UPS_MAX),
            make,
            // Made at the first name: most sidecars know addresses only.
            system: None,
            known: HashMap::new(),
            waiting: HashMap::new(),
            waiters: 0,
            look_ups: JoinSet::new(),
        }
    }

    /// The answer, where there is one at once.
    fn hear(&mut self, question: Question) -> Option<(Answer, Question)> {
        let name: Box<str> = question.host().to_ascii_lowercase().into();
        if let Some(answer) = at_hand(&name) {
            return Some((answer, question));
        }
        if let Some(known) = self.known.get(&name).filter(|known| known.until > Instant::now()) {
            REMEMBERED.fetch_add(1, Relaxed);
            return Some((known.clone(), question));
        }
        // Whoever dials has a port already, and not that of a record.
        if matches!(question, Question::Shards(_)) && is_service_name(&name) {
            UNKNOWN.fetch_add(1, Relaxed);
            return Some((Answer::lasting(Err(Unresolved::Unknown), UNKNOWN_TTL), question));
        }
        // What settings name is little, and not refused for what strangers name.
        let is_own = matches!(question, Question::Own(..));
        let is_joined = self.waiting.contains_key(&name);
        let is_full = self.waiters >= self.names_max;
        if !is_own && (is_full || (!is_joined && self.look_ups.len() >= self.look_ups_max)) {
            REFUSED.fetch_add(1, Relaxed);
            return Some((Answer::lasting(Err(Unresolved::TooMany), Duration::ZERO), question));
        }
        if is_joined {
            JOINED.fetch_add(1, Relaxed);
        } else {
            let Some(system) = self.system() else {
                let answer = Answer::lasting(Err(Unresolved::Unknown), UNKNOWN_TTL);
                return Some((answer, question));
            };
            let host = name.clone();
            self.look_ups.spawn(async move {
                let answer = match is_service_name(&host) {
                    true => records::look_up(&system, &host).await,
                    false => look_up(&system, &host).await,
                };
                (host, answer)
            });
        }
        self.waiters += 1;
        self.waiting.entry(name).or_default().push(question);
        None
    }

    /// A look-up has ended: whoever waits for it.
    fn found(&mut self, name: Box<str>, answer: &Answer) -> Vec<Question> {
        let counter = if answer.is_found() { &FOUND } else { &UNKNOWN };
        counter.fetch_add(1, Relaxed);
        let waiters = self.waiting.remove(&name).unwrap_or_default();
        self.waiters -= waiters.len();
        if self.known.len() >= self.names_max {
            let now = Instant::now();
            self.known.retain(|_, known| known.until > now);
        }
        // Where all of them still hold, this one is asked for again sooner.
        if self.known.len() < self.names_max {
            self.known.insert(name, answer.clone());
        }
        waiters
    }

    /// The name servers, as the system's files have them now.
    fn system(&mut self) -> Option<System> {
        let changed = SYSTEM_FILES.map(|path| fs::metadata(path).and_then(|it| it.modified()).ok());
        if let Some((system, since)) = &self.system
            && *since == changed
        {
            return Some(system.clone());
        }
        match (self.make)() {
            Ok(system) => self.system = Some((system, changed)),
            Err(error) => warn!(%error, "the name servers cannot be read"),
        }
        self.system.as_ref().map(|(system, _)| system.clone())
    }
}

impl Answer {
    fn lasting(addresses: Resolved, ttl: Duration) -> Self {
        Self { addresses, services: Arc::default(), until: Instant::now() + ttl }
    }

    /// Whether it has any address.
    fn is_found(&self) -> bool {
        self.addresses.is_ok() || self.services.iter().any(|it| !it.addresses.is_empty())
    }
}

/// What nobody needs to be asked for: addresses, and this host (RFC 6761, section 6.3).
fn at_hand(name: &str) -> Option<Answer> {
    let addresses: Arc<[IpAddr]> = match name {
        "localhost" => [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].into(),
        name => [name.parse().ok()?].into(),
    };
    Some(Answer::lasting(Ok(addresses), TTL_MAX))
}

type Make = Box<dyn Fn() -> Result<System, hickory_resolver::net::NetError> + Send>;

/// The system's own names, and its name servers: asked for both families at once, or for the second
/// where there is no first.
#[derive(Clone)]
struct System {
    hosts: Arc<str>,
    both: TokioResolver,
    either: TokioResolver,
}

impl System {
    fn of_this_host() -> Result<Self, hickory_resolver::net::NetError> {
        let make = |strategy| {
            let mut builder = TokioResolver::builder_tokio()?;
            set(builder.options_mut(), strategy);
            builder.build()
        };
        let mut hosts = Vec::new();
        if let Ok(file) = fs::File::open(HOSTS) {
            file.take(HOSTS_BYTES_MAX).read_to_end(&mut hosts)?;
        }
        Ok(Self {
            hosts: String::from_utf8_lossy(&hosts).into(),
            both: make(LookupIpStrategy::Ipv4AndIpv6)?,
            either: make(LookupIpStrategy::Ipv4thenIpv6)?,
        })
    }
}

/// What is remembered is remembered here, for all that ask. A name that the system's file has in one
/// family is not asked for in the other: hickory would.
fn set(options: &mut ResolverOpts, strategy: LookupIpStrategy) {
    (options.ip_strategy, options.cache_size) = (strategy, 0);
    options.use_hosts_file = ResolveHosts::Never;
}

/// The addresses of a name in the text of hosts(5).
fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let of_line = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(ip)
    };
    hosts.lines().filter_map(of_line).collect()
}

async fn look_up(system: &System, name: &str) -> Answer {
    let own = in_order(&in_hosts(&system.hosts, name));
    if !own.is_empty() {
        return Answer::lasting(Ok(own), TTL_MAX);
    }
    let found = match timeout(BOTH_PATIENCE, system.both.lookup_ip(name)).await {
        Ok(found) => found.ok(),
        Err(_) => {
            let found = timeout(PATIENCE - BOTH_PATIENCE, system.either.lookup_ip(name)).await;
            found.ok().and_then(Result::ok)
        }
    };
    let Some(found) = found else {
        return Answer::lasting(Err(Unresolved::Unknown), UNKNOWN_TTL);
    };
    let addresses = in_order(&found.iter().collect::<Vec<_>>());
    if addresses.is_empty() {
        return Answer::lasting(Err(Unresolved::Unknown), UNKNOWN_TTL);
    }
    let ttl = found.valid_until().saturating_duration_since(Instant::now());
    Answer::lasting(Ok(addresses), ttl.clamp(TTL_MIN, TTL_MAX))
}

/// The families in turn (RFC 8305, section 4), IPv4 first: who listens on IPv6 alone gives its name
/// no A.
fn in_order(found: &[IpAddr]) -> Arc<[IpAddr]> {
    let of = |is_v6| found.iter().copied().filter(move |ip: &IpAddr| ip.is_ipv6() == is_v6);
    let (mut v4, mut v6) = (of(false), of(true));
    let pairs = found.iter().flat_map(|_| [v4.next(), v6.next()]);
    pairs.flatten().take(ADDRESSES_MAX).collect()
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
pub(crate) mod tests;
