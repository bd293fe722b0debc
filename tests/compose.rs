//! `docker/compose.yaml`, run as its head says: one request through three services in containers,
//! and the trace that its user sees.

mod support;

use std::process::Command;
use support::docker::{docker, is_there, tag};
use support::world::checked;
use support::{PATIENCE, wait_until};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/compose.yaml");

/// What compose has started, which goes with it.
struct Project {
    name: String,
    /// Who takes the spans.
    traces: &'static str,
}

impl Project {
    fn command(&self, args: &[&str]) -> Command {
        let plugin = Command::new("docker").args(["compose", "version"]).output();
        let mut command = match plugin {
            Ok(output) if output.status.success() => {
                let mut command = Command::new("docker");
                command.arg("compose");
                command
            }
            _ => Command::new("docker-compose"),
        };
        command.args(["--project-name", &self.name, "--file", FILE]).args(args);
        command.env("NETRA_TAG", tag()).env("TRACES", self.traces);
        command
    }

    /// Runs compose; it has to succeed. Returns what it printed.
    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("Debian package docker-compose");
        checked(output, &format!("compose {args:?}"))
    }

    /// What is there of it.
    fn left(&self, what: &[&str]) -> String {
        let label = format!("label=com.docker.compose.project={}", self.name);
        docker(&[what, &["--quiet", "--filter", &label]].concat())
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        drop(self.command(&["--profile", "collect", "down", "--timeout", "1"]).output());
    }
}

/// The traces that were drawn: (service, kind, operation, status) of each line.
fn traces(log: &str) -> Vec<Vec<[String; 4]>> {
    let mut traces = Vec::new();
    for line in log.lines() {
        if line.starts_with("trace ") {
            traces.push(Vec::new());
        }
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        // What a call is joined by stands before its status.
        let status = words.iter().skip(3).take(2).find(|word| word.parse::<u16>().is_ok());
        if let ([service, kind, operation, ..], Some(status)) = (&words[..], status)
            && ["server", "client"].contains(&kind.as_str())
            && let Some(trace) = traces.last_mut()
        {
            trace.push([service, kind, operation, status].map(Clone::clone));
        }
    }
    traces
}

/// The trace of a request that `last` answered.
fn wanted(last: &str) -> Vec<[String; 4]> {
    let spans = [
        ["front", "server", "/cart", "200"],
        ["front", "client", "shop/offer", "200"],
        ["shop", "server", "/offer", "200"],
        ["shop", "client", "stock/tea", "200"],
        [last, "server", "/tea", "200"],
    ];
    spans.map(|span| span.map(str::to_owned)).to_vec()
}

#[test]
fn one_command_shows_one_trace() {
    if !is_there() {
        return;
    }
    let project =
        Project { name: format!("netra-compose-{}", std::process::id()), traces: "traces" };
    project.run(&["up", "--detach"]);
    let container = project.run(&["ps", "--quiet", "traces"]);
    let traces = || traces(&docker(&["logs", container.trim()]));
    let seen = |count| wait_until(PATIENCE, || traces().len() == count);
    assert!(seen(1), "{}", project.run(&["logs"]));
    assert_eq!(traces(), [wanted("stock")]);
    let said = project.run(&["logs", "--no-color", "client"]);
    assert!(said.contains("GET http://front/cart: 200 front < shop < stock: 7 left"), "{said}");
    let steered = ["--header", "X-Route: stock=stock-canary"];
    let ask = ["run", "--rm", "--no-deps", "client", "demo", "ask", "front/cart"];
    let said = project.run(&[&ask[..], &steered].concat());
    assert!(said.contains("200 front < shop < stock-canary: 7 left, 5 on their way"), "{said}");
    assert!(seen(2), "{}", project.run(&["logs"]));
    assert_eq!(traces(), [wanted("stock"), wanted("stock-canary")]);

    // The same by a rule.
    let said = project.run(&[&ask[..], &["--header", "X-Request-Id: canary-1"]].concat());
    assert!(said.contains("200 front < shop < stock-canary: 7 left, 5 on their way"), "{said}");
    assert!(seen(3), "{}", project.run(&["logs"]));

    // An application that restarts comes back behind its sidecar.
    project.run(&["restart", "--timeout", "5", "shop-app"]);
    project.run(&ask);
    assert!(seen(4), "{}", project.run(&["logs"]));
    assert_eq!(traces()[3], wanted("stock"));

    // Everything leaves when it is asked to, not by SIGKILL, and nothing stays.
    project.run(&["stop", "--timeout", "30"]);
    let codes = project.left(&["ps", "--all"]);
    let codes: Vec<&str> = codes.split_whitespace().collect();
    let inspect = ["inspect", "--format", "{{.Name}} {{.State.ExitCode}}"];
    let ends = docker(&[&inspect[..], &codes].concat());
    assert_eq!(ends.lines().count(), 18, "{ends}");
    assert!(ends.lines().all(|line| line.ends_with(" 0")), "{ends}");
    project.run(&["down"]);
    assert_eq!(project.left(&["ps", "--all"]) + &project.left(&["network", "ls"]), "");
}

/// The map instead of the log, by the profile that the document names.
#[test]
fn the_profile_of_collect_shows_the_map() {
    if !is_there() {
        return;
    }
    let project =
        Project { name: format!("netra-collect-{}", std::process::id()), traces: "collect" };
    project.run(&["--profile", "collect", "up", "--detach"]);
    let container = project.run(&["--profile", "collect", "ps", "--quiet", "collect"]);
    let map = || docker(&["exec", container.trim(), "/netra", "collect", "--once", "--map"]);
    let calls = |map: &str| {
        let words = map.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut calls: Vec<_> = words.filter(|line| line.contains(" -> ")).collect();
        calls.sort();
        calls
    };
    let wanted = ["front -> shop http 1", "outside -> front http 1", "shop -> stock http 1"];
    let is_wanted = |map: &str| {
        let calls = calls(map);
        calls.len() == 3 && calls.iter().zip(wanted).all(|(call, begin)| call.starts_with(begin))
    };
    assert!(wait_until(PATIENCE, || is_wanted(&map())), "{}", map());
}

#[test]
fn the_images_are_those_that_make_images_builds() {
    let text = std::fs::read_to_string(FILE).unwrap();
    let images: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
    let version = env!("CARGO_PKG_VERSION");
    let ours = |name: &str| format!("${{NETRA_PREFIX:-}}{name}:${{NETRA_TAG:-{version}}}");
    let (netra, init) = (ours("netra"), ours("netra-init"));
    let jaeger = "${JAEGER_IMAGE:-jaegertracing/all-in-one:1.57}";
    assert_eq!(images, [netra.as_str(), &init, &netra, &netra, jaeger]);
}
