//! netra under systemd: what it says to it, what the units allow, and what a package brings along.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn folder() -> PathBuf {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hosts-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A port that was free a moment ago.
fn free_port() -> String {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port().to_string()
}

#[test]
fn systemd_hears_of_start_life_and_drain() {
    let path = folder().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let hear = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).expect("a notification");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut netra = Command::new(env!("CARGO_BIN_EXE_netra"))
        .args(["--service-name", "hosts", "--port", &free_port()])
        .args(["--prometheus-port", &free_port()])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(hear().starts_with("READY=1\n"));
    // Half of the watchdog's time would be 100 ms; the control thread turns once a second, so the
    // unit's 10 s leave room for ten turns.
    let begun = Instant::now();
    for _ in 0..2 {
        assert_eq!(hear(), "WATCHDOG=1\n");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    kill(Pid::from_raw(netra.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let stopping = std::iter::repeat_with(hear).take(5).find(|said| said != "WATCHDOG=1\n");
    assert!(stopping.unwrap().starts_with("STOPPING=1\n"));
    assert!(netra.wait().unwrap().success());
}

#[test]
fn units_are_sound_and_closed() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("hosts");
    let folder = folder();
    let built = Path::new(env!("CARGO_BIN_EXE_netra")).parent().unwrap();
    for name in ["netra.service", "netra-init.service"] {
        let text = fs::read_to_string(units.join(name)).unwrap();
        // The programs of a package that is not installed.
        let text = text.replace("=/usr/bin/", &format!("={}/", built.display()));
        fs::write(folder.join(name), text).unwrap();
    }
    let analyze = |args: &[&str]| {
        let output = Command::new("systemd-analyze")
            .args(args)
            .args(["netra.service", "netra-init.service"].map(|name| folder.join(name)))
            .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.display()))
            .output()
            .expect("systemd-analyze: apt-get install systemd");
        let said =
            [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned());
        (output.status.success(), said.concat())
    };
    let (is_sound, said) = analyze(&["verify", "--man=no"]);
    // What other units of this machine have is not ours.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("netra")).collect();
    assert!(is_sound && ours.is_empty(), "{said}");
    // From 0, closed, to 100, open. What is left is the network, which is what they are for.
    let (is_closed, said) =
        analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"]);
    assert!(is_closed, "{said}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn completions_and_manual_know_every_flag() {
    let netra = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_netra")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let help = netra(&["--help"]);
    let flags: Vec<&str> = help.split_whitespace().filter(|word| word.starts_with("--")).collect();
    assert!(flags.len() > 50);
    let manual = netra(&["man"]).replace('\\', "");
    for shell in ["bash", "zsh", "fish"] {
        let script = netra(&["completions", shell]);
        for flag in &flags {
            let flag =
                flag.split(['=', '[', ',', ';', '.']).next().unwrap().trim_start_matches("--");
            assert!(script.contains(flag), "{shell} {flag}");
            assert!(manual.contains(flag), "man {flag}");
        }
    }
    let unknown = Command::new(env!("CARGO_BIN_EXE_netra")).args(["completions", "csh"]).output();
    assert_eq!(unknown.unwrap().status.code(), Some(64));
}

/// `NETRA_GOLDEN=write cargo test --test hosts settings` writes the file anew.
#[test]
fn the_table_of_settings_is_that_of_this_build() {
    let output = Command::new(env!("CARGO_BIN_EXE_netra")).arg("settings").output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().filter(|line| line.starts_with("| NETRA_")).count() > 40);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SETTINGS.md");
    if std::env::var_os("NETRA_GOLDEN").is_some() {
        fs::write(&path, &table).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == table, "docs/SETTINGS.md differs; now:\n{table}");
}

