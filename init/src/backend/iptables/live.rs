//! Runs `iptables-save` and `iptables-restore`, never through a shell.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use super::{Owned, Table, lock, program, transaction};
use crate::backend::State;
use crate::backend::nft;
use crate::error::{Error, Kind, Result};
use crate::plan::{Family, Plan};
use crate::sys;

/// The two kinds of iptables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flavour {
    /// Its rules live in nf_tables.
    Nft,
    /// Its rules live in the old tables.
    Legacy,
}

impl Flavour {
    const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }

    /// What the program needs to change rules; the old one asks the kernel by a raw socket.
    const fn capabilities(self) -> &'static [u32] {
        match self {
            Self::Nft => &[sys::NET_ADMIN],
            Self::Legacy => &[sys::NET_ADMIN, sys::NET_RAW],
        }
    }

    /// What the program says in its version: `iptables v1.8.9 (nf_tables)`.
    const fn version_mark(self) -> &'static str {
        match self {
            Self::Nft => "nf_tables",
            Self::Legacy => "legacy",
        }
    }
}

impl Family {
    const fn prefix(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    /// `NFPROTO_*`
    const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Lists the old tables of this network namespace.
    const fn legacy_tables(self) -> &'static str {
        match self {
            Self::V4 => "/proc/thread-self/net/ip_tables_names",
            Self::V6 => "/proc/thread-self/net/ip6_tables_names",
        }
    }
}

/// The programs of one flavour and how to run them.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// Which iptables.
    pub flavour: Flavour,
    /// How long to wait for locks.
    pub lock_wait_seconds: u32,
}

impl Programs {
    /// Path of `iptables-<flavour>-<what>`, or of the plain name if it is of this flavour.
    fn find(&self, family: Family, what: &str) -> Option<PathBuf> {
        let (prefix, flavour) = (family.prefix(), self.flavour.name());
        let of_flavour = |path: &PathBuf| {
            let output = program::command(path).arg("--version").stdin(Stdio::null()).output();
            let mark = self.flavour.version_mark();
            output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(mark))
        };
        program::find(&format!("{prefix}-{flavour}-{what}"))
            .or_else(|| program::find(&format!("{prefix}-{what}")).filter(of_flavour))
    }

    fn require(&self, family: Family, what: &str) -> Result<PathBuf> {
        self.find(family, what).ok_or_else(|| {
            let (prefix, flavour) = (family.prefix(), self.flavour.name());
            Error::new(
                Kind::Kernel,
                format!(
                    "{prefix}-{flavour}-{what}: no such program: \
                     install iptables or use --backend nft-native"
                ),
            )
        })
    }

    /// Whether there may be rules of ours, found without creating tables by looking.
    fn may_have_rules(&self, family: Family, table: Table) -> Result<bool> {
        match self.flavour {
            // Where only root may see which tables there are, looking is the only way; who cannot
            // look has not made any.
            Flavour::Legacy => Ok(has_legacy_table(family, table)
                .unwrap_or_else(|| !is_without_net_raw() && self.find(family, "save").is_some())),
            Flavour::Nft => {
                for chain in table.chains() {
                    match nft::chain_exists(family.number(), table.name(), chain) {
                        Ok(false) => {}
                        // A kernel without nf_tables has no rules in it.
                        Err(error) if error.kind == Kind::Kernel => return Ok(false),
                        outcome => return outcome,
                    }
                }
                Ok(false)
            }
        }
    }

    /// The built-in chains that `restore` will have to make.
    fn missing_chains(&self, family: Family, table: Table) -> Result<BTreeSet<&'static str>> {
        let mut missing = BTreeSet::new();
        if self.flavour == Flavour::Nft {
            for chain in table.builtin_chains() {
                if !nft::chain_exists(family.number(), table.name(), chain)? {
                    missing.insert(*chain);
                }
            }
        }
        Ok(missing)
    }

    /// Takes out built-in chains that were made for our jumps, if nobody else uses them now.
    fn remove_made(
        &self,
        family: Family,
        table: Table,
        made: &BTreeSet<&'static str>,
    ) -> Result<()> {
        if made.is_empty() {
            return Ok(());
        }
        let made: Vec<&str> = made.iter().copied().collect();
        nft::remove_empty(family.number(), table.name(), &made)
    }

    /// Whether there is a table that cannot be looked into, for want of a program.
    pub fn is_blind(&self) -> bool {
        [Family::V4, Family::V6].into_iter().any(|family| {
            self.flavour == Flavour::Legacy
                && Table::ALL.iter().any(|table| has_legacy_table(family, *table) == Some(true))
                && self.find(family, "save").is_none()
        })
    }

    fn save(&self, family: Family, table: Table) -> Result<String> {
        let program = self.require(family, "save")?;
        let output = self.run(&program, &["-t", table.name()], "")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn owned(&self, family: Family, table: Table) -> Result<Owned> {
        if !self.may_have_rules(family, table)? {
            return Ok(Owned::default());
        }
        Ok(Owned::parse(table, &self.save(family, table)?))
    }

    fn restore(&self, family: Family, input: &str, is_test: bool) -> Result<()> {
        let program = self.require(family, "restore")?;
        let wait = self.lock_wait_seconds.to_string();
        let mut args = vec!["--noflush", "-w", &wait];
        if is_test {
            args.push("--test");
        }
        self.run(&program, &args, input).map(drop)
    }

    fn run(&self, program: &Path, args: &[&str], input: &str) -> Result<Output> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let failed = |source: io::Error| Error::new(Kind::Kernel, format!("{name}: {source}"));
        let _privileges = sys::Ambient::raise(self.flavour.capabilities());
        let mut child = program::command(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may exit before it has read everything; its exit code says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(output);
        }
        let is_legacy = self.flavour == Flavour::Legacy;
        Err(match is_legacy && is_without_net_raw() {
            true => Error::missing_net_raw(),
            false => refusal(&name, &output),
        })
    }
}

