//! Where a connection of HTTP/2 goes: where its first request says, as long as the server has said nothing
//! that its client knows. What the client has sent until then is sent again. Later requests go where
//! their connection goes.

use super::Http;
use crate::{core::HttpCore, error::Direction, switch::Switch};
use netra_codecs::route::{Refusal, Target};
use netra_perf::{Key, Recorder};

/// What a client may send in front of its first request: settings, windows, priorities.
const SENT_MAX: usize = 4096;

impl Http {
    /// Requests of this connection are routed.
    pub(super) fn may_lead(&self, shared: &HttpCore) -> bool {
        self.direction == Direction::Outbound && shared.editor.config().routing.is_some()
    }

    /// Takes note of what goes to the server before the first request.
    #[cold]
    pub(super) fn keep_sent(&mut self, bytes: &[u8]) {
        let sent = self.sent.take_if(|sent| sent.len() + bytes.len() <= SENT_MAX);
        self.sent = sent.map(|sent| [&sent, bytes].concat());
    }

    /// A client of HTTP/2 is told nothing by netra: its connection ends.
    pub(crate) fn is_http2(&self) -> bool {
        self.two.is_some()
    }
}

/// A request goes where its connection goes, or leads it, which the first one may while its server has
/// said nothing. Whether it has to wait for another upstream; counts where it goes.
pub(super) fn lead(
    switch: &mut Switch,
    routed: Option<Option<Target>>,
    (sent, has_said): (&mut Option<Vec<u8>>, bool),
    recorder: &Recorder,
) -> bool {
    let may_lead = sent.is_some() && !has_said;
    match (routed, follows(switch, routed, may_lead)) {
        (_, false) => recorder.bump(Key::route_refused(Refusal::Http2 as usize)),
        (Some(Some(_)), true) => recorder.bump(Key::ROUTED),
        _ => {}
    }
    let is_elsewhere = switch.is_under_way();
    if !is_elsewhere {
        *sent = None;
    }
    is_elsewhere
}

/// A request goes where its connection goes, or leads it. False where it should have gone elsewhere.
fn follows(switch: &mut Switch, routed: Option<Option<Target>>, may_lead: bool) -> bool {
    let Some(target) = routed else { return true };
    let is_there = !switch.is_elsewhere(target.as_ref());
    is_there || (may_lead && target.is_some() && switch.wants(target, false))
}
