//! Clusters of which some endpoints are killed, and come back, and which have limits: with servers and
//! clients of nobody here.

use crate::{
    in_cells,
    routes_of_others::redis_server,
    support::{
        PATIENCE,
        matrix::cells_with,
        netra::{ADMIN_PORT, Setup},
        programs::{Server, run, tool},
        scrape, wait_until,
        world::{CLIENT_V4, World},
    },
};

/// Five endpoints on ports of one address, all of which anybody may be sent to.
fn five(policy: &str) -> String {
    five_annotated("", &format!("  trafficPolicy:\n{policy}"))
}

/// The same by a DestinationRule with these annotations, and with that in its specification.
fn five_annotated(annotations: &str, policy: &str) -> String {
    let endpoints: String = (0..5)
        .map(|it| format!("  - {{address: {CLIENT_V4}, ports: {{tcp-redis: {}}}}}\n", 6379 + it))
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [cache]\n  ports: [{{number: 6379, name: tcp-redis}}]\n  resolution: STATIC\n  \
         endpoints:\n{endpoints}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: it, annotations: {{{annotations}}}}}\nspec:\n  host: cache\n{policy}---\n\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [cache]\n  routes: [{{route: [{{destination: {{host: cache}}}}]}}]\n"
    )
}

fn protocols(setup: Setup) -> Setup {
    let setup = setup.env("NETRA_PROTOCOLS", "6379=redis").env("NETRA_ACCESS_LOG", "all");
    setup.env("NETRA_LOG_FORMAT", "json")
}

/// What `/clusters` says of the endpoints, once it is as wanted: how many are in each state.
fn states(world: &World, wanted: &[(&str, usize)]) -> Result<String, String> {
    let mut page = String::new();
    let is_it = wait_until(PATIENCE, || {
        page = scrape::get(&world.pod, ADMIN_PORT, "/clusters")
            .map_or_else(|it| it.to_string(), |it| it.1);
        let count = |state: &str| page.matches(&format!("\"state\": \"{state}\"")).count();
        wanted.iter().all(|(state, expected)| count(state) == *expected)
    });
    if is_it { Ok(page) } else { Err(format!("{wanted:?} are not on\n{page}")) }
}

/// Who answers a command of a connection of its own.
fn who(world: &World) -> String {
    let host = CLIENT_V4.to_string();
    let args = ["-h", &host, "-p", "6379", "GET", "who"];
    run(&world.pod, &tool("redis-cli", "redis-tools"), &args).trim_end().to_owned()
}

/// Two of five servers are killed under a load of reads, each of a connection of its own: no client has
/// an error; then one comes back, and is asked again.
#[test]
fn servers_that_are_killed_cost_no_reader_anything() {
    let Some(world) = World::new() else { return };
    let policy = "    outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 1s, \
                  maxEjectionPercent: 50}\n";
    in_cells(&world, &cells_with(1), &five(policy), protocols, |netra, _| {
        let start = |port: u16| {
            let server = redis_server(&world, port);
            let (host, port) = (CLIENT_V4.to_string(), port.to_string());
            let args = ["-h", &host, "-p", &port, "SET", "who", &port];
            run(&world.client, &tool("redis-cli", "redis-tools"), &args);
            server
        };
        let mut servers: Vec<Option<Server>> = (6379..6384).map(|it| Some(start(it))).collect();
        let load = |count: usize| -> Result<Vec<String>, String> {
            let said: Vec<_> = (0..count).map(|_| who(&world)).collect();
            let bad: Vec<_> = said.iter().filter(|it| it.parse::<u16>().is_err()).collect();
            if bad.is_empty() { Ok(said) } else { Err(format!("{bad:?}")) }
        };
        let mut seen = load(40)?;
        seen.sort_unstable();
        seen.dedup();
        if seen.len() < 4 {
            return Err(format!("only {seen:?} were asked"));
        }
        // SIGKILL; the first one is where connections want to go.
        (servers[2], servers[4]) = (None, None);
        let said = load(80)?;
        if said.iter().any(|it| it == "6381" || it == "6383") {
            return Err(format!("the dead have answered: {said:?}"));
        }
        let page = states(&world, &[("ejected", 2), ("up", 3)])
            .or_else(|_| load(40).and_then(|_| states(&world, &[("up", 3)])))?;
        // Who was tried once more meanwhile is out "again".
        if !["unreachable", "again"].iter().any(|why| page.contains(&format!("\"why\": \"{why}\"")))
        {
            return Err(page);
        }
        netra.scrape_until("dials were tried elsewhere", |scrape| {
            scrape.sum("netra_tried_elsewhere_total", &[]) >= 4
                && scrape.sum("netra_cluster_ejections_total", &[("cluster", "cache")]) >= 2
        })?;
        if !netra.log().contains("\"tries\":2,\"retry_reason\":\"connect\"") {
            return Err("no line of the access log says that a dial took two tries".into());
        }
        servers[2] = Some(start(6381));
        let is_back = wait_until(PATIENCE, || who(&world) == "6381");
        if !is_back {
            return Err("who came back is not asked".into());
        }
        states(&world, &[("up", 4)]).map(drop)?;
        netra.scrape_until("nothing is active", |scrape| {
            scrape.active() == 0
                && scrape.sum("netra_cluster_connections_active", &[("cluster", "cache")]) == 0
        })
    });
}

