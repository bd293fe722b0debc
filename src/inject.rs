//! `netra inject`: manifests in, manifests with the sidecar out. No server, no cluster: it fits
//! between `kubectl kustomize` and `kubectl apply`, and into what GitOps commits. The text is
//! changed where it must be and nowhere else, and before anything is written, what was made is
//! taken out again and compared with what was there.

mod containers;
#[cfg(test)]
mod generator;
mod init_args;
#[cfg(test)]
mod inject_tests;
mod netramesh;
#[cfg(test)]
mod netramesh_tests;
mod pods;
mod put;
mod record;
mod take;
mod text;
mod wanted;
mod warn;
mod yaml;

use crate::{exit::Exit, mask};
use clap::Args;
use containers::Containers;
use netramesh::Netramesh;
use pods::{Paths, Pod};
use std::{
    fs,
    io::{self, Read, Write},
};
use text::Edits;
pub(crate) use wanted::Wanted;
use wanted::split;
use yaml::{Document, Node};

/// On the pod: `disabled` leaves it alone.
const WANTED: &str = "netra.io/inject";
/// What `--path` takes.
const PATH: &str = "KIND=FIELD.FIELD, such as Rollout=spec.template";

/// Add the sidecar to manifests, or take it out
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct InjectArgs {
    /// File with the manifests, YAML or JSON; - is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", default_value = "-")]
    filename: String,
    /// Take out what was injected: the manifests are as they were, to the byte
    #[arg(long)]
    uninject: bool,
    /// Write nothing; say by exit code whether the manifests are injected as these flags would
    #[arg(long, conflicts_with = "uninject")]
    check: bool,
    /// Where objects of this kind have the template of their pods, for kinds that Kubernetes
    /// itself does not have, such as Rollout=spec.template; again for more
    #[arg(long, value_name = "KIND=PATH")]
    path: Vec<String>,
    #[command(flatten)]
    wanted: Wanted,
}

const HELP: &str = "\
An injected pod carries the flags from --classic on: injecting it again keeps those that are not given anew.
Exit codes: 0 done; 1 --check: something is not injected as these flags would; 64 bad flags or manifests, \
nothing was written";

/// Largest input: whole clusters fit.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Writes the manifests to standard output, or nothing if something is wrong with them.
pub(crate) fn run(args: &InjectArgs) -> Exit {
    let edited = input(&args.filename).and_then(|text| edit(&text, args));
    match edited {
        Ok((text, reports)) => {
            for report in &reports {
                let object = mask::line(&report.object);
                eprintln!("netra inject: {object}: {}", mask::line(&report.did));
                for warning in &report.warnings {
                    eprintln!("netra inject: {object}: warning: {}", mask::line(warning));
                }
            }
            if args.check {
                let differs = reports.iter().any(|report| report.differs);
                return if differs { Exit::DIFFERS } else { Exit::DONE };
            }
            let _ = io::stdout().write_all(text.as_bytes());
            Exit::DONE
        }
        Err(error) => {
            eprintln!("netra inject: {}: {}", args.filename, mask::line(&error));
            Exit::CONFIG
        }
    }
}

/// What came of a pod that is to be made.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The pod with the sidecar, as JSON.
    Made { text: String, warnings: Vec<String> },
    /// Why it stays as it is.
    Skipped(String),
}

/// Puts the sidecar into one pod, which is JSON. One that has it is left alone.
pub(crate) fn into_pod(text: &str, wanted: &Wanted) -> Result<Outcome, String> {
    let documents = yaml::read(text)?;
    let found = pods::find(&documents, &Paths::new())?;
    if found.pods.iter().any(Pod::is_injected) {
        return Ok(Outcome::Skipped("it is injected already".to_owned()));
    }
    let args = InjectArgs {
        filename: "-".to_owned(),
        uninject: false,
        check: false,
        path: Vec::new(),
        wanted: wanted.clone(),
    };
    let (text, reports) = edit(text, &args)?;
    let report = reports.into_iter().next().ok_or("there is no pod")?;
    match report.did.strip_prefix("skipped: ") {
        Some(why) => Ok(Outcome::Skipped(why.to_owned())),
        None => Ok(Outcome::Made { text, warnings: report.warnings }),
    }
}

