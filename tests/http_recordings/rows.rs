//! Where netra differs from netramesh, case by case.

/// In what netra differs from netramesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum In {
    /// What servers receive, or which of them.
    Request,
    /// What the client receives.
    Response,
    Spans,
    /// Whether the client sees an end.
    End,
    /// netramesh kept bytes back.
    Delay,
}
use In::{Delay, End, Request, Response, Spans};

/// What the peers do after what was recorded: netramesh had given up by then.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    ServerSends(&'static str),
    ServerCloses,
    ClientSends(&'static str),
}

/// What is particular about a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) differs: &'static [In],
    pub(crate) why: &'static str,
    /// From this request on, bytes are bytes.
    pub(crate) raw_from: usize,
    /// Why the connection turns opaque, as counted.
    pub(crate) opaque: Option<&'static str>,
    /// The response is not read, so that the exchange has no status.
    pub(crate) is_unread: bool,
    /// The port to which requests go; that of the recording, if none.
    pub(crate) port: Option<u16>,
    /// What netra itself answers, behind `netra: `.
    pub(crate) refusal: Option<&'static str>,
    pub(crate) then: &'static [Then],
}

impl Row {
    pub(crate) const SAME: Self = Self {
        case: "",
        differs: &[],
        why: "",
        raw_from: usize::MAX,
        opaque: None,
        is_unread: false,
        port: None,
        refusal: None,
        then: &[],
    };
}

const fn row(case: &'static str, differs: &'static [In], why: &'static str) -> Row {
    Row { case, differs, why, ..Row::SAME }
}

impl Row {
    /// Opaque from request `raw_from` on, for this reason.
    const fn opaque(self, raw_from: usize, reason: &'static str) -> Self {
        Self { raw_from, opaque: Some(reason), ..self }
    }

    /// No request of HTTP/1, and read all the same.
    const fn raw(self) -> Self {
        Self { raw_from: 0, ..self }
    }

    const fn unread(self) -> Self {
        Self { is_unread: true, ..self }
    }

    const fn port(self, port: u16) -> Self {
        Self { port: Some(port), ..self }
    }

    const fn refusal(self, refusal: &'static str) -> Self {
        Self { refusal: Some(refusal), ..self }
    }

    const fn then(self, then: &'static [Then]) -> Self {
        Self { then, ..self }
    }
}

const DOUBT: &str = "netramesh guesses and rewrites; netra forwards what two parsers could read \
                     differently as it came, and reads no further";
const BOOL: &str = "the error tag is a bool, not now a string and now a bool";
const WITHHELD: &str = "netramesh waits for a whole response, 4 KiB or a line; netra sends on what \
                        came";
const INTERIM: &str = "the span has the final status, not that of a 1xx";
const HEAD_SIZE: &str = "a response to HEAD has no body, whatever it announces";
const SERIALISED: &str =
    "netramesh writes heads anew: netra keeps every byte that it need not touch";
