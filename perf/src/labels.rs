//! Label values of the metrics, each list by the index that the recorder's keys are made of.

/// Label values of the direction of a connection, by index.
pub const DIRECTIONS: [&str; 2] = ["inbound", "outbound"];
/// Label values of how a connection is treated, by index; the last is for all protocols that are not
/// built in.
pub const PROTOCOLS: [&str; 17] = [
    "opaque",
    "http1",
    "redis",
    "dubbo",
    "thrift",
    "postgresql",
    "kafka",
    "memcached",
    "mongodb",
    "mysql",
    "brpc",
    "trpc",
    "nats",
    "mqtt",
    "zookeeper",
    "amqp",
    "private",
];
/// Label values of how an exchange of a protocol beside HTTP/1 ended, by index: as it should
/// (answered, or nobody was to answer), answered with an error, or never answered whole.
pub const EXCHANGE_OUTCOMES: [&str; 3] = ["ok", "error", "unanswered"];
/// Label values of which way bytes went, by index.
pub const WAYS: [&str; 2] = ["request", "response"];
/// Label values of how a connection came to its end, by index.
pub const REASONS: [&str; 14] = [
    "eof",
    "downstream_reset",
    "upstream_reset",
    "downstream_error",
    "upstream_error",
    "dial_failed",
    "dial_timeout",
    "half_close_linger",
    "idle_timeout",
    "drain_deadline",
    "netra_error",
    "refused",
    "drained",
    "answer_timeout",
];
/// Label values of why an upstream could not be dialled, by index.
pub const ERRNOS: [&str; 7] = [
    "ECONNREFUSED",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "ETIMEDOUT",
    "EADDRNOTAVAIL",
    "EMFILE",
    "other",
];

/// Label values of a request's method, by index; the last is for all others.
pub const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "other"];
/// Label values of the class of a response's status, by index; the first is for no response.
pub const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Label values of what became of a span on its shard, by index.
pub const SPAN_RESULTS: [&str; 3] = ["recorded", "dropped_open", "dropped_ring"];
/// Label values of what is done for want of memory, by index, in the order in which it is done.
pub const SHED_STEPS: [&str; 3] = ["heads", "buffers", "accepts"];
/// Label values of what came of giving pairs to a message, by index.
pub const EDIT_RESULTS: [&str; 6] = ["done", "never", "no_place", "behind", "full", "bad_text"];
/// Label values of why a message was refused, by index.
pub const MESSAGE_REFUSALS: [&str; 7] =
    ["denied", "limited", "no_route", "aborted", "unreachable", "overflow", "timed_out"];
/// Label values of why an answer was no longer waited for, by index.
pub const ANSWER_TIMEOUTS: [&str; 2] = ["first_byte", "idle"];
/// Label values of what became of a copy that a mirror was to have, by index.
pub const MIRROR_OUTCOMES: [&str; 7] =
    ["sent", "too_long", "session", "slow", "unreachable", "no_room", "cut"];
/// Label values of why a route was not followed, by index.
pub const ROUTE_REFUSALS: [&str; 6] =
    ["source", "request_id", "target", "address", "own_port", "http2"];
/// Label values of why a request was not sent elsewhere, by index.
pub const ROUTE_STAYS: [&str; 4] = ["protocol", "session", "subscription", "transaction"];
/// Label values of what is counted of HTTP/2 alone, by index.
pub const HTTP2_EVENTS: [&str; 4] = ["connection", "field_kept", "stream_untold", "goodbye"];
/// Label values of why a connection stopped being HTTP, by index.
pub const OPAQUE_REASONS: [&str; 44] = [
    "bad_status_line",
    "bad_request_line",
    "bad_version",
    "bad_field",
    "bare_cr",
    "bare_lf",
    "bad_chunk_end",
    "bad_chunk_extension",
    "bad_chunk_size",
    "bad_content_length",
    "bad_trailer",
    "both_lengths",
    "chunk_extensions_too_long",
    "huge_chunk",
    "connected",
    "connect_with_body",
    "early_after_upgrade",
    "ended_in_head",
    "head_too_long",
    "head_too_slow",
    "held_too_much",
    "http2_continuations",
    "http2_fields",
    "http2_frame",
    "http2_preface",
    "huge_content_length",
    "leading_empty_lines",
    "not_http",
    "nul",
    "obs_fold",
    "odd_framing_name",
    "odd_method",
    "odd_transfer_encoding",
    "pipeline_too_deep",
    "repeated_content_length",
    "repeated_transfer_encoding",
    "response_without_request",
    "server_first",
    "space_before_colon",
    "tls",
    "too_many_fields",
    "trailers_too_long",
    "transfer_encoding_in_http10",
    "upgraded",
];
/// Label values of why a connection of another protocol is no longer read, by index.
pub const TUNNEL_REASONS: [&str; 14] = [
    "answer_without_request",
    "compressed",
    "head_too_slow",
    "held_too_much",
    "malformed",
    "nested_too_deep",
    "not_this_protocol",
    "replication",
    "replies_unclear",
    "server_first",
    "tls",
    "too_large",
    "too_many_open",
    "unsupported",
];
/// Label values of how it is known what a call belongs to, by index.
pub const JOINS: [&str; 7] =
    ["explicit", "exclusive", "contained", "tx", "affine", "ambiguous", "none"];
