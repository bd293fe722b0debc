//! The legs of a gated connection: its own upstream and further ones that are open at the same time.
//! Each request goes by one of them, without waiting for what the others owe; the answers come back as
//! one stream, in which one leg has its turn for a whole message.
//!
//! | who has his turn next | where |
//! |---|---|
//! | any leg that has something to say | ids tell answers apart, and are used once |
//! | the leg of the oldest request | answers come in order, or ids come again |
//!
//! A leg whose turn it is not is not read any further than its queue is long. What a leg says answers
//! only what went by it: the ledger knows which that was (`Open::lane`).

use super::{Gate, words::Words};
use crate::{
    core::Core,
    io::{Io, Side, Token},
    switch::{Stand, goal::Goal},
    tap::waits_no_more,
};
use netra_codecs::{
    codec::{Correlation, Kind, Way, Why},
    route::Target,
    tap::Protocol,
};
use netra_perf::Key;
use netra_rules::Heard;
use std::net::SocketAddr;

/// The connection's own upstream.
pub(crate) const HOME: u8 = 0;

/// All legs of a connection that has, or is about to have, more than one.
#[derive(Debug)]
pub(crate) struct Legs {
    pub(super) all: Vec<Leg>,
    /// The one that requests go by.
    pub(super) current: u8,
    /// Who is in the middle of a message to the client.
    turn: Option<u8>,
    /// The client takes no more now.
    is_full: bool,
    /// What clients are told whose leg ends.
    pub(super) words: Words,
}

#[derive(Debug)]
pub(super) struct Leg {
    pub(super) token: Token,
    pub(super) standing: Standing,
    /// Where it leads; none is the original destination. What the current one is for is in the gate's
    /// own switch.
    goal: Option<Box<Goal>>,
    remote: Option<SocketAddr>,
    /// Requests that its full socket did not take.
    pub(super) carry: Vec<u8>,
    /// Its socket is full, and watched.
    pub(super) is_blocked: bool,
    /// Its socket has broken: requests that were sent went nowhere.
    pub(super) is_broken: bool,
    /// No further requests: its server was told.
    has_shut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Reaching,
    Open,
    /// It has ended, and requests may still be taken for it, which go nowhere.
    Gone,
    /// Nobody is there.
    Free,
}

impl Leg {
    fn new(token: Token, standing: Standing) -> Self {
        Self {
            token,
            standing,
            goal: None,
            remote: None,
            carry: Vec::new(),
            is_blocked: false,
            is_broken: false,
            has_shut: false,
        }
    }
}

/// How a request comes to where it is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// By this leg, which is open.
    Hop(u8),
    /// By one that is to be opened.
    New,
    /// The same, and this one is closed for it.
    InPlaceOf(u8),
    /// There is no room before one of them has answered everything.
    Later,
    /// By the connection's own upstream, which is changed: nothing was sent by it.
    Change,
}

/// What the shard may have to do for a leg.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LegState {
    pub(crate) place: u8,
    pub(crate) token: Token,
    pub(crate) is_open: bool,
    /// Its server may be told that no further requests follow, where that is so.
    pub(crate) may_shut: bool,
}

impl Legs {
    fn place_of(&self, slot: u32) -> u8 {
        let has_socket = |leg: &Leg| matches!(leg.standing, Standing::Open | Standing::Reaching);
        let is_it = |leg: &Leg| leg.token.slot == slot && has_socket(leg);
        self.all.iter().position(is_it).map_or(HOME, |place| u8::try_from(place).unwrap_or(HOME))
    }

    /// The one that is open and leads there; `now` is where the current one leads.
    pub(super) fn open_to(&self, wanted: Option<Target>, now: Option<&Goal>) -> Option<u8> {
        let leads_there = |(place, leg): (usize, &Leg)| {
            let goal = match place == usize::from(self.current) {
                true => now,
                false => leg.goal.as_deref(),
            };
            leg.standing == Standing::Open && goal.map(|goal| goal.target) == wanted
        };
        let place = self.all.iter().enumerate().position(leads_there)?;
        Some(u8::try_from(place).unwrap_or(HOME))
    }