/// Whether the old iptables, which asks the kernel by a raw socket, cannot work.
fn is_without_net_raw() -> bool {
    sys::capabilities().is_ok_and(|has| has & (1 << sys::NET_RAW) == 0)
}

/// What a failed iptables means.
fn refusal(name: &str, output: &Output) -> Error {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    let line = line.join("; ");
    if said.contains("xtables lock") || said.contains("xtables.lock") {
        let advice = "another program holds it for too long, or it is not writable; \
                      see --lock-wait-seconds and XTABLES_LOCKFILE";
        return Error::new(Kind::Lock, format!("{name}: {line}: {advice}"));
    }
    if said.contains("Permission denied") || said.contains("Operation not permitted") {
        return Error::missing_net_admin(name);
    }
    let modules = "modules iptables may need: iptable_nat ip6table_nat xt_REDIRECT xt_owner \
                   xt_multiport xt_addrtype xt_statistic xt_comment";
    Error::new(Kind::Kernel, format!("{name}: {line} ({}); {modules}", output.status))
}

/// Every table of ours, in the order in which they are changed.
fn parts() -> impl Iterator<Item = (Family, Table)> {
    [Family::V6, Family::V4].into_iter().flat_map(|family| Table::ALL.map(|table| (family, table)))
}

/// Compares every table with the plan.
pub fn state(programs: &Programs, plan: &Plan) -> Result<State> {
    let mut is_same = true;
    let mut is_absent = true;
    for (family, table) in parts() {
        let found = programs.owned(family, table)?;
        is_same &= found == Owned::wanted(plan, family, table, &found.made());
        is_absent &= found.is_empty();
    }
    Ok(match (is_absent, is_same) {
        (true, _) => State::Absent,
        (false, true) => State::Same,
        (false, false) => State::Different("chains, rules or jumps differ".to_owned()),
    })
}

