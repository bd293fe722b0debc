//! Who of several writes: a Lease of `coordination.k8s.io`, as others of a cluster have it. Nothing but
//! the writing of status hangs on it: every replica serves.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use std::time::{Duration, Instant};

const NAME: &str = "netra-control";
/// How long whoever has it may be silent before another takes it.
const LASTS: Duration = Duration::from_secs(15);

/// One that would write.
pub(crate) struct Candidate {
    api: Api<Lease>,
    name: String,
    watched: Watched,
}

/// What was seen of another's lease: by one's own clock, as clocks of machines differ.
#[derive(Debug, Default)]
struct Watched {
    renewed: Option<(String, Timestamp)>,
    since: Option<Instant>,
}

impl Watched {
    /// Whether it may be taken: it is nobody's, one's own, or its holder is silent.
    fn may_take(&mut self, spec: Option<&LeaseSpec>, own: &str, now: Instant) -> bool {
        let holder = spec.and_then(|it| it.holder_identity.as_deref()).unwrap_or_default();
        if holder.is_empty() || holder == own {
            return true;
        }
        let renewed = spec.and_then(|it| it.renew_time.as_ref()).map(|it| it.0);
        let seen = Some((holder.to_owned(), renewed.unwrap_or_default()));
        if self.renewed != seen {
            (self.renewed, self.since) = (seen, Some(now));
        }
        self.since.is_some_and(|since| now.duration_since(since) > LASTS)
    }
}

impl Candidate {
    pub(crate) fn new(client: &Client, name: String) -> Self {
        let api = Api::namespaced(client.clone(), client.default_namespace());
        Self { api, name, watched: Watched::default() }
    }

    /// Takes the lease, or holds it for longer; whether one has it now.
    ///
    /// # Errors
    /// The cluster does not answer, or does not let.
    pub(crate) async fn take(&mut self) -> Result<bool, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let spec = Some(self.spec(None, now));
            return won(self.api.create(&PostParams::default(), &Lease { metadata, spec }).await);
        };
        if !self.watched.may_take(lease.spec.as_ref(), &self.name, Instant::now()) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(lease.spec.take(), now));
        // Its version goes with it: of two that take it at once one is refused.
        won(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    fn spec(&self, before: Option<LeaseSpec>, now: MicroTime) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let is_own = before.holder_identity.as_deref() == Some(&self.name);
        let changes = before.lease_transitions.unwrap_or(0) + i32::from(!is_own);
        LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| is_own).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(changes),
            ..LeaseSpec::default()
        }
    }
}

/// Somebody else was faster: that is no error.
fn won(answer: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_from_who_is_silent_by_ones_own_clock() {
        let spec = |holder: &str, renewed: i64| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        };
        let (mut watched, start) = (Watched::default(), Instant::now());
        let after = |s: u64| start + Duration::from_secs(s);
        assert!(watched.may_take(None, "a", start));
        assert!(watched.may_take(Some(&spec("a", 1)), "a", start));
        // Its time may be of another century: only that it moves counts.
        assert!(!watched.may_take(Some(&spec("b", 1)), "a", start));
        assert!(!watched.may_take(Some(&spec("b", 1)), "a", after(14)));
        assert!(!watched.may_take(Some(&spec("b", 2)), "a", after(16)));
        assert!(!watched.may_take(Some(&spec("b", 2)), "a", after(30)));
        assert!(watched.may_take(Some(&spec("b", 2)), "a", after(32)));
    }
}
