//! Every command of the docs. What takes no machine is run as it stands there; of the rest each
//! program, command, flag, variable, target and file is there, and it is said which test runs it,
//! or why none does.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

#[path = "support/certs.rs"]
#[allow(dead_code, unreachable_pub)]
mod certs;
#[path = "commands/check.rs"]
mod check;
mod support;
#[path = "commands/text.rs"]
mod text;

use check::{Checker, base, is_program, program};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::matrix::{Cell, Driver};
use support::netra::{Netra, Setup, UID};
use support::world::World;
use text::{Said, Simple, all, root, split};

/// By the beginning of a line: the test that runs it, or the like of it with names of its own.
const RUN_BY: &[(&str, &str)] = &[
    ("netra inject", "tests/manifests.rs every_inject_of_the_docs_runs"),
    ("docker run -d", "tests/containers.rs one_application_by_the_lines_of_the_documents"),
    ("docker run --rm", "tests/containers.rs one_application_by_the_lines_of_the_documents"),
    ("docker stop", "tests/containers.rs one_application_by_the_lines_of_the_documents"),
    (
        "make images && docker-compose -f docker/compose-canary.yaml",
        "tests/containers_control.rs a_canary_goes_from_0_to_100_on_the_map",
    ),
    (
        "docker-compose -f docker/compose-canary.yaml",
        "tests/containers_control.rs a_canary_goes_from_0_to_100_on_the_map",
    ),
    ("sed -i", "tests/containers_control.rs a_canary_goes_from_0_to_100_on_the_map"),
    (
        "curl -s 'localhost:16686",
        "tests/containers_control.rs a_canary_goes_from_0_to_100_on_the_map",
    ),
    ("docker-compose", "tests/compose.rs one_command_shows_one_trace"),
    ("make images && docker-compose", "tests/compose.rs one_command_shows_one_trace"),
    ("make images", "tests/compose.rs the_images_are_those_that_make_images_builds"),
    ("TAG=1.2.3", "tests/compose.rs the_images_are_those_that_make_images_builds"),
    (
        "make demo DEMO_ARGS=--open",
        "tests/demo.rs heavy_the_open_demo_has_a_slow_database_a_canary_with_errors_and_a_retry_storm",
    ),
    ("make demo", "tests/demo.rs as_root_both_directions"),
    ("netra-init apply", "tests/commands.rs the_quick_start_of_a_host_runs"),
    ("curl -H 'X-Route:", "tests/http_routing.rs one_connection_to_one_place_after_another"),
    ("netra collect", "tests/observe_inside/collect.rs collect_shows_what_a_sidecar_sends"),
    (
        "netra-control serve",
        "control/tests/fleet.rs nobody_without_a_token_gets_rules_and_each_token_its_own",
    ),
    (
        "netra-loadtest upstream",
        "loadtest/tests/commands.rs bodies_headers_and_chunks_go_both_ways",
    ),
    ("netra-loadtest http", "loadtest/tests/commands.rs bodies_headers_and_chunks_go_both_ways"),
    (
        "netra-loadtest redis",
        "loadtest/tests/commands.rs questions_of_other_protocols_are_answered_and_compared",
    ),
    (
        "netra-loadtest ramp",
        "loadtest/tests/commands.rs a_mix_runs_its_parts_at_once_and_a_ramp_finds_its_limit",
    ),
    (
        "netra-loadtest mix",
        "loadtest/tests/commands.rs a_mix_runs_its_parts_at_once_and_a_ramp_finds_its_limit",
    ),
    (
        "netra-loadtest check",
        "loadtest/tests/honesty.rs heavy_we_agree_with_wrk_ab_and_a_raw_client",
    ),
    (
        "netra-loadtest report",
        "loadtest/tests/commands.rs reports_are_written_shown_again_and_compared",
    ),
    (
        "sudo NETRA_BIN=",
        "loadtest/tests/namespaces.rs a_comparison_measures_what_the_subject_adds_and_leaves_nothing",
    ),
    (
        "netra-loadtest budget",
        "loadtest/tests/namespaces.rs the_budget_of_the_smallest_relay_is_what_its_code_says",
    ),
];

