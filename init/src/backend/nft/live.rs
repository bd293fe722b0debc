//! nf_tables over netlink: needs no `nft` program.

use std::os::fd::{AsRawFd, RawFd};

use super::dump::{MSG_GETCHAIN, MSG_GETTABLE, compare};
use super::wire::{
    CHAIN_NAME, CHAIN_TABLE, NFPROTO_INET, deletion, guardrails, owned_table, removals, transaction,
};
use crate::error::{Error, Kind, Result};
use crate::netlink::{Attrs, Message, Netfilter, Refused, attr_str};
use crate::plan::Plan;

/// What is in the kernel, compared with the plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// Nothing of ours.
    Absent,
    /// Exactly the plan.
    Same,
    /// Something else of ours; the text says what.
    Different(String),
}

/// Compares the kernel with the plan.
pub fn state(plan: &Plan) -> Result<State> {
    let netfilter = open()?;
    compare(&netfilter, plan).map_err(|source| Error::kernel("nftables: read rules", &source))
}

/// Puts the plan in place of whatever table of ours there is, in one transaction.
pub fn apply(plan: &Plan) -> Result<()> {
    transact(&transaction(plan))
}

/// Asks the kernel whether it would take the plan. Changes nothing.
pub fn check(plan: &Plan) -> Result<()> {
    open()?.check(&transaction(plan)).map_err(|refused| failure(&refused))
}

/// No connection begins while this lives: for changes that take more than one transaction. The
/// kernel takes it away with the socket, so even if this process is killed.
#[derive(Debug)]
pub struct Guardrails(#[allow(dead_code, reason = "it is held, not used")] Netfilter);

impl Guardrails {
    /// Puts them up.
    pub fn new() -> Result<Self> {
        let set_up = || {
            let netfilter = open()?;
            match netfilter.transact(&guardrails()) {
                Ok(()) => Ok(Self(netfilter)),
                Err(refused) if is_anothers(&netfilter, &refused)? => {
                    Err(Error::new(Kind::Lock, "another netra-init has put them up"))
                }
                Err(refused) => Err(failure(&refused)),
            }
        };
        set_up().map_err(|Error { kind, message }| {
            Error::new(kind, format!("--guardrails: {message} (needs Linux 5.12)"))
        })
    }
}

/// A table that goes with its socket.
#[derive(Debug)]
pub struct OwnedTable(Netfilter);

impl AsRawFd for OwnedTable {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Makes a table that belongs to a socket; `None` if there is one of this name. Of kind `Kernel`
/// where the kernel has no such tables.
pub fn own_table(name: &str) -> Result<Option<OwnedTable>> {
    let netfilter = open()?;
    match netfilter.transact(&[owned_table(name)]) {
        Ok(()) => Ok(Some(OwnedTable(netfilter))),
        Err(refused) if is_anothers(&netfilter, &refused)? => Ok(None),
        Err(refused) => Err(failure(&refused)),
    }
}

/// Whether a table could not be made because another socket has it, or changes tables just now.
fn is_anothers(netfilter: &Netfilter, refused: &Refused) -> Result<bool> {
    match refused.source.raw_os_error() {
        Some(libc::EEXIST | libc::EBUSY | libc::EAGAIN) => Ok(true),
        // It looks as if we had no privileges, but without them we could not even look.
        Some(libc::EPERM) => {
            let tables = netfilter.dump(MSG_GETTABLE, NFPROTO_INET, &Attrs::new());
            tables.map(|_| true).map_err(|source| Error::kernel("nftables: read tables", &source))
        }
        _ => Ok(false),
    }
}

/// Takes our table out; nothing happens if there is none.
pub fn cleanup() -> Result<()> {
    transact(&deletion())
}

/// Whether another family's table has this chain: `iptables-nft` keeps its rules in nf_tables.
pub fn chain_exists(family: u8, table: &str, chain: &str) -> Result<bool> {
    let chains = open()?
        .dump(MSG_GETCHAIN, family, &Attrs::new())
        .map_err(|source| Error::kernel("nftables: read chains", &source))?;
    Ok(chains.iter().any(|found| {
        attr_str(found, CHAIN_TABLE) == Some(table) && attr_str(found, CHAIN_NAME) == Some(chain)
    }))
}

/// Removes base chains of another family's table, and the table, but only what is empty. For
/// cleaning up behind `iptables-nft`, which makes them but does not remove them.
pub fn remove_empty(family: u8, table: &str, chains: &[&str]) -> Result<()> {
    for message in removals(family, table, chains) {
        let refused = open()?.transact(&[message]).err();
        match refused.as_ref().and_then(|refused| refused.source.raw_os_error()) {
            // Not empty, or gone already: both fine.
            None | Some(libc::EBUSY | libc::ENOENT) => {}
            Some(code) => {
                let source = std::io::Error::from_raw_os_error(code);
                return Err(Error::kernel(&format!("nftables: remove empty {table}"), &source));
            }
        }
    }
    Ok(())
}

fn open() -> Result<Netfilter> {
    Netfilter::open().map_err(|source| Error::kernel("nftables: open netlink socket", &source))
}

fn transact(messages: &[Message]) -> Result<()> {
    open()?.transact(messages).map_err(|refused| failure(&refused))
}

fn failure(refused: &Refused) -> Error {
    Error::kernel(&format!("nftables: {}", refused.label), &refused.source)
}
