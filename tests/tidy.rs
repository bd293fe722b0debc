//! The house keeps itself: arrows between crates, owners of external crates, doors to unsafe code,
//! sizes of files and functions, and the names of what is listed in the docs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What each crate may use of ours. Arrows point down only (docs/ARCHITECTURE.md).
const ARROWS: &[(&str, &[&str])] = &[
    ("", &["netra-shards", "netra-codecs", "netra-perf"]),
    ("shards", &["netra-codecs", "netra-perf"]),
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
    ("mimalloc", &["src/main.rs"]),
    ("clap_complete", &["src/args.rs", "src/pages.rs", "init/examples/"]),
    ("clap_mangen", &["src/pages.rs", "init/examples/"]),
    ("saphyr_parser", &["src/inject/yaml.rs"]),
    ("prometheus_client", &["perf/src/"]),
    ("hyper", &["src/endpoint.rs", "src/http_client.rs", "src/export/", "src/sampling.rs"]),
    ("hyper_util", &["src/endpoint.rs", "src/http_client.rs"]),
    ("http_body_util", &["src/endpoint.rs", "src/http_client.rs"]),
    ("ratatui", &["src/top/"]),
    ("cadence", &["src/statsd.rs"]),
    ("perf_event", &["perf/src/profile/cpu.rs"]),
    ("addr2line", &["perf/src/profile/symbols.rs"]),
    ("flate2", &["perf/src/profile/pprof.rs"]),
    ("prost", &["perf/src/profile/pprof.rs"]),
    ("opentelemetry", &["src/export/otlp.rs"]),
    ("opentelemetry_sdk", &["src/export/otlp.rs"]),
    ("opentelemetry_otlp", &["src/export/otlp.rs"]),
    ("opentelemetry_http", &["src/export/otlp.rs"]),
    ("opentelemetry_jaeger", &["src/export/jaeger_sdk.rs"]),
    ("otel023", &["src/export/jaeger_sdk.rs"]),
    ("sdk023", &["src/export/jaeger_sdk.rs"]),
    ("hickory_resolver", &["src/resolver.rs"]),
    ("base64", &["src/export/collector.rs"]),
    ("percent_encoding", &["src/export/tags.rs", "src/http_client.rs", "src/traces.rs"]),
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
    let mut folders: Vec<PathBuf> =
        ["src", "tests", "shards", "codecs", "perf", "init", "loadtest"]
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
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{name} has {lines} lines: two jobs?");
        let mut begun: Option<(usize, usize)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let words = line.trim_start();
            let is_function = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn "]
                .iter()
                .any(|start| words.starts_with(start));
            match begun {
                None if is_function && words.ends_with('{') => begun = Some((number, indent)),
                Some((first, at)) if line.trim() == "}" && indent == at => {
                    let length = number - first + 1;
                    assert!(
                        length <= FUNCTION_LINES_MAX,
                        "{name}:{} has {length} lines",
                        first + 1
                    );
                    begun = None;
                }
                _ => {}
            }
        }
    }
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
fn the_readme_names_every_setting() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let netra = env!("CARGO_BIN_EXE_netra");
    let help = std::process::Command::new(netra).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut names = BTreeMap::new();
    for word in help.split(|c: char| !c.is_ascii_uppercase() && c != '_' && !c.is_ascii_digit()) {
        if word.starts_with("NETRA_") {
            names.insert(word, readme.contains(word));
        }
    }
    assert!(names.len() > 15, "{names:?}");
    let missing: Vec<_> =
        names.iter().filter(|(_, named)| !**named).map(|(name, _)| name).collect();
    assert!(missing.is_empty(), "README.md does not name {missing:?}");
}
