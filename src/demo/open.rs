//! `netra demo --open`: services behind sidecars with something to be found, traffic that does not end,
//! and a collector whose page shows it.

use super::http1::{self, Answer};
use super::mesh::{self, wire};
use super::namespace::Namespace;
use super::service::{self, PORT, REQUEST_ID};
use super::sidecar::{self, Sidecar};
use super::stage::Lane;
use super::{Result, amid_threads, endings, mask, redis, server};
use netra_collect::Config;
use nix::sys::signal::SigmaskHow;
use std::io::{self, BufReader, Write, copy};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const WEB: &str = "10.77.1.2";
const ORDERS: &str = "10.77.1.3";
const CANARY: &str = "10.77.1.4";
const CACHE: &str = "10.77.1.5";
const LEDGER: &str = "10.77.1.6";
const REDIS: u16 = 6379;

/// Requests a second.
const RATE: u32 = 15;
/// One of so many goes to the canary.
const CANARY_SHARE: u64 = 5;
/// How often web asks again at once when it is answered with an error: that is the storm.
const TRIES: usize = 5;
/// The page's port here, and where the collector has it in the hub.
const PAGE: u16 = 16686;

const FOUND: &str = "
  the slow database   ledger: one call of four takes a tenth of a second
  the canary          orders-canary: half of what it is asked fails
  the retry storm     web asks again at once, four times, so that the canary is asked far more often
                      than its share of one request in five
";

/// Runs until a signal; true, for nothing is checked here.
pub(super) fn run(lane: &Lane) -> Result<bool> {
    let (hub, sidecars) = amid_threads(|| {
        let hub = mesh::hub(HUB)?;
        collect(&hub)?;
        let sidecars = build(&hub, lane)?;
        let web = hub.share()?;
        thread::spawn(move || visit(&web));
        Ok((hub, sidecars))
    })?;
    mask(SigmaskHow::SIG_BLOCK)?;
    let port = relay(&hub)?;
    let half = match lane {
        Lane::Both => String::new(),
        Lane::InboundOnly(why) => {
            format!("\n  Inbound half only, so that no service is seen to ask another: {why}.\n")
        }
    };
    print!(
        "\nOpen http://127.0.0.1:{port}/ ; what is to be found there:\n{FOUND}{half}\nUp until Ctrl-C.\n"
    );
    let _ = io::stdout().flush();
    endings().wait().map_err(|errno| format!("waiting for Ctrl-C: {errno}"))?;
    sidecars.iter().try_for_each(Sidecar::dismiss)?;
    sidecars.iter().try_for_each(Sidecar::await_end)?;
    Ok(true)
}

/// A collector in the hub, where the sidecars reach it.
fn collect(hub: &Namespace) -> Result<()> {
    let page = PAGE.to_string();
    let config = Config::read(|setting| {
        let value = match setting.name {
            "NETRA_COLLECT_PAGE_PORT" => page.clone(),
            "NETRA_COLLECT_MEMORY" => "64MB".to_owned(),
            _ => return None,
        };
        Some((value, "the demo".to_owned()))
    });
    let config = config.map_err(|refused| refused.join("\n"))?;
    let home = hub.share()?;
    thread::spawn(move || {
        let ran = home.enter_for_good().and_then(|()| {
            netra_collect::run(&config, |_| ()).map_err(|failure| failure.to_string())
        });
        if let Err(what) = ran {
            eprintln!("netra demo: the collector: {what}");
        }
    });
    Ok(())
}

type Handler = fn(&str) -> Answer;

fn build(hub: &Namespace, lane: &Lane) -> Result<Vec<Sidecar>> {
    let mut sidecars = Vec::new();
    let outbound = format!("{PORT},{REDIS}");
    let mut join = |name: &'static str, at: &str, pod: &Namespace, inbound: u16, out: &str| {
        wire(hub, pod, name, at, sidecars.len())?;
        sidecar::apply_rules(pod, lane, &inbound.to_string(), out)?;
        sidecars.push(Sidecar::start(pod, lane, name, &settings())?);
        Ok::<_, String>(())
    };
    let handlers: [(&str, &str, Handler); 3] =
        [("web", WEB, web), ("orders", ORDERS, orders), ("orders-canary", CANARY, canary)];
    for (name, at, handler) in handlers {
        let pod = Namespace::new()?;
        serve(&pod, PORT, move |stream| answer_all(stream, handler))?;
        join(name, at, &pod, PORT, &outbound)?;
    }
    for (name, at, is_slow) in [("cache", CACHE, false), ("ledger", LEDGER, true)] {
        let pod = Namespace::new()?;
        serve(&pod, REDIS, move |stream| store(stream, is_slow))?;
        join(name, at, &pod, REDIS, "none")?;
    }
    sidecars.iter().try_for_each(Sidecar::await_ready)?;
    Ok(sidecars)
}

