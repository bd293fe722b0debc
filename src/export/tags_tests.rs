use super::*;
use netra_codecs::trace::{RetryReason, TraceContext, TraceFlags, Tries};

fn span(kind: SpanKind, texts: &[(SpanText, &[u8])]) -> SpanRecord {
    let context = TraceContext::root(1, 1, TraceFlags::SAMPLED);
    let mut span = SpanRecord::begin(context, kind, 0);
    for (what, value) in texts {
        span.put(*what, value);
    }
    span
}

fn listed(tags: &mut Tags, span: &SpanRecord) -> Vec<String> {
    let mut all = Vec::new();
    tags.each(span, |key: &'static str, value: Value<'_>| {
        all.push(match value {
            Value::Text(text) => format!("{key}={text}"),
            Value::Int(number) => format!("{key}={number}"),
            Value::Float(number) => format!("{key}={number:?}"),
            Value::Bool(is) => format!("{key}={is}!"),
        });
    });
    all
}

#[test]
fn operations() {
    use SpanKind::{Client, Server};
    let legacy = Tags::new(Semconv::Legacy, vec![], true);
    for (kind, host, target, operation) in [
        (Server, "shop", "/a/b?x=1", "/a/b"),
        (Server, "shop", "/caf%C3%A9", "/caf\u{e9}"),
        (Server, "shop", "/%ff", "/\u{fffd}"),
        (Server, "shop", "http://shop:80/a?b", "/a"),
        (Server, "shop", "http://shop", "/"),
        (Server, "shop", "http://shop?a", "/"),
        (Server, "shop", "HTTP://shop/a#b", "/a"),
        (Server, "shop", "*", "*"),
        (Client, "bank:81", "/pay?x", "bank:81/pay"),
        (Client, "", "/pay", "/pay"),
        (Client, "bank", "http://bank/pay%20x", "bank/pay x"),
    ] {
        let texts = [(SpanText::Target, target.as_bytes()), (SpanText::Host, host.as_bytes())];
        assert_eq!(legacy.operation(&span(kind, &texts)), operation, "{host} {target}");
    }
    let otel = Tags::new(Semconv::Otel, vec![], true);
    let texts: [(SpanText, &[u8]); 2] = [(SpanText::Method, b"PUT"), (SpanText::Target, b"/a/17")];
    assert_eq!(otel.operation(&span(Server, &texts)), "PUT");
    assert_eq!(otel.operation(&span(Server, &[])), "HTTP");
}

#[test]
fn opentelemetrys_names_of_both_sides() {
    let mut tags = Tags::new(Semconv::Otel, vec![], true);
    let texts: [(SpanText, &[u8]); 4] = [
        (SpanText::Method, b"GET"),
        (SpanText::Target, b"/a?b=c"),
        (SpanText::Host, b"shop:8080"),
        (SpanText::UserAgent, b"curl"),
    ];
    let mut server = span(SpanKind::Server, &texts);
    server.remote = Some("[2001:db8::1]:99".parse().unwrap());
    server.status = 503;
    server.response_bytes = None;
    assert_eq!(
        listed(&mut tags, &server),
        [
            "span.kind=server",
            "http.request.method=GET",
            "url.scheme=http",
            "url.path=/a",
            "url.query=b=..",
            "client.address=2001:db8::1",
            "server.address=shop",
            "server.port=8080",
            "network.peer.address=2001:db8::1",
            "network.peer.port=99",
            "user_agent.original=curl",
            "http.request.body.size=0",
            "http.response.status_code=503",
            "error.type=503",
            "error=true!",
            "netra.overhead_us=0",
        ]
    );
    let mut client = span(SpanKind::Client, &texts);
    client.outcome = Outcome::Unreachable;
    let all = listed(&mut tags, &client);
    for tag in ["url.full=http://shop:8080/a?b=..", "error.type=unreachable", "error=true!"] {
        assert!(all.iter().any(|found| found == tag), "{tag} in {all:?}");
    }
}

/// Every tag in which a query stands, and the operation, in which none does.
#[test]
fn queries_are_told_by_policy() {
    let texts: [(SpanText, &[u8]); 2] =
        [(SpanText::Target, b"/a?token=s3cret&q"), (SpanText::Host, b"shop")];
    for (query, path, asked, full) in [
        (Query::Keep, "/a?token=s3cret&q", Some("token=s3cret&q"), "/a?token=s3cret&q"),
        (Query::Names, "/a?token=..&..", Some("token=..&.."), "/a?token=..&.."),
        (Query::Drop, "/a", None, "/a"),
    ] {
        for kind in [SpanKind::Server, SpanKind::Client] {
            let span = span(kind, &texts);
            let mut tags = Tags::new(Semconv::Both, vec![], true).with_query(query);
            let all = listed(&mut tags, &span);
            assert!(all.contains(&format!("http.path={path}")), "{all:?}");
            let told = match kind {
                SpanKind::Server => asked.map(|asked| format!("url.query={asked}")),
                SpanKind::Client => Some(format!("url.full=http://shop{full}")),
            };
            let found =
                all.iter().find(|it| it.starts_with("url.query") || it.starts_with("url.full"));
            assert_eq!(found, told.as_ref(), "{query:?}");
            let tells = all.iter().any(|it| it.contains("s3cret"));
            assert_eq!(tells, query == Query::Keep, "{all:?}");
            assert!(!tags.operation(&span).contains('?'));
        }
    }
}

