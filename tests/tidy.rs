//! The house keeps itself: arrows between crates, owners of external crates, doors to unsafe code,
//! sizes of files and functions, and the names of what is listed in the docs.

#[path = "tidy/modules.rs"]
mod modules;
#[path = "tidy/papers.rs"]
mod papers;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What each crate may use of ours. Arrows point down only (docs/ARCHITECTURE.md).
const ARROWS: &[(&str, &[&str])] = &[
    ("", &["netra-shards", "netra-rules", "netra-codecs", "netra-collect", "netra-perf"]),
    ("collect", &[]),
    ("control", &["netra-rules"]),
    ("shards", &["netra-rules", "netra-codecs", "netra-perf"]),
    ("rules", &["netra-codecs"]),
    ("codecs", &[]),
    ("perf", &[]),
    ("init", &[]),
    ("loadtest", &[]),
];

/// Where an external crate may be named, so that it can be replaced there.
const OWNERS: &[(&str, &[&str])] = &[
    ("glommio", &["shards/src/host/", "shards/src/sys/hosted.rs"]),
    ("io_uring", &["shards/src/sys/ring.rs"]),
    ("core_affinity", &["shards/src/set.rs", "src/cpus.rs"]),
    ("httparse", &["codecs/src/h1/"]),
    ("mimalloc", &["src/lib.rs"]),
    ("clap_complete", &["src/args.rs", "src/pages.rs", "init/examples/"]),
    ("clap_mangen", &["src/pages.rs", "init/examples/"]),
    ("saphyr_parser", &["src/inject/yaml.rs", "src/protocol_file/node.rs", "rules/src/yaml.rs"]),
    ("etherparse", &["src/codec_check/pcap.rs"]),
    ("pcap_parser", &["src/codec_check/pcap.rs"]),
    ("regex_automata", &["rules/src/pattern.rs"]),
    ("prometheus_client", &["perf/src/"]),
    (
        "hyper",
        &[
            "control/src/",
            "collect/src/",
            "src/doctor/network.rs",
            "src/endpoint.rs",
            "src/http_client.rs",
            "src/export/",
            "src/metrics_push.rs",
            "src/reach/",
            "src/rules/remote.rs",
            "src/sampling.rs",
            "src/url.rs",
            "src/webhook.rs",
        ],
    ),
    (
        "hyper_util",
        &[
            "control/src/",
            "collect/src/",
            "src/endpoint.rs",
            "src/http_client.rs",
            "src/reach/proxy.rs",
            "src/webhook.rs",
        ],
    ),
    ("rustls", &["control/src/", "src/reach/", "src/webhook/tls.rs"]),
    ("rustls_native_certs", &["src/reach/tls.rs"]),
    ("tokio_rustls", &["control/src/", "src/reach/tls.rs", "src/webhook.rs", "src/webhook/tls.rs"]),
    (
        "http_body_util",
        &[
            "control/src/",
            "collect/src/",
            "src/endpoint.rs",
            "src/http_client.rs",
            "src/webhook.rs",
        ],
    ),
    ("ratatui", &["src/top/"]),
    ("cadence", &["src/statsd.rs"]),
    ("perf_event", &["perf/src/profile/cpu.rs"]),
    ("addr2line", &["perf/src/profile/symbols.rs"]),
    (
        "flate2",
        &[
            "control/src/",
            "collect/src/receive.rs",
            "perf/src/profile/pprof.rs",
            "src/metrics_push.rs",
        ],
    ),
    (
        "prost",
        &["collect/src/", "perf/src/otlp.rs", "perf/src/profile/pprof.rs", "perf/src/protobuf.rs"],
    ),
    ("opentelemetry", &["src/export/otlp.rs"]),
    ("opentelemetry_sdk", &["src/export/otlp.rs"]),
    ("opentelemetry_otlp", &["src/export/otlp.rs"]),
    ("opentelemetry_http", &["src/export/otlp.rs"]),
    ("opentelemetry_jaeger", &["src/export/jaeger_sdk.rs"]),
    ("otel023", &["src/export/jaeger_sdk.rs"]),
    ("sdk023", &["src/export/jaeger_sdk.rs"]),
    ("hickory_resolver", &["src/resolver.rs", "src/resolver/"]),
    (
        "base64",
        &["control/examples/", "control/src/", "src/export/collector.rs", "src/webhook/review.rs"],
    ),
    ("redb", &["collect/src/disk.rs"]),
    (
        "kube",
        &[
            "control/src/lease.rs",
            "control/src/main.rs",
            "control/src/source/kubernetes.rs",
            "control/src/write_back.rs",
        ],
    ),
    (
        "k8s_openapi",
        &["control/src/lease.rs", "control/src/source/kubernetes.rs", "control/src/write_back.rs"],
    ),
    ("serde_saphyr", &["control/src/source/mod.rs"]),
    (
        "percent_encoding",
        &[
            "control/src/",
            "collect/src/show/query.rs",
            "src/export/stream_tags.rs",
            "src/export/tags.rs",
            "src/url.rs",
            "src/traces.rs",
        ],
    ),
    ("rtrb", &["shards/src/spans.rs", "shards/src/correlate.rs"]),
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the workspace, as (path from the root, text).
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = [
        "src", "tests", "shards", "rules", "codecs", "collect", "control", "perf", "init",
        "loadtest",
    ]
    .iter()
    .map(|folder| root().join(folder))
    .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 30, "the walk has lost its way");
    found
}

