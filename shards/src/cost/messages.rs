//! One request and its answer of each protocol, as a client and a server of it would send them.

use netra_codecs::tap::Protocol;

/// As HTTP/1.
pub(super) const HTTP: Conversation =
    Conversation { request: REQUEST, response: RESPONSE, opening: None };

/// As gRPC: a unary call as grpcio makes it, when everything that can be is in the tables.
pub(super) const GRPC: Conversation = Conversation {
    request: b"\0\0\x1a\x01\x04\0\0\0\0\x83\x86\xc3\xc2\xc1\xc0\xbf\xbe\
        \0\x0cgrpc-timeout\x03999\0\0\x45\0\x01\0\0\0\0\0\0\0\0\x40\
        0123456789012345678901234567890123456789012345678901234567890123",
    response: b"\0\0\x03\x01\x04\0\0\0\0\x88\xc0\xbf\0\0\x45\0\0\0\0\0\0\0\0\0\0\x40\
        0123456789012345678901234567890123456789012345678901234567890123\
        \0\0\x01\x01\x05\0\0\0\0\xbe",
    opening: Some([
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
        \0\0\xb0\x01\x05\0\0\0\x01\x83\x86\
        \x44\x17/shop.v1.Orders/GetItem\x41\x23orders.shop.svc.cluster.local:50051\
        \x40\x14grpc-accept-encoding\x17identity, deflate, gzip\
        \x40\x02te\x08trailers\x5f\x10application/grpc\
        \x7a\x21grpc-python/1.85.3 grpc-c/54.0.0 ",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x50\x01\x05\0\0\0\x01\x88\x5f\x10application/grpc\
        \x40\x14grpc-accept-encoding\x17identity, deflate, gzip\x40\x0bgrpc-status\x010",
    ]),
};

pub(super) const REQUEST: &[u8] = b"GET /api/v1/orders/12345?expand=items HTTP/1.1\r\n\
    Host: orders.shop.svc.cluster.local\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
    Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\n\
    X-Request-Id: 4f0c7a52-6b1e-4e55-9a7b-3a2d1f0e9c88\r\nCookie: session=abcdef0123456789\r\n\r\n";
pub(super) const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Content-Length: 64\r\nDate: Thu, 26 Nov 2026 00:00:00 GMT\r\n\r\n\
    0123456789012345678901234567890123456789012345678901234567890123";

/// What passes in a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conversation {
    pub(super) request: &'static [u8],
    pub(super) response: &'static [u8],
    /// What comes before, once, and then the frames of each turn are a stream of their own.
    pub(super) opening: Option<[&'static [u8]; 2]>,
}

impl Conversation {
    /// `GET` of a short value; a call of one string with attachments, as Java sends it, in hessian2;
    /// a call of 64 bytes that is answered with 256, framed and binary; a record that is
    /// produced. The others set a connection up first, which a request that comes again and again cannot do.
    pub(super) fn of(protocol: Protocol) -> Option<Self> {
        let (request, response): (&[u8], &[u8]) = match protocol {
            Protocol::Redis => {
                (b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000012345\r\n", b"$3\r\nxxx\r\n")
            }
            Protocol::Dubbo => (
                b"\xda\xbb\xc2\0\0\0\0\0\0\0\0\x01\0\0\0\xa5\
                    \x052.0.2\x1dorg.apache.dubbo.demo.DemoSvc\x050.0.0\x08sayHello\
                    \x12Ljava/lang/String;\x03joeH\x04path\x1dorg.apache.dubbo.demo.DemoSvc\
                    \x09interface\x1dorg.apache.dubbo.demo.DemoSvc\x07version\x050.0.0Z",
                b"\xda\xbb\x02\x14\0\0\0\0\0\0\0\x01\0\0\0\x1e\
                    \x91\x1cyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
            ),
            Protocol::Thrift => (
                b"\0\0\0\x59\x80\x01\0\x01\0\0\0\x05hello\0\0\0\x01\x0b\0\x01\0\0\0\x40\
                    0123456789012345678901234567890123456789012345678901234567890123\0",
                b"\0\0\x01\x19\x80\x01\0\x02\0\0\0\x05hello\0\0\0\x01\x0b\0\0\0\0\x01\0\
                    0123456789012345678901234567890123456789012345678901234567890123\
                    0123456789012345678901234567890123456789012345678901234567890123\
                    0123456789012345678901234567890123456789012345678901234567890123\
                    0123456789012345678901234567890123456789012345678901234567890123\0",
            ),
            Protocol::Kafka => (
                b"\0\0\0\x73\0\0\0\x07\0\0\0\x01\0\x04shop\xff\xff\0\x01\0\0\x75\x30\
                    \0\0\0\x01\0\x06orders\0\0\0\x01\0\0\0\0\0\0\0\x45\
                    \0\0\0\0\0\0\0\0\0\0\0\x39\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\
                    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
                    \0\0\0\x01\x0e\0\0\0\x01\x02v\0",
                b"\0\0\0\x36\0\0\0\x01\0\0\0\x01\0\x06orders\0\0\0\x01\
                    \0\0\0\0\0\0\0\0\0\0\0\0\0\x07\xff\xff\xff\xff\xff\xff\xff\xff\
                    \0\0\0\0\0\0\0\0\0\0\0\0",
            ),
            _ => return None,
        };
        Some(Self { request, response, opening: None })
    }
}
