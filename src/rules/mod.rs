//! Rules of traffic: where their documents are, what became of them, and the tools for people who
//! write them. What they mean is for the crate `netra-rules`.

mod clusters;
mod files;
mod heard;
mod labels;
mod live;
mod named;
mod remote;
mod spoken;
mod tool;
mod view;
mod watch;

pub(crate) use clusters::LISTED_MAX;
pub(crate) use live::Live;
pub(crate) use named::Named;
pub(crate) use remote::{Remote, follow as follow_remote};
pub(crate) use spoken::Settings;
pub(crate) use tool::{RulesArgs, run};
pub(crate) use view::{Metrics, View};
pub(crate) use watch::{Hurry, follow};

use files::Wrong;
use netra_codecs::{
    PortSet,
    tap::{self, ProtocolPorts},
};
use netra_rules::{Compiled, Context, Documents, Locality, Place, Protocol};
use std::{path::Path, sync::Arc};

/// Documents that were read, and the rules that they make.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) compiled: Compiled,
    /// What the files looked like before they were read.
    shape: files::Shape,
    /// Hosts whose addresses the rules would be told by.
    pub(crate) unknown_hosts: Vec<String>,
    /// The same, and those whose addresses are endpoints.
    pub(crate) asked_hosts: Vec<String>,
}

/// Whom rules are read for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    /// What the service is called.
    pub(crate) name: String,
    /// Protocols that are not built in, which rules may name.
    pub(crate) private: Vec<tap::Protocol>,
    /// Where it stands, as `region/zone/subzone`; empty where nobody says.
    pub(crate) locality: String,
    /// Labels of its workload, or the file that has them; empty where nobody says.
    pub(crate) labels: String,
}

impl Own {
    fn context(&self) -> Context {
        let locality = Some(Locality::parse(&self.locality)).filter(|it| !it.is_empty());
        Context { locality, ..Context::of_sidecars(&self.name).with_private(&self.private) }
    }
}

/// Reads and compiles the documents of a file or directory; the error is all that is wrong, line
/// by line.
pub(crate) fn read(
    path: &Path,
    own: &Own,
    named: Named,
    generation: u64,
    endpoints_move: bool,
) -> Result<Read, Vec<String>> {
    let shape = files::Shape::of(path);
    let sources = files::read(path).map_err(lines_of)?;
    let documents = Documents::read(&sources);
    let Named { addresses, services } = named;
    let (labels, wrong) = labels::read(&own.labels);
    let context =
        Context { generation, addresses, services, endpoints_move, labels, ..own.context() };
    let mut compiled = documents.compile(&context);
    let setting = |name: &str| Place { file: name.into(), line: 0, column: 0 };
    if context.locality.is_none() && documents.wants_locality() {
        let what = "nobody is nearer, whatever localityLbSetting says: where this service stands is \
                    not said (region/zone/subzone)";
        compiled.troubles.warn(setting("NETRA_LOCALITY"), what);
    }
    let mut wanted = documents.wanted_labels();
    wanted.retain(|wanted| context.labels.iter().all(|(name, _)| name != wanted));
    if !wanted.is_empty() {
        let names: Vec<_> = wanted.into_iter().collect();
        let what = format!(
            "failoverPriority goes by labels of this service's workload that are not said: {}",
            names.join(", ")
        );
        compiled.troubles.warn(setting("NETRA_LABELS"), what);
    }
    if let Some(what) = wrong {
        compiled.troubles.warn(setting("NETRA_LABELS"), what);
    }
    match compiled.troubles.is_good() {
        true => Ok(Read {
            compiled,
            shape,
            unknown_hosts: documents.unknown_hosts(),
            asked_hosts: documents.asked_hosts(),
        }),
        false => Err(compiled.troubles.to_string().lines().map(str::to_owned).collect()),
    }
}

/// The rules at the start: of files, or what a control plane said last. Without that, or where it is
/// bad, there are none until it says something: that never keeps a sidecar from starting.
pub(crate) fn first(path: &str, own: &Own, is_remote: bool) -> Result<Read, Vec<String>> {
    let path = Path::new(path);
    let read = read(path, own, Named::default(), 1, is_remote);
    match read {
        Err(wrong) if is_remote => {
            if let Some(before) = restored(path, own, &wrong) {
                return Ok(before);
            }
            let found = Documents::read(&[]);
            let context = Context { generation: 1, ..own.context() };
            let mut compiled = found.compile(&context);
            for line in wrong.iter().take(WRONG_SAID_MAX) {
                let place = Place { file: "cache".into(), line: 0, column: 0 };
                compiled.troubles.warn(place, format!("no rules yet: {line}"));
            }
            let (unknown_hosts, asked_hosts) = (Vec::new(), Vec::new());
            Ok(Read { compiled, shape: files::Shape::of(path), unknown_hosts, asked_hosts })
        }
        read => read,
    }
}

/// The last good answer, in the place of a bad one that came behind it.
fn restored(path: &Path, own: &Own, wrong: &[String]) -> Option<Read> {
    // Who took the answer away wants none of it.
    if !path.exists() {
        return None;
    }
    std::fs::rename(remote::good_of(path), path).ok()?;
    let mut read = read(path, own, Named::default(), 1, true).ok()?;
    let place = Place { file: "cache".into(), line: 0, column: 0 };
    let why = wrong.first().map(String::as_str).unwrap_or_default();
    let what = format!("what came last is bad, what came before it is in force: {why}");
    read.compiled.troubles.warn(place, what);
    Some(read)
}

/// Lines of what is wrong with a cache that are told.
const WRONG_SAID_MAX: usize = 3;

/// What would have no effect, and nothing else would say so: rules about protocols that no port is read
/// as, and ports of which a document says something else than the settings do.
pub(crate) fn unread(read: &Read, http: &PortSet, ports: &ProtocolPorts) -> Vec<String> {
    let Some(table) = &read.compiled.table else { return Vec::new() };
    let is_read = |protocol: Protocol| match protocol {
        Protocol::Http1 => !http.is_empty(),
        Protocol::Of(named) => {
            ports.protocols().any(|it| it == named) || table.spoken().any(|(_, it)| it == protocol)
        }
    };
    let idle = table.protocols().into_iter().filter(|(protocol, _)| !is_read(*protocol));
    let idle = idle.map(|(protocol, rule)| {
        let setting = if protocol == Protocol::Http1 { "NETRA_HTTP_PORTS" } else { "NETRA_PROTOCOLS" };
        format!(
            "rules about {protocol} have no effect, such as {} at {}: {setting} names no port of it",
            rule.name, rule.place
        )
    });
    let others = table.spoken_at().filter_map(|(at, said)| {
        let (setting, set) = match ports.get(at) {
            Some(set) => ("NETRA_PROTOCOLS", Protocol::Of(set)),
            None if http.contains(at.port()) => ("NETRA_HTTP_PORTS", Protocol::Http1),
            None => return None,
        };
        let what = || {
            format!("{at} is read as {set}, as {setting} says, where documents of rules say {said}")
        };
        (set != said).then(what)
    });
    idle.chain(others.take(OTHERS_MAX)).collect()
}

/// Places that are told of at which settings and documents differ.
const OTHERS_MAX: usize = 20;

fn lines_of(wrong: Vec<Wrong>) -> Vec<String> {
    wrong.iter().map(ToString::to_string).collect()
}

/// A table with what is known of it, once it has been found good.
pub(crate) type Good = Arc<Read>;