/// What was done to an object.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// `deployment/shop`
    object: String,
    did: String,
    warnings: Vec<String>,
    /// It is not what these flags would make of it.
    differs: bool,
}

impl Report {
    fn new(pod: &Pod<'_>, did: impl Into<String>) -> Self {
        Self { object: pod.object.clone(), did: did.into(), ..Self::default() }
    }
}

fn edit(text: &str, args: &InjectArgs) -> Result<(String, Vec<Report>), String> {
    let mark = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let (mark, text) = text.split_at(mark);
    let documents = yaml::read(text)?;
    let mut paths = paths(args)?;
    let found = pods::find(&documents, &paths)?;
    // Later they have no annotation that tells of them.
    let injected = found.pods.iter().filter(|pod| pod.is_injected());
    paths.extend(injected.map(|pod| (pod.kind.clone(), pod.path.clone())));
    let (base, earlier) = take_out(text, &found.pods)?;
    if args.uninject {
        let did = |was_there| if was_there { "taken out" } else { "nothing to take out" };
        let reports = found.pods.iter().map(|pod| Report::new(pod, did(pod.is_injected())));
        let reports = reports.collect();
        yaml::read(&base).map_err(|error| format!("what is left is no YAML: {error}"))?;
        return Ok((format!("{mark}{base}"), reports));
    }
    let base_documents = yaml::read(&base)?;
    let (out, made) = put_in(&base, &base_documents, &paths, &earlier, args)?;
    let out_documents = prove(&out, &base, &paths, &made)?;
    let mut reports: Vec<Report> = made.into_iter().map(|(report, _)| report).collect();
    if args.check {
        compare(&found.pods, &out_documents, &paths, &mut reports)?;
    }
    for pod in &found.unknown {
        let path = pod.path.join(".");
        let did = format!(
            "skipped: this kind is not known, and looks as if it had pods: --path {}={path}",
            pod.kind
        );
        reports.push(Report::new(pod, did));
    }
    Ok((format!("{mark}{out}"), reports))
}

fn paths(args: &InjectArgs) -> Result<Paths, String> {
    let path = |pair: &String| {
        let (kind, path) = split("--path", pair, PATH)?;
        let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
        match keys.iter().any(String::is_empty) {
            true => Err(format!("--path: bad value {pair:?}: allowed is {PATH}")),
            false => Ok((kind.to_owned(), keys)),
        }
    };
    args.path.iter().map(path).collect()
}

/// The text without what was injected, and the flags of each pod's injection.
fn take_out(text: &str, pods: &[Pod<'_>]) -> Result<(String, Vec<Wanted>), String> {
    let mut edits = Edits::new(text);
    let mut take = |pod: &Pod<'_>| {
        if !pod.is_injected() {
            return Ok(Wanted::default());
        }
        take::take_out(&mut edits, pod).map_err(|what| pod.fail(&what))
    };
    let earlier = pods.iter().map(&mut take).collect::<Result<_, _>>()?;
    Ok((edits.apply()?, earlier))
}

fn put_in(
    base: &str,
    documents: &[Document],
    paths: &Paths,
    earlier: &[Wanted],
    args: &InjectArgs,
) -> Result<(String, Vec<Made>), String> {
    let found = pods::find(documents, paths)?;
    let mut edits = Edits::new(base);
    let mut all = Vec::new();
    for (pod, earlier) in found.pods.iter().zip(earlier) {
        let wanted = args.wanted.or(earlier.clone());
        all.push(put_in_pod(&mut edits, pod, &wanted).map_err(|what| pod.fail(&what))?);
    }
    Ok((edits.apply()?, all))
}

/// What is said of a pod, and what was put into it.
type Made = (Report, Option<Containers>);

fn put_in_pod(edits: &mut Edits<'_>, pod: &Pod<'_>, wanted: &Wanted) -> Result<Made, String> {
    let spec = pod.node.get("spec").ok_or("has no spec")?;
    let old = Netramesh::find(spec);
    if let Some(reason) = reason_to_skip(pod, spec, wanted, old.as_ref()) {
        return Ok((Report::new(pod, format!("skipped: {reason}")), None));
    }
    if let Some(obstacle) = old.as_ref().and_then(Netramesh::obstacle) {
        return Err(obstacle.to_owned());
    }
    let made = containers::make(&pod.name, wanted, old.as_ref())?;
    put::put_in(edits, pod, wanted, &made, old.as_ref())?;
    let did = if old.is_some() { "injected in the place of netramesh" } else { "injected" };
    let warnings = warn::warnings(pod, wanted, &made, old.as_ref());
    Ok((Report { warnings, ..Report::new(pod, did) }, Some(made)))
}