/// What `apply` changes in one table.
struct Step {
    family: Family,
    table: Table,
    current: Owned,
    wanted: Owned,
}

impl Step {
    fn forward(&self) -> String {
        transaction(self.table, &self.current, &self.wanted)
    }

    fn back(&self) -> String {
        transaction(self.table, &self.wanted, &self.current)
    }
}

/// Puts the plan in place. All tables are tested before any is changed, and those that were
/// changed are put back should a later one fail all the same.
pub fn apply(programs: &Programs, plan: &Plan) -> Result<()> {
    let mut steps = Vec::new();
    for (family, table) in parts() {
        let current = programs.owned(family, table)?;
        let missing = programs.missing_chains(family, table)?;
        let made = missing.union(&current.made()).copied().collect();
        let wanted = Owned::wanted(plan, family, table, &made);
        if current != wanted {
            let step = Step { family, table, current, wanted };
            programs.restore(family, &step.forward(), true)?;
            steps.push(step);
        }
    }
    let mut done: Vec<&Step> = Vec::new();
    for step in &steps {
        if let Err(error) = programs.restore(step.family, &step.forward(), false) {
            for step in done {
                programs.restore(step.family, &step.back(), false)?;
            }
            return Err(error);
        }
        done.push(step);
    }
    for Step { family, table, current, wanted } in &steps {
        programs.remove_made(*family, *table, &(&current.made() - &wanted.made()))?;
    }
    Ok(())
}

/// Whether there may be rules of ours, in either family. Cheap, and changes nothing: even to list
/// the rules of an old table makes the table.
pub fn may_have_rules(programs: &Programs) -> Result<bool> {
    for (family, table) in parts() {
        if programs.may_have_rules(family, table)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes out what is ours in both families. Says whether there was anything.
pub fn cleanup(programs: &Programs) -> Result<bool> {
    if !may_have_rules(programs)? {
        return Ok(false);
    }
    let _lock = lock::hold(programs.lock_wait_seconds)?;
    let mut had_rules = false;
    for (family, table) in parts() {
        let current = programs.owned(family, table)?;
        if !current.is_empty() {
            let nothing = transaction(table, &current, &Owned::default());
            programs.restore(family, &nothing, false)?;
            programs.remove_made(family, table, &current.made())?;
            had_rules = true;
        }
    }
    Ok(had_rules)
}

/// Whether the old iptables is in use here: somebody else has nat rules in it.
pub fn has_foreign_rules(programs: &Programs) -> bool {
    [Family::V4, Family::V6].into_iter().any(|family| {
        let saved = || programs.save(family, Table::Nat).unwrap_or_default();
        has_legacy_table(family, Table::Nat) != Some(false)
            && saved().lines().any(|line| line.starts_with("-A"))
    })
}

/// Whether the programs work here, found without a change: their paths, or what is wrong.
pub fn try_out(programs: &Programs) -> Result<String> {
    let program = programs.require(Family::V4, "restore")?;
    let has_ipv6 = match programs.flavour {
        Flavour::Nft => {
            programs.restore(Family::V4, "*nat\nCOMMIT\n", true)?;
            is_ipv6_usable(programs)
        }
        // Even a test would make the table.
        Flavour::Legacy => programs.find(Family::V6, "restore").is_some(),
    };
    let v6 = if has_ipv6 { "" } else { ", IPv4 only" };
    Ok(format!("{}{v6}", program.display()))
}

/// Whether ip6tables has a nat table here.
pub fn is_ipv6_usable(programs: &Programs) -> bool {
    programs.restore(Family::V6, "*nat\nCOMMIT\n", true).is_ok()
}

/// Whether there is an old table in this network namespace; `None` if that is not for us to know.
fn has_legacy_table(family: Family, table: Table) -> Option<bool> {
    match fs::read_to_string(family.legacy_tables()) {
        Ok(tables) => Some(tables.lines().any(|name| name == table.name())),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(_) => Some(false),
    }
}
