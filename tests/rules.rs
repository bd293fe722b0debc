//! Rules of traffic at work: requests and calls go where the rules say, are refused in the words of
//! their protocol, and the rules change while connections stay.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

#[path = "rules/again.rs"]
mod again;
#[path = "rules/answers.rs"]
mod answers;
#[path = "rules/clusters.rs"]
mod clusters;
#[path = "rules/defer.rs"]
mod deferred;
#[path = "rules/demos.rs"]
mod demos;
#[path = "rules/fleets.rs"]
mod fleets;
#[path = "rules/late.rs"]
mod late;
#[path = "rules/legs.rs"]
mod legs;
#[path = "rules/mirrors.rs"]
mod mirrors;
#[path = "rules/names.rs"]
mod names_of_rules;
#[path = "rules/ports.rs"]
mod ports;
#[path = "rules/redis_or_dubbo.rs"]
mod redis_or_dubbo;
#[path = "rules/resting.rs"]
mod resting;
#[path = "rules/routes.rs"]
mod routes_of_others;
#[path = "rules/services.rs"]
mod services;
#[path = "rules/soak.rs"]
mod soak;
#[path = "rules/tries.rs"]
mod tries;
#[path = "rules/weights.rs"]
mod weights;

use nix::sys::signal::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use support::{
    http::shown,
    lockstep::Peer,
    matrix::{Cell, Findings, cells, cells_with},
    netra::{ADMIN_PORT, Backend, Netra, Setup, apply_rules},
    programs::{Server, run, tool},
    scrape,
    spans::python_path,
    stage::{Stage, ask, serve},
    talk::PORT,
    webapp,
    world::{CLIENT_V4, POD_V4, World},
};

/// Where the documents of a world are; a user who is not root may read them.
fn folder(world: &World) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let folder = world.dir().join("rules");
    fs::create_dir_all(&folder).unwrap();
    for path in [world.dir(), &folder] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn write(folder: &Path, text: &str) {
    // As editors do: the file is there whole, or not at all.
    fs::write(folder.join(".new"), text).unwrap();
    fs::rename(folder.join(".new"), folder.join("rules.yaml")).unwrap();
}

/// Runs a check with netra and these rules, in each cell.
fn in_cells(
    world: &World,
    cells: &[Cell],
    rules: &str,
    prepare: impl Fn(Setup) -> Setup,
    check: impl Fn(&Netra<'_>, &Path) -> Result<(), String>,
) {
    apply_rules(world, Backend::NftNative);
    let folder = folder(world);
    let mut findings = Findings::default();
    for cell in cells {
        write(&folder, rules);
        let setup =
            Setup::new(*cell).env("NETRA_REPORTER", "none").env("NETRA_RULES", folder.display());
        let netra = Netra::start(world, &prepare(setup));
        findings.check(cell, check(&netra, &folder));
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// What `/connections` shows.
fn connections(world: &World) -> Result<serde_json::Value, String> {
    let (_, page) =
        scrape::get(&world.pod, ADMIN_PORT, "/connections").map_err(|it| it.to_string())?;
    serde_json::from_str(&page).map_err(|it| it.to_string())
}

/// An address that has a name, and a port that is spoken at.
fn entry(host: &str, address: &str, port: u16, name: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {host}}}\n\
         spec:\n  hosts: [{host}]\n  ports: [{{number: {port}, name: {name}}}]\n  \
         resolution: STATIC\n  endpoints: [{{address: {address}}}]\n---\n"
    )
}

/// Whose requests are routed, and where to.
fn routes(canary_port: u16) -> String {
    let canary = entry("canary", &CLIENT_V4.to_string(), canary_port, "http-canary");
    format!(
        "{canary}apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: svc}}\n\
         spec:\n  hosts: [svc]\n  protocol: http1\n  routes:\n  \
         - name: canary\n    match: {{attributes: {{X-Canary: {{exact: \"1\"}}}}}}\n    \
           route: [{{destination: {{host: canary}}}}]\n  \
         - name: broken\n    match: {{attributes: {{path: {{prefix: /broken}}}}}}\n    \
           route: [{{destination: {{host: svc}}}}]\n    fault: {{abort: {{httpStatus: 503}}}}\n  \
         - name: slow\n    match: {{attributes: {{path: {{regex: \"/slow/[0-9]+\"}}}}}}\n    \
           route: [{{destination: {{host: svc}}}}]\n    fault: {{delay: {{fixedDelay: 300ms}}}}\n  \
         - name: ok\n    match: {{attributes: {{path: {{prefix: /ok}}}}}}\n    \
           route: [{{destination: {{host: svc}}}}]\n"
    )
}

