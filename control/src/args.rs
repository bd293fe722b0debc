//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf};

/// One place for the rules of a fleet of netra sidecars
#[derive(Debug, Parser)]
#[command(
    name = "netra-control",
    version,
    after_help = "Exit codes: 0 ended by SIGTERM; 64 settings; 69 the port is taken, or nobody answers; 71 the system refused"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read rules from a source and hand each namespace's sidecars what concerns them
    Serve(Box<Serve>),
    /// Print CustomResourceDefinitions of the kinds that are read
    Crds(Crds),
    /// Say what a pod's sidecar gets, what it does not get, and why
    Explain(Ask),
}

/// Settings of `serve`; each is a variable, too.
#[derive(Debug, ClapArgs)]
pub(crate) struct Serve {
    /// Where to listen
    #[arg(
        long,
        env = "NETRA_CONTROL_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "[::]:14960"
    )]
    pub(crate) listen: SocketAddr,
    /// Source: a directory of YAML
    #[arg(long, env = "NETRA_CONTROL_DIRECTORY", value_name = "DIR", conflicts_with_all = ["etcd", "kubernetes"])]
    pub(crate) directory: Option<PathBuf>,
    /// Source: etcd's members
    #[arg(
        long,
        env = "NETRA_CONTROL_ETCD",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        conflicts_with = "kubernetes"
    )]
    pub(crate) etcd: Vec<String>,
    /// What the keys in etcd begin with, without a slash at its end
    #[arg(
        long,
        env = "NETRA_CONTROL_ETCD_PREFIX",
        value_name = "PREFIX",
        default_value = "/netra"
    )]
    pub(crate) etcd_prefix: String,
    /// Source: the cluster that this runs in, or that KUBECONFIG names
    #[arg(long, env = "NETRA_CONTROL_KUBERNETES")]
    pub(crate) kubernetes: bool,
    /// Write into each document what it does and how many sidecars run it; one replica does, by a Lease
    #[arg(long, env = "NETRA_CONTROL_WRITE_STATUS", requires = "kubernetes")]
    pub(crate) write_status: bool,
    /// Who may have what: lines `NAMESPACE TOKEN`, `*` for every namespace; read again when it changes
    #[arg(long, env = "NETRA_CONTROL_TOKENS", value_name = "FILE", conflicts_with_all = ["token_review", "without_tokens"])]
    pub(crate) tokens: Option<PathBuf>,
    /// Who may have what: the service accounts of the cluster, each what its own namespace gets
    #[arg(long, env = "NETRA_CONTROL_TOKEN_REVIEW", conflicts_with = "without_tokens")]
    pub(crate) token_review: bool,
    /// Everybody who reaches the port may have everything
    #[arg(long, env = "NETRA_CONTROL_WITHOUT_TOKENS")]
    pub(crate) without_tokens: bool,
    /// Certificates of the server, PEM; read again when it changes
    #[arg(long, env = "NETRA_CONTROL_CERTIFICATE", value_name = "FILE", requires = "key")]
    pub(crate) certificate: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "NETRA_CONTROL_KEY", value_name = "FILE", requires = "certificate")]
    pub(crate) key: Option<PathBuf>,
    /// What follows NAME.NAMESPACE.svc in the names of services
    #[arg(
        long,
        env = "NETRA_CONTROL_DOMAIN",
        value_name = "NAME",
        default_value = "cluster.local"
    )]
    pub(crate) domain: String,
    /// The namespace whose authorizations are for every namespace
    #[arg(
        long,
        env = "NETRA_CONTROL_ROOT_NAMESPACE",
        value_name = "NAME",
        default_value = "netra-system"
    )]
    pub(crate) root_namespace: String,
}

/// Settings of `crds`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Crds {
    /// Those of Istio (DestinationRule, ServiceEntry), for a cluster without it, instead
    #[arg(long)]
    pub(crate) istio: bool,
}

/// Settings of `explain`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Ask {
    /// The pod, as NAMESPACE/NAME; the namespace alone is enough
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(crate) pod: String,
    /// Where netra-control is
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:14960")]
    pub(crate) server: String,
    /// A token of the namespace, or of `*`; not needed on netra-control's own host
    #[arg(long, env = "NETRA_CONTROL_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}
