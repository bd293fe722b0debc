//! Backends: ways to get a plan into the kernel, and the choice between them.

pub mod iptables;
pub mod nft;

use std::fs;
use std::net::UdpSocket;

use crate::error::{Error, Kind, Result};
use crate::plan::Plan;
use crate::report::Reporter;
use crate::spec::{InterceptSpec, Ipv6};
use crate::sys;

use iptables::{Flavour, Programs};

pub use nft::State;

/// A way to get rules into the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Backend {
    /// nf_tables by netlink, without any program.
    NftNative,
    /// The iptables that keeps its rules in nf_tables.
    IptablesNft,
    /// The old iptables.
    IptablesLegacy,
}

/// Which backend the user wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Choice {
    /// The one that fits the machine.
    Auto,
    /// This one or none.
    Only(Backend),
}

impl Choice {
    /// Parses the name of a backend or `auto`.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let named = Backend::ALL.into_iter().find(|backend| backend.name() == text);
        match (text, named) {
            ("auto", _) => Ok(Self::Auto),
            (_, Some(backend)) => Ok(Self::Only(backend)),
            _ => Err("allowed are auto, nft-native, iptables-nft and iptables-legacy".to_owned()),
        }
    }
}

impl Backend {
    /// All backends, best first.
    pub const ALL: [Self; 3] = [Self::NftNative, Self::IptablesNft, Self::IptablesLegacy];

    /// Name in flags and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NftNative => "nft-native",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }

    const fn flavour(self) -> Option<Flavour> {
        match self {
            Self::NftNative => None,
            Self::IptablesNft => Some(Flavour::Nft),
            Self::IptablesLegacy => Some(Flavour::Legacy),
        }
    }

    /// The plan in the language of this backend.
    pub fn render(self, plan: &Plan) -> String {
        match self {
            Self::NftNative => nft::render(plan),
            Self::IptablesNft | Self::IptablesLegacy => iptables::render(plan),
        }
    }
}

/// The backends of this network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Backends<'a> {
    /// What to intercept.
    pub spec: &'a InterceptSpec,
    /// Which backend the user wants.
    pub choice: Choice,
    /// How long to wait for locks.
    pub lock_wait_seconds: u32,
    /// Whether rules of ours that are not the wanted ones are replaced.
    pub reconcile: bool,
    /// Whether no connection may begin while there is more than one transaction.
    pub guardrails: bool,
    /// Where warnings go.
    pub reporter: Reporter,
}

/// How `apply` ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applied {
    /// Who has the rules.
    pub backend: Backend,
    /// Whether they were there already.
    pub was_there: bool,
    /// The rules as text.
    pub rules: String,
}

