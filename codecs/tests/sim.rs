//! Random conversations, by seed: what goes out is what came in with exactly the documented lines,
//! nothing is withheld but an unfinished request head, and every exchange ends as it should.
//!
//! The generator writes down input and expected output side by side, so that the expectation does
//! not come from the code under test. A failure names its seed; `NETRA_SIM_SEED=n` plays that one,
//! `NETRA_SIM_SEEDS=n` that many.

mod support;

use std::ops::Range;

use netra_codecs::Limits;
use netra_codecs::h1::Reason;
use support::{Event, Random, Side, Sidecar, lines};

/// One request and its responses, as bytes.
#[derive(Debug, Default)]
struct Exchange {
    head: Vec<u8>,
    expected_head: Vec<u8>,
    body: Vec<u8>,
    response: Vec<u8>,
    status: u16,
    interim: u32,
    response_body: u64,
    /// The response may begin as soon as the head is through.
    early: bool,
    /// The client waits for the response before it goes on.
    waits: bool,
    /// Nothing is HTTP after this response.
    switches: Option<Reason>,
    /// The response ends with the stream.
    until_close: bool,
}

/// All bytes of a conversation, and where in them things are.
struct Plan {
    exchanges: Vec<Exchange>,
    client: Vec<u8>,
    heads: Vec<Range<usize>>,
    expected: Vec<u8>,
    server: Vec<u8>,
    /// How much of the client's bytes must be through before the server says this byte on.
    server_after: Vec<(usize, usize)>,
    /// How much of the server's bytes must be through before the client goes on at this offset.
    client_after: Vec<(usize, usize)>,
}

#[test]
fn random_conversations() {
    let one = std::env::var("NETRA_SIM_SEED").ok().and_then(|text| text.parse().ok());
    let count = std::env::var("NETRA_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let seeds = match (one, count) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(256),
    };
    let mut finished = 0;
    for seed in seeds {
        let play = std::panic::catch_unwind(|| play(seed));
        finished += play.unwrap_or_else(|_| panic!("failed with NETRA_SIM_SEED={seed}"));
    }
    assert!(finished > 0);
}

/// Conversations with a few bytes changed, lost or added: whatever they have become, without edits
/// the output is the input, and with edits it does not depend on how the input was cut.
#[test]
fn damaged_conversations() {
    let mut opaque = 0;
    for seed in 0..256 {
        let mut random = Random(seed);
        let mut plan = plan(&mut random);
        for _ in 0..1 + random.below(3) {
            damage(&mut random, &mut plan.client);
            damage(&mut random, &mut plan.server);
        }
        let parts = schedule(&mut random, &plan);
        let plain = play_parts(&plan, &parts, false, usize::MAX);
        assert_eq!(plain.to_server, plan.client, "seed {seed}");
        assert_eq!(plain.to_client, plan.server, "seed {seed}");
        let whole = play_parts(&plan, &parts, true, usize::MAX);
        for size in [1, 7] {
            let cut = play_parts(&plan, &parts, true, size);
            assert_eq!(whole.to_server, cut.to_server, "seed {seed}");
            assert_eq!(whole.events, cut.events, "seed {seed}");
        }
        opaque += usize::from(whole.opaque().is_some());
    }
    // Some damage is in bodies and does no harm; most is not.
    assert!((100..256).contains(&opaque), "{opaque}");
}

fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    // Near the beginning of something, mostly: that is where heads are.
    let at = random.below(bytes.len());
    let at = if random.one_in(2) { at } else { at.min(100) };
    let byte = *random.pick(b"\r\n\0 :;,0aZ\x7f\xff\t+-");
    match random.below(3) {
        0 => bytes[at] = byte,
        1 => bytes.insert(at, byte),
        _ => drop(bytes.remove(at)),
    }
    if bytes.is_empty() {
        bytes.push(b'x');
    }
}

/// Who sends how much, in turns.
fn schedule(random: &mut Random, plan: &Plan) -> Vec<(Side, Range<usize>)> {
    let mut parts = Vec::new();
    let (mut client, mut server) = (0, 0);
    let all_requests_first = random.one_in(2);
    while client < plan.client.len() || server < plan.server.len() {
        let step = if all_requests_first { usize::MAX } else { random.size(&[10, 500, 5000]) };
        let next = client.saturating_add(step).min(plan.client.len());
        parts.push((Side::Client, client..next));
        client = next;
        let next = (server + random.size(&[10, 500, 5000])).min(plan.server.len());
        parts.push((Side::Server, server..next));
        server = next;
    }
    parts
}