    fn leg(&mut self, place: u8) -> &mut Leg {
        &mut self.all[usize::from(place)]
    }

    /// A place where nobody is.
    pub(super) fn free_place(&mut self, token: Token) -> u8 {
        let is_free = |leg: &Leg| leg.standing == Standing::Free;
        let place = match self.all.iter().skip(1).position(is_free) {
            Some(place) => place + 1,
            None => {
                self.all.push(Leg::new(token, Standing::Free));
                self.all.len() - 1
            }
        };
        u8::try_from(place).unwrap_or(HOME)
    }

    /// A leg is being reached, by which these requests go when it is there.
    pub(super) fn reach(&mut self, place: u8, token: Token, carry: Vec<u8>) {
        *self.leg(place) = Leg { carry, ..Leg::new(token, Standing::Reaching) };
    }

    /// One that no request waits for is there, and leads to this goal.
    pub(super) fn settle(
        &mut self,
        place: u8,
        goal: Option<Box<Goal>>,
        remote: Option<SocketAddr>,
    ) {
        let leg = self.leg(place);
        (leg.standing, leg.goal, leg.remote) = (Standing::Open, goal, remote);
    }

    /// Whether the client takes no more now.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Who is in the middle of a message to the client.
    pub(super) fn turn(&self) -> Option<u8> {
        self.turn
    }

    pub(super) fn note_full(&mut self, is_full: bool) {
        self.is_full |= is_full;
    }

    /// How many of them take a socket beside the connection's own.
    fn count(&self) -> usize {
        let takes = |leg: &&Leg| matches!(leg.standing, Standing::Reaching | Standing::Open);
        self.all.iter().skip(1).filter(takes).count()
    }

    /// Bytes that are kept.
    pub(super) fn kept(&self) -> usize {
        self.all.iter().map(|leg| leg.carry.len()).sum::<usize>() + self.words.kept()
    }

    /// What the bytes of this flow are sent to.
    fn receiver(&self, from: Token) -> Token {
        match from.side {
            Side::Downstream => self.all[usize::from(self.current)].token,
            Side::Upstream => self.all[usize::from(HOME)].token.other(),
        }
    }
}

impl Gate {
    /// Whether it has legs.
    pub(crate) fn has_legs(&self) -> bool {
        self.legs.is_some()
    }

    /// How many upstreams it has beside its own.
    pub(crate) fn leg_count(&self) -> usize {
        self.legs.as_deref().map_or(0, Legs::count)
    }

    /// Whether it may have any: its answers can be told apart.
    pub(crate) fn may_have_legs(&self) -> bool {
        let protocol = self.tapped.protocol();
        // Whether quiet commands of memcached were answered is told by what comes behind them.
        let is_clear = protocol != Protocol::Memcached;
        is_clear && protocol.moves() && protocol.about().correlation != Correlation::Loose
    }

    /// Answers come in the order of their requests, or may: ids that come again tell a client nothing of
    /// which of them it is.
    pub(crate) fn is_in_order(&self) -> bool {
        self.tapped.protocol().about().correlation != Correlation::Unique
    }

    /// What the bytes of this flow are sent to.
    #[inline]
    pub(crate) fn receiver(&self, from: Token) -> Token {
        self.legs.as_deref().map_or_else(|| from.other(), |legs| legs.receiver(from))
    }

    /// The place of the leg whose flow this is.
    pub(super) fn place_of(&self, from: Token) -> u8 {
        self.legs.as_deref().map_or(HOME, |legs| legs.place_of(from.slot))
    }

    /// The leg that requests go by.
    pub(super) fn lane(&self) -> u8 {
        self.legs.as_deref().map_or(HOME, |legs| legs.current)
    }