impl Backends<'_> {
    /// Puts the rules in place, and takes those of other backends out.
    pub fn apply(&self) -> Result<Applied> {
        if !self.reconcile {
            self.refuse_to_reconcile()?;
        }
        let candidates = self.candidates();
        let _guardrails = self.guardrails.then(nft::Guardrails::new).transpose()?;
        let mut outcome = Err(Error::new(Kind::Kernel, "no backend"));
        for (index, &backend) in candidates.iter().enumerate() {
            outcome = self.apply_with(backend);
            match &outcome {
                Err(error) if error.kind == Kind::Kernel && index + 1 < candidates.len() => {
                    let next = candidates[index + 1].name();
                    let name = backend.name();
                    self.reporter.warn("fallback", &format!("{name}: {error}; trying {next}"));
                }
                _ => break,
            }
        }
        let applied = outcome?;
        for other in Backend::ALL.into_iter().filter(|&backend| backend != applied.backend) {
            if self.cleanup_with(other)? {
                let message = format!("rules of backend {} removed", other.name());
                self.reporter.warn("other-backend", &message);
            }
        }
        Ok(applied)
    }

    /// An error of kind `Drift` if there are rules of ours that `apply` would replace.
    fn refuse_to_reconcile(&self) -> Result<()> {
        match self.status() {
            Ok(_) => Ok(()),
            Err(error) if error.kind != Kind::Drift => Err(error),
            Err(error) => {
                for backend in Backend::ALL {
                    if self.state(backend).is_ok_and(|state| state != State::Absent) {
                        let message = format!("{error}; --reconcile=false leaves it so");
                        return Err(Error::new(Kind::Drift, message));
                    }
                }
                Ok(())
            }
        }
    }

    /// Takes every rule of ours out. Says which backends had any.
    pub fn cleanup(&self) -> Result<Vec<Backend>> {
        let mut cleaned = Vec::new();
        let mut first_error = None;
        for backend in Backend::ALL {
            match self.cleanup_with(backend) {
                Ok(true) => cleaned.push(backend),
                Ok(false) => {}
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(cleaned), Err)
    }

    /// Compares the rules with the wanted ones: the backend that has them, or an error of kind
    /// `Drift` that says what is wrong.
    pub fn status(&self) -> Result<Backend> {
        let mut same = Vec::new();
        let mut wrong = Vec::new();
        for backend in Backend::ALL {
            let is_chosen =
                matches!(self.choice, Choice::Auto) || self.choice == Choice::Only(backend);
            match self.state(backend) {
                Ok(State::Same) if is_chosen => same.push(backend),
                Ok(State::Same) => wrong.push(format!("{}: rules of netra", backend.name())),
                Ok(State::Different(what)) => wrong.push(format!("{}: {what}", backend.name())),
                Ok(State::Absent) => {}
                // What the kernel does not have has no rules.
                Err(error)
                    if error.kind == Kind::Kernel && self.choice != Choice::Only(backend) => {}
                Err(error) => return Err(error),
            }
        }
        match (&same[..], &wrong[..]) {
            ([backend], []) => Ok(*backend),
            ([], []) => Err(Error::new(Kind::Drift, "not applied: there are no rules of netra")),
            (_, []) => Err(Error::new(Kind::Drift, "applied twice, by several backends")),
            _ => Err(Error::new(Kind::Drift, format!("not as wanted: {}", wrong.join("; ")))),
        }
    }

    /// The text of the rules for `print`. Looks at nothing that needs privileges.
    pub fn render(&self) -> Result<String> {
        let backend = match self.choice {
            Choice::Auto => Backend::NftNative,
            Choice::Only(backend) => backend,
        };
        let has_ipv6 = match self.spec.ipv6 {
            Ipv6::Off => false,
            Ipv6::Require => true,
            Ipv6::Auto => has_ipv6_sockets(),
        };
        Ok(backend.render(&Plan::new(self.spec, has_ipv6)))
    }

    /// In which order backends are tried.
    fn candidates(&self) -> Vec<Backend> {
        match self.choice {
            Choice::Only(backend) => vec![backend],
            // Mixing works on today's kernels, but whoever looks for rules looks where rules are.
            Choice::Auto if iptables::has_foreign_rules(&self.programs(Flavour::Legacy)) => {
                vec![Backend::IptablesLegacy, Backend::NftNative, Backend::IptablesNft]
            }
            Choice::Auto => Backend::ALL.to_vec(),
        }
    }

    fn programs(&self, flavour: Flavour) -> Programs {
        Programs { flavour, lock_wait_seconds: self.lock_wait_seconds }
    }

    fn apply_with(&self, backend: Backend) -> Result<Applied> {
        let plan = self.plan(backend)?;
        let applied = |was_there| Applied { backend, was_there, rules: backend.render(&plan) };
        let Some(flavour) = backend.flavour() else {
            if nft::state(&plan)? == State::Same {
                return Ok(applied(true));
            }
            return nft::apply(&plan).map(|()| applied(false));
        };
        let lock = iptables::lock(self.lock_wait_seconds)?;
        if matches!(lock, iptables::Lock::Nothing) {
            let message = "this kernel has no lock that only its administrators can hold: do not \
                           run two netra-inits at once";
            self.reporter.warn("no-lock", message);
        }
        let programs = self.programs(flavour);
        if iptables::state(&programs, &plan)? == State::Same {
            return Ok(applied(true));
        }
        iptables::apply(&programs, &plan).map(|()| applied(false))
    }

    /// Whether a backend would work here, found without a change: what it is, or what it lacks.
    pub(crate) fn try_out(&self, backend: Backend) -> Result<String> {
        let Some(flavour) = backend.flavour() else {
            let plan = Plan::new(self.spec, has_ipv6_sockets());
            return nft::check(&plan).map(|()| "no program needed".to_owned());
        };
        iptables::try_out(&self.programs(flavour))
    }

    /// In which order backends are tried.
    pub(crate) fn order(&self) -> Vec<Backend> {
        self.candidates()
    }

    fn cleanup_with(&self, backend: Backend) -> Result<bool> {
        let Some(flavour) = backend.flavour() else {
            let has_table = match nft::state(&Plan::new(self.spec, true)) {
                // A kernel without nf_tables has no table of ours.
                Err(error) if error.kind == Kind::Kernel => false,
                state => state? != State::Absent,
            };
            return if has_table { nft::cleanup().map(|()| true) } else { Ok(false) };
        };
        let programs = self.programs(flavour);
        if programs.is_blind() {
            let message = "there is an iptables-legacy nat table, but no iptables-legacy-save to \
                           look for rules of netra in it";
            self.reporter.warn("blind", message);
            return Ok(false);
        }
        iptables::cleanup(&programs)
    }

    fn state(&self, backend: Backend) -> Result<State> {
        let Some(flavour) = backend.flavour() else {
            return nft::state(&self.plan(backend)?);
        };
        let programs = self.programs(flavour);
        // The plan asks ip6tables, which may load modules: not for a backend that is not in use.
        if programs.is_blind() || !iptables::may_have_rules(&programs)? {
            return Ok(State::Absent);
        }
        iptables::state(&programs, &self.plan(backend)?)
    }

    /// The plan for a backend: whether it covers IPv6 depends on what the machine has.
    fn plan(&self, backend: Backend) -> Result<Plan> {
        let has_ipv6 = match self.spec.ipv6 {
            Ipv6::Off => false,
            Ipv6::Auto | Ipv6::Require => match self.ipv6_obstacle(backend) {
                None => true,
                Some(obstacle) if self.spec.ipv6 == Ipv6::Require => {
                    return Err(Error::new(Kind::Kernel, format!("--ipv6 require: {obstacle}")));
                }
                Some(obstacle) => {
                    if has_ipv6_addresses() {
                        let message = format!("{obstacle}: IPv6 traffic BYPASSES the sidecar");
                        self.reporter.warn("ipv6-bypass", &message);
                    }
                    false
                }
            },
        };
        Ok(Plan::new(self.spec, has_ipv6))
    }

    fn ipv6_obstacle(&self, backend: Backend) -> Option<&'static str> {
        if !has_ipv6_sockets() {
            return Some("the kernel has no IPv6");
        }
        let flavour = backend.flavour()?;
        let is_usable = iptables::is_ipv6_usable(&self.programs(flavour));
        (!is_usable).then_some("ip6tables has no nat table here")
    }
}