#[test]
fn what_a_database_was_asked_and_of_which_collection() {
    let mut tags = Tags::new(Semconv::Legacy, vec![], false);
    let texts: [(SpanText, &[u8]); 4] = [
        (SpanText::Rule, b"Router/default/orders/canary"),
        (SpanText::Operation, b"insert my orders"),
        (SpanText::Namespace, b"shop"),
        (SpanText::Error, b"DuplicateKey"),
    ];
    let mut refused = span(SpanKind::Client, &texts);
    refused.protocol = Some(netra_codecs::tap::Protocol::Mongodb.about());
    (refused.status, refused.is_refused) = (11000, true);
    assert_eq!(tags.operation(&refused), "insert my orders");
    let all = listed(&mut tags, &refused);
    for tag in [
        "netra.rule=Router/default/orders/canary",
        "db.system.name=mongodb",
        "db.operation.name=insert",
        "db.collection.name=my orders",
        "db.namespace=shop",
        "db.response.status_code=11000",
        "error.type=DuplicateKey",
    ] {
        assert!(all.iter().any(|it| it == tag), "{tag} in {all:?}");
    }
    // A miss has a number and is no error.
    let mut missed = span(SpanKind::Client, &[(SpanText::Operation, b"get")]);
    missed.protocol = Some(netra_codecs::tap::Protocol::Memcached.about());
    missed.status = 1;
    let all = listed(&mut tags, &missed);
    assert_eq!(all[..2], ["db.system.name=memcached", "db.operation.name=get"]);
    let is_wrong = |tag: &String| tag.starts_with("db.response") || tag.starts_with("error");
    assert!(!all.iter().any(is_wrong), "{all:?}");
}

#[test]
fn both_is_one_after_the_other_and_nothing_twice() {
    let texts: [(SpanText, &[u8]); 2] = [(SpanText::Method, b"GET"), (SpanText::Target, b"/a")];
    let mut span = span(SpanKind::Client, &texts);
    (span.status, span.outcome) = (500, Outcome::Timeout);
    let mut both = listed(&mut Tags::new(Semconv::Both, vec![], true), &span);
    for semconv in [Semconv::Legacy, Semconv::Otel] {
        for tag in listed(&mut Tags::new(semconv, vec![], true), &span) {
            assert!(both.contains(&tag), "{tag} in {both:?}");
        }
    }
    both.sort();
    let count = both.len();
    both.dedup();
    assert_eq!(both.len(), count);
}

#[test]
fn messaging_by_its_conventions() {
    let mut tags = Tags::new(Semconv::Legacy, vec![], false);
    let (messages, topics) = (7_u32.to_be_bytes(), 2_u32.to_be_bytes());
    let texts: [(SpanText, &[u8]); 5] = [
        (SpanText::Operation, b"Produce orders"),
        (SpanText::TopicCount, &topics),
        (SpanText::MessageCount, &messages),
        (SpanText::ClientId, b"shop"),
        (SpanText::Error, b"NOT_LEADER_OR_FOLLOWER"),
    ];
    let mut sent = span(SpanKind::Client, &texts);
    sent.protocol = Some(netra_codecs::tap::Protocol::Kafka.about());
    (sent.status, sent.is_refused) = (6, true);
    assert_eq!(tags.operation(&sent), "Produce orders");
    let expected = [
        "messaging.system=kafka",
        "messaging.operation.name=Produce",
        "messaging.operation.type=send",
        "messaging.destination.name=orders",
        "messaging.client.id=shop",
        "messaging.batch.message_count=7",
        "netra.topic.count=2",
        "netra.request.size=0",
        "netra.response.size=0",
        "error.type=NOT_LEADER_OR_FOLLOWER",
        "netra.overhead_us=0",
    ];
    assert_eq!(listed(&mut tags, &sent), expected);
    let texts: [(SpanText, &[u8]); 2] =
        [(SpanText::Operation, b"Heartbeat"), (SpanText::ConsumerGroup, b"billing")];
    let mut beat = span(SpanKind::Server, &texts);
    beat.protocol = sent.protocol;
    let expected = [
        "messaging.system=kafka",
        "messaging.operation.name=Heartbeat",
        "messaging.consumer.group.name=billing",
    ];
    assert_eq!(listed(&mut tags, &beat)[..3], expected);
}