    /// Whether what this leg says may be heard now.
    pub(crate) fn may_speak(&mut self, place: u8) -> bool {
        if self.is_silent() {
            return false;
        }
        let Some(legs) = self.legs.as_deref() else { return true };
        match (legs.is_full, legs.turn) {
            (true, _) => false,
            (false, Some(turn)) => turn == place,
            (false, None) if self.is_in_order() => is_next(&mut self.tapped.tap, place),
            (false, None) => true,
        }
    }

    /// Nothing may be sent to the client by the flow of this leg now, be it netra's own.
    pub(super) fn is_silenced(&self, place: u8) -> bool {
        let Some(legs) = self.legs.as_deref() else { return false };
        legs.is_full || legs.turn.is_some_and(|turn| turn != place)
    }

    /// What this leg has said waits for the client to take it, and not for its turn.
    pub(crate) fn waits_for_client(&self, place: u8) -> bool {
        self.legs.as_deref().is_some_and(|legs| legs.is_full || legs.turn == Some(place))
    }

    pub(super) fn is_within_answer(&self) -> bool {
        let tap = &self.tapped.tap;
        let is_within = tap.is_within_message(Way::Response) || tap.has_ended(Way::Response);
        is_within || !self.response.held.is_empty() || self.response.cleared > 0
    }

    /// A leg has said something, or may have: whether it is still its turn.
    pub(super) fn review_turn(&mut self, place: u8, is_full: bool) {
        let is_within = self.is_within_answer();
        let Some(legs) = self.legs.as_deref_mut() else { return };
        legs.is_full |= is_full;
        legs.turn = is_within.then_some(place);
    }

    /// It may be over without anything that was sent: with bytes that passed.
    pub(super) fn review_own_turn(&mut self, place: u8) {
        if self.legs.as_deref().is_some_and(|legs| legs.turn == Some(place)) {
            self.review_turn(place, false);
        }
    }

    /// The client takes bytes again.
    pub(crate) fn has_room(&mut self) {
        if let Some(legs) = &mut self.legs {
            legs.is_full = false;
        }
    }

    /// How the request that waits comes to where it is to go; `others_max` is how many legs there may
    /// be beside the connection's own upstream.
    pub(crate) fn path(
        &mut self,
        others_max: usize,
        mut is_quiet: impl FnMut(Token) -> bool,
    ) -> Path {
        let is_new = self.messages <= 1 || self.switch.is_deferred || self.switch.is_parted;
        if self.legs.is_none() && is_new && (self.switch.is_parted || self.has_drained()) {
            return Path::Change;
        }
        let wanted: Option<Target> = self.switch.goal.as_deref().map(|goal| goal.target);
        let Some(legs) = self.legs.as_deref() else {
            return if others_max == 0 { Path::Change } else { Path::New };
        };
        if let Some(place) = legs.open_to(wanted, self.old_goal.as_deref()) {
            return Path::Hop(place);
        }
        if legs.count() < others_max {
            return Path::New;
        }
        let tokens: Vec<_> = legs.all.iter().map(|leg| leg.token).collect();
        let place = (1..tokens.len()).find(|place| {
            let at = u8::try_from(*place).unwrap_or(HOME);
            self.is_idle(at) && is_quiet(tokens[*place])
        });
        place.map_or(Path::Later, |place| Path::InPlaceOf(u8::try_from(place).unwrap_or(HOME)))
    }

    /// Nothing is asked by this leg, and nothing waits to be sent by it.
    pub(crate) fn is_idle(&mut self, place: u8) -> bool {
        let Some(legs) = self.legs.as_deref() else { return false };
        let leg = &legs.all[usize::from(place)];
        let is_open = leg.standing == Standing::Open;
        let is_current = legs.current == place;
        let has_sent = leg.carry.is_empty() && (!is_current || self.request.carry.is_empty());
        let is_asking = is_current
            && !self.is_moving()
            && (self.tapped.tap.is_within_message(Way::Request) || self.request.cleared > 0);
        let has_turn = legs.turn == Some(place);
        let mut all = self.tapped.tap.newest(usize::MAX);
        let is_asked = all.any(|open| open.lane == place && !open.is_refused());
        is_open && has_sent && !is_asking && !has_turn && !is_asked
    }

