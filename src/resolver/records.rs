//! Names of services: their records (SRV, RFC 2782), with the addresses of their targets.

use super::{ADDRESSES_MAX, Answer, PATIENCE, System, TTL_MAX, TTL_MIN, UNKNOWN_TTL};
use hickory_resolver::{
    lookup::Lookup,
    proto::rr::{RData, RecordType},
};
use netra_rules::ServiceRecord;
use netra_shards::Unresolved;
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{timeout, timeout_at},
};

/// Records of a name that are looked at: those of the lowest priorities.
const RECORDS_MAX: usize = ADDRESSES_MAX;
/// Targets of a name that are asked for at a time.
const TARGETS_AT_A_TIME: usize = 8;

/// Addresses of targets, and until when they are what they are.
type Targets = HashMap<Box<str>, (Vec<IpAddr>, Instant)>;

/// The records of a name; those whose targets have no address now are without any.
pub(super) async fn look_up(system: &System, name: &str) -> Answer {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let asked = timeout(PATIENCE, system.both.lookup(name, RecordType::SRV));
    let Ok(Ok(found)) = asked.await else {
        return Answer::lasting(Err(Unresolved::Unknown), UNKNOWN_TTL);
    };
    let mut records = records_of(&found);
    let mut targets = beside(&found);
    let wanted: HashSet<_> = records.iter().map(|it| it.target.clone()).collect();
    targets.retain(|target, _| wanted.contains(target));
    let left: Vec<_> = wanted.into_iter().filter(|it| !targets.contains_key(it)).collect();
    // What has not come until then is as good as nothing.
    let _ = timeout_at(deadline, ask(system, &left, &mut targets)).await;
    let unknown = Instant::now() + UNKNOWN_TTL;
    let (mut until, mut room) = (found.valid_until(), ADDRESSES_MAX);
    for record in &mut records {
        let known = targets.get(&record.target);
        let addresses = known.map_or(&[][..], |(addresses, _)| addresses);
        record.addresses = addresses.iter().copied().take(room).collect();
        room -= record.addresses.len();
        until = until.min(known.map_or(unknown, |(_, until)| *until));
    }
    let ttl = until.saturating_duration_since(Instant::now()).clamp(TTL_MIN, TTL_MAX);
    let ttl = if records.is_empty() { UNKNOWN_TTL } else { ttl };
    Answer { services: records.into(), ..Answer::lasting(Err(Unresolved::Unknown), ttl) }
}

/// The records that an answer has, in order; a target `.` says that there is no service.
fn records_of(found: &Lookup) -> Vec<ServiceRecord> {
    let mut records: Vec<_> = (found.answers().iter())
        .filter_map(|record| match &record.data {
            RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => Some(ServiceRecord {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii().to_ascii_lowercase().into(),
                addresses: Vec::new(),
            }),
            _ => None,
        })
        .collect();
    records.sort();
    records.dedup();
    records.truncate(RECORDS_MAX);
    records
}

/// Addresses that a name server has put beside its answer. Who has one of IPv4 is asked for no other.
fn beside(found: &Lookup) -> Targets {
    let mut targets = Targets::new();
    for record in found.additionals().iter().take(RECORDS_MAX * 2) {
        let RData::A(address) = &record.data else { continue };
        let until = Instant::now() + Duration::from_secs(record.ttl.into());
        let name = record.name.to_ascii().to_ascii_lowercase().into();
        let (addresses, least) = targets.entry(name).or_insert_with(|| (Vec::new(), until));
        addresses.push(address.0.into());
        *least = until.min(*least);
    }
    targets
}

/// Asks for targets, so many at a time; what nobody knows is not there.
async fn ask(system: &System, left: &[Box<str>], targets: &mut Targets) {
    for some in left.chunks(TARGETS_AT_A_TIME) {
        let mut asked = JoinSet::new();
        for target in some {
            let (system, target) = (system.clone(), target.clone());
            asked.spawn(async move { (super::look_up(&system, &target).await, target) });
        }
        while let Some(done) = asked.join_next().await {
            if let Ok((Answer { addresses: Ok(found), until, .. }, target)) = done {
                targets.insert(target, (found.to_vec(), until));
            }
        }
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
