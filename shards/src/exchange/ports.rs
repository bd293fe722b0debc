//! Which ports have been found to speak what, for as long as it is worth remembering.

use crate::sys::Nanos;

/// Ports that are remembered.
const PORTS_MAX: usize = 64;
/// For so long.
const KEPT_NS: Nanos = 60 * 1_000_000_000;

/// What the last connections to some ports turned out to be: known, or not. One that is not known
/// is not watched again for a while; where somebody was known, a stranger changes nothing.
#[derive(Debug, Default)]
pub(crate) struct SeenPorts {
    seen: Vec<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    port: u16,
    is_known: bool,
    until: Nanos,
}

impl SeenPorts {
    /// Whether connections to this port are worth watching.
    pub(crate) fn is_worth_it(&self, port: u16, now: Nanos) -> bool {
        let is_unknown = |seen: &Seen| seen.port == port && !seen.is_known && seen.until > now;
        !self.seen.iter().any(is_unknown)
    }

    /// A connection to this port has turned out to be known, or not.
    pub(crate) fn note(&mut self, port: u16, is_known: bool, now: Nanos) {
        let new = Seen { port, is_known, until: now + KEPT_NS };
        if let Some(seen) = self.seen.iter_mut().find(|seen| seen.port == port) {
            if is_known || !seen.is_known || seen.until <= now {
                *seen = new;
            }
        } else if self.seen.len() < PORTS_MAX {
            self.seen.push(new);
        } else if let Some(oldest) = self.seen.iter_mut().min_by_key(|seen| seen.until) {
            *oldest = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_port_is_left_alone_for_a_while() {
        let mut seen = SeenPorts::default();
        assert!(seen.is_worth_it(3306, 5));
        seen.note(3306, false, 5);
        assert!(!seen.is_worth_it(3306, 5 + KEPT_NS - 1) && seen.is_worth_it(3307, 5));
        assert!(seen.is_worth_it(3306, 5 + KEPT_NS));
    }

    #[test]
    fn a_stranger_changes_nothing_about_a_port_that_is_known() {
        let mut seen = SeenPorts::default();
        seen.note(6379, false, 0);
        seen.note(6379, true, 1);
        seen.note(6379, false, 2);
        assert!(seen.is_worth_it(6379, 3));
        seen.note(6379, false, 1 + KEPT_NS);
        assert!(!seen.is_worth_it(6379, 2 + KEPT_NS));
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        let mut seen = SeenPorts::default();
        for port in 0..1000 {
            seen.note(port, false, port.into());
        }
        assert_eq!(seen.seen.len(), PORTS_MAX);
        assert!(seen.is_worth_it(0, 1000) && !seen.is_worth_it(999, 1000));
    }
}