    /// The connection has several legs from here on; `home` is the upstream side of its own slot.
    /// `is_busy` is that bytes from there wait to be sent, and `is_full` that its client takes nothing.
    pub(crate) fn begin_legs(&mut self, home: Token, (is_busy, is_full): (bool, bool)) {
        let is_within = is_busy || self.is_within_answer();
        let (turn, words) = (is_within.then_some(HOME), Words::default());
        let all = vec![Leg::new(home, Standing::Open)];
        self.request.survives = true;
        self.legs = Some(Box::new(Legs { all, current: HOME, turn, is_full, words }));
    }

    /// A leg is being reached for the request that waits. Returns its place.
    pub(crate) fn add_leg(&mut self, token: Token) -> u8 {
        self.switch.stand = Stand::Reaching;
        let Some(legs) = self.legs.as_deref_mut() else { return HOME };
        let place = legs.free_place(token);
        legs.reach(place, token, Vec::new());
        place
    }

    /// It has been reached.
    pub(crate) fn has_reached(
        &mut self,
        place: u8,
        goal: Option<Box<Goal>>,
        to: Option<SocketAddr>,
    ) {
        if let Some(legs) = &mut self.legs {
            let leg = legs.leg(place);
            (leg.standing, leg.remote) = (Standing::Open, to);
        }
        self.switch.goal = goal;
    }

    /// Requests go by this leg from here on, with the one that waits. `is_blocked` is whether the
    /// socket of the leg is full that they went by until now; returns whether that of this one is.
    pub(crate) fn hop<I: Io>(&mut self, core: &mut Core<I>, to: u8, is_blocked: bool) -> bool {
        let Some(legs) = self.legs.as_deref_mut() else { return is_blocked };
        let before = legs.current;
        let wanted = self.switch.goal.take();
        let place = wanted.as_deref().and_then(|goal| goal.place);
        let old_goal = self.old_goal.take();
        let is_blocked = if before == to {
            self.switch.goal = old_goal.or(wanted);
            is_blocked
        } else {
            let (carry, remote) = (std::mem::take(&mut self.request.carry), self.tapped.of.remote);
            let left = legs.leg(before);
            (left.carry, left.remote, left.goal) = (carry, remote, old_goal);
            left.is_blocked = is_blocked;
            if left.standing == Standing::Gone {
                left.standing = if before == HOME { Standing::Gone } else { Standing::Free };
                (left.carry, left.is_blocked) = (Vec::new(), false);
            }
            legs.current = to;
            let leg = legs.leg(to);
            self.request.carry = std::mem::take(&mut leg.carry);
            self.tapped.of.remote = leg.remote;
            // Of two for the same target one is storage for the next that goes elsewhere.
            self.switch.goal = wanted;
            if let Some(goal) = leg.goal.take() {
                self.old_goal = self.switch.goal.replace(goal);
            }
            leg.is_blocked
        };
        self.switch.is_at(place);
        (self.switch.is_gone, self.request.is_dead) = (false, false);
        self.tapped.of.seats.hop(to);
        self.name_remote(core);
        self.tapped.tap.newest(1).filter(|open| open.data.waits).for_each(|open| open.lane = to);
        self.go_on(core);
        is_blocked
    }