fn reason_to_skip(
    pod: &Pod<'_>,
    spec: &Node,
    wanted: &Wanted,
    old: Option<&Netramesh<'_>>,
) -> Option<String> {
    if pod.annotation(WANTED) == Some("disabled") {
        return Some(format!("annotation {WANTED}: disabled"));
    }
    if spec.get("hostNetwork").and_then(Node::as_str) == Some("true") {
        return Some("hostNetwork: the rules would redirect the whole node".to_owned());
    }
    if spec.at(&["os", "name"]).and_then(Node::as_str) == Some("windows") {
        return Some("its nodes have Windows, and netra is for Linux".to_owned());
    }
    if wanted.is_from_netramesh() {
        return old
            .is_none()
            .then(|| "it has no netramesh, which --from-netramesh is for".to_owned());
    }
    let lists = ["initContainers", "containers"].iter().filter_map(|key| spec.get(key));
    let has_ours = lists.flat_map(Node::items).any(take::is_ours);
    (has_ours || old.is_some()).then(|| {
        "it has containers of netra or netramesh that inject did not put there: \
         take them out, or replace netramesh by --from-netramesh"
            .to_owned()
    })
}

/// What was made is only good if it says what is meant, and can be taken out again.
fn prove(out: &str, base: &str, paths: &Paths, made: &[Made]) -> Result<Vec<Document>, String> {
    let trouble = |what: &str| {
        format!(
            "nothing was written, because --uninject would not give this text back: {what}; \
             write the lists and the metadata of the pods in plain block style"
        )
    };
    let documents = yaml::read(out).map_err(|error| trouble(&error))?;
    let found = pods::find(&documents, paths).map_err(|error| trouble(&error))?;
    let (back, _) = take_out(out, &found.pods).map_err(|error| trouble(&error))?;
    let same = back.bytes().zip(base.bytes()).take_while(|(one, other)| one == other).count();
    if back != base {
        let line = 1 + base.bytes().take(same).filter(|byte| *byte == b'\n').count();
        return Err(trouble(&format!("line {line}")));
    }
    for (pod, (report, made)) in found.pods.iter().zip(made) {
        let lists =
            ["initContainers", "containers"].iter().filter_map(|key| pod.node.at(&["spec", key]));
        let all: Vec<&Node> = lists.flat_map(Node::items).collect();
        let has = |made: &Node| all.iter().any(|container| container.says_what(made));
        if made.as_ref().is_some_and(|made| !has(&made.init) || !has(&made.sidecar)) {
            return Err(trouble(&report.object));
        }
    }
    Ok(documents)
}

/// Tells which pods are not what injecting would make of them.
fn compare(
    pods: &[Pod<'_>],
    made: &[Document],
    paths: &Paths,
    reports: &mut [Report],
) -> Result<(), String> {
    let made = pods::find(made, paths)?;
    for ((pod, made), report) in pods.iter().zip(&made.pods).zip(reports) {
        report.differs = !pod.node.says_what(made.node);
        let is_skipped = report.did.starts_with("skipped");
        report.did = match (report.differs, is_skipped) {
            (false, true) => continue,
            (false, false) => "is injected as it should be",
            (true, _) if pod.is_injected() => "is injected, but not as it would be now",
            (true, _) => "is not injected",
        }
        .to_owned();
    }
    Ok(())
}

fn input(name: &str) -> Result<String, String> {
    let mut text = String::new();
    let read = match name {
        "-" => io::stdin().take(INPUT_BYTES_MAX + 1).read_to_string(&mut text),
        path => fs::File::open(path)
            .and_then(|file| file.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text)),
    };
    match read {
        Ok(length) if length as u64 > INPUT_BYTES_MAX => {
            Err(format!("more than {INPUT_BYTES_MAX} bytes"))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}
