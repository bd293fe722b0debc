//! netra-control: one place for the rules of a fleet. It reads documents and endpoints from a
//! directory, etcd or Kubernetes, and hands each namespace's sidecars what concerns them. It keeps
//! no state: sidecars run on what they have when it is gone.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, reason = "no data path is here: locks are short, and fine")]

mod admission;
mod args;
mod changed;
mod client;
mod fleet;
mod lease;
mod office;
mod page;
mod scope;
mod serve;
mod shelf;
mod source;
mod status;
mod tls;
mod tokens;
mod vet;
mod who;
mod world;
mod write_back;

use args::{Args, Ask, Command};
use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use office::{Counts, Office};
use scope::Names;
use source::{directory, etcd, kubernetes};
use std::{process::ExitCode, sync::Arc};
use tokio::sync::{mpsc, watch};
use who::Judge;
use world::World;

/// Bad settings: as netra has it.
const CONFIG: u8 = 64;
/// A port is taken, or nobody answers.
const UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(answer) => {
            let _ = answer.print();
            return if answer.use_stderr() { CONFIG.into() } else { ExitCode::SUCCESS };
        }
    };
    // One thread: a fleet's questions are few, and a namespace's answer is made once for all.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match (runtime, args.command) {
        (Err(why), _) => Err((71, why.to_string())),
        (Ok(runtime), Command::Serve(serve)) => runtime.block_on(run(*serve)),
        (_, Command::Crds(which)) => print_crds(&which),
        (Ok(runtime), Command::Explain(ask)) => runtime.block_on(explain(ask)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            eprintln!("netra-control: {why}");
            code.into()
        }
    }
}

type Refused = (u8, String);

fn config(what: impl ToString) -> Refused {
    (CONFIG, what.to_string())
}

fn print_crds(which: &args::Crds) -> Result<(), Refused> {
    let whose = if which.istio { netra_rules::Crds::Istio } else { netra_rules::Crds::Own };
    print!("{}", netra_rules::crds(whose));
    Ok(())
}

/// A connection is a descriptor, and what is allowed without asking is mostly 1024.
fn raise_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Serves until SIGTERM.
async fn run(args: args::Serve) -> Result<(), Refused> {
    if args.directory.is_none() && args.etcd.is_empty() && !args.kubernetes {
        return Err(config("one of --directory, --etcd and --kubernetes is needed"));
    }
    raise_descriptors();
    let names = Names { domain: args.domain.clone(), root_namespace: args.root_namespace.clone() };
    let client = match args.kubernetes || args.token_review {
        true => Some(kube::Client::try_default().await.map_err(config)?),
        false => None,
    };
    let judge = judge(&args, client.as_ref())?;
    let tls = match (&args.certificate, &args.key) {
        (Some(certificate), Some(key)) => Some(tls::Tls::read(certificate, key).map_err(config)?),
        _ => None,
    };
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .map_err(|why| (UNAVAILABLE, format!("--listen {}: {why}", args.listen)))?;
    let (tell, told) = mpsc::channel(1);
    let writer = client.clone().filter(|_| args.write_status);
    match (&args.directory, &args.etcd, client) {
        (Some(path), ..) => drop(tokio::spawn(directory::watch(path.clone(), tell))),
        (_, members, _) if !members.is_empty() => {
            let (members, prefix) = (members.clone(), args.etcd_prefix.clone());
            tokio::spawn(etcd::watch(etcd::Etcd { members, prefix }, tell));
        }
        (_, _, Some(client)) if args.kubernetes => {
            drop(tokio::spawn(kubernetes::watch(client, tell)))
        }
        _ => {}
    }
    let (publish, world) = watch::channel(Arc::new(World::default()));
    let (shelf, fleet, counts) =
        (shelf::Shelf::new(names.clone()), fleet::Fleet::default(), Counts::default());
    let office = Arc::new(Office { world, shelf, fleet, judge, counts, names: names.clone() });
    if let Some(client) = writer {
        tokio::spawn(write_back::write(client, office.clone(), own_name()));
    }
    tokio::spawn(take_in(told, publish, office.clone()));
    let at = listener.local_addr().map_err(|why| (71, why.to_string()))?;
    eprintln!("netra-control: listens on {at}{}", if tls.is_some() { " (TLS)" } else { "" });
    let mut ending = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|why| (71, why.to_string()))?;
    tokio::select! {
        () = serve::serve(listener, tls, office) => {}
        _ = ending.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

/// The name of this replica: its pod, and its process where several are on one host.
fn own_name() -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!("{}_{}", host.to_string_lossy(), std::process::id())
}

fn judge(args: &args::Serve, client: Option<&kube::Client>) -> Result<Judge, Refused> {
    match (&args.tokens, args.token_review, args.without_tokens, client) {
        (Some(path), ..) => tokens::TokenFile::read(path)
            .map(Judge::File)
            .map_err(|why| config(format!("--tokens {}: {why}", path.display()))),
        (None, true, _, Some(client)) => {
            Ok(Judge::Cluster(kubernetes::Reviewer::new(client.clone()), who::Reviews::default()))
        }
        (None, _, true, _) => Ok(Judge::Nobody),
        _ => Err(config("one of --tokens, --token-review and --without-tokens is needed")),
    }
}

/// Checks what the source tells, numbers it, and lets everybody know.
async fn take_in(
    mut told: mpsc::Receiver<World>,
    publish: watch::Sender<Arc<World>>,
    office: Arc<Office>,
) {
    let mut vetted = vet::Vetted::default();
    let (mut generation, mut said, mut told_of) = (0, Vec::new(), Vec::new());
    while let Some(mut world) = told.recv().await {
        world.keep_of(&publish.borrow());
        // Such as the status that was written into it.
        let is_same = generation > 0 && world.is_as(&publish.borrow()) && world.troubles == told_of;
        if is_same {
            continue;
        }
        told_of.clone_from(&world.troubles);
        let mut world = vetted.vet(world, &office.names);
        generation += 1;
        world.generation = generation;
        if world.troubles != said {
            for trouble in &world.troubles {
                eprintln!("netra-control: {trouble}");
            }
            said.clone_from(&world.troubles);
        }
        let world = Arc::new(world);
        publish.send_replace(world.clone());
        office.shelf.change(world).await;
    }
}

/// Asks a running netra-control what a pod gets, and prints it.
async fn explain(ask: Ask) -> Result<(), Refused> {
    let namespace = ask.pod.split('/').next().unwrap_or_default();
    let unavailable = |why: String| (UNAVAILABLE, format!("{}: {why}", ask.server));
    let (status, text) = client::get(
        &ask.server,
        &format!("/v1/explain?namespace={namespace}"),
        ask.token.as_deref(),
    )
    .await
    .map_err(|why| unavailable(why.to_string()))?;
    if status != 200 {
        return Err(unavailable(format!("{status}: {}", text.trim_end())));
    }
    print!("{text}");
    Ok(())
}