    /// Nobody was reached for the request that waits: its client is told in its turn, and the others go
    /// on.
    pub(crate) fn not_reached<I: Io>(&mut self, core: &mut Core<I>, place: u8) {
        core.recorder.bump(Key::refused(Why::Unreachable as usize));
        self.name_remote(core);
        let (words, seats) = (self.tapped.tap.newest(1), &mut self.tapped.of.seats);
        for open in words.filter(|open| open.data.waits) {
            (open.data.waits, open.data.is_refused) = (false, true);
            // What came of it has been noted where it was dialled.
            open.data.is_seated = false;
            waits_no_more(&mut self.tapped.patience, open.data.timed);
            open.data.timed = 0;
            if let Some(legs) = &mut self.legs {
                legs.words.over(std::mem::take(&mut open.data.words));
            }
        }
        seats.stay();
        self.replies.last_waits = false;
        self.parked = Vec::new();
        self.drops = self.is_within_request();
        self.switch.stand = Stand::Settled;
        self.switch.goal = self.old_goal.take();
        self.was_paused = true;
        if let Some(legs) = &mut self.legs {
            legs.leg(place).standing = Standing::Free;
        }
        self.settle(&mut core.taps, &core.recorder);
    }

    /// Whether the connection can go on without this leg. `has_ended` is that the client asks nothing more.
    pub(super) fn may_lose(&self, place: u8, has_ended: bool) -> bool {
        let Some(legs) = self.legs.as_deref() else { return false };
        let is_session = legs.current == place && !has_ended && self.left.stays().is_some();
        let is_cut = legs.turn == Some(place) && self.is_within_answer();
        !is_cut && !is_session
    }

    /// A leg has ended. Those who wait for what it owes are told, each in his turn; false where they
    /// cannot be, and the connection has to end. What went on to a `successor` has been noted there.
    pub(crate) fn lose<I: Io>(
        &mut self,
        core: &mut Core<I>,
        (place, successor): (u8, Option<u8>),
        has_ended: bool,
    ) -> bool {
        if !self.may_lose(place, has_ended) {
            return false;
        }
        let Some(legs) = self.legs.as_deref_mut() else { return false };
        let is_current = legs.current == place;
        let (mut before, mut heard) = (0, successor.map_or(Heard::Local, |_| Heard::Nothing));
        for open in self.tapped.tap.newest(usize::MAX) {
            if open.kind == Kind::Oneway {
                continue;
            }
            if !open.is_refused() && open.lane == place {
                let words = std::mem::take(&mut open.data.words);
                let is_told = legs.words.get(words).is_some_and(|words| {
                    self.replies.insert(before, Why::Unreachable, words);
                    true
                });
                if !is_told {
                    return false;
                }
                legs.words.over(words);
                open.refuse();
                open.data.is_refused = true;
                waits_no_more(&mut self.tapped.patience, open.data.timed);
                open.data.timed = 0;
                if std::mem::take(&mut open.data.is_seated) {
                    let seat = successor.unwrap_or(place);
                    self.tapped.of.seats.end(seat, heard, 0, core.now);
                    heard = Heard::Nothing;
                }
            }
            before += usize::from(open.is_refused());
        }
        if legs.turn == Some(place) {
            legs.turn = None;
        }
        self.tapped.of.seats.lose(place);
        let leg = legs.leg(place);
        (leg.carry, leg.is_blocked) = (Vec::new(), false);
        leg.standing = if is_current || place == HOME { Standing::Gone } else { Standing::Free };
        if is_current {
            // The rest of what is asked by it goes nowhere.
            (self.request.is_dead, self.request.carry) = (true, Vec::new());
            self.switch.is_gone = true;
        }
        self.settle(&mut core.taps, &core.recorder);
        true
    }

    /// A leg is being closed that is idle.
    pub(crate) fn close_leg(&mut self, place: u8) {
        let Some(legs) = self.legs.as_deref_mut() else { return };
        self.tapped.of.seats.lose(place);
        let is_current = legs.current == place;
        let leg = legs.leg(place);
        leg.standing = if is_current { Standing::Gone } else { Standing::Free };
        if is_current {
            (self.request.is_dead, self.switch.is_gone) = (true, true);
        }
    }