/// What is more than a cluster may have at a time is refused in the words of the protocol.
#[test]
fn what_is_too_much_for_a_cluster_is_refused() {
    let Some(world) = World::new() else { return };
    let _servers: Vec<_> = (6379..6384).map(|port| redis_server(&world, port)).collect();
    let policy = "    connectionPool: {tcp: {maxConnections: 2}}\n";
    in_cells(&world, &cells_with(1), &five(policy), protocols, |netra, _| {
        let host = CLIENT_V4.to_string();
        let args = ["-h", &host, "-p", "6379", "-c", "4", "-n", "40", "-t", "get", "-q"];
        let mut command = world.pod.command(tool("redis-benchmark", "redis-tools"));
        let output = command.args(args).output().map_err(|it| it.to_string())?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if !said.contains("has as much to do as it may") {
            return Err(said);
        }
        netra.scrape_until("it is counted", |scrape| {
            let labels = [("cluster", "cache"), ("full", "connections")];
            scrape.sum("netra_cluster_refused_total", &labels) >= 2
                && scrape.sum("netra_messages_refused_total", &[("reason", "overflow")]) >= 1
        })
    });
}

/// An endpoint is killed that nobody asks anything: its checks say so, and when it is back. They are
/// netra's own dials, which the rules of the kernel leave alone.
#[test]
fn checks_find_out_who_is_dead_without_a_message() {
    let Some(world) = World::new() else { return };
    let annotations = "netra.io/health-check: redis, netra.io/health-check-interval: 1s, \
                       netra.io/health-check-unhealthy: \"2\"";
    let rules = five_annotated(annotations, "");
    in_cells(&world, &cells_with(1), &rules, protocols, |netra, folder| {
        let mut servers: Vec<_> = (6379..6384).map(|it| Some(redis_server(&world, it))).collect();
        states(&world, &[("up", 5)])?;
        let well = [("cluster", "cache"), ("outcome", "well")];
        netra.scrape_until("all are asked", |scrape| {
            scrape.sum("netra_cluster_checks_total", &well) >= 10
        })?;
        // SIGKILL.
        servers[2] = None;
        let page = states(&world, &[("unhealthy", 1), ("up", 4)])?;
        if !page.contains("\"why\": \"check_refused\"") || !page.contains("\"last\": \"well\"") {
            return Err(page);
        }
        // Whoever asks now is not sent there: no dial fails, none is tried elsewhere.
        let host = CLIENT_V4.to_string();
        for _ in 0..40 {
            let said = run(&world.pod, &tool("redis-cli", "redis-tools"), &["-h", &host, "PING"]);
            if said.trim_end() != "PONG" {
                return Err(said);
            }
        }
        netra.scrape_until("forty connections, and no check among them", |scrape| {
            let opened = scrape.sum("netra_tcp_connections_opened_total", &[]);
            let elsewhere = scrape.sum("netra_tried_elsewhere_total", &[]);
            let state = [("cluster", "cache"), ("state", "unhealthy")];
            let unhealthy = scrape.sum("netra_cluster_endpoints", &state);
            (opened, elsewhere, unhealthy) == (40, 0, 1)
        })?;
        servers[2] = Some(redis_server(&world, 6381));
        states(&world, &[("up", 5)])?;
        // Who has another server on its port is not well, and a change of rules ends all of it.
        let wrong = five_annotated(&annotations.replace(": redis", ": dubbo"), "");
        crate::write(folder, &wrong);
        let page = states(&world, &[("unhealthy", 4), ("up", 1)])?;
        if !page.contains("\"is_failing\": true") || !page.contains("\"why\": \"check_") {
            return Err(page);
        }
        crate::write(folder, &five_annotated("", ""));
        states(&world, &[("up", 5)]).map(drop)
    });
}
