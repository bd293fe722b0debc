//! Why something failed, in two letters in Envoy's manner: Envoy's own where the meaning is the
//! same, so that whoever knows them need not look, and others where it has none.

/// What failed, and by that where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Flag {
    /// Nobody listens where the connection was going.
    UpstreamRefused,
    /// The dial was not answered in time.
    DialTimeout,
    /// There is no way to the address.
    NoRoute,
    /// There is no local port to dial from.
    NoLocalPort,
    /// A limit of netra's or of the kernel's was met: descriptors, or names under way.
    Limit,
    /// The dial failed for another reason.
    DialFailed,
    /// The name of a routed request has no address.
    NameUnknown,
    /// The upstream reset the connection.
    UpstreamReset,
    /// The upstream ended its stream in the middle of an exchange.
    UpstreamGone,
    /// Moving bytes failed on the upstream's side.
    UpstreamError,
    /// The downstream reset the connection.
    DownstreamReset,
    /// Moving bytes failed on the downstream's side.
    DownstreamError,
    /// Neither side moved bytes for as long as a setting allows.
    IdleTimeout,
    /// One side had ended and the other stayed silent.
    HalfCloseLinger,
    /// The drain's deadline came first.
    DrainDeadline,
    /// It would have led back to netra itself.
    Loop,
    /// The kernel knows no original destination: nobody redirected it.
    NoOriginalDst,
    /// It was netra's own dial, which the rules have sent back.
    OwnDial,
    /// It came from outside and was for nobody here.
    ForeignDestination,
    /// netra itself could not go on.
    Netra,
    /// A rule refused a request, and its client cannot be told otherwise than by this end.
    RefusedByRule,
    /// An answer did not begin, or stood still, for longer than a rule allows.
    AnswerTimeout,
}

/// Flag, letters, word, side, what to do about it.
type Row = (Flag, &'static str, &'static str, &'static str, &'static str);

const TABLE: [Row; 22] = [
    (
        Flag::UpstreamRefused,
        "UF",
        "upstream_refused",
        "upstream",
        "nobody listens there: start what should, or mend the address or port that is called",
    ),
    (
        Flag::DialTimeout,
        "UT",
        "dial_timeout",
        "upstream",
        "the address does not answer: a host that is gone, a firewall, a network policy; how long \
         netra waits is NETRA_CONNECT_TIMEOUT_MS",
    ),
    (
        Flag::NoRoute,
        "NR",
        "no_route",
        "upstream",
        "no way to this address from here: ip route, or a network policy that rejects",
    ),
    (
        Flag::NoLocalPort,
        "LP",
        "no_local_port",
        "upstream",
        "local ports have run short: netra doctor, NETRA_SPARE_SOURCES, a wider \
         net.ipv4.ip_local_port_range",
    ),
    (
        Flag::Limit,
        "UO",
        "limit",
        "upstream",
        "out of descriptors, or too many names at once: netra doctor says what is needed",
    ),
    (Flag::DialFailed, "UX", "dial_failed", "upstream", "the errno says why the kernel refused"),
    (
        Flag::NameUnknown,
        "DF",
        "name_unknown",
        "upstream",
        "the route's name has no address: mend the route, or the name server",
    ),
    (
        Flag::UpstreamReset,
        "UR",
        "upstream_reset",
        "upstream",
        "whom netra dialled reset it: its own log says why (a crash, a limit, a timeout)",
    ),
    (
        Flag::UpstreamGone,
        "UC",
        "upstream_gone",
        "upstream",
        "it ended within an answer: a crash, or a keep-alive time shorter than its clients'",
    ),
    (
        Flag::UpstreamError,
        "UE",
        "upstream_error",
        "upstream",
        "the errno says; ETIMEDOUT: it no longer acknowledges what is sent, its host may be gone",
    ),
    (
        Flag::DownstreamReset,
        "DR",
        "downstream_reset",
        "downstream",
        "who had connected gave up: its timeout may be shorter than the answer takes",
    ),
    (
        Flag::DownstreamError,
        "DE",
        "downstream_error",
        "downstream",
        "the errno says; ETIMEDOUT: it no longer acknowledges what is sent, its host may be gone",
    ),
    (
        Flag::IdleTimeout,
        "SI",
        "idle_timeout",
        "netra",
        "neither side moved bytes: NETRA_TCP_IDLE_TIMEOUT_MS",
    ),
    (
        Flag::HalfCloseLinger,
        "HL",
        "half_close_linger",
        "netra",
        "one side had ended, the other stayed silent: NETRA_HALF_CLOSE_LINGER_MS",
    ),
    (
        Flag::DrainDeadline,
        "DD",
        "drain_deadline",
        "netra",
        "it did not end within the drain: netra-init release before SIGTERM, or a longer NETRA_DRAIN_MS",
    ),
    (Flag::Loop, "LO", "loop", "netra", "it leads to netra's own port: do not dial that"),
    (
        Flag::NoOriginalDst,
        "NO",
        "no_original_dst",
        "netra",
        "nobody redirected it: a program dials NETRA_PORT itself, or the rules are another pod's",
    ),
    (
        Flag::OwnDial,
        "OD",
        "own_dial",
        "netra",
        "the rules send netra's own dials back: tell netra-init its user, NETRA_SIDECAR_USER_ID",
    ),
    (
        Flag::ForeignDestination,
        "FD",
        "foreign_destination",
        "netra",
        "from outside, for loopback or another host; guests come in by NETRA_REROUTE_INTERFACES",
    ),
    (Flag::Netra, "NE", "netra_error", "netra", "netra had no memory for it: netra doctor"),
    (
        Flag::RefusedByRule,
        "RR",
        "refused_by_rule",
        "netra",
        "a rule refused a request of a protocol that has no words for it: netra rules explain",
    ),
    (
        Flag::AnswerTimeout,
        "RT",
        "answer_timeout",
        "upstream",
        "the answer took longer than the timeout of the rule that netra.rule names allows",
    ),
];

impl Flag {
    /// All of them, in order.
    pub const ALL: [Self; TABLE.len()] = {
        let mut all = [Self::Netra; TABLE.len()];
        let mut at = 0;
        while at < all.len() {
            all[at] = TABLE[at].0;
            at += 1;
        }
        all
    };

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its two letters.
    pub fn letters(self) -> &'static str {
        self.row().1
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        self.row().2
    }

    /// Who caused it: `upstream`, `downstream` or `netra`.
    pub fn side(self) -> &'static str {
        self.row().3
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        self.row().4
    }
}

/// What failed, and what the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// What failed.
    pub flag: Flag,
    /// The errno; 0 where there is none.
    pub errno: u16,
}

impl Fault {
    /// One without an errno.
    pub const fn of(flag: Flag) -> Self {
        Self { flag, errno: 0 }
    }

    /// One with what the kernel said.
    pub fn with_errno(flag: Flag, errno: i32) -> Self {
        Self { flag, errno: u16::try_from(errno).unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_flag_has_its_own_row_letters_and_word() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, at, "{row:?}");
            assert!(row.1.len() == 2 && ["upstream", "downstream", "netra"].contains(&row.3));
            assert!(!row.4.is_empty());
        }
        let letters: BTreeSet<_> = Flag::ALL.iter().map(|flag| flag.letters()).collect();
        let words: BTreeSet<_> = Flag::ALL.iter().map(|flag| flag.word()).collect();
        assert_eq!((letters.len(), words.len()), (TABLE.len(), TABLE.len()));
    }
}
