//! Somebody whom netra sends to, by a name that may move: the agent, a collector, statsd, the
//! sampling manager. Its addresses are asked for again when their time is over; those that are known
//! are used meanwhile, and a name server that fails for a while takes nothing away.

use crate::{
    failure::Failure,
    resolver::{Answer, Names},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How long to wait before a question that was not heard is put again.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Receiver {
    names: Names,
    host: String,
    port: u16,
    known: Option<Arc<[IpAddr]>>,
    /// When to ask again, and the answer that is awaited.
    until: Option<Instant>,
    asked: Option<oneshot::Receiver<Answer>>,
    /// The longest that addresses are used before they are asked for again; none is for ever.
    ttl_max: Option<Duration>,
}

impl Receiver {
    /// By the name or address of a host, an IPv6 address with or without brackets.
    pub(crate) fn new(names: &Names, host: &str, port: u16) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Self {
            names: names.clone(),
            host,
            port,
            known: None,
            until: None,
            asked: None,
            ttl_max: Some(Duration::MAX),
        }
    }

    /// Asks again after so long at the latest; with none, addresses once known are kept.
    pub(crate) fn at_most(self, ttl_max: Option<Duration>) -> Self {
        Self { ttl_max, ..self }
    }

    /// The addresses that are known now, without waiting.
    pub(crate) fn look(&mut self) -> Option<Vec<SocketAddr>> {
        match self.asked.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(answer)) => self.hear(answer),
            Some(Err(oneshot::error::TryRecvError::Closed)) => self.asked = None,
            Some(Err(oneshot::error::TryRecvError::Empty)) | None => {}
        }
        let is_over = self.until.is_none_or(|until| until <= Instant::now());
        let is_kept = self.known.is_some() && self.ttl_max.is_none();
        if is_over && !is_kept && self.asked.is_none() {
            self.asked = self.names.question(&self.host);
            self.until = Some(Instant::now() + RETRY);
        }
        let all = self.known.as_deref()?.iter();
        Some(all.map(|ip| SocketAddr::new(*ip, self.port)).collect())
    }

    /// The same; waits where none is known yet.
    pub(crate) async fn addresses(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        if self.look().is_none()
            && let Some(asked) = self.asked.take()
            && let Ok(answer) = asked.await
        {
            self.hear(answer);
        }
        let host = &self.host;
        let why = format!("cannot resolve {host}: unknown, or no name server answers");
        self.look().ok_or_else(|| why.into())
    }

    fn hear(&mut self, answer: Answer) {
        let now = Instant::now();
        let most = self.ttl_max.and_then(|most| now.checked_add(most));
        self.until = Some(most.map_or(answer.until, |most| most.min(answer.until)));
        self.asked = None;
        if let Ok(addresses) = answer.addresses {
            self.known = Some(addresses);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::tests::{NameServer, block_on};

    #[test]
    fn a_name_that_moves_is_followed_and_one_that_is_lost_is_kept() {
        block_on(async {
            let server = NameServer::start(&["10.1.2.3"]);
            let mut receiver = Receiver::new(&server.names(), "agent.test", 6831);
            let one = |ip: &str| vec![SocketAddr::new(ip.parse().unwrap(), 6831)];
            assert_eq!(receiver.look(), None, "it waited");
            assert_eq!(receiver.addresses().await.unwrap(), one("10.1.2.3"));
            assert_eq!(receiver.look(), Some(one("10.1.2.3")));
            server.say(&["10.1.2.4"]);
            server.until("it has moved", || receiver.look() == Some(one("10.1.2.4"))).await;
            let asked = server.asked();
            server.say(&[]);
            server
                .until("it was asked again", || {
                    assert_eq!(receiver.look(), Some(one("10.1.2.4")));
                    server.asked() > asked + 1
                })
                .await;
        });
    }

    #[test]
    fn settings_bound_how_often_a_name_is_asked_for() {
        block_on(async {
            let server = NameServer::start(&["10.1.2.3"]);
            let names = server.names();
            let mut once = Receiver::new(&names, "agent.test", 1).at_most(None);
            once.addresses().await.unwrap();
            server.say(&["10.1.2.4"]);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            assert_eq!(once.look(), Some(vec!["10.1.2.3:1".parse().unwrap()]));
            assert_eq!(server.asked(), 1);
        });
    }

    #[test]
    fn addresses_need_nobody() {
        block_on(async {
            let server = NameServer::start(&[]);
            for (host, address) in [("10.1.2.3", "10.1.2.3:1"), ("[fd00::1]", "[fd00::1]:1")] {
                let mut receiver = Receiver::new(&server.names(), host, 1);
                assert_eq!(receiver.addresses().await.unwrap(), [address.parse().unwrap()]);
            }
            let mut receiver = Receiver::new(&server.names(), "localhost", 1);
            assert_eq!(receiver.addresses().await.unwrap()[0], "127.0.0.1:1".parse().unwrap());
            assert_eq!(server.asked(), 0);
            let mut receiver = Receiver::new(&server.names(), "lost.test", 1);
            let error = receiver.addresses().await.unwrap_err().to_string();
            assert!(error.starts_with("cannot resolve lost.test: "), "{error}");
        });
    }
}
