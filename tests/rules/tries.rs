//! Reads that go to another server: one of three says 503, and one stands still.

use crate::{
    in_cells,
    support::{
        PATIENCE,
        matrix::cells_with,
        netra::{Netra, Setup},
        programs::nginx_with,
        wait_until, webapp,
        world::{CLIENT_V4, World},
    },
};
use nix::sys::signal::Signal;
use std::{collections::BTreeSet, fs, thread};

const PORT: u16 = 8080;
const CLIENTS: usize = 16;
/// Of each client, before and after one server stands still.
const READS: usize = 64;
const WRITES: usize = 60;

fn documents() -> String {
    let endpoints: String = (PORT..PORT + 3)
        .map(|port| format!("  - {{address: {CLIENT_V4}, ports: {{http: {port}}}}}\n"))
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: shop}}\nspec:\n  \
         hosts: [shop]\n  ports: [{{number: {PORT}, name: http}}]\n  resolution: STATIC\n  \
         endpoints:\n{endpoints}---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: shop, \
         annotations: {{netra.io/balance-by: message}}}}\nspec:\n  host: shop\n  trafficPolicy: \
         {{loadBalancer: {{simple: ROUND_ROBIN}}, \
         retryBudget: {{percent: 100, minRetryConcurrency: 50}}}}\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: shop}}\nspec:\n  \
         hosts: [shop]\n  routes: [{{route: [{{destination: {{host: shop}}}}], retry: \
         {{on: [timeout, gateway-error], perTryTimeout: 50ms, attempts: 2}}}}]\n"
    )
}

/// Reads on connections of their own; how many came to anything but 200.
fn read(world: &World) -> usize {
    let client = || {
        let mut client = webapp::Client::connect(&world.pod, (CLIENT_V4, PORT).into());
        (0..READS).filter(|_| client.get("/") != 200).count()
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|it| it.join().expect("no client fails")).sum()
    })
}

/// Writes, and how many came to 503.
fn write(world: &World) -> Result<usize, String> {
    let mut client = webapp::Client::connect(&world.pod, (CLIENT_V4, PORT).into());
    let status = |_| client.request("POST", "/", "Content-Length: 0\r\n");
    let all: Vec<_> = (0..WRITES).map(status).collect();
    match all.iter().find(|it| ![200, 503].contains(it)) {
        Some(other) => Err(format!("a write came to {other}")),
        None => Ok(all.iter().filter(|it| **it == 503).count()),
    }
}

/// Every span is said on stdout.
pub(crate) fn told(setup: Setup) -> Setup {
    let setup = setup.env("JAEGER_SAMPLER_TYPE", "const").env("JAEGER_SAMPLER_PARAM", "1");
    setup.env("NETRA_REPORTER", "stdout")
}

/// These are the reasons for which spans say that their request was tried elsewhere.
pub(crate) fn reasons(netra: &Netra<'_>, expected: &[&str]) -> Result<(), String> {
    let mut found = BTreeSet::new();
    let is_it = wait_until(PATIENCE, || {
        let log = netra.log();
        let said = log.split("\"netra.retry.reason\":\"").skip(1);
        found = said.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect();
        found.iter().eq(expected)
    });
    if is_it { Ok(()) } else { Err(format!("reasons of spans: {found:?}, not {expected:?}")) }
}

#[test]
fn reads_find_who_answers_well_and_writes_are_sent_once() {
    let Some(world) = World::new() else { return };
    let log = world.dir().join("asked.log");
    let http = |servers: &str| {
        let log = log.display();
        format!("log_format it '$request_method $server_port'; access_log {log} it; {servers}")
    };
    let well = |port: u16| format!("server {{ listen {port}; location / {{ return 200 ok; }} }} ");
    let (first, second) = (PORT, PORT + 1);
    let bad = format!("server {{ listen {second}; location / {{ return 503 no; }} }}");
    let _most = nginx_with(&world, &world.client, &http(&(well(first) + &bad)), first);
    let still = nginx_with(&world, &world.client, &http(&well(PORT + 2)), PORT + 2);
    let prepare = |setup: Setup| told(setup.env("NETRA_HTTP_PORTS", PORT));
    in_cells(&world, &cells_with(2), &documents(), prepare, |netra, _| {
        still.signal(Signal::SIGCONT);
        fs::write(&log, "").map_err(|error| error.to_string())?;
        let asked = |what: &str| {
            let text = fs::read_to_string(&log).unwrap_or_default();
            text.lines().filter(|line| line.starts_with(what)).count()
        };
        let refused = write(&world)?;
        let bad_writes = asked(&format!("POST {second}"));
        let writes = (asked("POST"), bad_writes, refused);
        if writes.0 != WRITES || writes.1 != writes.2 || refused == 0 {
            return Err(format!("writes that came, of which to 503, and those told: {writes:?}"));
        }
        let again = |netra: &Netra<'_>| netra.scrape().sum("netra_sent_again_total", &[]);
        let failed = read(&world);
        let (withheld, after_answers) = (asked(&format!("GET {second}")), again(netra));
        still.signal(Signal::SIGSTOP);
        let failed = failed + read(&world);
        let after_all = again(netra);
        still.signal(Signal::SIGCONT);
        let is_it = withheld > 0 && after_answers >= withheld as u64 && after_all > after_answers;
        match (failed, is_it) {
            (0, true) => reasons(netra, &["gateway-error", "timeout"]),
            _ => Err(format!(
                "{failed} failed; {withheld} answers said 503, {after_answers} and then {after_all} \
                 requests were sent again"
            )),
        }
    });
}
