//! What a span of HTTP/2 tells beside what every span of HTTP tells.

/// Facts of a stream, and of the gRPC call that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamFacts {
    /// It is a call of gRPC.
    pub is_grpc: bool,
    /// `grpc-status`, where the server has said one.
    pub grpc_status: Option<u16>,
    /// Messages of the request and of the response: of gRPC.
    pub messages: [u32; 2],
    /// From the head of the request to that of the response; 0 where none came.
    pub first_byte_ns: u64,
    /// The error with which the stream was cut, or was not looked at.
    pub reset_code: Option<u32>,
}

/// Bytes of facts as a span keeps them.
const BYTES: usize = 25;

const GRPC: u8 = 1;
const STATUS: u8 = 2;
const RESET: u8 = 4;

impl StreamFacts {
    /// As bytes, always so many.
    pub fn to_bytes(self) -> [u8; BYTES] {
        let has = |bit: u8, is: bool| if is { bit } else { 0 };
        let mut bytes = [0; BYTES];
        bytes[0] = has(GRPC, self.is_grpc)
            | has(STATUS, self.grpc_status.is_some())
            | has(RESET, self.reset_code.is_some());
        bytes[1..3].copy_from_slice(&self.grpc_status.unwrap_or(0).to_le_bytes());
        bytes[3..7].copy_from_slice(&self.messages[0].to_le_bytes());
        bytes[7..11].copy_from_slice(&self.messages[1].to_le_bytes());
        bytes[11..19].copy_from_slice(&self.first_byte_ns.to_le_bytes());
        bytes[19..23].copy_from_slice(&self.reset_code.unwrap_or(0).to_le_bytes());
        bytes
    }

    /// The facts that these bytes are.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |it| u32::from_le_bytes(*it));
        let has = |bit: u8| bytes[0] & bit != 0;
        Some(Self {
            is_grpc: has(GRPC),
            grpc_status: has(STATUS).then(|| u16::from_le_bytes([bytes[1], bytes[2]])),
            messages: [word(3), word(7)],
            first_byte_ns: bytes[11..].first_chunk().map_or(0, |it| u64::from_le_bytes(*it)),
            reset_code: has(RESET).then(|| word(19)),
        })
    }
}

/// Names of gRPC's statuses, by number.
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Whether a call that ends with this status is an error: to a client all but OK are; to a server
/// those that are its own doing (OpenTelemetry's convention for gRPC).
pub fn is_grpc_error(status: u16, is_server: bool) -> bool {
    if is_server { matches!(status, 2 | 4 | 12..=15) } else { status != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_back() {
        let all = StreamFacts {
            is_grpc: true,
            grpc_status: Some(16),
            messages: [u32::MAX, 2],
            first_byte_ns: u64::MAX - 1,
            reset_code: Some(8),
        };
        let reset = StreamFacts { reset_code: Some(0), ..StreamFacts::default() };
        for facts in [StreamFacts::default(), all, reset] {
            assert_eq!(StreamFacts::of_bytes(&facts.to_bytes()), Some(facts));
        }
        assert_eq!(StreamFacts::of_bytes(b"short"), None);
    }

    #[test]
    fn whose_doing_a_status_is() {
        let of = |is_server| (0..17).filter(move |it| is_grpc_error(*it, is_server));
        assert!(of(false).eq(1..17));
        assert!(of(true).eq([2, 4, 12, 13, 14, 15]));
        assert_eq!(GRPC_STATUSES[14], "UNAVAILABLE");
    }
}