/// By the beginning of a line: why no test runs it. What it names is checked all the same.
const NOT_RUN: &[(&str, &str)] = &[
    ("make test", "it is the one that runs the tests"),
    ("make build", "cargo builds what tests run"),
    ("make deb", "hosts/check.sh looks at the package, by `make deb-check`"),
    ("make budget", "it measures for a quarter of an hour"),
    ("make example-codec", "`make test` runs it before the tests"),
    ("apt install", "it changes the machine"),
    ("editor", "it is for people"),
    ("systemctl", "it changes the machine; tests/hosts.rs looks at the units"),
    (
        "docker run --security-opt",
        "io_uring within a profile: tests/seccomp.rs compares the profiles",
    ),
    ("cargo ", "it is how tests are run"),
    ("NETRA_TEST_CELLS=", "it is how tests are run"),
];

/// A test folder with what the commands of the docs name.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("commands-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("DIR")).unwrap();
        let page = fs::read_to_string(root().join("docs/RULES.md")).unwrap();
        let limits = page.split("\n## Limits\n").nth(1).expect("a part about limits");
        let (rules, tests) = (yaml(limits, 0), yaml(limits, 1));
        fs::write(folder.join("DIR/rules.yaml"), rules).unwrap();
        let tests = format!("rules: [DIR]\n{tests}");
        fs::write(folder.join("FILE"), tests).unwrap();
        for file in ["rcon.yaml", "smb2.yaml", "gt06.yaml"] {
            fs::copy(root().join("examples/protocols").join(file), folder.join(file)).unwrap();
        }
        fs::write(folder.join("traffic.pcap"), capture(&rcon())).unwrap();
        fs::write(folder.join("token"), "0123456789abcdef").unwrap();
        fs::set_permissions(folder.join("token"), Permissions::from_mode(0o600)).unwrap();
        let authority = certs::Authority::new("docs");
        authority.write(&folder.join("ca.pem"));
        fs::write(folder.join("otel-headers"), "Authorization: Bearer x\n").unwrap();
        fs::set_permissions(folder.join("otel-headers"), Permissions::from_mode(0o600)).unwrap();
        Self(folder)
    }

    /// Files of a host have other places here.
    fn put(&self, text: &str) -> String {
        let here = |name: &str| self.0.join(name).to_str().unwrap().to_owned();
        [
            ("/etc/netra/rules", "DIR"),
            ("/etc/netra/ca.pem", "ca.pem"),
            ("/run/secrets/otel-headers", "otel-headers"),
            ("/run/netra/admin.sock", "admin.sock"),
        ]
        .iter()
        .fold(text.to_owned(), |text, (there, name)| text.replace(there, &here(name)))
    }

    fn run(&self, simple: &Simple, exported: &[(String, String)], more: &[&str]) -> Output {
        let mut command = Command::new(program(base(&simple.words[0])));
        command.args(simple.words[1..].iter().map(|word| self.put(word))).args(more);
        command.env_clear().current_dir(&self.0);
        for (name, value) in exported.iter().chain(&simple.variables) {
            command.env(name, self.put(value));
        }
        command.output().unwrap()
    }
}

/// The nth block of YAML in a part of a document.
fn yaml(part: &str, number: usize) -> &str {
    let block = part.split("```yaml\n").nth(number + 1).expect("a block");
    block.split("```").next().unwrap()
}

/// A request of Source RCON: length, id, kind, text, two zeroes.
fn rcon() -> Vec<u8> {
    let body = b"status\0\0";
    let length = u32::try_from(8 + body.len()).unwrap();
    [&length.to_le_bytes()[..], &7u32.to_le_bytes(), &2u32.to_le_bytes(), body].concat()
}

