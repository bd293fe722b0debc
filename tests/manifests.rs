//! What is in docker/kubernetes is what this build makes. `NETRA_GOLDEN=write cargo test --test
//! manifests` writes the files anew; look at the difference before you commit it.

use base64::Engine;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

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
        let args = [&["-f", "app.yaml", "--env", "NETRA_HTTP_PORTS=8080"], flags].concat();
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
        let application = fs::read_to_string(folder().join("app.yaml")).unwrap();
        assert_eq!(back, format!("# Made by: netra inject {}\n{application}", args.join(" ")));
    }
}

/// What users choose.
const CHOSEN: [&str; 3] = ["image:", "value:", "NETRA_HTTP_PORTS"];

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
        .filter(|line| !CHOSEN.iter().any(|chosen| line.contains(chosen)))
        .filter(|line| !has(line))
        .collect();
    assert!(missing.is_empty(), "kustomize/component/sidecar.yaml lacks {missing:?}");
    assert!(containers.len() > 60);
}

/// What the budget makes of the limit that is shipped, in netra's own words and in the document's.
#[test]
fn the_memory_that_is_shipped_is_one_sum_everywhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
    let limit = "memory: 64Mi";
    for (file, times) in [
        ("src/inject/sidecar.yaml", 1),
        ("docker/kubernetes/kustomize/component/sidecar.yaml", 1),
        ("docker/kubernetes/helm/netra/values.yaml", 1),
    ] {
        let text = read(file);
        let limits = text.split("limits:").skip(1);
        let found = limits.filter(|rest| rest.trim_start().starts_with(limit)).count();
        assert_eq!(found, times, "{file}: limits of {limit}");
    }
    assert!(read("docker/compose.yaml").contains("mem_limit: 64m"));
    let output = Command::new(env!("CARGO_BIN_EXE_netra"))
        .args(["--service-name=shop", "--memory-max=64Mi", "--shards=2", "--http-ports=8080"])
        .arg("--print-config")
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap();
    let (_, parts) = line("NETRA_MEMORY_MAX=").split_once("64 MiB, as set: ").unwrap();
    let (_, most) = line("NETRA_CONNECTIONS_MAX=").split_once("at most ").unwrap();
    let most = most.split(' ').next().unwrap();
    let sum: f64 = parts
        .split(", ")
        .map(|part| part.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert!((63.0..=64.3).contains(&sum), "{parts}: {sum} MiB");
    let document = read("docs/DEPLOY.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let said = format!("{parts}: {most} connections at once");
    assert!(document.contains(&said), "docs/DEPLOY.md lacks: {said}");
}

/// Rules are mounted the same by every way of deployment: by `inject`, by kustomize, by the chart.
#[test]
fn rules_are_mounted_the_same_everywhere() {
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.trim_start().to_owned()).collect()
    };
    let plain = inject(&["-f", "app.yaml"]);
    let (is_good, with, stderr) = inject(&["-f", "app.yaml", "--rules-config-map", "netra-rules"]);
    assert!(is_good && plain.0, "{stderr}");
    let is_about = |line: &String| !line.contains("netra.io/injected");
    let mut before = lines(&plain.1);
    let mut added: Vec<String> = lines(&with).into_iter().filter(is_about).collect();
    added.retain(|line| {
        let known = before.iter().position(|other| other == line);
        known.map(|known| before.remove(known)).is_none()
    });
    assert_eq!(added.len(), 10, "{added:?}");
    let read = |file: &str| fs::read_to_string(folder().join(file)).unwrap();
    let patch = lines(&read("kustomize/rules/rules.yaml"));
    let missing: Vec<_> = added.iter().filter(|line| !patch.contains(line)).collect();
    assert!(missing.is_empty(), "kustomize/rules/rules.yaml lacks {missing:?}");
    let chart = read("helm/netra/templates/_netra.tpl");
    let chart = lines(&chart.replace("{{ .netra.rules.configMap | quote }}", "\"netra-rules\""));
    let bare = |line: &str| line.replace('"', "");
    let missing: Vec<_> =
        added.iter().filter(|line| !chart.iter().any(|it| bare(it) == bare(line))).collect();
    // Its volumes are the author's to place.
    assert_eq!(missing, ["volumes:"], "the chart lacks lines");
}

