//! A protocol that is not built in, described by a file: SMB 2 as impacket's client and server speak it, with
//! tshark as a second reader.

use super::capture::captured;
use super::support::matrix::{Findings, cells_with};
use super::support::netra::{Backend, Netra, Setup, apply_rules, remove_rules};
use super::support::programs::{Server, run, tool};
use super::support::sink::Sink;
use super::support::world::{POD_V4, World, checked};
use super::{exchanges, no_tunnel, python, python_path, python_server};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const PORT: u16 = 445;

fn description() -> String {
    format!("{}/examples/protocols/smb2.yaml", env!("CARGO_MANIFEST_DIR"))
}

fn server(world: &World) -> Server {
    let files = world.dir().join("files");
    fs::create_dir_all(&files).expect("a folder");
    let mut command = world.pod.command(python_path());
    command.arg(python_path().with_file_name("smbserver.py"));
    command.args(["-smb2support", "-ip", "0.0.0.0", "files"]).arg(files);
    Server::start(world, &world.pod, command, PORT)
}

/// Requests as tshark reads them, by command.
fn by_tshark(world: &World, capture: &Path) -> BTreeMap<String, u64> {
    let file = capture.display().to_string();
    let filter = "smb2.flags.response == 0";
    let args = ["-r", &file, "-Y", filter, "-T", "fields", "-e", "smb2.cmd"];
    let mut counts = BTreeMap::new();
    for command in run(&world.client, &tool("tshark", "tshark"), &args).lines() {
        // Of several in one message the first.
        let first = command.split(',').next().unwrap_or_default().trim();
        *counts.entry(first.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// The numbers of operations by their names in the description.
const COMMANDS: [(&str, &str); 11] = [
    ("negotiate", "0"),
    ("session_setup", "1"),
    ("logoff", "2"),
    ("tree_connect", "3"),
    ("tree_disconnect", "4"),
    ("create", "5"),
    ("close", "6"),
    ("read", "8"),
    ("write", "9"),
    ("query_directory", "14"),
    ("query_info", "16"),
];

/// What netra counts and tells is what tshark reads, and what the application sees stays the same.
#[test]
fn a_described_protocol_is_told_as_those_that_are_built_in() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let host = POD_V4.to_string();
    let load = || python(&world.client, "smb2_client.py", &[&host, "445"]);
    let direct = load();
    assert!(direct.contains("read True"), "{direct}");
    let sink = Sink::start(&world);
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    let capture = world.dir().join("smb2.pcap");
    for cell in cells_with(2) {
        let setup = sink.wire(Setup::new(cell)).env("NETRA_PROTOCOL_FILES", description());
        let netra = Netra::start(&world, &setup.env("NETRA_PROTOCOLS", "445=smb2"));
        let through = captured(&world, &capture, &[445], load);
        if through != direct {
            findings.note(cell, format!("through netra:\n{through}\ndirectly:\n{direct}"));
        }
        findings.check(cell, look(&world, &netra, &sink, &capture));
        sink.clear();
        findings.check(cell, netra.finish());
    }
    remove_rules(&world, Backend::NftNative);
    findings.conclude();
    // The same file reads the capture without netra.
    let mut check = Command::new(super::support::netra::netra_binary());
    check.args(["codec", "check", &description()]).arg(&capture);
    let said = checked(check.output().expect("netra runs"), "netra codec check");
    assert!(said.contains("10.61.0.2:445") && said.contains("negotiate: ok"), "{said}");
}

fn look(world: &World, netra: &Netra<'_>, sink: &Sink, capture: &Path) -> Result<(), String> {
    netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
    let scrape = netra.scrape();
    no_tunnel(&scrape)?;
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let counted = exchanges(&scrape, "smb2");
    for ((operation, _), count) in &counted {
        let number = COMMANDS.iter().find(|(name, _)| name == operation);
        let (_, number) = number.ok_or(format!("{operation} is not among those asked for"))?;
        *seen.entry(number).or_default() += count;
    }
    let read = by_tshark(world, capture);
    if !seen
        .iter()
        .map(|(number, count)| (*number, *count))
        .eq(read.iter().map(|(k, v)| (k.as_str(), *v)))
    {
        return Err(format!("netra: {counted:?}\ntshark: {read:?}"));
    }
    let total = usize::try_from(read.values().sum::<u64>()).expect("few");
    let spans = sink.take(total)?;
    let missing = spans.iter().find(|span| span.name == "create" && span.tag("error") == "true");
    let missing = missing.ok_or("no file is missing")?;
    for (key, value) in
        [("rpc.system.name", "smb2"), ("rpc.method", "create"), ("error.type", "_OTHER")]
    {
        let said = missing.tag(key);
        if said != value {
            return Err(format!("{key} is {said:?}, not {value}"));
        }
    }
    Ok(())
}

/// Who is refused by a rule is told by the template of the description, and the connection goes on.
#[test]
fn a_reply_is_what_refused_clients_are_told() {
    const RCON: u16 = 27015;
    let Some(world) = World::new() else { return };
    let _server = python_server(&world, "rcon_peer.py", RCON, &["server", "0.0.0.0", "27015"]);
    let rules = world.dir().join("rules");
    fs::create_dir_all(&rules).expect("a folder");
    for path in [world.dir(), &rules] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("netra may read");
    }
    let denies = "apiVersion: netra.io/v1alpha1\nkind: Authorization\nmetadata: {name: closed}\n\
        spec: {action: DENY, protocol: rcon, rules: [{to: [{attributes: {operation: {exact: exec}}}]}]}\n";
    fs::write(rules.join("closed.yaml"), denies).expect("a document");
    let file = format!("{}/examples/protocols/rcon.yaml", env!("CARGO_MANIFEST_DIR"));
    apply_rules(&world, Backend::NftNative);
    for (cell, is_closed) in cells_with(2).into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let mut setup = Setup::new(cell)
            .env("NETRA_PROTOCOL_FILES", &file)
            .env("NETRA_PROTOCOLS", "27015=rcon")
            .env("NETRA_REPORTER", "none");
        if is_closed {
            setup = setup.env("NETRA_RULES", rules.display());
        }
        let netra = Netra::start(&world, &setup);
        let host = POD_V4.to_string();
        let said = python(&world.client, "rcon_peer.py", &["client", &host, "27015"]);
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines.len() == 2 && lines[0].starts_with("7 0 ") && lines[1].starts_with("8 0 "));
        assert_eq!(lines.iter().any(|line| line.contains("ok")), !is_closed, "{said}");
        netra.scrape_until("all over", |scrape| scrape.active() == 0).expect("they end");
        let refused = netra.scrape().sum("netra_messages_refused_total", &[("reason", "denied")]);
        assert_eq!(refused, if is_closed { 2 } else { 0 });
        netra.end().expect("a clean end");
    }
    remove_rules(&world, Backend::NftNative);
}
