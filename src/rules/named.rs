//! What the names stand for that rules ask about.

use crate::resolver::{Answer, Names};
use netra_rules::{ServiceRecord, is_service_name};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};
use tokio::time::timeout_at;

/// Names that are asked for at a time, and how long their answers may take.
const NAMES_MAX: usize = 256;
const NAME_PATIENCE: Duration = Duration::from_secs(6);
/// Names are asked for again after this long at the earliest, and at the latest.
const NAMES_EVERY: Duration = Duration::from_secs(5);
const NAMES_EVERY_MAX: Duration = Duration::from_secs(60);

/// Addresses of hosts and records of services, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) addresses: HashMap<String, Vec<IpAddr>>,
    pub(crate) services: HashMap<String, Vec<ServiceRecord>>,
}

impl Named {
    /// What the hosts' names stand for now, and when to ask again. What is not found stays what it
    /// was: rules do not come and go with a name server.
    pub(super) async fn ask(&self, hosts: &[String], names: &Names) -> (Self, Instant) {
        let mut now = Self::default();
        let mut until = Instant::now() + NAMES_EVERY_MAX;
        let mut asked = Vec::new();
        for host in hosts.iter().take(NAMES_MAX) {
            asked.push((host, names.question(host)));
        }
        let deadline = tokio::time::Instant::now() + NAME_PATIENCE;
        for (host, question) in asked {
            let answer = match question {
                Some(question) => timeout_at(deadline, question).await.ok().and_then(Result::ok),
                None => None,
            };
            if let Some(at) = self.learn(&mut now, host, answer) {
                until = until.min(at);
            }
        }
        (now, until.max(Instant::now() + NAMES_EVERY))
    }

    /// Puts what an answer says into `now`, or what was known before; until when it is so.
    fn learn(&self, now: &mut Self, host: &str, answer: Option<Answer>) -> Option<Instant> {
        let (found, services, until) = match answer {
            Some(Answer { addresses, services, until }) => (addresses.ok(), services, Some(until)),
            None => (None, [].into(), None),
        };
        if is_service_name(host) {
            let records = self.records(host, &services);
            if !records.is_empty() {
                now.services.insert(host.to_owned(), records);
            }
            return until;
        }
        if let Some(found) = found {
            let mut found = found.to_vec();
            found.sort_unstable();
            now.addresses.insert(host.to_owned(), found);
            return until;
        }
        let old = self.addresses.get(host);
        old.into_iter().for_each(|old| drop(now.addresses.insert(host.to_owned(), old.clone())));
        None
    }

    /// The records of an answer. A target of which no address is known now has those that it had; where
    /// nobody has any, the answer is no better than none.
    fn records(&self, host: &str, found: &[ServiceRecord]) -> Vec<ServiceRecord> {
        let before = self.services.get(host).map_or(&[][..], |old| old);
        let mut records = found.to_vec();
        for record in &mut records {
            if record.addresses.is_empty() {
                let old = before.iter().find(|old| old.target == record.target);
                record.addresses = old.map_or_else(Vec::new, |old| old.addresses.clone());
            }
            record.addresses.sort_unstable();
        }
        records.retain(|it| !it.addresses.is_empty());
        if records.is_empty() { before.to_vec() } else { records }
    }

    /// Whether one of these has to be asked for before rules can send anything there: a service has no
    /// endpoint without its records, where any other name is looked up by who dials.
    pub(super) fn lacks(&self, hosts: &[String]) -> HashSet<String> {
        let lacks = |host: &&String| is_service_name(host) && !self.services.contains_key(*host);
        hosts.iter().filter(lacks).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_shards::Unresolved;

    const NAME: &str = "_redis._tcp.cache.test";

    fn record(priority: u16, target: &str, addresses: &[&str]) -> ServiceRecord {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        ServiceRecord { priority, weight: 1, port: 6379, target: target.into(), addresses }
    }

    /// Of a name that has no addresses.
    fn answer(services: &[ServiceRecord]) -> Option<Answer> {
        let addresses = Err(Unresolved::Unknown);
        Some(Answer { addresses, services: services.into(), until: Instant::now() })
    }

    /// What is known after each answer to the name of a service.
    #[test]
    fn what_is_not_found_stays_what_it_was() {
        let (a, b) = (record(1, "a.", &["10.0.0.1"]), record(2, "b.", &["10.0.0.2"]));
        let mut known = Named::default();
        for (what, answered, expected) in [
            ("nothing yet", answer(&[]), &[][..]),
            ("both", answer(&[a.clone(), b.clone()]), &[a.clone(), b.clone()]),
            ("no answer", None, &[a.clone(), b.clone()]),
            ("an answer without any", answer(&[]), &[a.clone(), b.clone()]),
            (
                "one target is not known, and has another priority",
                answer(&[a.clone(), record(7, "b.", &[])]),
                &[a.clone(), record(7, "b.", &["10.0.0.2"])],
            ),
            (
                "of none of them anything is known, and they are others",
                answer(&[record(1, "c.", &[])]),
                &[a.clone(), record(7, "b.", &["10.0.0.2"])],
            ),
            ("one has gone", answer(std::slice::from_ref(&a)), std::slice::from_ref(&a)),
        ] {
            let mut now = Named::default();
            known.learn(&mut now, NAME, answered);
            known = now;
            assert_eq!(known.services.get(NAME).map_or(&[][..], |all| all), expected, "{what}");
            assert!(known.addresses.is_empty(), "{what}");
        }
        let hosts = [NAME.to_owned(), "_x._tcp.test".to_owned(), "cache.test".to_owned()];
        assert_eq!(known.lacks(&hosts), HashSet::from([hosts[1].clone()]));
    }

    #[test]
    fn addresses_that_are_not_found_stay_what_they_were() {
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let mut known = Named::default();
        for (answered, expected) in [
            (Some(Answer { addresses: Ok([ip].into()), ..answer(&[]).unwrap() }), Some(&vec![ip])),
            (answer(&[]), Some(&vec![ip])),
            (None, Some(&vec![ip])),
        ] {
            let mut now = Named::default();
            known.learn(&mut now, "cache.test", answered);
            known = now;
            assert_eq!(known.addresses.get("cache.test"), expected);
        }
    }
}