#[test]
fn charts_are_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, line, times) in [
        ("helm/netra/Chart.yaml", format!("version: {version}\nappVersion: {version}\n"), 1),
        ("helm/netra/values.yaml", format!("tag: \"{version}\"\n"), 2),
        (
            "helm/netra-control/Chart.yaml",
            format!("version: {version}\nappVersion: {version}\n"),
            1,
        ),
        ("helm/netra-control/values.yaml", format!("tag: \"{version}\"\n"), 1),
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

/// Every `netra inject` of the docs, run as it is written, with files of these names.
#[test]
fn every_inject_of_the_docs_runs() {
    let application = fs::read_to_string(folder().join("app.yaml")).unwrap();
    let mut count = 0;
    for doc in [
        "README.md",
        "docs/DEPLOY.md",
        "docs/FROM-NETRAMESH.md",
        "docker/README.md",
        "docker/kubernetes/README.md",
    ] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(doc)).unwrap();
        for line in text.lines().map(str::trim_start).filter(|l| l.starts_with("netra inject")) {
            count += 1;
            let place = examples(&application, count);
            let command = line.split(" #").next().unwrap();
            if command.contains("--uninject") {
                fs::copy(place.join("meshed.yaml"), place.join("deployment.yaml")).unwrap();
            }
            let (made, stderr) = run(&place, command);
            assert!(stderr.contains("netra inject: "), "{doc}: {line}: {stderr}");
            assert!(!stderr.contains("skipped"), "{doc}: {line}: {stderr}");
            if command.contains("--uninject") {
                assert_eq!(made, application, "{doc}: {line}");
            } else {
                let has = |name: &str| made.contains(&format!("- name: {name}\n"));
                assert!(has("netra-init") && has("netra"), "{doc}: {line}: {made}");
            }
            fs::remove_dir_all(&place).unwrap();
        }
    }
    assert!(count >= 8, "{count} examples: have they moved?");
}

/// A folder with what the examples of the docs speak of.
fn examples(application: &str, number: usize) -> PathBuf {
    let place = std::env::temp_dir().join(format!("netra-docs-{}-{number}", std::process::id()));
    fs::create_dir_all(place.join("bin")).unwrap();
    let netramesh = application.replace(
        "      containers:\n",
        "      containers:\n      - name: netra-sidecar\n        image: netramesh\n",
    );
    for (name, text) in [
        ("deployment.yaml", application),
        ("all.yaml", application),
        ("rollout.yaml", &application.replace("kind: Deployment", "kind: Rollout")),
        ("netramesh.yaml", &netramesh),
        ("meshed.yaml", &inject(&["-f", "app.yaml"]).1),
        ("bin/kubectl", "#!/bin/sh\ncat > applied.yaml\n"),
    ] {
        fs::write(place.join(name), text).unwrap();
    }
    fs::set_permissions(place.join("bin/kubectl"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink(env!("CARGO_BIN_EXE_netra"), place.join("bin/netra")).unwrap();
    place
}

/// Runs an example; what it made, and what it said.
fn run(place: &Path, command: &str) -> (String, String) {
    let path = format!("{}:{}", place.join("bin").display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    let ran = shell.args(["-ec", command]).current_dir(place).env("PATH", path).output().unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.success(), "{command}: {stderr}");
    let made = ["applied.yaml", "meshed.yaml"].map(|name| fs::read_to_string(place.join(name)));
    (made.into_iter().find_map(Result::ok).unwrap(), stderr)
}

#[test]
fn check_writes_nothing_and_tells_by_its_exit_code() {
    for (args, code) in [
        (&["--check", "-f", "native.yaml"][..], 0),
        (&["--check", "-f", "classic.yaml"], 0),
        (&["--check", "--classic", "-f", "native.yaml"], 1),
        (&["--check", "-f", "app.yaml"], 1),
        (&["--check", "-f", "no-such-file.yaml"], 64),
        (&["--check", "--uninject"], 64),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netra"));
        let ran = command.arg("inject").args(args).current_dir(folder()).output().unwrap();
        assert_eq!((ran.status.code(), ran.stdout.len()), (Some(code), 0), "{args:?}");
    }
}

/// A child that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A certificate of its own for `hook.test`, where a Secret would put it.
fn certify(place: &Path) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]);
    command.args(["-keyout", "new.key", "-out", "new.crt", "-subj", "/CN=hook.test"]);
    command.args(["-addext", "subjectAltName=DNS:hook.test"]).current_dir(place);
    let made = command.output().expect("openssl (Debian package openssl)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for name in ["crt", "key"] {
        fs::rename(place.join(format!("new.{name}")), place.join(format!("tls.{name}"))).unwrap();
    }
}

/// What curl gets, which trusts the certificate that lies there now: status and body.
fn post(place: &Path, port: u16, path: &str, body: &str) -> (String, String) {
    fs::write(place.join("body.json"), body).unwrap();
    let url = format!("https://hook.test:{port}{path}");
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "5", "--cacert", "tls.crt", "--resolve"]);
    command.arg(format!("hook.test:{port}:127.0.0.1"));
    command.args(["--data-binary", "@body.json", "--header", "Content-Type: application/json"]);
    let ran = command.args(["--write-out", "\n%{http_code}", &url]).current_dir(place).output();
    let said = String::from_utf8(ran.expect("curl").stdout).unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap_or_default();
    (status.to_owned(), body.to_owned())
}

fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !look() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// What inject says of flags of netra-init is what netra-init says.
#[test]
fn inject_believes_no_argument_that_netra_init_would_not() {
    let beside = Path::new(env!("CARGO_BIN_EXE_netra")).with_file_name("netra-init");
    assert!(beside.exists(), "build all of it: cargo build -p netra-init");
    let samples: &[&[&str]] = &[
        &["--exclude-inbound-ports=22,80:90"],
        &["--exclude-inbound-ports="],
        &["--exclude-inbound-ports=90:80"],
        &["--exclude-inbound-ports=0"],
        &["--exclude-inbound-ports=ssh"],
        &["--exclude-inbound-port=22"],
        &["--inbound-ports=*"],
        &["--inbound-ports=none"],
        &["--inbound-ports="],
        &["--outbound-ports", "80, 443"],
        &["--sidecar-port=65536"],
        &["--exclude-outbound-cidrs=10.0.0.0/8,fd00::/8"],
        &["--exclude-outbound-cidrs=10.0.0.0/33"],
        &["--exclude-outbound-cidrs=10.0.0"],
        &["--include-outbound-cidrs=*"],
        &["--include-outbound-cidrs="],
        &["--reroute-interfaces=docker0,k6t*"],
        &["--reroute-interfaces=a-name-that-is-long"],
        &["--exclude-uids=7,4294967294"],
        &["--exclude-uids=4294967295"],
        &["--exclude-uids=-1"],
        &["--include-gids=*"],
        &["--outbound-probability=0.5"],
        &["--outbound-probability=.5"],
        &["--outbound-probability=1.0000001"],
        &["--outbound-probability=-1"],
        &["--close-wait-timeout-seconds=3601"],
        &["--mode=none"],
        &["--mode=off"],
        &["--backend", "nft-native"],
        &["--backend=nft"],
        &["--ipv6=on"],
        &["--drop-invalid"],
        &["--drop-invalid=No"],
        &["--drop-invalid=maybe"],
        &["--uid=1", "--uid=2"],
        &["--log-format=json", "extra"],
        &["--netns"],
    ];
    for sample in samples {
        let mut init = Command::new(&beside);
        let output = init.arg("print").args(*sample).env_clear().output().unwrap();
        let is_refused = output.status.code() == Some(2);
        let args = sample.iter().flat_map(|arg| ["--init-arg", arg]);
        let args: Vec<&str> =
            ["-f", "app.yaml", "--env=NETRA_HTTP_PORTS=8080"].into_iter().chain(args).collect();
        let (is_good, _, stderr) = inject(&args);
        assert!(is_good, "{sample:?}: {stderr}");
        let is_told = stderr.contains("warning: netra-init would not start: --init-arg: ");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(is_told, is_refused, "{sample:?}: {stderr}\n{said}");
    }
}

/// A review of the API server's form over TLS, by curl; the pod is what `netra inject` makes of it; and
/// another certificate is served as soon as it is there.
#[test]
fn the_webhook_injects_as_inject_does_and_follows_its_certificate() {
    const REVIEW: &str = include_str!("../src/webhook/review.json");
    let place = std::env::temp_dir().join(format!("netra-webhook-{}", std::process::id()));
    fs::create_dir_all(&place).unwrap();
    certify(&place);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let flags = ["--env=NETRA_HTTP_PORTS=8080", "--init-arg=--exclude-inbound-ports=9090"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_netra"));
    command.args(["webhook", "--cert", "tls.crt", "--key", "tls.key", "--port"]);
    command.arg(free.to_string()).args(flags).current_dir(&place);
    let mut hook = Ended(command.spawn().unwrap());
    until("it answers", || post(&place, free, "/inject", REVIEW).0 == "200");
    let (_, answer) = post(&place, free, "/inject", REVIEW);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let review: Value = serde_json::from_str(REVIEW).unwrap();
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    assert_eq!(answer["response"]["allowed"], true);
    let patch = base64::engine::general_purpose::STANDARD
        .decode(answer["response"]["patch"].as_str().unwrap())
        .unwrap();
    let patch: Value = serde_json::from_slice(&patch).unwrap();
    fs::write(place.join("pod.json"), review["request"]["object"].to_string()).unwrap();
    let pod = place.join("pod.json");
    let args = ["-f", pod.to_str().unwrap(), "--service-name=shop", flags[0], flags[1]];
    let (is_good, made, stderr) = inject(&args);
    assert!(is_good, "{stderr}");
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(patch[0]["value"], made["metadata"]["annotations"]);
    assert_eq!(patch[1]["value"], made["spec"]);
    assert_eq!(post(&place, free, "/inject", "{}").0, "400");
    assert_eq!(post(&place, free, "/other", "{}").0, "404");
    certify(&place);
    until("the new certificate is served", || post(&place, free, "/inject", REVIEW).0 == "200");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(hook.0.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(hook.0.wait().unwrap().success());
    fs::remove_dir_all(&place).unwrap();
}
