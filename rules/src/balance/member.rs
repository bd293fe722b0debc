//! An endpoint of a cluster as it is now: what it has to do, and whether it is left out.

use super::{
    EndpointAddress, Outlier, TrafficPolicy,
    check::{Course, HealthCheck, Unwell},
};
use crate::hash::mix;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// What came of a message, or of the dial for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An answer that is no fault of the server's.
    Well,
    /// The server is at fault.
    Fault,
    /// Somebody behind the server is at fault.
    Gateway,
    /// The server was not reached, or ended without an answer.
    Local,
    /// Nothing that says anything of the server: the client has gone.
    Nothing,
}

/// Why an endpoint was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejected {
    /// Too many faults in a row.
    Faults = 1,
    /// Too many faults behind it in a row.
    Gateway = 2,
    /// Too many failed dials and unanswered messages in a row.
    Local = 3,
    /// It was asked once, and that went wrong again.
    Again = 4,
    /// Fewer of its answers are good than of the others'.
    SuccessRate = 5,
}

impl Ejected {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Faults => "faults",
            Self::Gateway => "gateway",
            Self::Local => "unreachable",
            Self::Again => "again",
            Self::SuccessRate => "success_rate",
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Faults),
            2 => Some(Self::Gateway),
            3 => Some(Self::Local),
            4 => Some(Self::Again),
            5 => Some(Self::SuccessRate),
            _ => None,
        }
    }
}

/// No ejection is longer, unless the first one is.
const EJECTION_MAX_NS: u64 = 300_000_000_000;
/// So much of an ejection chance may add, in parts.
const JITTER_PART: u64 = 10;
/// Unanswered messages count as so slow, to begin with.
const COST_MAX_US: u64 = u32::MAX as u64;
/// Out until a check says something else: no message shows that it is well.
const UNTIL_CHECKED: u64 = u64::MAX;
/// In so many milliseconds what was slow is half forgotten.
const COST_HALF_MS: u64 = 10_000;

/// An endpoint. All shards write here; what one message changes is in one line of the cache.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Member {
    pub(super) requests: AtomicU32,
    pub(super) connections: AtomicU32,
    /// 0 while it is in; else until when it is out. After that one message may go there, and as it has
    /// gone this is when the next may.
    out_until_ns: AtomicU64,
    faults: AtomicU32,
    gateway: AtomicU32,
    local: AtomicU32,
    /// How long answers take: microseconds above, and when that was, in milliseconds.
    cost: AtomicU64,
    /// When it came, where it came later than others.
    pub(super) born_ns: AtomicU64,
    // What is seldom written.
    times: AtomicU32,
    /// When it is, or was, in again.
    back_ns: AtomicU64,
    pub(super) changed_ns: AtomicU64,
    why: AtomicU8,
    pub(super) ejections: AtomicU64,
    pub(super) answers: AtomicU64,
    pub(super) failures: AtomicU64,
    /// What checks have come to: a [`Course`].
    course: AtomicU32,
    checked_ns: AtomicU64,
    /// Good answers to checks, and bad ones.
    pub(super) checks: [AtomicU64; 2],
    /// Answers and failures when success rates were looked at last.
    swept: [AtomicU64; 2],
}

/// How an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It gets its part.
    Up,
    /// It gets less than its part: it is new.
    Warming,
    /// It is left out, for this reason, until then.
    Ejected(Ejected, u64),
    /// It was left out, and one message is to show what it is like now.
    Probing(Ejected),
    /// It is left out until checks say that it is well: this is what they said last.
    Unhealthy(Unwell),
}

/// What an endpoint answered when it was asked last whether it is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckView {
    /// None is a good answer.
    pub last: Option<Unwell>,
    /// It should be out, and is not where it is the last.
    pub is_failing: bool,
    /// When that was.
    pub at_ns: u64,
}

impl Member {
    /// Nobody leaves it out.
    #[inline]
    pub(super) fn is_in(&self) -> bool {
        self.out_until_ns.load(Relaxed) == 0
    }

    /// It was out for long enough, and nobody has looked since: whoever is told so has to.
    #[cold]
    pub(super) fn claim(&self, outlier: &Outlier, now_ns: u64) -> bool {
        let until = self.out_until_ns.load(Relaxed);
        let next = now_ns.saturating_add(outlier.base_ns).max(1);
        until != 0
            && now_ns >= until
            && self.out_until_ns.compare_exchange(until, next, Relaxed, Relaxed).is_ok()
    }

