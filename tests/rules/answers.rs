//! Answers of HTTP that rules give something, by servers and clients that people run.

use crate::{
    demos::obey,
    entry, in_cells,
    support::{
        lockstep::Peer,
        matrix::cells,
        netra::Setup,
        programs::{Server, nginx_with, run, tool},
        world::{CLIENT_V4, World},
    },
};
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    thread,
    time::Duration,
};

const PORT: u16 = 8080;
const SLOW: u16 = 8081;
/// Longer than a burst that is spliced.
const LARGE: usize = 3_000_000;

/// Rules for both hosts, of routes that are called so.
fn rules(name: &str, mutation: &str) -> String {
    let of = |host: &str, port: u16| {
        format!(
            "{}apiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: MetaRouter\n\
             metadata: {{name: {host}}}\nspec:\n  hosts: [{host}]\n  routes:\n  - name: {name}\n    \
             route: [{{destination: {{host: {host}}}}}]\n{mutation}---\n",
            entry(host, &CLIENT_V4.to_string(), port, "http-it")
        )
    };
    of("svc.test", PORT) + &of("slow.test", SLOW)
}

const GIVEN: &str = "    responseMutation:\n    - {key: Server, value: none of your business}\n    \
                     - {key: X-Given, value: \"1\"}\n";

/// nginx in the namespace of the client: files, and a body in chunks.
fn nginx(world: &World) -> Server {
    let dir = world.dir().display();
    fs::write(world.dir().join("small"), b"tea\n").unwrap();
    fs::write(world.dir().join("large"), vec![b'x'; LARGE]).unwrap();
    // What it takes for a page, it sends in chunks.
    fs::write(world.dir().join("page.html"), "<!--#echo var=\"REQUEST_URI\" -->".repeat(50))
        .unwrap();
    let http = format!(
        "access_log off;
        server {{ listen 0.0.0.0:{PORT}; root {dir}; ssi on; if_modified_since before; }}"
    );
    nginx_with(world, &world.client, &http, PORT)
}

/// A server that sends its answer byte by byte, and what comes before it, too. It ends with the test.
fn trickling(world: &World) {
    let bound = world.client.enter(|| TcpListener::bind((CLIENT_V4, SLOW)));
    let listener = bound.expect("a free port");
    thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if peer.read_exact(&mut byte).is_err() {
                    break;
                }
                asked.push(byte[0]);
            }
            let _ = peer.set_nodelay(true);
            for byte in TRICKLED.bytes() {
                if peer.write_all(&[byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_micros(300));
            }
        }
    });
}

const TRICKLED: &str = "HTTP/1.1 103 Early Hints\r\nServer: x\r\n\r\nHTTP/1.1 200 OK\r\nServer: x\r\n\
                        Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nServer: x\r\n\r\n";

/// What curl gets for these paths over one connection: heads, and how long each body is.
fn curl(world: &World, args: &[&str], paths: &[&str]) -> String {
    let host = format!("svc.test:{PORT}:{CLIENT_V4}");
    let urls: Vec<_> = paths.iter().map(|path| format!("http://svc.test:{PORT}{path}")).collect();
    let mut all = vec!["--silent", "--show-error", "--resolve", &host, "--dump-header", "-"];
    all.extend(["--write-out", "%{size_download} of %{num_connects}\n"]);
    all.extend(args);
    for url in &urls {
        all.extend(["--output", "/dev/null", url]);
    }
    run(&world.pod, &tool("curl", "curl"), &all).replace('\r', "")
}

fn count(what: &str, said: &str, counts: &[(&str, usize)]) -> Result<(), String> {
    let differs = counts.iter().find(|(text, count)| said.matches(text).count() != *count);
    differs.map_or(Ok(()), |(text, count)| Err(format!("{what}: not {count} of {text:?}:\n{said}")))
}

/// nginx and curl: heads have other lines, bodies are whole, with a length, in chunks, spliced, or not at all;
/// the rules come and go while a connection stays; and an answer that trickles in byte by byte.
#[test]
fn answers_of_http_are_given_what_the_rules_say() {
    let Some(world) = World::new() else { return };
    let _server = nginx(&world);
    let http = |setup: Setup| setup.env("NETRA_HTTP_PORTS", format!("{PORT},{SLOW}"));
    trickling(&world);
    in_cells(&world, &cells(), &rules("all", GIVEN), http, |netra, folder| {
        let paths = ["/small", "/page.html", "/large", "/none", "/small"];
        let said = curl(&world, &[], &paths);
        let given = [("\nX-Given: 1\n", 5), ("\nServer: none of your business\n", 5)];
        count("all", &said, &given)?;
        count("bodies", &said, &[("\n4 of", 2), (&format!("\n{LARGE} of"), 1), ("of 0\n", 4)])?;
        count("framing", &said, &[("\nTransfer-Encoding: chunked\n", 2), ("\nServer: nginx", 0)])?;
        let said = curl(&world, &["--head"], &["/small", "/large"]);
        count("HEAD", &said, &[given[0].0, given[1].0].map(|text| (text, 2)))?;
        let fresh = ["--header", "If-Modified-Since: Fri, 31 Dec 2100 00:00:00 GMT"];
        let said = curl(&world, &fresh, &["/small", "/small"]);
        count("304", &said, &[("304 Not Modified", 2), ("\nX-Given: 1\n", 2)])?;
        pipelined(&world, folder)?;
        trickled(&world)?;
        netra.scrape_until("every connection was read to its end", |scrape| {
            scrape.active() == 0 && scrape.sum("netra_opaque_total", &[]) == 0
        })
    });
}

fn ask(method: &str, path: &str, host: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// Requests of one connection that wait for no answer, while the rules are others and then those again.
fn pipelined(world: &World, folder: &Path) -> Result<(), String> {
    let mut client = Peer::connect(&world.pod, (CLIENT_V4, PORT).into())?;
    for (name, mutation, given) in [("all", GIVEN, 3), ("plain", "", 0), ("again", GIVEN, 3)] {
        obey(world, folder, &rules(name, mutation), &format!("svc.test/{name}"))?;
        let before = client.received.len();
        let asked = [("HEAD", "/small"), ("GET", "/page.html"), ("GET", "/small")]
            .map(|(method, path)| ask(method, path, "svc.test"));
        client.send(asked.concat().as_bytes())?;
        client.until(|client| {
            let said = String::from_utf8_lossy(&client.received[before..]);
            let has = |text: &str| said.matches(text).count();
            let is_whole = has("HTTP/1.1 200 OK") == 3 && said.ends_with("tea\n");
            let is_given = has("X-Given: 1") == given && has("Server: none of your") == given;
            if is_whole && is_given { Ok(()) } else { Err(format!("{name}: {said}")) }
        })?;
    }
    client.close();
    Ok(())
}

/// Each byte of an answer comes for itself.
fn trickled(world: &World) -> Result<(), String> {
    let mut client = Peer::connect(&world.pod, (CLIENT_V4, SLOW).into())?;
    client.send(ask("GET", "/", "slow.test").as_bytes())?;
    let (early, answer) = TRICKLED.split_at(TRICKLED.find("HTTP/1.1 200").unwrap_or(0));
    let answer = answer.replacen("Server: x\r\n", "Server: none of your business\r\n", 1);
    let answer = answer.replacen("chunked\r\n\r\n", "chunked\r\nX-Given: 1\r\n\r\n", 1);
    client.expect(format!("{early}{answer}").as_bytes())?;
    client.close();
    Ok(())
}
