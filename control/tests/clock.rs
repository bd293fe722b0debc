//! A clock that jumps, forwards and back: neither netra-control nor a sidecar takes a rule by it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may sleep and lock")]
#![allow(missing_docs, reason = "a test")]

mod support;

use std::{fs, path::PathBuf, process::Command};
use support::{
    Place, REST, TOKEN, directory_with, doctor, figure, obeyed, router, rules, sidecar_with, until,
};

/// Debian package `faketime`: what a process takes for the time of day, by a file that may change.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map_while(Result::ok);
    let paths = folders.map(|it| it.path().join("faketime/libfaketimeMT.so.1"));
    paths.into_iter().find(|path| path.exists()).expect("Debian package faketime")
}

/// The command, with the time of day that the file `clock` says; what runs on does so as ever.
fn with_clock(place: &Place, mut command: Command) -> Command {
    command
        .env("LD_PRELOAD", library())
        .env("FAKETIME_TIMESTAMP_FILE", place.0.join("clock"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

#[test]
fn a_clock_that_jumps_takes_no_rule_away() {
    let (place, _control, at) = directory_with("clock", |place, command| {
        place.write("clock", "+0");
        with_clock(place, command)
    });
    let entry =
        REST.replace("{number: 8080, name: http, protocol: HTTP}", "{number: 8080, name: http}");
    place.write("rules/rest.yaml", &entry);
    let (sidecar, admin, metrics) = sidecar_with(&place, at, |command| with_clock(&place, command));
    let has = |weight: u32| {
        obeyed(admin).is_some_and(|(rules, _)| rules.contains(&format!("({weight} %)")))
    };
    until("the rules have come", || has(20));
    let tag = || rules(at, "shop", TOKEN, "", 0).tag();
    let mut tags = Vec::new();
    for (weight, year) in [(30, "2040"), (40, "2001"), (50, "2040")] {
        place.write("clock", &format!("@{year}-05-05 00:00:00"));
        // Its question waits meanwhile: it is answered by what has changed, not by what the time is.
        place.write("rules/router.yaml", &router("orders", weight));
        until("the change has come", || has(weight));
        until("it takes the clock for right", || sidecar.said().contains(&format!("{year}-05-0")));
        let stale = figure(metrics, "netra_rules_stale_seconds");
        assert!(stale < 60.0, "{year}: {stale} s");
        assert!(doctor(admin).contains("ok    netra-control          answered "), "{year}");
        assert!(!sidecar.said().contains("stay in force"), "{}", sidecar.said());
        tags.push(tag());
    }
    // The same documents are the same bundle, whenever they are read.
    place.write("rules/router.yaml", &router("orders", 30));
    until("it is as it was", || tag() == tags[0]);
    assert_ne!(tags[0], tags[1]);
}