fn settings() -> Vec<(&'static str, String)> {
    vec![
        ("NETRA_PROTOCOLS", format!("{REDIS}=redis")),
        ("NETRA_HTTP_PORTS", PORT.to_string()),
        ("NETRA_HTTP_ROUTING_ENABLED", "true".into()),
        ("JAEGER_AGENT_HOST", HUB.to_string()),
        ("JAEGER_SAMPLER_TYPE", "const".into()),
        ("JAEGER_SAMPLER_PARAM", "1".into()),
        ("JAEGER_REPORTER_FLUSH_INTERVAL", "500ms".into()),
    ]
}

fn serve(
    pod: &Namespace,
    port: u16,
    converse: impl Fn(&TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> Result<()> {
    let served = pod.enter(|| {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .and_then(|listener| server::serve(&listener, converse))
    })?;
    served.map_err(|error| format!("port {port}: {error}"))
}

fn answer_all(mut stream: &TcpStream, handler: Handler) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = http1::head(&mut reader)? {
        let Answer { status, body } = handler(&head);
        let len = body.len();
        let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {len}\r\n\r\n{body}");
        stream.write_all(head.as_bytes())?;
    }
    Ok(())
}

/// Asks for the order, and again when that fails.
fn web(head: &str) -> Answer {
    let id = http1::field(head, REQUEST_ID).unwrap_or_default();
    let order = draw(900);
    let request =
        format!("GET /orders/{order} HTTP/1.1\r\nHost: orders.demo\r\n{REQUEST_ID}: {id}\r\n\r\n");
    let mut answer = failed("nobody was asked");
    for _ in 0..TRIES {
        let asked = service::connect(ORDERS, PORT)
            .and_then(|stream| http1::ask(&mut BufReader::new(&stream), &request));
        answer = asked.unwrap_or_else(|error| failed(&error.to_string()));
        if answer.status < 500 {
            break;
        }
    }
    answer
}

fn orders(_: &str) -> Answer {
    match get(CACHE).and_then(|_| get(LEDGER)) {
        Ok(body) => Answer { status: 200, body },
        Err(error) => failed(&error.to_string()),
    }
}

fn canary(head: &str) -> Answer {
    if draw(2) == 0 { failed("the new way of counting is not ready") } else { orders(head) }
}

fn failed(why: &str) -> Answer {
    Answer { status: 500, body: why.to_owned() }
}

fn get(at: &str) -> io::Result<String> {
    redis::get(&service::connect(at, REDIS)?, "tea")
}

fn store(stream: &TcpStream, is_slow: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    redis::converse(stream, |_| {
        if is_slow && draw(4) == 0 {
            thread::park_timeout(Duration::from_millis(100));
        }
        Some("7")
    })
}

/// Requests at an even rate, each on a thread of its own, so that a slow one keeps nobody waiting.
fn visit(hub: &Namespace) {
    for number in 0u64.. {
        let Ok(home) = hub.share() else { return };
        thread::spawn(move || {
            let route = if number.is_multiple_of(CANARY_SHARE) {
                format!("X-Route: orders.demo={CANARY}\r\n")
            } else {
                String::new()
            };
            let request = format!("GET /checkout HTTP/1.1\r\nHost: web.demo\r\n{route}\r\n");
            // What fails is there to be found.
            let _ = home.enter(|| {
                let stream = service::connect(WEB, PORT)?;
                http1::ask(&mut BufReader::new(&stream), &request)
            });
        });
        thread::park_timeout(Duration::from_secs(1) / RATE);
    }
}

/// Connections to a port here become connections to the page in the hub.
fn relay(hub: &Namespace) -> Result<u16> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = at(PAGE).or_else(|_| at(0)).map_err(|error| format!("a port: {error}"))?;
    let port = listener.local_addr().map_err(|error| format!("a port: {error}"))?.port();
    let hub = hub.share()?;
    thread::spawn(move || {
        for here in listener.incoming().flatten() {
            let there = hub.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PAGE)));
            let Ok(Ok(there)) = there else { continue };
            let (Ok(here_2), Ok(there_2)) = (here.try_clone(), there.try_clone()) else { continue };
            thread::spawn(move || pass(&here, &there));
            thread::spawn(move || pass(&there_2, &here_2));
        }
    });
    Ok(port)
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    // Either end may go at any time.
    let _ = copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// A number below `below`, in no order that matters.
fn draw(below: u64) -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(1);
    let mixed = STATE.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) % below
}
