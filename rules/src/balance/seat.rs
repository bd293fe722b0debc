//! A connection's place at an endpoint: what it has under way there is counted by it, and given back
//! whatever becomes of the connection.

use super::{Balance, Ejected, EndpointAddress, Heard, Member};
use crate::verdict::EndpointId;
use netra_codecs::trace::{RetryReason, Tries};
use std::{
    cell::Cell,
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// Endpoints that one message is tried at, at most.
pub const TRIES_MAX: usize = 3;

/// A connection's place at an endpoint.
pub struct Seat {
    pub(super) balance: Arc<Balance>,
    pub(super) member: Arc<Member>,
    pub(super) index: u32,
    requests: Cell<u32>,
    is_pending: Cell<bool>,
    /// What is asked now shows whether the endpoint is well again.
    is_probe: Cell<bool>,
    is_retry: Cell<bool>,
    /// Endpoints that were tried before it, for the same message.
    tried: [u32; TRIES_MAX - 1],
    tries: Cell<u8>,
    /// Why the last of them was left.
    reason: Option<RetryReason>,
}

impl Seat {
    /// At an endpoint that was just picked, before there is a connection.
    pub(crate) fn new(balance: &Arc<Balance>, index: u32) -> Option<Self> {
        let member = Arc::clone(balance.members.get(index as usize)?);
        member.connections.fetch_add(1, Relaxed);
        balance.shared.connections.fetch_add(1, Relaxed);
        balance.shared.pending.fetch_add(1, Relaxed);
        Some(Self {
            balance: Arc::clone(balance),
            is_probe: Cell::new(member.is_probed()),
            member,
            index,
            requests: Cell::new(0),
            is_pending: Cell::new(true),
            is_retry: Cell::new(false),
            tried: [u32::MAX; TRIES_MAX - 1],
            tries: Cell::new(1),
            reason: None,
        })
    }

    /// Where it is.
    pub fn address(&self) -> &EndpointAddress {
        &self.balance.endpoints[self.index as usize].address
    }

    /// How long a dial may take; None is netra's own limit.
    pub fn connect_timeout_ns(&self) -> Option<u64> {
        Some(self.balance.policy.connect_timeout_ns).filter(|ns| *ns > 0)
    }

    /// How many endpoints the message that waits was tried at, and why the last one.
    pub fn tries(&self) -> Tries {
        let count = self.tries.get();
        Tries { count, reason: self.reason.filter(|_| count > 1) }
    }

    /// Another message was given the same endpoint.
    fn goes_on(&self) {
        self.is_probe.set(self.member.is_probed());
    }

    /// The connection is there.
    pub fn connected(&self) {
        self.settle();
        self.tries.set(1);
    }

    /// The connection is there for a message that was sent before, to another endpoint: it stays a
    /// retry until it is over.
    pub fn connected_again(&self) {
        self.pends_no_more();
    }

    fn pends_no_more(&self) {
        if self.is_pending.replace(false) {
            self.balance.shared.pending.fetch_sub(1, Relaxed);
        }
    }

    fn settle(&self) {
        self.pends_no_more();
        if self.is_retry.replace(false) {
            self.balance.shared.retrying.fetch_sub(1, Relaxed);
        }
    }

    /// A message that is to be answered goes there.
    #[inline]
    pub fn begin(&self) {
        self.requests.set(self.requests.get() + 1);
        self.member.requests.fetch_add(1, Relaxed);
        self.balance.shared.requests.fetch_add(1, Relaxed);
    }

    /// It is over, and took so long.
    #[inline]
    pub fn end(&self, heard: Heard, took_ns: u64, now_ns: u64) {
        if self.requests.get() > 0 {
            self.requests.set(self.requests.get() - 1);
            self.member.requests.fetch_sub(1, Relaxed);
            self.balance.shared.requests.fetch_sub(1, Relaxed);
        }
        if heard != Heard::Nothing && self.balance.measures {
            self.member.took(took_ns, now_ns);
        }
        if self.tries.get() > 1 && self.requests.get() == 0 {
            self.connected();
        }
        self.note(heard, now_ns);
    }

    /// Nobody was reached there.
    pub fn failed(&self, now_ns: u64) {
        self.note(Heard::Local, now_ns);
    }

    /// What was heard there, also where nothing that was under way is over by it.
    pub fn note(&self, heard: Heard, now_ns: u64) {
        let outlier = self.balance.policy.outlier.as_ref();
        let ejected = self.member.note(heard, outlier);
        let Some(outlier) = outlier else { return };
        if self.is_probe.get() && heard != Heard::Nothing {
            self.is_probe.set(false);
            match heard {
                Heard::Well => self.member.readmit(now_ns),
                _ if self.member.is_in() => {}
                _ => self.member.eject(Ejected::Again, outlier, now_ns),
            }
            return self.balance.changed();
        }
        if let Some(why) = ejected
            && self.member.is_in()
            && self.balance.may_eject(outlier)
        {
            self.member.eject(why, outlier, now_ns);
            self.balance.changed();
        }
    }

    /// Another endpoint for the message that waits, if there is one and the budget allows it; what
    /// is under way here goes there. `reason` is why this one is left.
    pub fn again(&mut self, reason: RetryReason, now_ns: u64) -> Option<Self> {
        let next = self.elsewhere(reason, now_ns)?;
        next.take_over(self);
        Some(next)
    }

    /// The same for one message of those that are under way here, which go on.
    pub fn elsewhere(&self, reason: RetryReason, now_ns: u64) -> Option<Self> {
        let tries = usize::from(self.tries.get());
        if tries >= TRIES_MAX {
            return None;
        }
        let Balance { policy, shared, .. } = &*self.balance;
        self.settle();
        let requests = shared.requests.load(Relaxed);
        if !policy.retries.allow(shared.retrying.load(Relaxed), requests) {
            shared.retries_refused.fetch_add(1, Relaxed);
            return None;
        }
        let mut tried = self.tried;
        tried[tries - 1] = self.index;
        let index = self.balance.other(&tried[..tries], now_ns)?;
        let mut next = Self::new(&self.balance, index)?;
        shared.retries.fetch_add(1, Relaxed);
        shared.retrying.fetch_add(1, Relaxed);
        next.is_retry.set(true);
        next.tried = tried;
        next.tries.set(self.tries.get() + 1);
        next.reason = Some(reason);
        Some(next)
    }

    /// What is under way at another is under way here.
    pub fn take_over(&self, from: &Self) {
        for _ in 0..from.requests.get() {
            self.begin();
        }
        from.release();
    }

    fn release(&self) {
        let requests = self.requests.replace(0);
        self.member.requests.fetch_sub(requests, Relaxed);
        self.balance.shared.requests.fetch_sub(requests, Relaxed);
    }

    /// Whether it is there; if so it goes on.
    pub(crate) fn is_at(&self, balance: &Arc<Balance>, endpoint: EndpointId) -> bool {
        // Other rules count by what is theirs.
        let is_it = Arc::ptr_eq(&self.balance, balance) && self.index == endpoint.0;
        if is_it {
            self.goes_on();
        }
        is_it
    }

    /// Whether it is at an endpoint of this cluster; which one.
    #[inline]
    pub(super) fn index_in(&self, balance: &Balance) -> Option<u32> {
        let is_it = |index: u32| {
            balance.members.get(index as usize).is_some_and(|it| Arc::ptr_eq(it, &self.member))
        };
        if is_it(self.index) {
            return Some(self.index);
        }
        // Other rules have come.
        let count = u32::try_from(balance.members.len()).unwrap_or(u32::MAX);
        (0..count).find(|index| is_it(*index))
    }

    /// Whether it may stay where it is.
    #[inline]
    pub(super) fn may_stay(&self) -> bool {
        self.member.is_in() || self.is_probe.get()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.settle();
        self.release();
        self.member.connections.fetch_sub(1, Relaxed);
        self.balance.shared.connections.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seat({} of {}, {})", self.address(), self.balance.name, self.requests.get())
    }
}