    pub(super) fn standing(&self, policy: &TrafficPolicy, now_ns: u64) -> Standing {
        let until = self.out_until_ns.load(Relaxed);
        let why = Ejected::of(self.why.load(Relaxed)).unwrap_or(Ejected::Faults);
        let born = self.born_ns.load(Relaxed);
        let age = now_ns.saturating_sub(born);
        let course = Course::of(self.course.load(Relaxed));
        match policy.warmup {
            _ if until == UNTIL_CHECKED => {
                Standing::Unhealthy(course.last.unwrap_or(Unwell::Unreachable))
            }
            _ if until != 0 && now_ns >= self.back_ns.load(Relaxed) => Standing::Probing(why),
            _ if until != 0 => Standing::Ejected(why, until),
            Some(warmup) if born != 0 && age < warmup.duration_ns => Standing::Warming,
            _ => Standing::Up,
        }
    }

    /// It has been out, and what was asked of it is to show what it is like.
    pub(super) fn is_probed(&self) -> bool {
        !self.is_in() && !self.is_unhealthy()
    }

    /// Checks have taken it out.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.out_until_ns.load(Relaxed) == UNTIL_CHECKED
    }

    /// Of how many messages how many went well, since somebody last asked that.
    pub(super) fn since_swept(&self) -> (u64, u64) {
        let since = |counter: &AtomicU64, swept: &AtomicU64| {
            let now = counter.load(Relaxed);
            now.saturating_sub(swept.swap(now, Relaxed))
        };
        let well = since(&self.answers, &self.swept[0]);
        (well, well + since(&self.failures, &self.swept[1]))
    }

    /// It was asked whether it is well. It goes out only where there are others that are in. Some(true)
    /// is that it has gone, Some(false) that it is back.
    pub(super) fn checked(
        &self,
        answer: Option<Unwell>,
        check: &HealthCheck,
        has_others: bool,
        now_ns: u64,
    ) -> Option<bool> {
        self.checks[usize::from(answer.is_some())].fetch_add(1, Relaxed);
        let course = Course::of(self.course.load(Relaxed)).after(answer, check);
        self.course.store(course.word(), Relaxed);
        self.checked_ns.store(now_ns.max(1), Relaxed);
        match (course.is_failing, self.is_unhealthy()) {
            (true, false) if has_others => {
                self.changed_ns.store(now_ns, Relaxed);
                self.out_until_ns.store(UNTIL_CHECKED, Relaxed);
                Some(true)
            }
            (false, true) => {
                self.forget();
                self.back_ns.store(now_ns, Relaxed);
                self.changed_ns.store(now_ns, Relaxed);
                self.out_until_ns.store(0, Relaxed);
                Some(false)
            }
            _ => None,
        }
    }

    /// Nobody asks it any longer: what checks said of it is forgotten.
    pub(super) fn unchecked(&self) {
        if self.course.swap(0, Relaxed) != 0 && self.is_unhealthy() {
            self.out_until_ns.store(0, Relaxed);
        }
    }

    /// What it answered last, if it was asked.
    pub(super) fn check_view(&self) -> Option<CheckView> {
        let course = Course::of(self.course.load(Relaxed));
        let at_ns = self.checked_ns.load(Relaxed);
        let Course { last, is_failing, .. } = course;
        course.is_known().then_some(CheckView { last, is_failing, at_ns })
    }

    /// Out until then, or in (0), whatever it was; what checks say goes before it.
    fn set_out(&self, until_ns: u64) {
        let next = |now: u64| (now != UNTIL_CHECKED).then_some(until_ns);
        let _ = self.out_until_ns.fetch_update(Relaxed, Relaxed, next);
    }

    /// A message is over; None where nobody is ever left out. True if it is to be left out.
    pub(super) fn note(&self, heard: Heard, outlier: Option<&Outlier>) -> Option<Ejected> {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Relaxed);
        match heard {
            Heard::Nothing => return None,
            Heard::Well => add(&self.answers),
            Heard::Fault | Heard::Gateway | Heard::Local => add(&self.failures),
        };
        let outlier = outlier?;
        let is_over = |counter: &AtomicU32, most: u32| {
            let count = counter.fetch_add(1, Relaxed).saturating_add(1);
            most > 0 && count >= most
        };
        let is_local = heard == Heard::Local;
        if is_local && outlier.splits {
            return is_over(&self.local, outlier.consecutive_local).then_some(Ejected::Local);
        }
        if heard == Heard::Well {
            // Mostly there is nothing to forget, and what is only read is every shard's.
            for counter in [&self.faults, &self.gateway, &self.local] {
                if counter.load(Relaxed) != 0 {
                    counter.store(0, Relaxed);
                }
            }
            return None;
        }
        let is_gateway = heard == Heard::Gateway || is_local;
        let has_gateway = is_gateway && is_over(&self.gateway, outlier.consecutive_gateway);
        if !is_gateway {
            self.gateway.store(0, Relaxed);
        }
        if is_over(&self.faults, outlier.consecutive) {
            return Some(if is_local { Ejected::Local } else { Ejected::Faults });
        }
        has_gateway.then_some(Ejected::Gateway)
    }

    /// It is out from now on.
    pub(super) fn eject(&self, why: Ejected, outlier: &Outlier, now_ns: u64) {
        if self.is_unhealthy() {
            return;
        }
        let calm_ns = now_ns.saturating_sub(self.back_ns.load(Relaxed));
        let calm = u32::try_from(calm_ns / outlier.interval_ns.max(1)).unwrap_or(u32::MAX);
        let before = self.times.load(Relaxed);
        let before = if why == Ejected::Again { before } else { before.saturating_sub(calm) };
        let times = before.saturating_add(1);
        self.times.store(times, Relaxed);
        let longest = EJECTION_MAX_NS.max(outlier.base_ns);
        let long_ns = outlier.base_ns.saturating_mul(times.into()).min(longest);
        let jitter = mix(now_ns ^ self.ejections.load(Relaxed)) % (long_ns / JITTER_PART).max(1);
        let until = now_ns.saturating_add(long_ns).saturating_add(jitter).max(1);
        self.why.store(why as u8, Relaxed);
        self.back_ns.store(until, Relaxed);
        self.changed_ns.store(now_ns, Relaxed);
        self.ejections.fetch_add(1, Relaxed);
        self.forget();
        self.set_out(until);
    }

    /// A message has shown that it is well. Where a check says that it is not, that goes before it.
    pub(super) fn readmit(&self, now_ns: u64) {
        if self.is_unhealthy() {
            return;
        }
        self.forget();
        self.back_ns.store(now_ns, Relaxed);
        self.changed_ns.store(now_ns, Relaxed);
        self.set_out(0);
    }

    fn forget(&self) {
        [&self.faults, &self.gateway, &self.local].iter().for_each(|it| it.store(0, Relaxed));
    }

    /// An answer took so long: what was slower before is forgotten by and by.
    pub(super) fn took(&self, took_ns: u64, now_ns: u64) {
        let was = self.cost_us(now_ns);
        let took = (took_ns / 1000).min(COST_MAX_US);
        let cost = if took > was { took } else { was - (was - took) / 8 };
        self.cost.store(cost << 32 | (now_ns / 1_000_000) & 0xffff_ffff, Relaxed);
    }

    /// How long an answer is likely to take.
    #[inline]
    pub(super) fn cost_us(&self, now_ns: u64) -> u64 {
        let cost = self.cost.load(Relaxed);
        let since = (now_ns / 1_000_000).wrapping_sub(cost) & 0xffff_ffff;
        let since = if since > 1 << 31 { 0 } else { since };
        (cost >> 32) * COST_HALF_MS / (COST_HALF_MS + since)
    }
}

/// What is told of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// Where it is.
    pub address: EndpointAddress,
    /// Its weight.
    pub weight: u32,
    /// Who is nearer has its turn first: 0 is nearest.
    pub level: u8,
    /// How it stands.
    pub standing: Standing,
    /// Messages without an answer.
    pub requests: u32,
    /// Connections.
    pub connections: u32,
    /// How often it was left out.
    pub ejections: u64,
    /// Messages that were answered, and not by a fault.
    pub answers: u64,
    /// Faults, failed dials, and connections that ended without an answer.
    pub failures: u64,
    /// When its standing changed last; 0 is never.
    pub changed_ns: u64,
    /// What it answered when it was asked last whether it is well, if anybody asks.
    pub check: Option<CheckView>,
    /// Good answers to that, and bad ones.
    pub checks: [u64; 2],
}
