//! Routes that are not followed: of strangers, to where no route may lead, and of another's request
//! id. The request goes where it would go without, and every refusal is counted by its reason.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use std::net::IpAddr;

use support::http::{Context, Edits};
use support::lockstep::{Peer, Server};
use support::matrix::cells_with;
use support::netra::Netra;
use support::stage::{OK, Stage, ask, in_cells, serve, to};
use support::talk::PORT;
use support::world::{CLIENT_V4, POD_V4, POD_V6, World};

const TOKEN: &str = "Authorization: Bearer secret\r\n";

fn refused(netra: &Netra<'_>, reason: &str) -> u64 {
    netra.scrape().sum("netra_route_refused_total", &[("reason", reason)])
}

/// The service asks with this, and it is the original destination that hears it.
fn reaches_the_original(
    world: &World,
    netra: &Netra<'_>,
    lines: &str,
    remembered: Option<Context>,
) -> Result<(), String> {
    let edits = Edits { remembered, ..Edits::OUTBOUND };
    let mut stage = Stage::new(world, netra)?;
    let request = ask("/out", &format!("{TOKEN}{lines}"));
    // Twice: what was refused once is not tried again with every request.
    for count in 1..=2 {
        stage.client.send(&request)?;
        stage.original.expect(&request.repeat(count), &edits, usize::MAX)?;
        stage.original.last()?.send(OK.as_bytes())?;
        stage.client.expect(OK.repeat(count).as_bytes())?;
    }
    for server in [&mut stage.b, &mut stage.c] {
        server.look();
        if !server.peers.is_empty() {
            return Err(format!("the route was followed to {}", server.port));
        }
    }
    stage.end()
}

/// Somebody asks the application, with these lines in the head; the context that it is asked with.
fn is_asked(
    world: &World,
    app: &mut Server,
    own: IpAddr,
    lines: &str,
) -> Result<Option<Context>, String> {
    let mut client = Peer::connect(&world.client, (own, PORT).into())?;
    let (known, request) = (app.peers.len(), ask("/in", lines));
    client.send(&request)?;
    while app.peers.len() == known {
        app.look();
    }
    let seen = app.expect(&request, &Edits::INBOUND, usize::MAX)?.remove(0);
    app.last()?.send(OK.as_bytes())?;
    client.expect(OK.as_bytes())?;
    client.close();
    app.last()?.close();
    Ok(seen.context)
}

/// An outsider's route is forgotten, also where the service copies the header into its own call.
#[test]
fn routes_of_strangers_are_not_followed() {
    for own in [POD_V4, POD_V6] {
        let nobody = "10.61.0.77,fd61::77";
        in_cells(
            &cells_with(2),
            |setup| setup.env("NETRA_HTTP_ROUTING_SOURCES", nobody),
            |world, netra| {
                let mut app = Server::listen(&world.pod, own, PORT);
                for number in 0..8 {
                    let id = format!("X-Request-Id: stranger-{number}\r\n");
                    let route = format!("X-Route: svc={CLIENT_V4}:8091\r\n");
                    let seen = is_asked(world, &mut app, own, &format!("{id}{route}"))?;
                    reaches_the_original(world, netra, &id, seen)?;
                    reaches_the_original(world, netra, &format!("{id}{route}"), seen)?;
                }
                // Of each asker once, and of each copy that the service made of it.
                match refused(netra, "source") {
                    24 => Ok(()),
                    other => Err(format!("{own}: counted {other}")),
                }
            },
        );
    }
}

/// Whoever comes later with another's request id changes nothing, on whatever shard.
#[test]
fn the_first_route_of_a_request_id_is_followed() {
    let cells = [cells_with(1), cells_with(4)].concat();
    in_cells(
        &cells,
        |setup| setup,
        |world, netra| {
            let mut app = Server::listen(&world.pod, POD_V4, PORT);
            for number in 0..8 {
                let id = format!("X-Request-Id: shared-{number}\r\n");
                is_asked(world, &mut app, POD_V4, &format!("{id}{}", to(8091)))?;
                is_asked(world, &mut app, POD_V4, &format!("{id}{}", to(8092)))?;
                let mut stage = Stage::new(world, netra)?;
                let request = ask("/out", &format!("{TOKEN}{id}"));
                stage.client.send(&request)?;
                stage.b.last()?.until(|peer| match peer.received.is_empty() {
                    true => Err("the first route is not followed".into()),
                    false => Ok(()),
                })?;
                stage.b.last()?.send(OK.as_bytes())?;
                stage.client.expect(OK.as_bytes())?;
                stage.end()?;
            }
            match refused(netra, "request_id") {
                8 => Ok(()),
                other => Err(format!("counted {other}")),
            }
        },
    );
}

