//! Modules of a crate stand on one another, and not in a circle: what is in one cannot be read, or
//! tested, without all the others.

use super::{code, is_test, sources};
use std::collections::{BTreeMap, BTreeSet};

/// Modules that are in a circle, by crate. A list that may only become shorter.
const CIRCLES: &[(&str, &[&[&str]])] = &[
    ("shards/src/", &[]),
    ("rules/src/", &[]),
    ("codecs/src/", &[]),
    ("collect/src/", &[]),
    ("control/src/", &[]),
    ("perf/src/", &[]),
    ("init/src/", &[&["backend", "cli", "doctor", "report"]]),
    ("src/", &[]),
    (
        "loadtest/src/",
        &[&[
            "args", "budget", "bulk", "check", "compare", "idle", "mix", "ramp", "report", "run",
            "subject", "topology", "upstream",
        ]],
    ),
];

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Which modules of the crate each one names, in code that is not for tests.
fn graph(folder: &str) -> Graph {
    let mut files = Vec::new();
    for (name, text) in sources() {
        let Some(path) = name.strip_prefix(folder) else { continue };
        let module = path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        if is_test(&name) || ["lib", "main"].contains(&&*module) {
            continue;
        }
        let product = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines: Vec<_> = code(product).map(|(_, line)| line).collect();
        // In a file of its own, `super` is the crate.
        let prefixes = if path.contains('/') { &["crate::"][..] } else { &["crate::", "super::"] };
        let names: Vec<_> = prefixes.iter().flat_map(|p| named(&lines.join("\n"), p)).collect();
        files.push((module, names));
    }
    let mut graph: Graph =
        files.iter().map(|(module, _)| (module.clone(), BTreeSet::new())).collect();
    for (module, names) in files {
        let others = names.into_iter().filter(|name| *name != module && graph.contains_key(name));
        let others: Vec<_> = others.collect();
        graph.get_mut(&module).unwrap().extend(others);
    }
    assert!(graph.len() > 4, "the walk has lost its way: {folder}");
    graph
}

/// The first names behind each `prefix`, those of a list in braces included.
fn named(text: &str, prefix: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let first = |text: &str| text.split(|c| !is_name(c)).next().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for rest in text.split(prefix).skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            found.push(first(rest));
            continue;
        };
        let mut depth = 0;
        let mut is_first = true;
        for (at, c) in list.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => is_first = true,
                c if is_name(c) && is_first && depth == 0 => {
                    found.push(first(&list[at..]));
                    is_first = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// All modules that a way leads to.
fn reached<'g>(graph: &'g Graph, from: &str) -> BTreeSet<&'g str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = graph[from].iter().map(String::as_str).collect();
    while let Some(at) = open.pop() {
        if seen.insert(at) {
            open.extend(graph[at].iter().map(String::as_str));
        }
    }
    seen
}

/// The groups of modules each of which leads to all others.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|name| (name.as_str(), reached(graph, name))).collect();
    let mut found = BTreeSet::new();
    for (name, others) in reach.iter().filter(|(name, others)| others.contains(*name)) {
        let circle = others.iter().filter(|other| reach[*other].contains(name));
        found.insert(circle.map(|name| (*name).to_owned()).collect::<Vec<_>>());
    }
    found.into_iter().collect()
}

#[test]
fn there_are_no_further_circles_of_modules() {
    for (folder, known) in CIRCLES {
        let graph = graph(folder);
        let found = circles(&graph);
        let arrows = |circle: &[String]| {
            let inner = |name: &String| {
                let to: Vec<_> = graph[name].iter().filter(|to| circle.contains(to)).collect();
                format!("\n  {name} -> {to:?}")
            };
            circle.iter().map(inner).collect::<String>()
        };
        let shown: String = found.iter().map(|circle| arrows(circle)).collect();
        assert_eq!(found, *known, "circles of {folder}:{shown}");
    }
}

#[test]
fn names_behind_a_prefix_are_found_in_every_form() {
    let text = "use crate::a::B;\nuse crate::{\n    b::{C, d::E},\n    f,\n    G,\n};\nlet x = crate::h();";
    assert_eq!(named(text, "crate::"), ["a", "b", "f", "G", "h"]);
    let arrows = [("a", "b"), ("b", "c"), ("c", "b"), ("d", "d")];
    let mut graph: Graph = ["a", "b", "c", "d"].map(|n| (n.to_owned(), BTreeSet::new())).into();
    for (from, to) in arrows {
        graph.get_mut(from).unwrap().insert(to.to_owned());
    }
    assert_eq!(circles(&graph), [vec!["b".to_owned(), "c".to_owned()], vec!["d".to_owned()]]);
}
