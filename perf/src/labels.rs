//! Label values of the metrics, each list by the index that the recorder's keys are made of.

/// Label values of the direction of a connection, by index.
pub const DIRECTIONS: [&str; 2] = ["inbound", "outbound"];
/// Label values of how a connection is treated, by index.
pub const PROTOCOLS: [&str; 2] = ["opaque", "http1"];
/// Label values of which way bytes went, by index.
pub const WAYS: [&str; 2] = ["request", "response"];
/// Label values of how a connection came to its end, by index.
pub const REASONS: [&str; 11] = [
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
/// Label values of why a connection stopped being HTTP, by index.
pub const OPAQUE_REASONS: [&str; 40] = [
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
    "held_too_much",
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
