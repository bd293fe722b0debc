use super::*;
use std::net::Shutdown;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

/// More than all places together.
const MANY: usize = 300;

struct Ready;

impl Site for Ready {
    const THINK_MAX: Duration = Duration::from_secs(120);
    const PROBES: &[&str] = &["/live"];

    fn unread_bytes_max(&self) -> usize {
        2 << 20
    }

    async fn answer(&self, ask: Ask) -> Answer {
        if let Some(bytes) = ask.parameter("bytes") {
            return Answer::ok("text/plain", vec![b'x'; bytes.parse().unwrap()]);
        }
        let from = &ask.from;
        let who = [
            (from.is_direct, "direct"),
            (from.is_foreign, "foreign"),
            (from.is_order, "order"),
            (from.is_owner, "owner"),
        ];
        let who: Vec<&str> = who.iter().filter(|it| it.0).map(|it| it.1).collect();
        let parts = [ask.path.as_str(), ask.parameter("b").unwrap_or("-")];
        let body = String::from_utf8_lossy(&ask.body).into_owned();
        let token = from.token.as_deref().unwrap_or_default();
        let text = format!("{} {} [{}] {token}{body}", parts[0], parts[1], who.join(" "));
        Answer::plain(StatusCode::OK, &text).with("x-test", "1")
    }
}

async fn exchange(address: SocketAddr, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn serving(work: impl AsyncFnOnce(SocketAddr)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = bind_at(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(Ready)));
        work(address).await;
    });
}

const LIVE: &str = "GET /live HTTP/1.1\r\nHost: 10.0.0.1:1\r\n\r\n";

/// One request on a connection that stays.
async fn probe(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(LIVE.as_bytes()).await?;
    let (mut seen, mut part) = (Vec::new(), [0; 256]);
    while !seen.ends_with(b"/live - [direct] ") {
        let len = stream.read(&mut part).await?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&part[..len]);
    }
    Ok(())
}

#[test]
fn a_request_is_told_whole() {
    serving(async |address| {
        let ends = "Host: a\r\nConnection: close\r\n";
        let get = format!("GET /x?a=1&b=2 HTTP/1.1\r\n{ends}\r\n");
        let answer = exchange(address, &get).await.unwrap();
        assert!(answer.contains("x-test: 1\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n/x 2 [] "), "{answer}");
        let post = format!("POST / HTTP/1.1\r\nContent-Length: 3\r\n{ends}\r\nabc");
        let answer = exchange(address, &post).await.unwrap();
        assert!(answer.ends_with("/ - [] abc"), "{answer}");
        let long = BODY_BYTES_MAX + 1;
        let post = format!("POST / HTTP/1.1\r\nContent-Length: {long}\r\n{ends}\r\nabc");
        let answer = exchange(address, &post).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    });
}

#[test]
fn who_asks_is_told_by_the_head() {
    for (head, who) in [
        ("", "[]"),
        ("Host: localhost", "[direct]"),
        ("Host: LocalHost:14957", "[direct]"),
        ("Host: 127.0.0.1", "[direct]"),
        ("Host: 10.0.0.1:80", "[direct]"),
        ("Host: [::1]:14957", "[direct]"),
        ("Host: [::ffff:10.0.0.1]", "[direct]"),
        ("Host: evil.example:14957", "[]"),
        ("Host: 127.0.0.1.evil.example", "[]"),
        ("Host: localhost.evil.example", "[]"),
        ("Host: localhost:x", "[]"),
        ("Host: evil@127.0.0.1", "[]"),
        ("Host: [::1]evil", "[]"),
        ("Host: [evil]:80", "[]"),
        ("Host: localhost\r\nHost: evil.example", "[]"),
        ("Host: localhost\r\nOrigin: http://localhost", "[direct]"),
        ("Host: localhost\r\nOrigin: http://evil.example", "[direct foreign]"),
        ("Host: localhost\r\nOrigin: null", "[direct foreign]"),
        (
            "Host: localhost\r\nOrigin: http://localhost\r\nOrigin: http://localhost",
            "[direct foreign]",
        ),
        // A rebound name is its own origin, and is not called directly.
        ("Host: evil.example\r\nOrigin: http://evil.example", "[]"),
        ("Host: localhost\r\nSec-Fetch-Site: same-origin", "[direct]"),
        (
            "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: image",
            "[direct foreign]",
        ),
        (
            "Host: localhost\r\nSec-Fetch-Site: same-site\r\nSec-Fetch-Dest: empty",
            "[direct foreign]",
        ),
        // Whoever follows a link on a page may come in.
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: document", "[direct]"),
        ("Host: localhost\r\nX-Netra-Order: 1", "[direct order]"),
        ("Host: localhost\r\nX-Netra-Order: 0", "[direct]"),
        ("Host: localhost\r\nX-Netra-Order: 1\r\nX-Netra-Order: 1", "[direct]"),
        ("Host: localhost\r\nAuthorization: bearer s3cret", "[direct] s3cret"),
        ("Host: localhost\r\nAuthorization: Basic s3cret", "[direct]"),
    ] {
        let mut headers = HeaderMap::new();
        for line in head.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let sender = Sender::read(&headers, false);
        let said = [
            (sender.is_direct, "direct"),
            (sender.is_foreign, "foreign"),
            (sender.is_order, "order"),
        ];
        let said: Vec<&str> = said.iter().filter(|it| it.0).map(|it| it.1).collect();
        let said = format!("[{}] {}", said.join(" "), sender.token.unwrap_or_default());
        assert_eq!(said.trim(), who, "{head}");
    }
}

