//! Upstreams that a connection of HTTP/1 was at before and may come back to. While its requests go
//! elsewhere they *rest*, each in a slot of the slab that has an upstream side alone. Nothing is asked of
//! one that rests, so that whatever it says means that it is of no use any more.

use crate::io::Token;
use netra_codecs::{
    h1::{ResponseHead, Version},
    route::Target,
};
use std::net::SocketAddr;

/// The resting upstreams of one connection, and what has to be known of the one that does not rest.
#[derive(Debug, Default)]
pub(crate) struct Resting {
    all: Vec<Rest>,
    /// Where requests go now; none is the original destination.
    here: Option<Target>,
    /// The last answer from there was whole and did not say that the connection ends behind it.
    persists: bool,
}

/// One that rests.
#[derive(Debug)]
pub(crate) struct Rest {
    /// Its socket.
    pub(crate) token: Token,
    /// Where it leads, as a target and as an address.
    pub(crate) target: Option<Target>,
    pub(crate) remote: Option<SocketAddr>,
    /// The number of the seat there.
    pub(crate) lane: u8,
}

impl Resting {
    /// How many rest.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// The upstream that there is may rest.
    pub(crate) fn may_rest(&self) -> bool {
        self.persists
    }

    /// Another upstream has taken its place.
    pub(crate) fn is_at(&mut self, here: Option<Target>) {
        (self.here, self.persists) = (here, false);
    }

    /// The upstream that there is rests from now on. Returns a number for the next seat.
    pub(crate) fn add(&mut self, token: Token, remote: Option<SocketAddr>, lane: u8) -> u8 {
        self.all.push(Rest { token, target: self.here, remote, lane });
        let is_free = |lane: &u8| self.all.iter().all(|rest| rest.lane != *lane);
        (0..=u8::MAX).find(is_free).unwrap_or(0)
    }

    /// The one that leads there.
    pub(crate) fn find(&self, target: Option<&Target>) -> Option<Token> {
        self.all.iter().find(|rest| rest.target.as_ref() == target).map(|rest| rest.token)
    }

    /// The one in this slot rests no more.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Rest> {
        let place = self.all.iter().position(|rest| rest.token.slot == slot)?;
        Some(self.all.swap_remove(place))
    }

    /// Requests go to the one in this slot again, and the one that they went to rests in its place.
    pub(crate) fn take_turns(
        &mut self,
        slot: u32,
        remote: Option<SocketAddr>,
        lane: u8,
    ) -> Option<Rest> {
        let target = self.here;
        let rest = self.all.iter_mut().find(|rest| rest.token.slot == slot)?;
        Some(std::mem::replace(rest, Rest { token: rest.token, target, remote, lane }))
    }

    /// Takes one of them out, whichever.
    pub(crate) fn pop(&mut self) -> Option<Rest> {
        self.all.pop()
    }

    /// An answer has come from the upstream that does not rest.
    pub(crate) fn answered(&mut self, head: &ResponseHead<'_>, is_last: bool) {
        // What comes before an answer says nothing of the connection.
        if head.status() >= 200 {
            self.persists = head.version() == Version::Http11 && !is_last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Side;

    fn token(slot: u32) -> Token {
        Token { slot, generation: 1, side: Side::Upstream }
    }

    fn target(text: &str) -> Option<Target> {
        Some(Target::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn each_has_a_number_of_its_own_whatever_goes() {
        let mut resting = Resting::default();
        resting.is_at(target("a:1"));
        assert_eq!(resting.add(token(7), None, 0), 1);
        resting.is_at(None);
        assert_eq!(resting.add(token(8), None, 1), 2);
        resting.is_at(target("c:1"));
        assert_eq!(resting.find(target("a:1").as_ref()), Some(token(7)));
        assert_eq!(resting.find(None), Some(token(8)));
        assert_eq!(resting.find(target("c:1").as_ref()), None);
        let back = resting.take_turns(7, None, 2).unwrap();
        assert_eq!((back.target, back.lane), (target("a:1"), 0));
        resting.is_at(back.target);
        assert_eq!(resting.find(target("c:1").as_ref()), Some(token(7)));
        assert_eq!(resting.remove(8).map(|rest| rest.lane), Some(1));
        assert_eq!(resting.add(token(9), None, 0), 1, "the first that is free");
        assert_eq!(resting.count(), 2);
    }
}