fn play_parts(plan: &Plan, parts: &[(Side, Range<usize>)], edits: bool, size: usize) -> Sidecar {
    let mut sidecar = Sidecar::new(Limits::DEFAULT);
    sidecar.edits = edits;
    for (side, range) in parts {
        let bytes = match side {
            Side::Client => &plan.client[range.clone()],
            Side::Server => &plan.server[range.clone()],
        };
        bytes.chunks(size).for_each(|piece| sidecar.feed(*side, piece));
    }
    sidecar.client_end();
    sidecar.server_end();
    sidecar
}

/// Plays the conversation of a seed; returns how many exchanges were finished.
fn play(seed: u64) -> usize {
    let mut random = Random(seed);
    let exchanges_max = 1 + u16::try_from(random.below(32)).unwrap();
    let limits = Limits { exchanges_max, ..Limits::DEFAULT };
    let plan = plan(&mut random);
    let mut sidecar = Sidecar::new(limits);
    let (mut client, mut server) = (0, 0);
    let piece_max = *random.pick(&[1, 3, 17, 200, 16 * 1024]);
    while client < plan.client.len() || server < plan.server.len() {
        let room = sidecar.exchanges.len() < usize::from(exchanges_max);
        let client_end = client_limit(&plan, &sidecar, client, server, room);
        let server_end = server_limit(&plan, client);
        if client < client_end && (server == server_end || random.one_in(2)) {
            let len = 1 + random.below(piece_max.min(client_end - client));
            let piece = &plan.client[client..client + len];
            if random.one_in(3) {
                sidecar.client_spliced(piece)
            } else {
                sidecar.client(piece)
            }
            client += len;
        } else {
            assert!(server < server_end, "stuck at {client} and {server}");
            let len = 1 + random.below(piece_max.min(server_end - server));
            let piece = &plan.server[server..server + len];
            if random.one_in(3) {
                sidecar.server_spliced(piece)
            } else {
                sidecar.server(piece)
            }
            server += len;
        }
        check_step(&plan, &sidecar, client, server, exchanges_max);
    }
    sidecar.client_end();
    sidecar.server_end();
    check_end(&plan, &sidecar)
}

/// Up to where the client may send: it waits for answers it needs, and for room in the pipeline.
fn client_limit(plan: &Plan, sidecar: &Sidecar, client: usize, server: usize, room: bool) -> usize {
    let waits = plan.client_after.iter().find(|&&(_, needed)| server < needed);
    let waits = waits.map_or(plan.client.len(), |&(at, _)| at);
    // With a full pipeline the next head must not be finished; the sidecar would turn opaque.
    let next_head = plan.heads.iter().find(|head| head.end > client).map(|head| head.end - 1);
    let in_flight = if room || sidecar.opaque().is_some() { None } else { next_head };
    // One head at a time, so that the pipeline is looked at before each.
    let one = plan.heads.iter().find(|head| head.end > client).map_or(usize::MAX, |head| head.end);
    waits.min(in_flight.unwrap_or(usize::MAX)).min(one).max(client)
}

fn server_limit(plan: &Plan, client: usize) -> usize {
    let waits = plan.server_after.iter().find(|&&(_, needed)| client < needed);
    waits.map_or(plan.server.len(), |&(at, _)| at)
}

fn check_step(plan: &Plan, sidecar: &Sidecar, client: usize, server: usize, max: u16) {
    let unfinished = plan.heads.iter().find(|head| head.contains(&client));
    let held = unfinished.map_or(0, |head| client - head.start);
    assert_eq!(sidecar.request.held_len(), held, "held at {client}: {:?}", sidecar.events);
    assert!(plan.expected.starts_with(&sidecar.to_server));
    assert_eq!(sidecar.to_client, &plan.server[..server]);
    assert!(sidecar.exchanges.len() <= usize::from(max));
    assert!(sidecar.response.held_len() <= 4096);
}