/// Checks what can be checked before the first change, for one clear line instead of a riddle.
pub fn check_capabilities(choice: Choice) -> Result<()> {
    // Where even the question is refused, the kernel itself has to say no.
    let effective = sys::capabilities().unwrap_or(u64::MAX);
    if effective & (1 << sys::NET_ADMIN) == 0 {
        return Err(Error::missing_net_admin("no privileges"));
    }
    let needs_raw = choice == Choice::Only(Backend::IptablesLegacy);
    if needs_raw && effective & (1 << sys::NET_RAW) == 0 {
        return Err(Error::missing_net_raw());
    }
    Ok(())
}

/// Whether the kernel knows IPv6 at all. An address may come later than we do, so it is not asked
/// for: rules for a family without traffic cost nothing.
pub(crate) fn has_ipv6_sockets() -> bool {
    UdpSocket::bind("[::]:0").is_ok()
}

pub(crate) fn has_ipv6_addresses() -> bool {
    // "address index prefix-length scope flags name"; scopes 10 and 20 are host and link, which
    // are never intercepted.
    let scope = |line: &str| line.split_ascii_whitespace().nth(3).map(str::to_owned);
    let is_routable = |line: &str| scope(line).is_some_and(|scope| scope != "10" && scope != "20");
    fs::read_to_string("/proc/thread-self/net/if_inet6")
        .is_ok_and(|addresses| addresses.lines().any(is_routable))
}