fn http(setup: Setup) -> Setup {
    let setup = setup.env("NETRA_ACCESS_LOG", "all").env("NETRA_LOG_FORMAT", "json");
    setup.env("NETRA_HTTP_PORTS", format!("{PORT},8091,8092"))
}

/// A request of a new connection, which is refused with this status and text.
fn refused(world: &World, path: &str, status: &str, text: &str) -> Result<(), String> {
    let mut client = Peer::connect(&world.pod, (CLIENT_V4, PORT).into())?;
    client.send(&ask(path, ""))?;
    client.until(|client| {
        let said = shown(&client.received);
        let is_it = said.starts_with(&format!("HTTP/1.1 {status}")) && said.contains(text);
        if is_it && client.end.is_some() { Ok(()) } else { Err(format!("{path}: {said}")) }
    })
}

#[test]
fn http_requests_go_where_the_rules_say_and_the_rules_change() {
    let Some(world) = World::new() else { return };
    in_cells(&world, &cells(), &routes(8091), http, |netra, folder| {
        let mut stage = Stage::new(&world, netra)?;
        let canary = "X-Canary: 1\r\n";
        let plain = ask("/ok/1", "");
        stage.client.send(&plain)?;
        serve(&mut stage.original, &mut stage.client, &plain)?;
        let first = ask("/ok/2", canary);
        stage.client.send(&first)?;
        serve(&mut stage.b, &mut stage.client, &first)?;
        let second = ask("/ok/3", canary);
        stage.client.send(&second)?;
        serve(&mut stage.b, &mut stage.client, &[first, second].concat())?;
        let back = ask("/slow/1", "");
        let begun = Instant::now();
        stage.client.send(&back)?;
        serve(&mut stage.original, &mut stage.client, &back)?;
        if begun.elapsed() < Duration::from_millis(290) {
            return Err(format!("it came after {:?}", begun.elapsed()));
        }
        refused(&world, "/broken", "503 Service Unavailable", "Router/default/svc/broken")?;
        refused(&world, "/nowhere", "404 Not Found", "netra: no route (Router/default/svc)")?;
        // Half written: what was there stays in force, and the connection, too.
        write(folder, &routes(8092)[..300]);
        netra.scrape_until("the bad documents are seen", |scrape| {
            scrape.sum("netra_rules_reload_total", &[("outcome", "bad")]) >= 1
                && scrape.sum("netra_rules_current", &[]) == 0
        })?;
        let (_, page) = scrape::get(&world.pod, ADMIN_PORT, "/rules").map_err(|e| e.to_string())?;
        if !page.contains("rules.yaml:") || !page.contains("\"is_current\": false") {
            return Err(format!("/rules does not say what is wrong: {page}"));
        }
        write(folder, &routes(8092));
        netra.scrape_until("the new rules are in force", |scrape| {
            scrape.sum("netra_rules_current", &[]) == 1
        })?;
        let moved = ask("/ok/4", canary);
        stage.client.send(&moved)?;
        serve(&mut stage.c, &mut stage.client, &moved)?;
        netra.scrape_until("every decision has been counted", |scrape| {
            let hits = |rule: &str| {
                let name = format!("Router/default/svc/{rule}");
                scrape.sum("netra_rules_hits_total", &[("rule", &name)])
            };
            let refused = |why| scrape.sum("netra_messages_refused_total", &[("reason", why)]);
            [hits("ok"), hits("canary"), hits("slow"), hits("broken")] == [1, 3, 1, 1]
                && [refused("aborted"), refused("no_route"), refused("denied")] == [1, 1, 0]
        })?;
        stage.end()
    });
}

