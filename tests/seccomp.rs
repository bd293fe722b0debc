//! `docker/seccomp.json` is what Docker allows by default, and io_uring. Nothing else.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

const NONE: &[Value] = &[];

fn profile(name: &str) -> Value {
    let path = format!("{}/docker/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(NONE, Vec::as_slice)
}

/// Every system call with what is done when: action, errno, arguments.
fn decisions<'v>(rules: impl Iterator<Item = &'v Value>) -> BTreeSet<String> {
    let of = |rule: &Value| {
        let done = format!("{} {} {}", rule["action"], rule["errnoRet"], rule["args"]);
        list(rule, "names").iter().map(|name| format!("{name} {done}")).collect::<Vec<_>>()
    };
    rules.flat_map(of).collect()
}

/// Whether Docker heeds a rule for a container without capabilities on amd64 or arm64. (What it
/// asks of the kernel, 4.8, every kernel with io_uring has.)
fn is_heeded(rule: &&Value) -> bool {
    let ours = |arch: &&Value| **arch == "amd64" || **arch == "arm64";
    let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
    let arches = list(includes, "arches");
    assert!(!list(excludes, "arches").iter().any(|arch| ours(&arch)), "not thought of: {rule}");
    assert!(excludes["minKernel"].is_null(), "not thought of: {rule}");
    list(includes, "caps").is_empty() && (arches.is_empty() || arches.iter().any(|a| ours(&a)))
}

#[test]
fn the_difference_to_dockers_default_is_io_uring() {
    let (default, ours) = (profile("seccomp/default.json"), profile("seccomp.json"));
    for key in ["defaultAction", "defaultErrnoRet"] {
        assert_eq!(default[key], ours[key], "{key}");
    }
    let heeded = decisions(list(&default, "syscalls").iter().filter(is_heeded));
    assert!(heeded.len() > 350, "{heeded:?}");
    let found = decisions(list(&ours, "syscalls").iter());
    let more: Vec<_> = found.difference(&heeded).collect();
    let less: Vec<_> = heeded.difference(&found).collect();
    let allowed = |name| format!("\"{name}\" \"SCMP_ACT_ALLOW\" null null");
    assert_eq!(
        more,
        [&allowed("io_uring_enter"), &allowed("io_uring_register"), &allowed("io_uring_setup")]
    );
    assert!(less.is_empty(), "{less:?}");
    let is_ours = |arch: &&Value| {
        [json!("SCMP_ARCH_X86_64"), json!("SCMP_ARCH_AARCH64")].contains(&arch["architecture"])
    };
    let arches: Vec<_> = list(&default, "archMap").iter().filter(is_ours).collect();
    assert_eq!(arches, list(&ours, "archMap").iter().collect::<Vec<_>>());
}

/// containerd, which reads the file on the nodes of Kubernetes, takes Docker's conditions for
/// nothing: with them it would allow `mount` and `bpf` to everybody.
#[test]
fn no_rule_has_a_condition_that_a_runtime_may_not_know() {
    let ours = profile("seccomp.json");
    let rules = list(&ours, "syscalls");
    let known = ["names", "action", "errnoRet", "args", "comment"];
    for rule in rules {
        let unknown = rule.as_object().unwrap().keys().find(|key| !known.contains(&key.as_str()));
        assert_eq!(unknown, None, "{rule}");
    }
    let allowed = decisions(rules.iter());
    for name in ["mount", "bpf", "setns", "unshare", "perf_event_open", "keyctl", "userfaultfd"] {
        let decided = allowed.iter().any(|decision| decision.starts_with(&format!("\"{name}\" ")));
        assert!(!decided, "{name}");
    }
}
