//! The rendered rules, byte for byte. `NETRA_GOLDEN=write cargo test -p netra-init --test golden`
//! writes the files anew; look at the difference before you commit it.

mod common;

use std::fs;
use std::path::Path;

use common::expect;

/// Name of the file, and the settings.
const CASES: &[(&str, &[&str])] = &[
    ("default", &["--ipv6", "require"]),
    ("ipv4-only", &["--ipv6", "off"]),
    ("outbound-only", &["--ipv6", "require", "--inbound-ports", "none"]),
    (
        "full",
        &[
            "--ipv6=require",
            "--sidecar-port=15001",
            "--inbound-port=15006",
            "--own-ports=15000:15010,15090",
            "--sidecar-user-id=2000",
            "--sidecar-group-id=2001",
            "--inbound-ports=80,443,8000:9000",
            "--exclude-inbound-ports=22,8081",
            "--exclude-inbound-cidrs=10.0.0.0/8,192.168.1.77,fd00::/8",
            "--inbound-probability=0.25",
            "--outbound-ports=1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,1000:2000",
            "--exclude-outbound-ports=25",
            "--include-outbound-cidrs=10.0.0.0/8,172.16.0.0/16,172.17.0.0/16,fd00::/8",
            "--exclude-outbound-cidrs=10.1.16.0/20,10.3.3.3,fd00:1::/32,fd00:2::1",
            "--outbound-probability=0.333333",
            "--exclude-uids=5,6",
            "--exclude-gids=77",
            "--include-gids=1,2,3",
            "--exclude-interfaces=eth1,cni*",
            "--intercept-dns-tcp",
            "--intercept-self",
            "--drop-invalid",
            "--reroute-interfaces=virbr0,docker*",
        ],
    ),
];

#[test]
fn rendered_rules_are_as_in_the_files() {
    for (name, args) in CASES {
        for (backend, kind) in [("nft-native", "nft"), ("iptables-nft", "iptables")] {
            let args = [*args, &["print", "--backend", backend]].concat();
            let text = expect(0, &args).stdout;
            let file = format!("{}/tests/golden/{name}.{kind}", env!("CARGO_MANIFEST_DIR"));
            compare(Path::new(&file), &text);
        }
    }
}

/// docs/SETTINGS-INIT.md is made of the table that the program reads.
#[test]
fn the_table_of_settings_is_that_of_this_build() {
    let mut table = "# Settings of netra-init\n\n\
        Made of the table that the program itself reads, by a test that compares. Flag over variable over default.\n"
        .to_owned();
    let mut group = "";
    for setting in netra_init::settings::SETTINGS {
        if setting.group != group {
            group = setting.group;
            table += &format!(
                "\n## {group}\n\n| flag | variable | default | meaning |\n|---|---|---|---|\n"
            );
        }
        let alias = setting.alias.map(|alias| format!(", `--{alias}`")).unwrap_or_default();
        let default = if setting.default.is_empty() { "not set" } else { setting.default };
        let (flag, env, help) = (setting.flag, setting.env.unwrap_or(""), setting.help);
        table += &format!("| `--{flag}`{alias} | {env} | {default} | {help} |\n");
    }
    compare(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SETTINGS-INIT.md")), &table);
}

#[test]
fn dry_run_is_print() {
    let print = expect(0, &["print", "--ipv6", "off"]).stdout;
    assert_eq!(expect(0, &["--dry-run", "--ipv6", "off"]).stdout, print);
    assert_eq!(expect(0, &["apply", "--dry-run", "--ipv6", "off"]).stdout, print);
}

#[test]
fn both_kinds_of_iptables_print_the_same() {
    let print = |backend| expect(0, &["print", "--ipv6=require", "--backend", backend]).stdout;
    assert_eq!(print("iptables-nft"), print("iptables-legacy"));
}

#[test]
fn spelling_of_a_set_does_not_matter() {
    let print = |ports| expect(0, &["print", "--ipv6=off", "--outbound-ports", ports]).stdout;
    assert_eq!(print("80,81,82:90,85"), print(" 82:90 ,80:81"));
}

fn compare(file: &Path, text: &str) {
    if std::env::var_os("NETRA_GOLDEN").is_some() {
        fs::write(file, text).expect("write golden file");
    }
    let golden = fs::read_to_string(file).expect("golden file");
    assert!(text == golden, "{} differs; now:\n{text}", file.display());
}