/// Who may call the application, and how often: of the requests of others.
#[test]
fn http_requests_of_others_are_limited_and_denied() {
    let Some(world) = World::new() else { return };
    let at = webapp::serve(&world.pod, POD_V4, 2);
    let rules = format!(
        "{}apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: app}}\nspec:\n  \
         hosts: [app]\n  localRateLimit:\n    conditions:\n    \
         - match: {{attributes: {{path: {{prefix: /few}}}}}}\n      \
           tokenBucket: {{maxTokens: 3, tokensPerFill: 3, fillInterval: 600s}}\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Authorization\nmetadata: {{name: admin}}\nspec:\n  \
         action: DENY\n  rules:\n  - from: [{{cidrs: [{CLIENT_V4}]}}]\n    \
         to: [{{attributes: {{path: {{prefix: /admin}}}}}}]\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Authorization\nmetadata: {{name: all}}\nspec:\n  \
         action: DENY\n  mode: shadow\n  rules: [{{}}]\n",
        entry("app", &POD_V4.to_string(), at.port(), "http-app")
    );
    let port =
        |setup: Setup| setup.env("NETRA_HTTP_PORTS", at.port()).env("NETRA_ACCESS_LOG", "all");
    in_cells(&world, &cells(), &rules, port, |netra, _| {
        let get = |path: &str| webapp::Client::connect(&world.client, at).get(path);
        let few: Vec<_> = (0..8).map(|_| get("/few")).collect();
        if few != [200, 200, 200, 429, 429, 429, 429, 429] {
            return Err(format!("of 3: {few:?}"));
        }
        let rest = [get("/many"), get("/admin/x"), get("/many")];
        if rest != [200, 403, 200] {
            return Err(format!("{rest:?}"));
        }
        // Who was refused is told.
        let who = format!(" remote={CLIENT_V4}:");
        let told = |rule: &str| {
            let is_it = |line: &&str| line.contains(rule) && line.contains("outcome=refused");
            netra.log().lines().filter(is_it).filter(|line| line.contains(&who)).count()
        };
        let limit = "rule=Router/default/app/limit";
        if !support::wait_until(support::PATIENCE, || {
            (told(limit), told("rule=Authorization/default/admin")) == (5, 1)
        }) {
            return Err(format!("the access log does not say who was refused:\n{}", netra.log()));
        }
        netra.scrape_until("the shadow has counted everything", |scrape| {
            let name = "Authorization/default/all";
            let refused = |why| scrape.sum("netra_messages_refused_total", &[("reason", why)]);
            scrape.sum("netra_rules_hits_total", &[("rule", name)]) == 11
                && [refused("limited"), refused("denied")] == [5, 1]
        })
    });
}

fn peer(name: &str) -> String {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/peers");
    peers.join(name).display().to_string()
}

/// dubbo-py on both sides: a call that is denied comes back as an exception of Dubbo, the others as
/// if nobody had looked; and a limit of one method.
#[test]
fn calls_of_dubbo_are_refused_in_its_own_words() {
    let Some(world) = World::new() else { return };
    let mut command = world.pod.command(python_path());
    command.args([peer("dubbo_peer.py"), "server".into(), "20880".into()]);
    let _server = Server::start(&world, &world.pod, command, 20880);
    let rules = "apiVersion: dubbo.aeraki.io/v1alpha1\nkind: DubboAuthorizationPolicy\n\
                 metadata: {name: hello}\nspec:\n  action: DENY\n  rules:\n  \
                 - to: [{operation: {interfaces: [\"org.apache.*\"], methods: [sayHello]}}]\n";
    let load = || {
        let host = POD_V4.to_string();
        run(&world.client, &python_path(), &[&peer("dubbo_peer.py"), "client", &host, "20880"])
    };
    let direct = load();
    assert!(direct.contains("sayHello True hello joe"), "{direct}");
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "20880=dubbo");
    in_cells(&world, &cells_with(2), rules, protocols, |netra, folder| {
        let said = load();
        let expected: Vec<_> = direct
            .lines()
            .map(|line| if line.starts_with("sayHello") { "sayHello False " } else { line })
            .collect();
        if said.lines().map(str::trim_end).ne(expected.iter().map(|line| line.trim_end())) {
            return Err(format!("{said}\nnot\n{}", expected.join("\n")));
        }
        netra.scrape_until("two were denied", |scrape| {
            let name = "DubboAuthorizationPolicy/default/hello";
            scrape.sum("netra_rules_hits_total", &[("rule", name)]) == 2
        })?;
        fs::remove_file(folder.join("rules.yaml")).map_err(|error| error.to_string())?;
        netra.scrape_until("there are no rules any more", |scrape| {
            scrape.sum("netra_rules", &[]) == 0
        })?;
        let said = load();
        if said == direct { Ok(()) } else { Err(format!("without rules: {said}")) }
    });
}

