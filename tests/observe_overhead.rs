//! Whether `netra_proxy_overhead_seconds` tells the truth: what a client measures from outside must
//! agree with what netra says of itself.
//!
//! A client cannot see wake-ups and the network apart from the proxy's own work. But netra has two
//! ways of doing the same: as a relay of bytes and as HTTP, with the same wake-ups, system calls and
//! hops. A client that asks the same application in turn over either sees a difference, and that
//! difference is netra's own work alone. The metric must differ by as much.

mod support;

use std::time::{Duration, Instant};
use support::matrix::{Cell, Driver};
use support::netra::{Backend, METRICS_PORT, Netra, Setup, apply_rules};
use support::scrape;
use support::webapp::{self, Client};
use support::world::{POD_V4, World};

/// Requests in a block and blocks; a block's mean is one observation.
const REQUESTS: u32 = 40;
const BLOCKS: usize = 200;
/// Many lines to parse and a long id, so that HTTP is real work.
const LINES: usize = 60;

/// Sum in microseconds and count of inbound overhead so far.
fn overhead(world: &World) -> (f64, f64) {
    let (_, body) = scrape::get(&world.pod, METRICS_PORT, "/metrics").expect("/metrics");
    let value = |name: &str| -> f64 {
        let series = format!("netra_proxy_overhead_seconds_{name}{{direction=\"inbound\"}} ");
        let line = body.lines().find_map(|line| line.strip_prefix(&series)).expect(name);
        line.parse().expect("a number")
    };
    (value("sum") * 1e6, value("count"))
}

/// Means over a block: of the client's round trips, and of what netra says, in microseconds.
fn block(world: &World, client: &mut Client, headers: &str, observations: f64) -> (f64, f64) {
    let before = overhead(world);
    // The first one pays for what the scrape has thrown out of caches.
    client.request("GET", "/", headers);
    let begun = Instant::now();
    for _ in 1..REQUESTS {
        client.request("GET", "/", headers);
    }
    let outside = begun.elapsed().as_secs_f64() * 1e6 / f64::from(REQUESTS - 1);
    // netra counts a response just after it has sent it.
    let wanted = before.1 + f64::from(REQUESTS) * observations;
    let mut after = overhead(world);
    support::wait_until(Duration::from_secs(5), || {
        after = overhead(world);
        after.1 >= wanted
    });
    assert!((after.1 - wanted).abs() < 0.5, "{} observations, not {wanted}", after.1);
    (outside, (after.0 - before.0) / f64::from(REQUESTS))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn heavy_the_metric_agrees_with_what_clients_measure() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let (as_http, as_bytes) =
        (webapp::serve(&world.pod, POD_V4, 2), webapp::serve(&world.pod, POD_V4, 2));
    let setup = Setup::new(Cell { driver: Driver::Epoll, shards: 1 })
        .env("NETRA_HTTP_PORTS", as_http.port())
        .env("JAEGER_SAMPLER_TYPE", "const")
        .env("JAEGER_SAMPLER_PARAM", "0");
    let netra = Netra::start(&world, &setup);
    let mut clients = [as_http, as_bytes].map(|address| Client::connect(&world.client, address));
    let headers: String =
        (0..LINES).map(|n| format!("X-Header-{n}: {}\r\n", "v".repeat(40))).collect();
    let (mut outside, mut inside) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        let http = block(&world, &mut clients[0], &headers, 1.0);
        // A relay counts each time that bytes came: a request and a response.
        let bytes = block(&world, &mut clients[1], &headers, 2.0);
        outside.push(http.0 - bytes.0);
        inside.push(http.1 - bytes.1);
    }
    let (outside, inside) = (median(outside), median(inside));
    eprintln!("HTTP costs {outside:.1} us by the client, {inside:.1} us by the metric");
    assert!(inside > 5.0, "too little to compare: {inside} us");
    let off = (outside - inside).abs() / outside;
    assert!(off < 0.10, "{outside:.1} us by the client, {inside:.1} us by the metric");
    drop(clients);
    netra.end().unwrap();
}
