//! Why a connection stopped being HTTP and became a relay of bytes.

use crate::reasons::reasons;

reasons! {
    " Why a connection turned opaque: the label of `netra_opaque_total`."
    ""
    " Opaque is for ever and for both directions: what was held goes out as it came, then"
    " bytes are relayed and not looked at. It is never an error towards the peers.";

    /// A response head that begins neither with HTTP/1.0 nor HTTP/1.1 and a status code.
    BadStatusLine = "bad_status_line",
    /// A request line with a byte no request line may have.
    BadRequestLine = "bad_request_line",
    /// An HTTP version other than 1.0 and 1.1.
    BadVersion = "bad_version",
    /// A line of a head that is no header field: empty or odd name, control byte in the value.
    BadField = "bad_field",
    /// A CR without LF, or somewhere other than at the end of a line.
    BareCr = "bare_cr",
    /// An LF without CR before it.
    BareLf = "bare_lf",
    /// A chunk that is not closed by CRLF.
    BadChunkEnd = "bad_chunk_end",
    /// A chunk extension with a control byte or an open quotation.
    BadChunkExtension = "bad_chunk_extension",
    /// A chunk size that is empty, signed, padded or no hexadecimal number.
    BadChunkSize = "bad_chunk_size",
    /// A Content-Length that is empty, signed, padded, a list or no decimal number.
    BadContentLength = "bad_content_length",
    /// A line of a trailer section that is no header field.
    BadTrailer = "bad_trailer",
    /// Content-Length and Transfer-Encoding in one head.
    BothLengths = "both_lengths",
    /// More bytes of chunk extensions than the limit.
    ChunkExtensionsTooLong = "chunk_extensions_too_long",
    /// A chunk size beyond 63 bits, or more than 16 digits.
    HugeChunk = "huge_chunk",
    /// CONNECT was answered with 2xx: a tunnel from here on.
    Connected = "connected",
    /// CONNECT with a body, which some servers read and others take for tunnel bytes.
    ConnectWithBody = "connect_with_body",
    /// Bytes came after a request to upgrade and before its answer: HTTP or the new protocol?
    EarlyAfterUpgrade = "early_after_upgrade",
    /// The peer ended its side within a head.
    EndedInHead = "ended_in_head",
    /// A head longer than the limit.
    HeadTooLong = "head_too_long",
    /// A head that was not whole in time.
    HeadTooSlow = "head_too_slow",
    /// The heads that came in pieces, of all connections together, are more than the limit, or
    /// memory is near its end.
    HeldTooMuch = "held_too_much",
    /// HTTP/2: a block of fields in more frames than anybody needs.
    Http2Continuations = "http2_continuations",
    /// HTTP/2: fields that no encoder writes, or a table larger than is followed.
    Http2Fields = "http2_fields",
    /// HTTP/2: a frame where none of its kind can be, or of a length that none has.
    Http2Frame = "http2_frame",
    /// The HTTP/2 connection preface, or at least its method, behind a request of HTTP/1.
    Http2Preface = "http2_preface",
    /// A Content-Length beyond 63 bits.
    HugeContentLength = "huge_content_length",
    /// More than one empty line before a request line.
    LeadingEmptyLines = "leading_empty_lines",
    /// The first bytes are those of no HTTP/1 request.
    NotHttp = "not_http",
    /// A NUL in a head.
    Nul = "nul",
    /// A header field continued on the next line.
    ObsFold = "obs_fold",
    /// A field name that a lax parser could take for Content-Length or Transfer-Encoding.
    OddFramingName = "odd_framing_name",
    /// HEAD or CONNECT in another case: servers disagree about what follows.
    OddMethod = "odd_method",
    /// A Transfer-Encoding other than exactly `chunked`.
    OddTransferEncoding = "odd_transfer_encoding",
    /// More requests in flight than the limit.
    PipelineTooDeep = "pipeline_too_deep",
    /// More than one Content-Length line.
    RepeatedContentLength = "repeated_content_length",
    /// More than one Transfer-Encoding line.
    RepeatedTransferEncoding = "repeated_transfer_encoding",
    /// A response with no request left to answer.
    ResponseWithoutRequest = "response_without_request",
    /// The server spoke before any request.
    ServerFirst = "server_first",
    /// A blank between a field name and its colon.
    SpaceBeforeColon = "space_before_colon",
    /// A TLS record.
    Tls = "tls",
    /// More header fields than the limit.
    TooManyFields = "too_many_fields",
    /// A trailer section longer than the limit.
    TrailersTooLong = "trailers_too_long",
    /// Transfer-Encoding in an HTTP/1.0 message.
    TransferEncodingInHttp10 = "transfer_encoding_in_http10",
    /// 101 Switching Protocols: another protocol from here on.
    Upgraded = "upgraded",
}