fn is_test(name: &str) -> bool {
    let named = ["tests/", "_tests.rs", "/sim", "simulation.rs", "shards/src/cost"];
    named.iter().any(|part| name.contains(part))
}

/// The lines of a file that are code, comments left out, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| {
        let line = line.trim_start();
        !line.starts_with("//") && !line.is_empty()
    })
}

#[test]
fn arrows_point_down() {
    for (folder, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or("");
        let ours = dependencies.split("\n[").next().unwrap_or("").lines().filter_map(|line| {
            let name = line.split(['.', ' ', '=']).next()?;
            name.starts_with("netra-").then_some(name)
        });
        for name in ours {
            assert!(allowed.contains(&name), "{folder:?} may not use {name}");
        }
    }
}

#[test]
fn every_external_crate_has_its_owner() {
    for (name, text) in sources() {
        for (external, owners) in OWNERS {
            if is_test(&name) || owners.iter().any(|owner| name.starts_with(owner)) {
                continue;
            }
            let (path, import) = (format!("{external}::"), format!("use {external}"));
            for (line, content) in code(&text) {
                let word = content.find(&path).is_some_and(|at| {
                    let before = content[..at].chars().next_back();
                    before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
                });
                let rest = content.trim_start().strip_prefix(&import);
                let imported = rest.is_some_and(|rest| {
                    !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
                });
                assert!(
                    !word && !imported,
                    "{name}:{line} uses {external}, which belongs to {owners:?}"
                );
            }
        }
    }
}

#[test]
fn unsafe_code_has_one_door_per_crate() {
    for (name, text) in sources() {
        let door = name.contains("/sys/") || name.ends_with("/sys.rs");
        let allocator = name.contains("codecs/tests/");
        if door || allocator || name == "tests/tidy.rs" {
            continue;
        }
        for (line, content) in code(&text) {
            let content = content.split("//").next().unwrap_or("");
            let uses = ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|u| content.contains(u));
            // A unit test may ask the kernel directly what the code under test has done.
            let in_tests = text.lines().take(line).any(|l| l.trim() == "mod tests {");
            assert!(!uses || in_tests, "{name}:{line} is unsafe outside the door");
        }
    }
}

#[test]
fn files_and_functions_have_one_job() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{name} has {lines} lines: two jobs?"));
        }
        let functions = functions(&text).into_iter();
        let functions = functions.filter(|(_, length)| *length > FUNCTION_LINES_MAX);
        long.extend(functions.map(|(first, length)| format!("{name}:{first} has {length} lines")));
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn functions_are_measured_from_their_first_line_to_their_last() {
    let text = "\
impl A {
    fn one(self) -> u8 { 1 }
    pub(crate) const fn two(
        self,
    ) -> u8 {
        if self.is_a() {
            2
        }
    }
    async fn three(self);
    fn four(
        self,
    );
    unsafe fn five() {
        fn six() {
        }
    }
}
";
    assert_eq!(functions(text), [(3, 7), (14, 4)]);
}

/// The functions of a file that have lines of their own: the number of the first, and how many.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut begun: Option<(usize, usize)> = None;
    for (number, line) in text.lines().enumerate() {
        let words = line.trim();
        let indent = line.len() - line.trim_start().len();
        match begun {
            None if is_function(words) && !words.ends_with(['}', ';']) => {
                begun = Some((number, indent));
            }
            Some((first, at)) if indent == at && words == "}" => {
                found.push((first + 1, number - first + 1));
                begun = None;
            }
            // Declared only.
            Some((_, at)) if indent == at && words.ends_with(';') => begun = None,
            _ => {}
        }
    }
    found
}

/// Whether a line begins a function, whatever stands before `fn`.
fn is_function(line: &str) -> bool {
    let mut words = line.split(' ').skip_while(|word| {
        ["const", "async", "unsafe", "extern", "\"C\""].contains(word) || word.starts_with("pub")
    });
    words.next() == Some("fn")
}

#[test]
fn what_is_not_a_test_does_not_unwrap() {
    for (name, text) in sources() {
        if is_test(&name) || name.starts_with("codecs/fuzz") {
            continue;
        }
        let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
        for (line, content) in code(product) {
            assert!(!content.contains(".unwrap()"), "{name}:{line} unwraps");
        }
    }
}

#[test]
fn the_docs_name_every_setting() {
    let docs = ["docs/CONFIGURATION.md", "docs/SEE-INSIDE.md", "docs/WHAT-BREAKS.md"]
        .map(|page| fs::read_to_string(root().join(page)).unwrap())
        .concat();
    let netra = env!("CARGO_BIN_EXE_netra");
    let help = std::process::Command::new(netra).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut names = BTreeMap::new();
    for word in help.split(|c: char| !c.is_ascii_uppercase() && c != '_' && !c.is_ascii_digit()) {
        if word.starts_with("NETRA_") {
            names.insert(word, docs.contains(word));
        }
    }
    assert!(names.len() > 15, "{names:?}");
    let missing: Vec<_> =
        names.iter().filter(|(_, named)| !**named).map(|(name, _)| name).collect();
    assert!(missing.is_empty(), "docs/CONFIGURATION.md does not name {missing:?}");
}