    /// A leg whose requests went nowhere: its socket is broken.
    pub(crate) fn has_broken(&self) -> Option<u8> {
        let legs = self.legs.as_deref()?;
        let is_broken = |(place, leg): (u8, &Leg)| {
            let is_broken = leg.is_broken || (place == legs.current && self.request.is_dead);
            (is_broken && leg.standing == Standing::Open).then_some(place)
        };
        (HOME..).zip(&legs.all).find_map(is_broken)
    }

    /// The places that legs have, or had.
    pub(crate) fn places(&self) -> std::ops::Range<u8> {
        let count = self.legs.as_deref().map_or(0, |legs| legs.all.len());
        HOME..u8::try_from(count).unwrap_or(u8::MAX)
    }

    /// The leg at a place, if it has a socket.
    pub(crate) fn leg_at(&self, place: u8) -> Option<LegState> {
        let legs = self.legs.as_deref()?;
        let leg = legs.all.get(usize::from(place))?;
        let is_open = leg.standing == Standing::Open;
        let waits =
            !leg.carry.is_empty() || (legs.current == place && !self.request.carry.is_empty());
        let may_shut = is_open && !leg.has_shut && !waits;
        let state = LegState { place, token: leg.token, is_open, may_shut };
        (is_open || leg.standing == Standing::Reaching).then_some(state)
    }

    /// The server of a leg was told that no further requests follow.
    pub(crate) fn has_shut(&mut self, place: u8) {
        if let Some(legs) = &mut self.legs {
            legs.leg(place).has_shut = true;
        }
    }

    /// The leg that requests go by now, if this is it.
    pub(crate) fn is_current(&self, place: u8) -> bool {
        self.lane() == place
    }

    /// What waits for the socket of a leg that requests do not go by now; whether it is full.
    pub(crate) fn waiting_at(&mut self, place: u8) -> Option<(&mut Vec<u8>, &mut bool)> {
        let leg = self.legs.as_deref_mut()?.leg(place);
        (leg.standing == Standing::Open).then_some((&mut leg.carry, &mut leg.is_blocked))
    }

    /// All legs have ended, and their client has all that they said.
    pub(crate) fn is_deserted(&self) -> bool {
        let Some(legs) = self.legs.as_deref() else { return false };
        let is_over = |leg: &Leg| matches!(leg.standing, Standing::Gone | Standing::Free);
        let is_told = self.response.carry.is_empty() && self.replies.is_empty();
        legs.all.iter().all(is_over) && is_told && !self.switch.is_under_way()
    }

    /// There are none any more: their sockets are closed.
    pub(crate) fn abandon_legs(&mut self) {
        (self.legs, self.request.survives) = (None, self.may_repeat());
        self.tapped.tap.hear(HOME);
    }

    /// Goes on with the connection's own upstream alone, where there is no other and nothing is left of
    /// what others were asked.
    pub(crate) fn drop_legs(&mut self) -> bool {
        let Some(legs) = self.legs.as_deref_mut() else { return false };
        let is_free = |leg: &Leg| leg.standing == Standing::Free;
        let is_home = legs.current == HOME && legs.all[0].standing == Standing::Open;
        let is_alone = is_home && !legs.all[0].has_shut && legs.all.iter().skip(1).all(is_free);
        let is_quiet = legs.turn.is_none() && !legs.is_full && legs.words.is_empty();
        if !is_alone || !is_quiet || self.switch.stand != Stand::Settled {
            return false;
        }
        self.abandon_legs();
        true
    }
}

/// Whether this leg has been asked what is to be answered next, or nobody has been asked anything.
pub(super) fn is_next<T: Default>(tap: &mut netra_codecs::tap::Tap<T>, place: u8) -> bool {
    tap.oldest().is_none_or(|open| open.lane == place && !open.is_refused())
}