#[test]
fn samplers_debug_ids_and_mapped_values() {
    let mut tags = Tags::new(Semconv::Legacy, vec!["a".into(), "b".into()], true);
    let texts: [(SpanText, &[u8]); 4] = [
        (SpanText::Mapped(1), b"2"),
        (SpanText::DebugId, b"look"),
        (SpanText::Mapped(0), b"1"),
        (SpanText::Mapped(9), b"nobody knows this one"),
    ];
    let mut root = span(SpanKind::Server, &texts);
    for (sampler, kind, param) in [
        (SamplerTag::Const(true), "const", "true!"),
        (SamplerTag::Probabilistic(0.5), "probabilistic", "0.5"),
        (SamplerTag::RateLimiting(2.0), "ratelimiting", "2.0"),
        (SamplerTag::LowerBound(0.0), "lowerbound", "0.0"),
    ] {
        root.sampler = Some(sampler);
        let all = listed(&mut tags, &root);
        assert_eq!(all[..2], [format!("sampler.type={kind}"), format!("sampler.param={param}")]);
        assert_eq!(all[all.len() - 4..all.len() - 1], ["b=2", "jaeger-debug-id=look", "a=1"]);
    }
}

#[test]
fn a_request_that_was_tried_elsewhere_says_why() {
    let mut tags = Tags::new(Semconv::Otel, vec![], true);
    let mut told = |count, reason| {
        let mut record = span(SpanKind::Client, &[]);
        record.tries = Tries { count, reason };
        let is_it = |tag: &String| tag.starts_with("netra.tries") || tag.contains("retry");
        listed(&mut tags, &record).into_iter().filter(is_it).collect::<Vec<_>>()
    };
    assert_eq!(told(1, None), [""; 0]);
    for (reason, name) in [
        (RetryReason::Connect, "connect"),
        (RetryReason::GatewayError, "gateway-error"),
        (RetryReason::Reset, "reset"),
        (RetryReason::Timeout, "timeout"),
    ] {
        let expected = ["netra.tries=2".to_owned(), format!("netra.retry.reason={name}")];
        assert_eq!(told(2, Some(reason)), expected);
    }
}

#[test]
fn text_is_utf_8_whatever_came() {
    for (bytes, shown) in [
        (&b"plain"[..], "plain"),
        ("\u{20ac}".as_bytes(), "\u{20ac}"),
        (b"cut \xe2\x82", "cut "),
        (b"a\xffb", "a\u{fffd}b"),
        (b"", ""),
    ] {
        assert_eq!(text(bytes), shown);
    }
}

#[test]
fn a_response_that_flows_and_what_a_client_of_mcp_calls() {
    let mut tags = Tags::new(Semconv::Otel, vec![], false);
    let flow = [1_234_999_u64.to_le_bytes(), 77_u64.to_le_bytes()].concat();
    for (texts, expected) in [
        (&[][..], &[][..]),
        (&[(SpanText::Flow, &flow[..])], &["netra.first_byte_us=1234", "netra.stream_bytes=77"]),
        (&[(SpanText::Operation, b"ping")], &["mcp.method.name=ping"]),
        (
            &[(SpanText::Operation, b"tools/call add up")],
            &["mcp.method.name=tools/call", "gen_ai.tool.name=add up"],
        ),
        (
            &[(SpanText::Operation, b"prompts/get hello")],
            &["mcp.method.name=prompts/get", "gen_ai.prompt.name=hello"],
        ),
        (&[(SpanText::Flow, b"short")], &[]),
    ] {
        let all = listed(&mut tags, &span(SpanKind::Server, texts));
        let is_its = |tag: &&String| {
            ["netra.first", "netra.stream", "mcp.", "gen_ai."].iter().any(|it| tag.starts_with(it))
        };
        assert_eq!(all.iter().filter(is_its).collect::<Vec<_>>(), expected, "{texts:?}");
    }
}

/// Addresses of four numbers are written by hand: as the library writes them.
#[test]
fn addresses_are_written_as_ever() {
    let mut scratch = String::new();
    let parts = [0, 1, 9, 10, 19, 99, 100, 101, 199, 200, 255];
    let ports = [0, 1, 9, 10, 99, 100, 101, 999, 1000, 1010, 9999, 10_000, 10_203, 65_535];
    for (index, part) in parts.into_iter().enumerate() {
        let ip = Ipv4Addr::new(part, parts[(index + 3) % 11], parts[(index + 7) % 11], part);
        for port in ports {
            let whole = SocketAddr::from((ip, port));
            assert_eq!(address(&mut scratch, &whole), whole.to_string());
            assert_eq!(super::ip(&mut scratch, &whole), ip.to_string());
        }
    }
    let six: SocketAddr = "[2001:db8::1]:99".parse().unwrap();
    assert_eq!(address(&mut scratch, &six), "[2001:db8::1]:99");
    assert_eq!(super::ip(&mut scratch, &six), "2001:db8::1");
}