fn check_end(plan: &Plan, sidecar: &Sidecar) -> usize {
    assert_eq!(sidecar.to_server, plan.expected);
    assert_eq!(sidecar.to_client, plan.server);
    let finished: Vec<_> =
        sidecar.events.iter().filter(|e| matches!(e, Event::Finish { .. })).collect();
    assert_eq!(finished.len(), plan.exchanges.len());
    for ((event, exchange), number) in finished.iter().zip(&plan.exchanges).zip(1..) {
        let Event::Finish { request_bytes, .. } = event else { unreachable!() };
        let body = exchange.body.len() as u64;
        let early = exchange.early;
        assert!(*request_bytes == body || (early && *request_bytes < body));
        let expected = Event::Finish {
            number,
            status: exchange.status,
            request_bytes: *request_bytes,
            response_bytes: exchange.response_body,
            interim: exchange.interim,
        };
        assert_eq!(**event, expected);
    }
    let switched = plan.exchanges.last().and_then(|exchange| exchange.switches);
    assert_eq!(sidecar.opaque(), switched);
    assert!(sidecar.exchanges.is_empty());
    finished.len()
}

fn plan(random: &mut Random) -> Plan {
    let count = 1 + random.below(12);
    let mut plan = Plan {
        exchanges: Vec::new(),
        client: Vec::new(),
        heads: Vec::new(),
        expected: Vec::new(),
        server: Vec::new(),
        server_after: Vec::new(),
        client_after: Vec::new(),
    };
    for number in 1..=count {
        let exchange = exchange(random, u32::try_from(number).unwrap(), number == count);
        if random.one_in(8) {
            plan.client.extend_from_slice(b"\r\n");
            plan.expected.extend_from_slice(b"\r\n");
        }
        let start = plan.client.len();
        plan.client.extend_from_slice(&exchange.head);
        plan.heads.push(start..plan.client.len());
        let head_end = plan.client.len();
        plan.client.extend_from_slice(&exchange.body);
        plan.expected.extend_from_slice(&exchange.expected_head);
        plan.expected.extend_from_slice(&exchange.body);
        let needed = if exchange.early { head_end } else { plan.client.len() };
        plan.server_after.push((plan.server.len(), needed));
        plan.server.extend_from_slice(&exchange.response);
        if exchange.waits {
            plan.client_after.push((plan.client.len(), plan.server.len()));
        }
        plan.exchanges.push(exchange);
    }
    let last = plan.exchanges.last().expect("at least one");
    if last.switches.is_some() {
        let len = 1 + random.below(300);
        let tunnel = random.bytes(len);
        plan.client.extend_from_slice(&tunnel);
        plan.expected.extend_from_slice(&tunnel);
        plan.server_after.push((plan.server.len(), plan.client.len()));
        plan.server.extend_from_slice(&random.bytes(len));
    }
    plan
}