#[test]
fn the_table_of_settings_of_collect_is_that_of_this_build() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netra"));
    let output = command.args(["collect", "--settings"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SETTINGS-COLLECT.md");
    if std::env::var_os("NETRA_GOLDEN").is_some() {
        fs::write(&path, &table).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == table, "{} differs: {table}", path.display());
}

/// What is given away has a bound for its bytes, not far above what the documents say that it has.
#[test]
fn sizes_are_watched_and_those_that_are_told_are_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let sizes = read("hosts/sizes");
    let most = |name: &str| -> f64 {
        let row = sizes.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        row.unwrap_or_else(|| panic!("hosts/sizes has no {name}")).parse().unwrap()
    };
    let near = |name: &str, megabytes: &str| {
        let (bytes, most) = (megabytes.trim().parse::<f64>().unwrap() * 1e6, most(name));
        assert!(bytes < most && bytes > 0.8 * most, "{name}: {bytes} is said, {most} allowed");
    };
    let deploy = read("docs/DEPLOY.md");
    for (said, arch) in [("x86-64", "x86_64"), ("arm64", "aarch64")] {
        let row = deploy.lines().find(|line| line.starts_with(&format!("| {said} |"))).unwrap();
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim_end_matches(" MB ")).collect();
        near(&format!("netra-{arch}"), cells[2]);
        near(&format!("netra-init-{arch}"), cells[3]);
    }
    let images = read("docker/README.md");
    for image in ["netra", "netra-init"] {
        let row = images.lines().find(|line| line.starts_with(&format!("| `{image}` |"))).unwrap();
        near(&format!("image-{image}"), row.split('|').nth(4).unwrap().trim_end_matches(" MB "));
    }
}

/// A netra that runs has some ports; another port that is taken is not its.
#[test]
fn the_doctor_tells_netras_ports_from_those_of_others() {
    let (own, admin) = (free_port(), free_port());
    let name = ("NETRA_SERVICE_NAME", "hosts");
    let mut netra = Command::new(env!("CARGO_BIN_EXE_netra"))
        .envs([name, ("NETRA_PORT", &own), ("NETRA_PPROF_PORT", &admin)])
        .env("NETRA_PROMETHEUS_PORT", free_port())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let doctor = |port: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netra"));
        command.args(["doctor", "--no-network"]).env_clear();
        command.envs([name, ("NETRA_PORT", port), ("NETRA_PPROF_PORT", &admin)]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let own_is_told = || doctor(&own).contains(&format!("{own} is netra "));
    assert!(support::wait_until(support::PATIENCE, own_is_told), "{}", doctor(&own));
    // By its own limit, whatever the one who asks may open.
    let pid = Pid::from_raw(netra.id().try_into().unwrap());
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let limit = line.split_ascii_whitespace().nth(4).unwrap();
    let asked_with_less = Command::new("prlimit")
        .args(["--nofile=1000:1000", env!("CARGO_BIN_EXE_netra"), "doctor", "--no-network"])
        .env_clear()
        .envs([name, ("NETRA_PORT", &own), ("NETRA_PPROF_PORT", &admin)])
        .output()
        .unwrap();
    let said = String::from_utf8(asked_with_less.stdout).unwrap();
    let line = said.lines().find(|line| line[6..].starts_with("descriptors")).unwrap();
    assert!(line.contains(&format!(" {limit}, for ")), "{line}");
    assert!(line.ends_with("of the netra that runs"), "{line}");
    let busy = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let said = doctor(&busy.local_addr().unwrap().port().to_string());
    assert!(!said.contains("which is running"), "{said}");
    assert!(said.contains(&format!("of hosts answers at 127.0.0.1:{admin}")), "{said}");
    assert!(said.contains(&format!("and its NETRA_PORT is {own}")), "{said}");
    kill(Pid::from_raw(netra.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(netra.wait().unwrap().success());
}

#[test]
fn the_doctor_looks_at_everything_and_says_what_is_wrong() {
    let doctor = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netra"));
        command.arg("doctor").args(args).env_clear().envs(env.iter().copied());
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let busy = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let name = ("NETRA_SERVICE_NAME", "x");
    // Another test may run a netra at the usual port.
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let admin = ("NETRA_PPROF_PORT", &*nobody.to_string());
    let (code, said) = doctor(&[], &[name, ("NETRA_PORT", &port), admin, ("NETRA_TYPO", "1")]);
    assert_eq!(code, 69, "{said}");
    for check in ["kernel", "io", "descriptors", "locked memory", "cpu", "conntrack", "user"] {
        assert!(said.lines().any(|line| line[6..].starts_with(check)), "{check}: {said}");
    }
    assert!(said.contains(&format!("fail  NETRA_PORT             {port}: Address already in use")));
    assert!(said.contains("NETRA_TYPO"), "{said}");
    let (code, said) = doctor(&["--format=json"], &[name, ("NETRA_PORT", "none")]);
    assert_eq!(code, 64);
    let first: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((&first["check"], &first["result"]), (&"settings".into(), &"fail".into()));
    assert!(first["found"].as_str().unwrap().contains("NETRA_PORT"), "{said}");
}