/// Not to this host, nor the link, nor where clouds keep credentials, nor netra's own ports, by
/// address or by name, though the list says so.
#[test]
fn no_list_allows_what_is_forbidden() {
    let hosts = "127.0.0.1 localhost\n127.0.0.1 here.test\n::1 here-six.test\n\
                 169.254.169.254 cloud.test\n10.61.0.1 good.test\n203.0.113.9 far.test\n";
    let everything = "*,127.0.0.1,[::1],169.254.169.254,localhost,*.test";
    in_cells(
        &cells_with(1),
        |setup| {
            setup
                .file("/etc/hosts", hosts)
                .file("/etc/resolv.conf", "nameserver 127.0.0.1\n")
                .env("NETRA_HTTP_ROUTING_TARGETS", everything)
        },
        |world, netra| {
            let forbidden = [
                "127.0.0.1:14957",
                "127.0.0.1:14956",
                "127.8.8.8:8091",
                "0.0.0.0:14957",
                "[::]:14957",
                "[::1]:14957",
                "[::ffff:127.0.0.1]:14957",
                "[::ffff:169.254.169.254]:80",
                "[fe80::1]:80",
                "[fd00:ec2::254]:80",
                "169.254.169.254",
                "localhost:14957",
                "here.test:14957",
                "here-six.test:14957",
                "cloud.test",
            ];
            let own = [format!("{POD_V4}:14956"), format!("[{POD_V6}]:14958")];
            for target in forbidden.iter().copied().chain(own.iter().map(String::as_str)) {
                reaches_the_original(world, netra, &format!("X-Route: svc={target}\r\n"), None)
                    .map_err(|what| format!("{target}: {what}"))?;
            }
            let counted = (refused(netra, "address"), refused(netra, "own_port"));
            let least = (forbidden.len() as u64, own.len() as u64);
            if counted.0 < least.0 || counted.1 < least.1 {
                return Err(format!("counted {counted:?}"));
            }
            let mut stage = Stage::new(world, netra)?;
            let request = ask("/b", "X-Route: svc=good.test:8091\r\n");
            stage.client.send(&request)?;
            serve(&mut stage.b, &mut stage.client, &request)?;
            stage.end()
        },
    );
}

/// Routes lead into the private networks unless a list says otherwise; what a list says holds for
/// the addresses of names, too.
#[test]
fn routes_lead_where_the_list_says() {
    let hosts = "10.61.0.1 near.test\n203.0.113.9 far.test\n";
    for (list, good, bad) in [
        (None, "near.test:8091", &["far.test:8091", "203.0.113.9:8091"][..]),
        (Some("near.test:8091"), "near.test:8091", &["10.61.0.1:8091", "near.test:8092"]),
        (Some("10.61.0.0/24:8091"), "near.test:8091", &["near.test:8092", "far.test:8091"]),
        (Some("*.test"), "near.test:8091", &["10.61.0.1:8091"]),
    ] {
        in_cells(
            &cells_with(1)[..1],
            |setup| {
                let setup = setup
                    .file("/etc/hosts", hosts)
                    .file("/etc/resolv.conf", "nameserver 127.0.0.1\n");
                match list {
                    Some(list) => setup.env("NETRA_HTTP_ROUTING_TARGETS", list),
                    None => setup,
                }
            },
            |world, netra| {
                for target in bad {
                    reaches_the_original(world, netra, &format!("X-Route: svc={target}\r\n"), None)
                        .map_err(|what| format!("{list:?} {target}: {what}"))?;
                }
                if refused(netra, "target") < bad.len() as u64 {
                    return Err(format!("{list:?}: not counted"));
                }
                let mut stage = Stage::new(world, netra)?;
                let request = ask("/b", &format!("X-Route: svc={good}\r\n"));
                stage.client.send(&request)?;
                serve(&mut stage.b, &mut stage.client, &request)
                    .map_err(|what| format!("{list:?} {good}: {what}"))?;
                stage.end()
            },
        );
    }
}