fn exchange(random: &mut Random, number: u32, last: bool) -> Exchange {
    let mut exchange = Exchange { early: random.one_in(4), ..Exchange::default() };
    let method = *random.pick(&["GET", "POST", "HEAD", "PUT", "get", "X-Y", "CONNECT"]);
    let upgrade = random.one_in(8);
    exchange.waits = upgrade || method == "CONNECT";
    let mut fields: Vec<(String, String)> = Vec::new();
    if upgrade {
        let token = *random.pick(&["upgrade", "keep-alive, Upgrade", "close"]);
        fields.push(("Connection".into(), token.into()));
        fields.push(("upgrade".into(), "websocket".into()));
    }
    let version = *random.pick(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
    let framing = if method == "CONNECT" { 0 } else { random.below(3) };
    match framing {
        1 => {
            let len = random.size(&[1, 10, 3000, 70_000]);
            exchange.body = random.bytes(len);
            fields.push(("content-LENGTH".into(), len.to_string()));
        }
        2 if version == "HTTP/1.1" => {
            exchange.body = chunked(random);
            fields.push(("Transfer-encoding".into(), "Chunked".into()));
        }
        _ => {}
    }
    for _ in 0..random.below(12) {
        let at = random.below(fields.len() + 1);
        fields.insert(at, random_field(random));
    }
    write_head(random, &mut exchange, number, &format!("{method} /{number}?q {version}"), &fields);
    write_response(random, &mut exchange, method, upgrade, last);
    exchange
}

/// Writes the head, and the head that must come out.
fn write_head(
    random: &mut Random,
    exchange: &mut Exchange,
    number: u32,
    line: &str,
    fields: &[(String, String)],
) {
    let mut seen = [false; 2];
    let set = lines(number);
    exchange.head = format!("{line}\r\n").into_bytes();
    exchange.expected_head = exchange.head.clone();
    for (name, value) in fields {
        let before = *random.pick(&["", " ", "\t", "  "]);
        let after = *random.pick(&["", "", " ", "\t "]);
        let text = format!("{name}:{before}{value}{after}\r\n");
        exchange.head.extend_from_slice(text.as_bytes());
        match set.iter().position(|(wanted, _)| wanted.eq_ignore_ascii_case(name)) {
            None => exchange.expected_head.extend_from_slice(text.as_bytes()),
            Some(index) if !seen[index] => {
                seen[index] = true;
                let text = format!("{name}: {}\r\n", set[index].1);
                exchange.expected_head.extend_from_slice(text.as_bytes());
            }
            Some(_) => {}
        }
    }
    for ((name, value), _) in set.iter().zip(seen).filter(|(_, seen)| !seen) {
        exchange.expected_head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    exchange.head.extend_from_slice(b"\r\n");
    exchange.expected_head.extend_from_slice(b"\r\n");
}

fn random_field(random: &mut Random) -> (String, String) {
    let names = [
        "Host",
        "Accept",
        "X-Request-Id",
        "Uber-Trace-Id",
        "uber-trace-id",
        "x-source",
        "X-SOURCE",
        "Cookie",
        "TE",
        "X~!#$%&'*+-.^_`|0",
        "Trailer",
    ];
    let len = random.size(&[1, 20, 400]);
    let value: String =
        (0..len).map(|_| *random.pick(&['a', 'B', '0', ':', ',', '"', 'é', '\\'])).collect();
    ((*random.pick(&names)).to_owned(), value)
}

fn chunked(random: &mut Random) -> Vec<u8> {
    let mut body = Vec::new();
    let extensions = ["", "", ";a", ";a=b;c", "; a = \"q;\\\"\\\\r\""];
    for _ in 0..random.below(6) {
        let len = 1 + random.size(&[0, 20, 5000]);
        let size = if random.one_in(2) { format!("{len:x}") } else { format!("{len:05X}") };
        body.extend_from_slice(format!("{size}{}\r\n", random.pick(&extensions)).as_bytes());
        body.extend_from_slice(&random.bytes(len));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(
        format!("{}{}\r\n", random.pick(&["0", "000"]), random.pick(&extensions)).as_bytes(),
    );
    for index in 0..random.below(3) {
        body.extend_from_slice(
            format!("T-{index}: {}\r\n", "x".repeat(random.below(30))).as_bytes(),
        );
    }
    body.extend_from_slice(b"\r\n");
    body
}

fn write_response(
    random: &mut Random,
    exchange: &mut Exchange,
    method: &str,
    upgrade: bool,
    last: bool,
) {
    while random.one_in(4) {
        let interim = *random.pick(&["100 Continue\r\n", "103 Hints\r\nLink: x\r\n", "102\r\n"]);
        exchange.response.extend_from_slice(format!("HTTP/1.1 {interim}\r\n").as_bytes());
        exchange.interim += 1;
    }
    let mut write = |text: String| exchange.response.extend_from_slice(text.as_bytes());
    if last && upgrade && random.one_in(2) {
        write("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n".into());
        (exchange.status, exchange.switches) = (101, Some(Reason::Upgraded));
        return;
    }
    if method == "CONNECT" && last && random.one_in(2) {
        write("HTTP/1.1 200 Go\r\nContent-Length: 9\r\n\r\n".into());
        (exchange.status, exchange.switches) = (200, Some(Reason::Connected));
        return;
    }
    // Any 2xx to CONNECT opens a tunnel, 204 too.
    exchange.status = match method {
        "CONNECT" => *random.pick(&[304, 400, 407, 500]),
        _ => *random.pick(&[200, 200, 200, 204, 304, 404, 599]),
    };
    write(format!("HTTP/1.1 {} Reason \u{e9}\r\nServer: x\r\n", exchange.status));
    let bodyless = method == "HEAD" || matches!(exchange.status, 204 | 304);
    let body = match random.below(3) {
        0 => {
            let len = random.size(&[1, 100, 70_000]);
            write(format!("Content-Length: {len}\r\n\r\n"));
            random.bytes(len)
        }
        1 if last && !bodyless => {
            write("\r\n".into());
            exchange.until_close = true;
            let len = random.size(&[5000]);
            random.bytes(len)
        }
        _ => {
            write("transfer-encoding: chunked\r\n\r\n".into());
            chunked(random)
        }
    };
    if !bodyless {
        exchange.response.extend_from_slice(&body);
        exchange.response_body = body.len() as u64;
    }
}
