//! Active checks: endpoints that are asked whether they are well, by somebody who is not a shard.

use super::{Balance, Endpoint, EndpointAddress, Member};
use netra_codecs::ping::Ping;
use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

/// How endpoints are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// What they are asked.
    pub ping: Ping,
    /// From one question to the next, a tenth more or less by chance.
    pub interval_ns: u64,
    /// How long the dial and the answer may take together.
    pub timeout_ns: u64,
    /// So many bad answers in a row take an endpoint out; the first one of all does alone.
    pub unhealthy: u32,
    /// So many good answers in a row bring it back.
    pub healthy: u32,
}

impl HealthCheck {
    pub(super) fn in_words(&self) -> String {
        let time = Duration::from_nanos;
        format!(
            "asks each for {} every {:?} ({:?} at most): out after {} bad answers in a row, in after {} good ones",
            self.ping,
            time(self.interval_ns),
            time(self.timeout_ns),
            self.unhealthy,
            self.healthy
        )
    }
}

/// What is wrong with an endpoint that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwell {
    /// Nobody listens there.
    Refused = 1,
    /// It did not answer in time.
    Timeout = 2,
    /// It was not reached, or ended within its answer.
    Unreachable = 3,
    /// It says that it is not well.
    Answer = 4,
    /// It answers in no words of the protocol.
    Odd = 5,
}

impl Unwell {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "check_refused",
            Self::Timeout => "check_timeout",
            Self::Unreachable => "check_unreachable",
            Self::Answer => "check_answer",
            Self::Odd => "check_odd",
        }
    }

    const fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Refused),
            2 => Some(Self::Timeout),
            3 => Some(Self::Unreachable),
            4 => Some(Self::Answer),
            5 => Some(Self::Odd),
            _ => None,
        }
    }
}

/// What checks have come to so far, in one word: only who checks writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Course {
    /// What the last answer was; None is a good one.
    pub(super) last: Option<Unwell>,
    is_known: bool,
    /// So many in a row were bad that it should be out.
    pub(super) is_failing: bool,
    in_a_row: u32,
}

impl Course {
    const IN_A_ROW_MAX: u32 = 0xffff;

    pub(super) fn of(word: u32) -> Self {
        Self {
            last: Unwell::of(word & 0xff),
            is_known: word & 0x100 != 0,
            is_failing: word & 0x200 != 0,
            in_a_row: word >> 16,
        }
    }

    pub(super) fn word(self) -> u32 {
        let last = self.last.map_or(0, |unwell| unwell as u32);
        let is_known = u32::from(self.is_known) << 8;
        last | is_known | u32::from(self.is_failing) << 9 | self.in_a_row << 16
    }

    /// Whether anything was asked yet.
    pub(super) fn is_known(self) -> bool {
        self.is_known
    }

    /// After one more answer. The first of all says at once how it is: nobody is sent to an endpoint
    /// three times that was never there.
    pub(super) fn after(self, answer: Option<Unwell>, check: &HealthCheck) -> Self {
        let goes_on = self.is_known && self.last.is_none() == answer.is_none();
        let in_a_row = if goes_on { self.in_a_row + 1 } else { 1 }.min(Self::IN_A_ROW_MAX);
        let most = if answer.is_some() { check.unhealthy } else { check.healthy };
        let is_told = !self.is_known || in_a_row >= most;
        let is_failing = if is_told { answer.is_some() } else { self.is_failing };
        Self { last: answer, is_known: true, is_failing, in_a_row }
    }
}

/// An endpoint that is to be asked, of whichever clusters.
#[derive(Debug)]
pub struct Checked {
    /// Where it is.
    pub address: SocketAddr,
    /// What it is asked.
    pub check: HealthCheck,
    places: Vec<(Arc<Balance>, Arc<Member>)>,
}

impl Checked {
    /// Every endpoint of these clusters that is to be asked: one that several have is asked once.
    pub(crate) fn all(balances: &[Arc<Balance>]) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        let mut known: HashMap<(SocketAddr, HealthCheck), usize> = HashMap::new();
        for balance in balances {
            let Some(check) = &balance.policy.check else { continue };
            for (endpoint, member) in balance.endpoints.iter().zip(&balance.members) {
                let Endpoint { address: EndpointAddress::Ip(address), .. } = *endpoint else {
                    continue;
                };
                let at = match known.entry((address, check.clone())) {
                    Entry::Occupied(at) => *at.get(),
                    Entry::Vacant(at) => {
                        found.push(Self { address, check: check.clone(), places: Vec::new() });
                        *at.insert(found.len() - 1)
                    }
                };
                let places = &mut found[at].places;
                if places.iter().all(|(_, other)| !Arc::ptr_eq(other, member)) {
                    places.push((Arc::clone(balance), Arc::clone(member)));
                }
            }
        }
        found
    }

    /// What came of a question; None is a good answer. Told is of which clusters it is out now (true),
    /// or in.
    pub fn answered(&self, answer: Option<Unwell>, now_ns: u64) -> Vec<(&str, bool)> {
        let changed = self.places.iter().filter_map(|(balance, member)| {
            let is_other = |other: &&Arc<Member>| !Arc::ptr_eq(other, member) && other.is_in();
            let has_others = balance.members.iter().any(|other| is_other(&other));
            let is_out = member.checked(answer, &self.check, has_others, now_ns)?;
            balance.changed();
            Some((&*balance.name, is_out))
        });
        changed.collect()
    }

    /// It is not asked any longer: what was found is forgotten.
    pub fn leave(&self) {
        for (balance, member) in &self.places {
            member.unchecked();
            balance.changed();
        }
    }
}
