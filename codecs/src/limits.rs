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
    /// Bytes of chunk extensions in one body, all chunks together.
    pub chunk_extension_bytes_max: u32,
    /// Bytes of the trailer section of one body.
    pub trailer_bytes_max: u32,
    /// Bytes of head storage that a half keeps between two heads that came in pieces.
    pub held_keep_bytes: u32,
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
        chunk_extension_bytes_max: 16 * 1024,
        trailer_bytes_max: 16 * 1024,
        held_keep_bytes: 4 * 1024,
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