const NO_ANSWER: &str = "an exchange without an answer has a span all the same, with error";
const HALF_CLOSE: &str = "netramesh closes both ways at the first end: the reply is lost";
const RED: &str = "a probe must see red: a reset, not an empty answer";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Cases that are not here have to come out as they did with netramesh.
pub(crate) const ROWS: &[Row] = &[
    row("cfg-b3", &[Request, Spans], "netra reads W3C and B3 contexts"),
    row("cfg-ignored-pipelined", &[Request, Spans], "spans belong to their own requests"),
    row("cfg-tags-out", &[Spans], "mapped headers are tags of every span"),
    row("cfg-tags-traced", &[Spans], "mapped headers are tags of every span"),
    row("corr-same-reqid", &[Request], "one trace header, not two that contradict each other"),
    row("in-100-continue", &[Spans], INTERIM),
    row("in-103-early-hints", &[Spans], INTERIM),
    row("in-304", &[Response], SERIALISED),
    row("in-500", &[Spans], BOOL),
    row("in-abs-uri", &[Request], "the target stays in absolute form, and Host is the client's"),
    row("in-bad-escape-uri", &[Request, Spans], "a target is opaque text, and this is HTTP"),
    row("in-bad-header", &[Request, Spans], DOUBT).opaque(0, "bad_field"),
    row("in-bad-version", &[Request, Spans], DOUBT).opaque(0, "bad_version"),
    row("in-binary-no-lf", &[Delay], WITHHELD).opaque(0, "tls"),
    row("in-chunked-stream-timing", &[Delay], WITHHELD),
    row("in-cl-and-te", &[Request, Spans], DOUBT).opaque(0, "both_lengths"),
    row("in-cl-stream-timing", &[Delay], WITHHELD),
    row("in-client-abort", &[Spans], NO_ANSWER),
    row("in-client-half-close", &[Response, Spans], HALF_CLOSE)
        .then(&[Then::ServerSends(OK), Then::ServerCloses]),
    row("in-close-delimited-no-hdr", &[Response], SERIALISED),
    row("in-connect", &[Request, Response, Spans, Delay], "CONNECT is a tunnel after 2xx")
        .opaque(1, "connected"),
    row("in-debug-id-baggage", &[Request], "baggage passes as it came, once"),
    row("in-dup-cl", &[], "").opaque(0, "repeated_content_length"),
    row("in-early-413", &[Spans], "the size of a body is what came of it, not what was announced"),
    row("in-empty-ua", &[Request, Spans], SERIALISED),
    row("in-folded", &[Request, Spans], DOUBT).opaque(0, "obs_fold"),
    row("in-get-cl0", &[Request], SERIALISED),
    row("in-h2-preface", &[Request, Delay], "HTTP/2 passes as it is").raw(),
    row("in-head-chunked", &[Spans], HEAD_SIZE),
    row("in-head-keepalive", &[Request, Spans], HEAD_SIZE),
    row("in-head", &[Spans], HEAD_SIZE),
    row("in-hop-headers", &[Request], SERIALISED),
    row("in-http10-keepalive", &[Request], SERIALISED),
    row("in-http10", &[Request, Response], SERIALISED),
    row("in-leading-crlf", &[], "").opaque(0, "leading_empty_lines"),
    row("in-lf-only", &[Request, Spans], DOUBT).opaque(0, "bare_lf"),
    row("in-malformed-line", &[], "").opaque(0, "not_http"),
    row("in-malformed-tls", &[Delay], WITHHELD).opaque(0, "tls"),
    row("in-no-host", &[Request], SERIALISED),
    row("in-no-reason", &[Response], SERIALISED),
    row("in-no-ua", &[Request], SERIALISED),
    row("in-pipelined-2", &[Request, Spans], "each of pipelined requests has its own context"),
    row("in-pipelined-second-malformed", &[Request], "netramesh drops what it cannot read")
        .opaque(1, "not_http"),
    row("in-post-chunked", &[Request, Response], "chunks pass as they came, with extensions"),
    row("in-refused", &[End, Delay], RED),
    row("in-resp-malformed", &[Spans], NO_ANSWER).opaque(usize::MAX, "bad_status_line").unread(),
    row("in-resp-te-and-cl", &[Response, Spans], DOUBT).opaque(usize::MAX, "both_lengths").unread(),
    row("in-second-malformed", &[Delay], WITHHELD).opaque(1, "not_http"),
    row("in-server-close-no-resp", &[Spans], NO_ANSWER),
    row("in-server-first-on-http-port", &[], "").opaque(0, "server_first"),
    row("in-server-rst", &[Spans, End], "a reset passes as a reset, and the span says error"),
    row("in-te-identity", &[], "").opaque(0, "odd_transfer_encoding"),
    row("in-truncated-resp", &[Spans], "a response that is cut short is an error"),
    row("in-upgrade-refused", &[Request, Spans], "a refused upgrade was HTTP, and HTTP goes on"),
    row("in-upgrade-ws-list", &[Spans, Delay], "Connection is a list").opaque(1, "upgraded"),
    row("in-upgrade-ws", &[Request, Spans], "a request to upgrade is a request")
        .opaque(1, "upgraded"),
    row("in-utf8-uri", &[Request, Spans], SERIALISED),
    row("out-500", &[Spans], BOOL),
    row("out-client-timeout", &[Spans], NO_ANSWER),
    row("out-no-host", &[Request], SERIALISED),
    row("out-refused", &[End, Delay], RED),
    row("out-server-close-no-resp", &[Spans], NO_ANSWER),
    row("route-100", &[Spans], INTERIM),
    row("route-context", &[Request], "one trace header, not two that contradict each other"),
    row("route-dns", &[Request, Spans], "no route leads to this host's own loopback").port(8080),
    row("route-hdr-hostport", &[Request, Spans], "Host is compared with and without its port")
        .port(8091),
    row("route-hdr-spaces", &[Request, Spans], "blanks around pairs mean nothing").port(8091),
    row("route-http-server-first", &[Request, Response, Delay], "netramesh closes; netra passes")
        .opaque(0, "not_http")
        .then(&[Then::ServerSends("250\r\n")]),
    row("route-keepalive", &[Request], "the upstream is kept while the target stays"),
    row("route-malformed", &[Request, Response, Delay], "netramesh closes; netra passes")
        .opaque(0, "not_http")
        .port(8080)
        .then(&[Then::ServerSends("raw")]),
    row("route-pipelined", &[Request, Spans], "the upstream is kept, spans have their own context"),
    row("route-refused", &[Response, Spans, Delay], "502 with a reason, and a span")
        .port(1)
        .refusal("10.61.0.1:1: Connection refused (os error 111)"),
    row("route-tcp-half-close", &[Response, Delay], HALF_CLOSE),
    row("route-unresolvable", &[Response, Spans, Delay], "502 with a reason, and a span")
        .refusal("no.such.name.invalid:80: its name cannot be resolved"),
    row("route-upgrade", &[Request, Spans], "a request to upgrade is a request")
        .opaque(1, "upgraded"),
    row("tcp-client-half-close", &[Response, Delay], HALF_CLOSE),
    row("tcp-refused", &[End, Delay], RED),
    row("tcp-server-half-close", &[Request], HALF_CLOSE).then(&[Then::ClientSends("late")]),
];
