//! What the codes of answers are called.

use crate::codec::Outcome;

/// Of MQTT 5, and of a subscription that is refused in any version:
/// <https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html#_Toc3901031>.
pub(super) fn name(code: u8) -> &'static str {
    match code {
        0x80 => "unspecified",
        0x81 => "malformed_packet",
        0x82 => "protocol_error",
        0x83 => "implementation_specific",
        0x84 => "unsupported_protocol_version",
        0x85 => "client_identifier_not_valid",
        0x86 => "bad_user_name_or_password",
        0x87 => "not_authorized",
        0x88 => "server_unavailable",
        0x89 => "server_busy",
        0x8a => "banned",
        0x8c => "bad_authentication_method",
        0x8f => "topic_filter_invalid",
        0x90 => "topic_name_invalid",
        0x91 => "packet_identifier_in_use",
        0x92 => "packet_identifier_not_found",
        0x95 => "packet_too_large",
        0x97 => "quota_exceeded",
        0x99 => "payload_format_invalid",
        0x9a => "retain_not_supported",
        0x9b => "qos_not_supported",
        0x9c => "use_another_server",
        0x9d => "server_moved",
        0x9e => "shared_subscriptions_not_supported",
        0x9f => "connection_rate_exceeded",
        0xa1 => "subscription_identifiers_not_supported",
        0xa2 => "wildcard_subscriptions_not_supported",
        _ => "other",
    }
}

/// Of a connection that a server of an older version refuses.
pub(super) fn refused(code: u8) -> &'static str {
    match code {
        1 => "unsupported_protocol_version",
        2 => "client_identifier_not_valid",
        3 => "server_unavailable",
        4 => "bad_user_name_or_password",
        5 => "not_authorized",
        _ => "other",
    }
}

/// Whether the protocol was not kept to, or the server says no.
pub(super) fn outcome(code: u8) -> Outcome {
    match code {
        1 | 0x81 | 0x82 | 0x84 | 0x91 | 0x92 => Outcome::ProtocolError,
        _ => Outcome::AppError,
    }
}
