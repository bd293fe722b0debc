//! `netra rules`: for people who write rules.

use super::{Named, Own, Read, files, read, spoken};
use crate::{exit::Exit, mask, texts};
use clap::{Args, Subcommand};
use netra_codecs::tap;
use netra_rules::{
    Context, Direction, Documents, Example, Expectations, Protocol, Source, Table, explain, schema,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write, stdout},
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

/// Say what rules mean: judge documents, ask which rule decides, run expectations
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Exit codes: 0 good; 1 an expectation is not met; 64 bad documents or flags, all that is wrong in one list")]
pub(crate) struct RulesArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Say where each rule has an effect, and which can never have one
    Check {
        /// File or directory with the documents
        path: PathBuf,
        /// What this service is called: limits are for calls to it
        #[arg(long, value_name = "NAME", default_value = "")]
        service_name: String,
        /// Where it stands, where documents say who is nearer
        #[arg(long, value_name = "REGION/ZONE/SUBZONE", default_value = "")]
        locality: String,
        /// Labels of its workload, or the file that has them, where documents go by them
        #[arg(long, value_name = "NAME=VALUE,..", default_value = "")]
        labels: String,
    },
    /// Say which rule decides about a message, and why no other
    Explain(Box<ExplainArgs>),
    /// Run expectations: messages, and what becomes of them
    Test {
        /// File with the expectations
        file: PathBuf,
    },
    /// Write the JSON Schema of all kinds of documents, for editors
    Schema,
}

#[derive(Clone, Debug, Args)]
struct ExplainArgs {
    /// File or directory with the documents
    path: PathBuf,
    /// The original destination of the message's connection
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Its protocol
    #[arg(long, value_name = "PROTOCOL")]
    protocol: String,
    /// One of its values, such as method=sayHello; again for more
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Whether the application calls, or is called
    #[arg(long, value_parser = ["outbound", "inbound"], default_value = "outbound")]
    direction: String,
    /// Who asks
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// What this service is called
    #[arg(long, value_name = "NAME", default_value = "")]
    service_name: String,
    /// Where it stands, where documents say who is nearer
    #[arg(long, value_name = "REGION/ZONE/SUBZONE", default_value = "")]
    locality: String,
    /// Labels of its workload, or the file that has them, where documents go by them
    #[arg(long, value_name = "NAME=VALUE,..", default_value = "")]
    labels: String,
}

/// Does it; what is wrong is said.
pub(crate) fn run(
    args: &RulesArgs,
    private: Result<Vec<tap::Protocol>, String>,
    settings: Option<spoken::Settings<'_>>,
) -> Exit {
    let private = private.map_err(|what| vec![what]);
    let own = |name: &str, locality: &str, labels: &str| {
        if !labels.starts_with('/') && texts::labels(labels).is_none() {
            return Err(vec![format!(
                "--labels={labels}: allowed is NAME=VALUE, with commas between"
            )]);
        }
        let [name, locality, labels] = [name, locality, labels].map(str::to_owned);
        Ok(Own { name, private: private.clone()?, locality, labels })
    };
    let (said, exit) = match &args.what {
        What::Check { path, service_name, locality, labels } => {
            (own(service_name, locality, labels).and_then(|own| check(path, &own)), Exit::DONE)
        }
        What::Explain(args) => {
            let own = own(&args.service_name, &args.locality, &args.labels);
            (own.and_then(|own| explained(args, &own, settings)), Exit::DONE)
        }
        What::Schema => (Ok(schema()), Exit::DONE),
        What::Test { file } => match own("", "", "").and_then(|own| tested(file, &own.private)) {
            Ok((text, true)) => (Ok(text), Exit::DONE),
            Ok((text, false)) => (Ok(text), Exit::DIFFERS),
            Err(lines) => (Err(lines), Exit::CONFIG),
        },
    };
    match said {
        Ok(text) => {
            // A reader that has gone away is no failure.
            let _ = stdout().write_all(text.as_bytes());
            exit
        }
        Err(lines) => {
            lines.iter().for_each(|line| eprintln!("netra rules: {}", mask::line(line)));
            Exit::CONFIG
        }
    }
}

fn good(path: &Path, own: &Own, named: Named) -> Result<Read, Vec<String>> {
    let read = read(path, own, named, 1, false)?;
    for warning in read.compiled.troubles.warnings() {
        eprintln!("netra rules: warning: {}", mask::line(&warning.to_string()));
    }
    Ok(read)
}