/// A capture of a connection from port 40000 to port 27015 and what it says: pcap of raw IP.
fn capture(payload: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4u32.to_le_bytes());
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    file.extend(101u32.to_le_bytes());
    let (syn, ack_and_push) = (2, 0x18);
    for (number, flags, payload) in [(0, syn, &[][..]), (1, ack_and_push, payload)] {
        let total = u16::try_from(40 + payload.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(40000u16.to_be_bytes());
        packet.extend(27015u16.to_be_bytes());
        packet.extend([0, 0, 0, number, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(payload);
        let length = u32::from(total).to_le_bytes();
        file.extend([&[0; 8][..], &length, &length, &packet].concat());
    }
    file
}

/// A sidecar's start: netra without a command.
fn is_start(simple: &Simple) -> bool {
    let name = simple.words.first().map(|word| base(word));
    name == Some("netra") && simple.words.len() > 1 && simple.words[1].starts_with("--service-name")
}

/// What ends by itself and changes nothing.
fn is_harmless(simple: &Simple) -> bool {
    let words: Vec<&str> = simple.words.iter().map(String::as_str).collect();
    matches!(
        words[..],
        ["netra", "rules" | "codec", ..]
            | ["netra", "settings" | "man" | "completions" | "doctor", ..]
            | ["netra", "--version"]
            | ["netra-init", "print" | "doctor", ..]
    )
}

/// To netra's own ports.
fn is_question(said: &Said) -> bool {
    let ours = ["localhost:1495", "127.0.0.1:1495", "--unix-socket"];
    said.text.starts_with("curl ") && ours.iter().any(|place| said.text.contains(place))
}

#[test]
fn every_command_of_the_docs_names_what_is_there() {
    let checker = Checker::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    for said in all() {
        for simple in split(&said.text) {
            let first = simple.words.first().map_or("", String::as_str);
            if !said.is_block && !is_program(first) {
                continue;
            }
            count += 1;
            if let Err(why) = checker.check(&simple) {
                wrong.push(format!("{}: {why}: {}", said.place, said.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 150, "{count} commands: have they moved?");
}

/// No block of commands is looked at by nobody, and no row of the tables is about nothing.
#[test]
fn every_block_of_commands_is_run_or_says_why_not() {
    let blocks: Vec<Said> = all().into_iter().filter(|said| said.is_block).collect();
    let mut used = Vec::new();
    let mut lost = Vec::new();
    for said in &blocks {
        let simples = split(&said.text);
        let runs_here = |it: &Simple| {
            is_start(it) || is_harmless(it) || it.words.first().is_none_or(|word| word == "export")
        };
        if simples.iter().all(runs_here) || is_question(said) {
            continue;
        }
        let rows = RUN_BY.iter().chain(NOT_RUN);
        match rows.map(|row| row.0).find(|begin| said.text.starts_with(begin)) {
            Some(begin) => used.push(begin),
            // `netra-orders` is built by an example.
            None if said.text.contains("netra-orders") => {}
            None => lost.push(format!("{}: {}", said.place, said.text)),
        }
    }
    assert!(lost.is_empty(), "neither run nor said why not: {lost:#?}");
    for (begin, test) in RUN_BY {
        assert!(used.contains(begin), "no command begins with {begin}");
        let (file, name) = test.split_once(' ').unwrap();
        let code = fs::read_to_string(root().join(file)).expect(file);
        assert!(code.contains(&format!("fn {name}(")), "{file} has no {name}");
    }
    for (begin, _) in NOT_RUN {
        assert!(used.contains(begin), "no command begins with {begin}");
    }
}

#[test]
fn every_start_of_the_docs_is_good() {
    let place = Place::new("starts");
    let mut count = 0;
    for said in all() {
        for simple in split(&said.text).iter().filter(|simple| is_start(simple)) {
            count += 1;
            let output = place.run(simple, &said.exported, &["--check-config"]);
            let log = String::from_utf8(output.stderr).unwrap();
            let (what, code) = (format!("{}: {}", said.place, said.text), output.status.code());
            assert_eq!((code, log.as_str()), (Some(0), ""), "{what}");
            if said.block.contains("X-Route") {
                let output = place.run(simple, &said.exported, &["--print-config"]);
                let shown = String::from_utf8(output.stdout).unwrap();
                assert!(shown.contains("NETRA_HTTP_ROUTING_ENABLED=true"), "{what}: {shown}");
            }
        }
    }
    assert!(count >= 8, "{count} starts: have they moved?");
}

#[test]
fn what_ends_by_itself_is_run_as_it_stands() {
    let place = Place::new("harmless");
    let mut count = 0;
    for said in all() {
        for simple in split(&said.text).iter().filter(|simple| is_harmless(simple)) {
            let whole = said.is_block || simple.words.len() > 3;
            let alone = ["settings", "man", "--version", "print"];
            if !whole && !simple.words.get(1).is_some_and(|word| alone.contains(&word.as_str())) {
                continue;
            }
            count += 1;
            // The doctor says by its code what it found on this machine.
            let is_doctor = simple.words[1] == "doctor";
            let more: &[&str] = if is_doctor && base(&simple.words[0]) == "netra" {
                &["--no-network"]
            } else {
                &[]
            };
            let output = place.run(simple, &said.exported, more);
            let told = String::from_utf8_lossy(&output.stderr);
            let what = format!("{}: {}: {told}", said.place, said.text);
            assert!(is_doctor || output.status.success(), "{what}");
            assert!(!output.stdout.is_empty(), "{what}");
        }
    }
    assert!(count >= 8, "{count} commands: have they moved?");
}

/// A running netra answers what the docs ask of its ports, orders last.
#[test]
fn every_question_to_netras_ports_is_answered() {
    let Some(world) = World::new() else { return };
    let place = Place::new("questions");
    let token = place.0.join("token");
    chown(&token, Some(UID), Some(UID)).unwrap();
    fs::set_permissions(&place.0, Permissions::from_mode(0o777)).unwrap();
    let setup = Setup::new(Cell { driver: Driver::Epoll, shards: 1 })
        .env("NETRA_ADMIN_TOKEN_FILE", token.display())
        .env("NETRA_ADMIN_ORDERS", "true")
        .env("NETRA_ADMIN_SOCKET", place.put("/run/netra/admin.sock"));
    let netra = Netra::start(&world, &setup);
    let mut questions: Vec<Said> = all().into_iter().filter(is_question).collect();
    questions.sort_by_key(|said| said.text.contains("/drain"));
    assert!(questions.len() >= 5, "{questions:?}");
    for said in &questions {
        let line = place.put(&said.text).replacen("curl ", "curl -sS -f ", 1);
        let mut command = world.pod.command("sh");
        let output = command.args(["-c", &line]).current_dir(&place.0).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {line}: {told}", said.place);
    }
    // The last one was the order to drain: it ends by itself.
    let mut netra = netra;
    netra.wait(support::PATIENCE).unwrap();
}

/// The README's lines for a host, in a network of its own: all but the build.
#[test]
fn the_quick_start_of_a_host_runs() {
    let Some(world) = World::new() else { return };
    let lines: Vec<Said> = all()
        .into_iter()
        .filter(|said| said.block.contains("\nnetra-init apply") && !said.text.starts_with("make"))
        .collect();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    let programs = program("netra").parent().unwrap().to_str().unwrap().to_owned();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let shell = |line: &str| {
        let mut command = world.pod.command("sh");
        command.args(["-c", line]).env("PATH", &path);
        command
    };
    let start = lines[0].text.strip_suffix(" &").expect("it goes on while the rest is done");
    let netra = Started(shell(&format!("exec {start}")).spawn().unwrap());
    let is_ready = || shell("netra ready").output().unwrap().status.success();
    assert!(support::wait_until(support::PATIENCE, is_ready), "it is not ready");
    for said in &lines[1..] {
        let output = shell(&said.text).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {}: {told}", said.place, said.text);
        assert!(!output.stdout.is_empty(), "{}: {}", said.place, said.text);
    }
    // The rules lead to the netra that was started.
    for line in ["netra-init status --exclude-inbound-ports=22", "netra-init cleanup"] {
        let output = shell(line).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }
    netra.end();
}

/// A program that ends with the test, however that ends.
struct Started(std::process::Child);

impl Started {
    fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
