use super::*;
use netra_codecs::trace::{TraceContext, TraceFlags};

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
    tags.each(span, |key, value| {
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
            "url.query=b=c",
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
    for tag in ["url.full=http://shop:8080/a?b=c", "error.type=unreachable", "error=true!"] {
        assert!(all.iter().any(|found| found == tag), "{tag} in {all:?}");
    }
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
