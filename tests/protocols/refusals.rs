//! Rules about databases: what is forbidden is answered in the words of the protocol, before any of it
//! has been done, and the application goes on with the connection that it has.

use super::support::matrix::{Findings, cells_with};
use super::support::netra::{Backend, Netra, Setup, apply_rules, remove_rules};
use super::support::world::{POD_V4, World};
use super::{mongodb, mysql, no_tunnel, postgresql, python};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Deletions are forbidden; what the application is told is this, and nothing has been deleted.
fn deletions_are_forbidden(world: &World, kind: &str, port: u16, told: &[&str]) {
    let folder = world.dir().join("rules");
    fs::create_dir_all(&folder).expect("a folder");
    for path in [world.dir(), &folder] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("anybody may read");
    }
    let operation = if kind == "mongodb" { "delete" } else { "DELETE" };
    let rules = format!(
        "apiVersion: netra.io/v1alpha1\nkind: Authorization\nmetadata: {{name: keep}}\nspec:\n  \
         action: DENY\n  protocol: {kind}\n  rules:\n  \
         - to: [{{attributes: {{operation: {{prefix: {operation}}}}}}}]\n"
    );
    fs::write(folder.join("rules.yaml"), rules).expect("rules");
    apply_rules(world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in cells_with(1) {
        let setup = Setup::new(cell)
            .env("NETRA_REPORTER", "none")
            .env("NETRA_RULES", folder.display())
            .env("NETRA_PROTOCOLS", format!("{port}={kind}"));
        let netra = Netra::start(world, &setup);
        let host = POD_V4.to_string();
        let said = python(&world.client, "database_refused.py", &[kind, &host, &port.to_string()]);
        if said.lines().ne(told.iter().copied()) {
            findings.note(cell, format!("{said}\nnot\n{}", told.join("\n")));
        }
        findings.check(cell, no_tunnel(&netra.scrape()));
        findings.check(cell, netra.finish());
    }
    remove_rules(world, Backend::NftNative);
    findings.conclude();
}

#[test]
fn commands_of_mysql_are_refused_and_the_connection_stays() {
    let Some(world) = World::new() else { return };
    let _server = mysql::server(&world);
    deletions_are_forbidden(
        &world,
        "mysql",
        3306,
        &[
            "delete!OperationalError 1142",
            "delete where!OperationalError 1142",
            "count=((2,),)",
            "delete in a transaction!OperationalError 1142",
            "count=((2,),)",
            "same connection: True",
        ],
    );
}

#[test]
fn queries_of_postgresql_are_refused_and_the_connection_stays() {
    let Some(world) = World::new() else { return };
    let _server = postgresql::server(&world);
    deletions_are_forbidden(
        &world,
        "postgresql",
        5432,
        &[
            "insert=2",
            "delete!InsufficientPrivilege 42501",
            "delete where!InsufficientPrivilege 42501",
            "delete much!InsufficientPrivilege 42501",
            "prepared!InsufficientPrivilege 42501",
            "pipeline!InsufficientPrivilege 42501",
            "count=[(2, 3)]",
            "same connection: True",
            // What was done before it in the transaction is not kept.
            "delete in a transaction!OperationalError None",
            "closed: True",
            "count=[(2,)]",
        ],
    );
}

#[test]
fn commands_of_mongodb_are_refused_and_the_connection_stays() {
    let Some(world) = World::new() else { return };
    let _server = mongodb::nx_27017(&world);
    deletions_are_forbidden(
        &world,
        "mongodb",
        27017,
        &[
            "delete!OperationFailure 13",
            "find=[1, 2]",
            "delete many!OperationFailure 13",
            "count=2",
        ],
    );
}