/// redis-server and redis-cli: commands are limited and denied with errors of Redis, on one
/// connection that lives through it all, and begins before there is a rule about it.
#[test]
fn commands_of_redis_are_refused_and_the_connection_stays() {
    let Some(world) = World::new() else { return };
    let mut command = world.pod.command(tool("redis-server", "redis-server"));
    command.args(["--port", "6379", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.args(["--protected-mode", "no", "--bind", "0.0.0.0"]);
    let _server = Server::start(&world, &world.pod, command, 6379);
    let rules = format!(
        "{}apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: cache}}\nspec:\n  \
         hosts: [cache]\n  localRateLimit:\n    conditions:\n    \
         - match: {{attributes: {{command: {{exact: GET}}, key: {{prefix: \"few:\"}}}}}}\n      \
           tokenBucket: {{maxTokens: 2, tokensPerFill: 2, fillInterval: 600s}}\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Authorization\nmetadata: {{name: acl}}\nspec:\n  \
         action: DENY\n  protocol: redis\n  rules:\n  \
         - to: [{{attributes: {{command: {{exact: FLUSHALL}}}}}}]\n",
        entry("cache", &POD_V4.to_string(), 6379, "tcp-redis")
    );
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "6379=redis");
    in_cells(&world, &cells_with(1), "# none\n", protocols, |netra, folder| {
        let mut client = Peer::connect(&world.client, (POD_V4, 6379).into())?;
        let mut say = |command: &str, expected: &str| {
            let before = client.received.len();
            client.send(format!("{command}\r\n").as_bytes())?;
            client.until(|client| {
                let said = String::from_utf8_lossy(&client.received[before..]).into_owned();
                let is_whole = said.ends_with("\r\n") && said.contains(expected);
                if is_whole { Ok(()) } else { Err(format!("{command}: {said:?}")) }
            })
        };
        say("SET few:a 1", "+OK")?;
        say("GET few:a", "$1\r\n1")?;
        write(folder, &rules);
        netra
            .scrape_until("the rules are in force", |scrape| scrape.sum("netra_rules", &[]) > 0)?;
        say("GET few:a", "$1\r\n1")?;
        say("GET few:a", "$1\r\n1")?;
        say("GET few:a", "-")?;
        say("GET many:a", "$-1")?;
        say("FLUSHALL", "Authorization/default/acl")?;
        say("GET few:a", "Router/default/cache/limit0")?;
        write(folder, "# none\n");
        netra.scrape_until("there are no rules any more", |scrape| {
            scrape.sum("netra_rules", &[]) == 0
        })?;
        say("GET few:a", "$1\r\n1")?;
        netra.signal(Signal::SIGHUP);
        say("PING", "+PONG")?;
        client.close();
        netra.scrape_until("nothing is active", |scrape| scrape.active() == 0)
    });
}

/// What is wrong at the start is said, all of it, and nothing starts.
#[test]
fn bad_documents_stop_the_start() {
    let folder = std::env::temp_dir().join(format!("netra-bad-rules-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a.yaml"), routes(8091).replace("exact", "exat")).unwrap();
    fs::write(folder.join("b.yaml"), "a: [\n").unwrap();
    let netra = std::process::Command::new(env!("CARGO_BIN_EXE_netra"))
        .args(["--check-config", "--service-name", "x"])
        .env("NETRA_RULES", &folder)
        .output()
        .unwrap();
    let said = String::from_utf8(netra.stderr).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(netra.status.code(), Some(64), "{said}");
    assert!(said.contains("NETRA_RULES: ") && said.contains("a.yaml:18:43: "), "{said}");
    assert!(said.contains("exat=\"1\": allowed is one of exact, prefix and regex"), "{said}");
    assert!(said.contains("b.yaml:2:1: no YAML"), "{said}");
}
