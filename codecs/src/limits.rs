//! Every cap of this crate, in one struct.

/// The number of header fields a [`HeadReader`](crate::h1::HeadReader) has room for, whatever
/// [`Limits::headers_max`] says.
pub const HEADERS_CAP: usize = 256;

/// All caps of the codecs. What goes beyond one of them is relayed as opaque bytes, never refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request or response head, its final empty line included.
    pub head_bytes_max: u32,
    /// Header fields of a head; more than [`HEADERS_CAP`] counts as [`HEADERS_CAP`].
    pub headers_max: u16,
    /// Bytes of a method; the longest registered one has 17.
    pub method_bytes_max: u16,
    /// Requests of one connection that wait for the end of their response.
    pub exchanges_max: u16,
    /// Streams of one HTTP/2 connection that are told of at a time.
    pub streams_max: u16,
    /// Bytes of chunk extensions in one body, all chunks together.
    pub chunk_extension_bytes_max: u32,
    /// Bytes of the trailer section of one body.
    pub trailer_bytes_max: u32,
    /// Bytes of head storage that a half keeps between two heads that came in pieces.
    pub held_keep_bytes: u32,
    /// Requests of one tapped connection that wait for their answer: pipelines of Redis are long.
    pub open_max: u32,
    /// Bytes of the beginning of a tapped message that are read: what lies behind is not looked at.
    pub message_head_bytes_max: u32,
    /// Bytes that a tapped message, or a value of Redis, may say it has.
    pub message_bytes_max: u64,
    /// Prepared statements of one tapped connection whose text is remembered.
    pub statements_max: u16,
    /// Entries of a shard's map from request id to trace context.
    pub contexts_max: u32,
    /// Milliseconds for which an entry of that map is found.
    pub context_ttl_ms: u32,
}

impl Limits {
    /// The starting values of the design.
    pub const DEFAULT: Self = Self {
        head_bytes_max: 64 * 1024,
        headers_max: 256,
        method_bytes_max: 32,
        exchanges_max: 32,
        streams_max: 1024,
        chunk_extension_bytes_max: 16 * 1024,
        trailer_bytes_max: 16 * 1024,
        held_keep_bytes: 4 * 1024,
        open_max: 10_000,
        message_head_bytes_max: 16 * 1024,
        message_bytes_max: 1 << 30,
        statements_max: 256,
        contexts_max: 32_768,
        context_ttl_ms: 5_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const _: () = assert!(Limits::DEFAULT.headers_max as usize <= HEADERS_CAP);
const _: () = assert!(Limits::DEFAULT.held_keep_bytes <= Limits::DEFAULT.head_bytes_max);
const _: () = assert!(Limits::DEFAULT.trailer_bytes_max <= Limits::DEFAULT.head_bytes_max);
