//! What is in docker/kubernetes is what this build makes. `NETRA_GOLDEN=write cargo test --test
//! manifests` writes the files anew; look at the difference before you commit it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/kubernetes")
}

fn inject(args: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netra"));
    let output = command.arg("inject").args(args).current_dir(folder()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn plain_manifests_are_what_inject_makes_of_the_application() {
    for (file, flags) in [("native.yaml", &[][..]), ("classic.yaml", &["--classic"])] {
        let args = [&["-f", "app.yaml"], flags].concat();
        let (is_good, stdout, stderr) = inject(&args);
        assert!(is_good, "{stderr}");
        assert_eq!(stderr, "netra inject: deployment/shop: injected\n");
        let made = format!("# Made by: netra inject {}\n{stdout}", args.join(" "));
        let path = folder().join(file);
        if std::env::var_os("NETRA_GOLDEN").is_some() {
            fs::write(&path, &made).unwrap();
        }
        assert!(fs::read_to_string(&path).unwrap() == made, "{file} differs; now:\n{made}");
        let (_, back, _) = inject(&["--uninject", "-f", file]);
        assert_eq!(back, fs::read_to_string(folder().join("app.yaml")).unwrap());
    }
}

/// Kustomize and Helm cannot ask this program: they carry the containers as text.
#[test]
fn other_ways_of_deployment_have_the_same_containers() {
    let native = fs::read_to_string(folder().join("native.yaml")).unwrap();
    let inits = native.split("      initContainers:\n").nth(1).unwrap();
    let containers: Vec<&str> =
        inits.split("      containers:\n").next().unwrap().lines().map(str::trim_start).collect();
    let component = fs::read_to_string(folder().join("kustomize/component/sidecar.yaml")).unwrap();
    let has = |line: &str| component.lines().any(|other| other.trim_start() == line);
    let missing: Vec<_> = containers
        .iter()
        .filter(|line| !line.contains("image:") && !line.contains("value:"))
        .filter(|line| !has(line))
        .collect();
    assert!(missing.is_empty(), "kustomize/component/sidecar.yaml lacks {missing:?}");
    assert!(containers.len() > 60);
}

#[test]
fn charts_are_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, line, times) in [
        ("helm/netra/Chart.yaml", format!("version: {version}\nappVersion: {version}\n"), 1),
        ("helm/netra/values.yaml", format!("tag: \"{version}\"\n"), 2),
        ("helm/example/Chart.yaml", format!("  version: {version}\n"), 1),
        ("kustomize/example/kustomization.yaml", format!("newTag: {version}\n"), 2),
    ] {
        let text = fs::read_to_string(folder().join(file)).unwrap();
        assert_eq!(text.matches(&line).count(), times, "{file}: {line}");
    }
}

#[test]
fn bad_input_is_refused_and_nothing_is_written() {
    let (is_good, stdout, stderr) = inject(&["-f", "no-such-file.yaml"]);
    assert!(!is_good);
    assert_eq!((stdout.as_str(), stderr.lines().count()), ("", 1));
    assert!(stderr.starts_with("netra inject: no-such-file.yaml: No such file"), "{stderr}");
}