fn check(path: &Path, own: &Own) -> Result<String, Vec<String>> {
    let Read { compiled, unknown_hosts, .. } = good(path, own, Named::default())?;
    let mut text = String::new();
    let Some(table) = &compiled.table else { return Ok(text) };
    for landing in &compiled.landings {
        text += &format!("{} (host {})\n", landing.name, landing.host);
        for place in &landing.places {
            text += &format!("  lands on {place}\n");
        }
        if unknown_hosts.contains(&landing.host) {
            text += "  lands on the addresses of its name, when netra runs\n";
        }
        let own = format!("{}/", landing.name);
        for rule in table.rules().iter().filter(|it| it.name.starts_with(&own)) {
            text += &format!("  {}: {} [{}]\n", &rule.name[own.len()..], rule.effect, rule.place);
            // What depends on a name's addresses is not known here.
            let is_open = landing.places.is_empty() && unknown_hosts.contains(&landing.host);
            if let Some(never) = rule.never.as_ref().filter(|_| !is_open) {
                text += &format!("    can never decide: {never}\n");
            }
        }
    }
    let is_routed = |name: &str| {
        let of = |name: &str, router: &str| {
            name.strip_prefix(router).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        compiled.landings.iter().any(|landing| of(name, &landing.name))
    };
    for rule in table.rules().iter().filter(|rule| !is_routed(&rule.name)) {
        text += &format!("{}: {} [{}]\n", rule.name, rule.effect, rule.place);
    }
    for cluster in table.clusters().iter().filter(|cluster| cluster.is_balanced()) {
        let count = cluster.endpoints.len();
        let which = if count == 1 { "endpoint" } else { "endpoints" };
        text +=
            &format!("cluster {}, {count} {which}: {}\n", cluster.name, cluster.policy_in_words());
    }
    text += &read_by_name(table);
    let kilobytes = table.bytes().div_ceil(1024);
    text += &format!("good: {} rules, {kilobytes} KiB\n", table.rules().len());
    Ok(text)
}

/// What netra reads because of the names of ports, protocol by protocol.
fn read_by_name(table: &Table) -> String {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (place, protocol) in table.spoken().filter(|(_, it)| *it != Protocol::Http1) {
        all.entry(protocol.name()).or_default().push(place);
    }
    let line = |(protocol, places): (&str, Vec<String>)| {
        let more = places.len().saturating_sub(PLACES_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown = places[..places.len().min(PLACES_MAX)].join(", ");
        format!("{protocol} is read at {shown}{more}, unless settings say otherwise\n")
    };
    all.into_iter().map(line).collect()
}

/// Places of one protocol that are told of.
const PLACES_MAX: usize = 8;

fn explained(
    args: &ExplainArgs,
    own: &Own,
    settings: Option<spoken::Settings<'_>>,
) -> Result<String, Vec<String>> {
    let wrong = |what: String| vec![what];
    let context = Context::default().with_private(&own.private);
    let protocol = context.protocol(&args.protocol).ok_or_else(|| {
        let known: Vec<_> = context.protocols().map(Protocol::name).collect();
        wrong(format!("--protocol={}: allowed is one of {}", args.protocol, known.join(", ")))
    })?;
    let (to, named) = destination(&args.to).map_err(wrong)?;
    let read = good(&args.path, own, named)?;
    let mut example = Example::new(protocol, to);
    example.source = args.from;
    if args.direction == "inbound" {
        example.direction = Direction::Inbound;
    }
    for pair in &args.set {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| wrong(format!("--set={pair}: allowed is NAME=VALUE")))?;
        example.set(name, value).map_err(|what| wrong(format!("--set={pair}: {what}")))?;
    }
    let Some(table) = &read.compiled.table else { return Ok(String::new()) };
    let (_, why) = explain(table, &example);
    let place = (example.direction, to, protocol);
    let mut lines = settings.map_or_else(Vec::new, |it| spoken::lines(it, table, place));
    lines.extend(why);
    Ok(lines.into_iter().map(|line| format!("{line}\n")).collect())
}

/// An address; of a name also that it stands for it.
fn destination(text: &str) -> Result<(SocketAddr, Named), String> {
    if let Ok(address) = text.parse() {
        return Ok((address, Named::default()));
    }
    let found: Vec<_> = text
        .to_socket_addrs()
        .map_err(|it| match it.kind() {
            io::ErrorKind::InvalidInput => format!("--to={text}: allowed is HOST:PORT"),
            _ => format!("--to={text}: {it}"),
        })?
        .collect();
    let first = found.first().ok_or_else(|| format!("--to={text}: it has no address"))?;
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let addresses = found.iter().map(SocketAddr::ip).collect();
    let addresses = [(host.to_ascii_lowercase(), addresses)].into();
    Ok((*first, Named { addresses, ..Named::default() }))
}

/// What came of it, and whether all is as expected.
fn tested(file: &Path, private: &[tap::Protocol]) -> Result<(String, bool), Vec<String>> {
    let text = fs::read_to_string(file).map_err(|it| vec![format!("{}: {it}", file.display())])?;
    let lines = |troubles: netra_rules::Troubles| {
        troubles.to_string().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let source = Source { name: file.display().to_string(), text };
    let expectations = Expectations::read(&source).map_err(lines)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut sources = Vec::new();
    for path in expectations.rules() {
        let found = files::read(&folder.join(path)).map_err(super::lines_of)?;
        sources.extend(found);
    }
    let results = expectations.run(&Documents::read(&sources), private).map_err(lines)?;
    let mut text = String::new();
    for test in &results {
        match test.wrong.as_slice() {
            [] => text += &format!("ok    {}\n", test.name),
            wrong => {
                text += &format!("WRONG {} [{}]\n", test.name, test.place);
                wrong.iter().for_each(|line| text += &format!("      {line}\n"));
            }
        }
    }
    let wrong = results.iter().filter(|test| !test.wrong.is_empty()).count();
    text += &format!("{} expectations, {wrong} not met\n", results.len());
    Ok((text, wrong == 0))
}
