//! netra-init puts the redirect rules of the netra sidecar into a network namespace, and takes
//! them out again.
//!
//! Settings are text (`settings`), parsed once into an `InterceptSpec` (`spec`), from which a
//! `Plan` follows without looking at anything (`plan`). A backend renders the plan: as nf_tables
//! netlink messages or as input of `iptables-restore` (`backend`), each as one transaction.

#![deny(unsafe_code)]

pub mod backend;
mod capability;
pub mod cli;
mod conntrack;
pub mod doctor;
pub mod error;
mod links;
mod neighbour;
mod netlink;
pub mod plan;
pub mod ranges;
pub mod report;
mod run;
pub mod settings;
pub mod spec;
#[allow(unsafe_code)] // The one door.
mod sys;
mod verify;

pub use run::run;
pub use sys::original_dst;