/// Connections that only sit there, some in the middle of a head: new probes are answered, and one
/// that keeps its connection keeps it.
#[test]
fn floods_of_silence_keep_no_probe_out() {
    serving(async |address| {
        let mut kept = TcpStream::connect(address).await.unwrap();
        probe(&mut kept).await.unwrap();
        let mut silent = Vec::new();
        for n in 0..MANY {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(b"GET /").await.unwrap();
            }
            silent.push(stream);
            if n % 10 == 0 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                probe(&mut stream).await.unwrap_or_else(|error| panic!("{n}: {error}"));
                probe(&mut kept).await.unwrap_or_else(|error| panic!("kept, {n}: {error}"));
            }
        }
        // The first ones have been cut for the later ones.
        assert!(matches!(silent[0].read(&mut [0; 1]).await, Ok(0) | Err(_)));
    });
}

/// Connections that ask and then idle, and such that ask for much and do not read.
#[test]
fn floods_of_those_who_ask_keep_no_probe_out() {
    serving(async |address| {
        let mut kept = TcpStream::connect(address).await.unwrap();
        probe(&mut kept).await.unwrap();
        let mut others = Vec::new();
        for n in 0..MANY {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let bytes = if n % 2 == 0 { 1 } else { 4 << 20 };
            let get = format!("GET /metrics?bytes={bytes} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(get.as_bytes()).await.unwrap();
            others.push(stream);
            if n % 10 == 0 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                probe(&mut stream).await.unwrap_or_else(|error| panic!("{n}: {error}"));
                probe(&mut kept).await.unwrap_or_else(|error| panic!("kept, {n}: {error}"));
            }
        }
    });
}

/// What the kernel would take of answers that nobody reads is in nobody's count: it takes little, so
/// that the rest of them counts, and the oldest have to go.
#[test]
fn answers_that_nobody_reads_do_not_hide_in_the_kernel() {
    const BYTES: usize = 300 << 10;
    serving(async |address| {
        let mut others = Vec::new();
        for _ in 0..24 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(8192).unwrap();
            let mut stream = socket.connect(address).await.unwrap();
            let get =
                format!("GET /x?bytes={BYTES} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(get.as_bytes()).await.unwrap();
            // Its answer has begun.
            stream.read_exact(&mut [0; 1]).await.unwrap();
            others.push(stream);
        }
        let mut whole = 0;
        for stream in &mut others {
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer).await;
            whole += usize::from(read.is_ok() && answer.len() > BYTES);
        }
        assert!((1..=Ready.unread_bytes_max() / BYTES).contains(&whole), "{whole} of 24");
    });
}

/// A connection that idles between probes is not cut in the middle of the next one.
#[test]
fn heads_have_their_time_and_idlers_have_more() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = bind_at(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(Ready)));
        let mut kept = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        let mut silent = TcpStream::connect(address).await.unwrap();
        probe(&mut kept).await.unwrap();
        let begun = Instant::now();
        slow.write_all(b"GET ").await.unwrap();
        let (slow, silent) = (&mut slow, &mut silent);
        let ends =
            async |stream: &mut TcpStream| matches!(stream.read(&mut [0; 9]).await, Ok(0) | Err(_));
        let both =
            timeout(Duration::from_secs(20), async { ends(slow).await && ends(silent).await });
        assert_eq!(both.await, Ok(true));
        assert!(begun.elapsed() > Duration::from_secs(8), "{:?}", begun.elapsed());
        probe(&mut kept).await.unwrap();
    });
}

#[test]
fn the_socket_is_its_owners_and_replaces_what_was_left_behind() {
    let path = std::env::temp_dir().join(format!("netra-socket-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        drop(bind_socket(&path).unwrap());
        let listener = bind_socket(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind_socket(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        tokio::spawn(serve_socket(listener, Arc::new(Ready)));
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let get = b"GET /x HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n";
        stream.write_all(get).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("/x - [direct owner] "), "{answer}");
    });
    fs::remove_file(&path).unwrap();
    fs::write(&path, "a file").unwrap();
    bind_socket(&path).unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
    fs::remove_file(&path).unwrap();
}

#[test]
fn both_families_are_served_and_a_taken_port_is_an_error() {
    let port = bind(0).unwrap()[0].local_addr().unwrap().port();
    let listeners = bind(port).unwrap();
    let stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    assert_eq!(bind(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(listeners);
}
