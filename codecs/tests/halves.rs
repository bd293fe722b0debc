//! What both halves make of whole conversations: RFC 9110 and 9112 beyond framing.

mod support;

use netra_codecs::Limits;
use netra_codecs::h1::{
    Exchanges, Framing, HeadReader, Reason, RequestHalf, RequestKind, RequestStep, ResponseHalf,
    ResponseStep,
};
use support::{Event, Side, Sidecar, expected_head};

const GET: &str = "GET / HTTP/1.1\r\n\r\n";
const UPGRADE: &str =
    "GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
const CONNECT: &str = "CONNECT a:443 HTTP/1.1\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Requests, responses, number and status of the exchanges that finish, reason if it ends opaque.
type Ends = (&'static str, &'static str, &'static [(u32, u16)], Option<Reason>);

const ENDS: &[Ends] = &[
    (
        GET,
        "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\n\
            Content-Length: 0\r\n\r\n",
        &[(1, 200)],
        None,
    ),
    (
        GET,
        "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx",
        &[(1, 404)],
        None,
    ),
    (
        "HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n",
        &[(1, 200), (2, 201)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "HTTP/1.1 304 Same\r\nContent-Length: 99\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        &[(1, 304), (2, 204)],
        None,
    ),
    (
        UPGRADE,
        "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x01\x02HTTP/1.1",
        &[(1, 101)],
        Some(Reason::Upgraded),
    ),
    (UPGRADE, OK, &[(1, 200)], None),
    (GET, "HTTP/1.1 101 Switching\r\n\r\n\x01", &[(1, 101)], Some(Reason::Upgraded)),
    (
        CONNECT,
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\x16\x03\x01",
        &[(1, 200)],
        Some(Reason::Connected),
    ),
    (CONNECT, "HTTP/1.1 407 Auth\r\nContent-Length: 2\r\n\r\nno", &[(1, 407)], None),
    (
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 408 Late\r\n\r\n",
        &[(1, 200)],
        Some(Reason::ResponseWithoutRequest),
    ),
    (GET, "junk", &[], Some(Reason::BadStatusLine)),
    (GET, "HTTP/1.1 200 OK\nContent-Length: 0\n\n", &[], Some(Reason::BareLf)),
    ("", "220 mail\r\n", &[], Some(Reason::ServerFirst)),
    ("GE", "220 mail\r\n", &[], Some(Reason::ServerFirst)),
    (
        "POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc",
        "HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n",
        &[(1, 413)],
        None,
    ),
];

/// Interim responses, bodies that are none, switches: what each exchange ends with.
#[test]
fn exchanges_end_where_they_should() {
    for &(requests, responses, finished, opaque) in ENDS {
        let mut sidecar = Sidecar::new(Limits::DEFAULT);
        sidecar.edits = false;
        sidecar.client(requests.as_bytes());
        sidecar.server(responses.as_bytes());
        assert_eq!(sidecar.finished(), finished, "{requests:?} {responses:?}");
        assert_eq!(sidecar.opaque(), opaque, "{requests:?} {responses:?}");
        assert_eq!(sidecar.to_server, requests.as_bytes());
        assert_eq!(sidecar.to_client, responses.as_bytes());
    }
}

/// When a connection may be closed, and no request with it.
#[test]
fn between_two_requests_nothing_is_under_way() {
    let mut request = RequestHalf::new();
    let mut exchanges = Exchanges::<()>::new();
    let mut reader = HeadReader::new(Limits::DEFAULT);
    let head = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n";
    assert!(request.is_between());
    for (bytes, is_between) in
        [(&head[..4], false), (&head[4..], false), (b"a", false), (b"b", true), (b"\r", false)]
    {
        let _ = request.step(bytes, &mut reader, &mut exchanges, 0);
        assert_eq!(request.is_between(), is_between, "{bytes:?}");
    }
}

/// What a span needs to know of an exchange: when it began, sizes and framing.
#[test]
fn an_exchange_is_a_record_of_both_messages() {
    let (mut request, mut response) = (RequestHalf::new(), ResponseHalf::new());
    let mut exchanges = Exchanges::<&str>::new();
    let mut reader = HeadReader::new(Limits::DEFAULT);
    let head = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
    let step = request.step(head, &mut reader, &mut exchanges, 10);
    let RequestStep::Head { exchange, .. } = step else { panic!("{step:?}") };
    exchanges.get_mut(exchange).unwrap().data = "mine";
    let step = request.step(b"ab", &mut reader, &mut exchanges, 20);
    assert!(matches!(step, RequestStep::Forward(2)));
    request.passed(3, &mut exchanges);
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let step = response.step(head, &mut reader, &mut exchanges);
    assert!(matches!(step, ResponseStep::Head { exchange: id, .. } if id == exchange));
    let step = response.step(b"1\r\nx\r\n0\r\n\r\n", &mut reader, &mut exchanges);
    assert!(matches!(step, ResponseStep::Body(11)));
    let step = response.step(b"", &mut reader, &mut exchanges);
    let ResponseStep::Finish(done) = step else { panic!("{step:?}") };
    assert_eq!((done.id, done.data, done.status), (exchange, "mine", Some(200)));
    assert_eq!((done.kind, done.opened_ns), (RequestKind::Ordinary, 10));
    assert_eq!(done.request_framing, Framing::Length(5));
    assert_eq!(done.response_framing, Some(Framing::Chunked));
    assert_eq!((done.request_body_bytes, done.response_body_bytes), (5, 11));
}

#[test]
fn a_body_without_length_ends_with_the_stream() {
    let mut sidecar = Sidecar::new(Limits::DEFAULT);
    sidecar.client(b"GET / HTTP/1.0\r\n\r\n");
    sidecar.server(b"HTTP/1.0 200 OK\r\n\r\nsome");
    assert_eq!(sidecar.response.passable(), u64::MAX);
    sidecar.server(b" more");
    assert_eq!(sidecar.finished(), []);
    sidecar.server_end();
    let finish =
        Event::Finish { number: 1, status: 200, request_bytes: 0, response_bytes: 9, interim: 0 };
    assert_eq!(sidecar.events.last(), Some(&finish));
}

/// A stream that ends elsewhere leaves its exchanges open, to be ended as errors.
#[test]
fn a_stream_that_is_cut_leaves_its_exchanges_open() {
    for response in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"] {
        let mut sidecar = Sidecar::new(Limits::DEFAULT);
        sidecar.client(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        sidecar.server(response.as_bytes());
        sidecar.server_end();
        assert_eq!(sidecar.finished(), []);
        let open: Vec<_> = sidecar.exchanges.drain().map(|exchange| exchange.data).collect();
        assert_eq!(open, [1, 2]);
    }
}

#[test]
fn an_early_response_does_not_end_the_request_body() {
    let mut sidecar = Sidecar::new(Limits::DEFAULT);
    sidecar.edits = false;
    let head = b"POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\n";
    sidecar.client(&[head, &b"abc"[..]].concat());
    sidecar.server(b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(sidecar.finished(), [(1, 413)]);
    assert_eq!(sidecar.request.passable(), 3);
    sidecar.client(b"defGET /2 HTTP/1.1\r\n\r\n");
    sidecar.server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((sidecar.finished(), sidecar.opaque()), (vec![(1, 413), (2, 200)], None));
}

/// After a request that asks for another protocol nothing is parsed before its answer, and
/// nothing is withheld either.
#[test]
fn bytes_before_the_answer_to_an_upgrade() {
    const UPGRADE: &str = "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n";
    const NEXT: &str = "GET /2 HTTP/1.1\r\n\r\n";
    const NO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut early = Sidecar::new(Limits::DEFAULT);
    early.client(format!("{UPGRADE}{NEXT}").as_bytes());
    assert_eq!(early.opaque(), Some(Reason::EarlyAfterUpgrade));
    assert!(early.to_server.ends_with(NEXT.as_bytes()));
    early.server(format!("{NO}{NO}").as_bytes());
    assert_eq!(early.finished(), [(1, 200)]);
    assert!(early.response.is_opaque());

    let mut refused = Sidecar::new(Limits::DEFAULT);
    refused.client(UPGRADE.as_bytes());
    refused.server(NO.as_bytes());
    refused.client(NEXT.as_bytes());
    refused.server(NO.as_bytes());
    assert_eq!((refused.finished(), refused.opaque()), (vec![(1, 200), (2, 200)], None));

    // The body of the request still belongs to it.
    let mut body = Sidecar::new(Limits::DEFAULT);
    body.client(b"POST / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\na");
    body.client(b"b");
    assert_eq!(body.opaque(), None);
    body.client(b"c");
    assert_eq!(body.opaque(), Some(Reason::EarlyAfterUpgrade));
}

#[test]
fn more_requests_than_the_limit_turn_opaque() {
    let limits = Limits { exchanges_max: 3, ..Limits::DEFAULT };
    let mut sidecar = Sidecar::new(limits);
    sidecar.edits = false;
    let requests = b"GET / HTTP/1.1\r\n\r\n".repeat(5);
    sidecar.client(&requests);
    assert_eq!(sidecar.opaque(), Some(Reason::PipelineTooDeep));
    assert_eq!(sidecar.to_server, requests);
    sidecar.server(&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(5));
    assert_eq!(sidecar.finished(), [(1, 200), (2, 200), (3, 200)]);
    assert!(sidecar.response.is_opaque());
}

#[test]
fn one_empty_line_before_a_request_passes() {
    let mut sidecar = Sidecar::new(Limits::DEFAULT);
    let get = b"GET / HTTP/1.1\r\n\r\n";
    sidecar.client(&[&b"\r\n"[..], get, b"\r\n", get].concat());
    let expected = [b"\r\n", &expected_head(get, 1)[..], b"\r\n", &expected_head(get, 2)].concat();
    assert_eq!(sidecar.to_server, expected);
    sidecar.client(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert_eq!(sidecar.opaque(), Some(Reason::LeadingEmptyLines));
    assert_eq!(sidecar.to_server, [&expected[..], b"\r\n\r\n", get].concat());
    let mut bare = Sidecar::new(Limits::DEFAULT);
    bare.client(b"\rG");
    assert_eq!((bare.opaque(), &bare.to_server[..]), (Some(Reason::BareCr), &b"\rG"[..]));
}

#[test]
fn a_head_that_is_cut_goes_out_as_it_came() {
    let mut sidecar = Sidecar::new(Limits::DEFAULT);
    sidecar.client(b"GET / HTTP/1.1\r\nHo");
    assert_eq!((sidecar.request.held_len(), sidecar.to_server.len()), (18, 0));
    sidecar.client_end();
    assert_eq!(sidecar.to_server, b"GET / HTTP/1.1\r\nHo");
    assert_eq!(sidecar.opaque(), Some(Reason::EndedInHead));
    let mut quiet = Sidecar::new(Limits::DEFAULT);
    quiet.client(b"GET / HTTP/1.1\r\n\r\n");
    quiet.client_end();
    assert_eq!((quiet.opaque(), quiet.request.is_opaque()), (None, false));
}

/// Bytes of other protocols are sent on in the step that sees the first of them that tells.
#[test]
fn other_protocols_are_not_withheld() {
    for (bytes, reason) in [
        (&b"\x16\x03\x01\x00\xf8\x01\x00\x00"[..], Reason::Tls),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reason::Http2Preface),
        (b"PRI ", Reason::Http2Preface),
        (b"*1\r\n$4\r\nPING\r\n", Reason::NotHttp),
        (b"PING\r\n", Reason::NotHttp),
        (b"get key\r\n", Reason::NotHttp),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Reason::NotHttp),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Reason::NotHttp),
        (b"\x10\x0c\x00\x04MQTT", Reason::NotHttp),
        (b"AMQP\x00\x00\x09\x01", Reason::NotHttp),
        (b"\n", Reason::NotHttp),
        (b"{\"json\":1}", Reason::NotHttp),
    ] {
        let mut sidecar = Sidecar::new(Limits::DEFAULT);
        sidecar.client(bytes);
        assert_eq!(sidecar.opaque(), Some(reason), "{}", bytes.escape_ascii());
        assert_eq!(sidecar.to_server, bytes);
        sidecar.feed(Side::Client, b"GET / HTTP/1.1\r\n\r\n");
        sidecar.feed(Side::Server, b"HTTP/1.1 200 OK\r\n\r\n");
        assert!(sidecar.response.is_opaque());
        assert_eq!(sidecar.to_server, [bytes, b"GET / HTTP/1.1\r\n\r\n"].concat());
    }
}
