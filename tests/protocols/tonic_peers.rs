//! gRPC as tonic speaks it, the library of Rust: its server in the pod, its client outside.

use super::http2::{calls, expected, read_along};
use super::*;
use bytes::{Buf as _, BufMut as _};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Iter, StreamExt as _};
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::MetadataValue;
use tonic::server::{
    ClientStreamingService, Grpc, ServerStreamingService, StreamingService, UnaryService,
};
use tonic::transport::{Channel, Endpoint, Server as Transport};
use tonic::{Request, Response, Status, Streaming};

type Message = Vec<u8>;

/// Messages as they are: no code is generated for them.
#[derive(Clone, Copy, Debug, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Message;
    type Decode = Message;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Message;
    type Error = Status;

    fn encode(&mut self, message: Message, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Message;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Message>, Status> {
        let mut message = vec![0; bytes.remaining()];
        bytes.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}

/// What the server does, by the name of the call.
#[derive(Clone, Copy, Debug)]
struct Cart;

impl UnaryService<Message> for Cart {
    type Response = Message;
    type Future = BoxFuture<Response<Message>, Status>;

    fn call(&mut self, request: Request<Message>) -> Self::Future {
        Box::pin(async move {
            let (told, _, message) = request.into_parts();
            match &message[..] {
                b"missing" => return Err(Status::not_found("no such thing: 5 \u{20ac}")),
                b"slow" => tokio::time::sleep(Duration::from_secs(5)).await,
                _ => {}
            }
            let mut response = Response::new(message);
            if let Some(told) = told.get("told") {
                response.metadata_mut().insert("seen", told.clone());
            }
            Ok(response)
        })
    }
}

impl ServerStreamingService<Message> for Cart {
    type Response = Message;
    type ResponseStream = ReceiverStream<Result<Message, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Message>) -> Self::Future {
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(4);
            let count = match &request.into_inner()[..] {
                b"forever" => 1000,
                _ => 100,
            };
            tokio::spawn(async move {
                for n in 0..count {
                    if count == 1000 {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    if sender.send(Ok(n.to_string().into_bytes())).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Response::new(ReceiverStream::new(receiver)))
        })
    }
}

impl ClientStreamingService<Message> for Cart {
    type Response = Message;
    type Future = BoxFuture<Response<Message>, Status>;

    fn call(&mut self, request: Request<Streaming<Message>>) -> Self::Future {
        Box::pin(async move {
            let (mut messages, mut sum) = (request.into_inner(), 0);
            while let Some(message) = messages.message().await? {
                sum += message.len();
            }
            Ok(Response::new(sum.to_string().into_bytes()))
        })
    }
}

impl StreamingService<Message> for Cart {
    type Response = Message;
    type ResponseStream = Streaming<Message>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Message>>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

/// The calls by their paths, as generated code has them.
#[derive(Clone, Copy, Debug)]
struct Routes;

impl Service<http::Request<Body>> for Routes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(Plain);
            Ok(match request.uri().path() {
                "/shop.Cart/Unary" | "/shop.Cart/Slow" => grpc.unary(Cart, request).await,
                "/shop.Cart/ServerStream" => grpc.server_streaming(Cart, request).await,
                "/shop.Cart/ClientStream" => grpc.client_streaming(Cart, request).await,
                "/shop.Cart/BothStream" => grpc.streaming(Cart, request).await,
                _ => Status::unimplemented("nowhere").into_http(),
            })
        })
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Serves in the pod until the answer is dropped.
fn serve(world: &World, address: SocketAddr) -> oneshot::Sender<()> {
    let listener = world.pod.enter(|| TcpListener::bind(address)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let (stop, stopped) = oneshot::channel();
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let incoming = TcpListenerStream::new(listener);
            tokio::select! {
                served = Transport::builder().serve_with_incoming(Routes, incoming) => {
                    served.expect("it serves");
                }
                _ = stopped => {}
            }
        });
    });
    stop
}

async fn unary(
    channel: Channel,
    path: &'static str,
    request: Request<Message>,
) -> Result<Response<Message>, Status> {
    let mut client = Client::new(channel);
    client.ready().await.expect("a connection");
    client.unary(request, http::uri::PathAndQuery::from_static(path), Plain).await
}

fn numbers(count: usize) -> Iter<std::vec::IntoIter<Message>> {
    tokio_stream::iter((0..count).map(|n| n.to_string().into_bytes()).collect::<Vec<_>>())
}

/// All messages of an answer.
async fn all(answer: Response<Streaming<Message>>) -> Result<Vec<Message>, Status> {
    answer.into_inner().collect::<Result<Vec<_>, _>>().await
}

/// The day of a client: what it has seen.
async fn day(address: SocketAddr) -> String {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    let channel = endpoint.connect().await.expect("a connection");
    let mut said = Vec::new();
    let call = "/shop.Cart/Unary";
    for n in 0..20 {
        let mut request = Request::new(n.to_string().into_bytes());
        let told = "x".repeat(300);
        request.metadata_mut().insert("told", told.parse().expect("ASCII"));
        request.metadata_mut().insert_bin("some-bin", MetadataValue::from_bytes(b"\0\x01\x02"));
        let answer = unary(channel.clone(), call, request).await.expect("an answer");
        let seen = answer.metadata().get("seen").map(|seen| seen.as_bytes() == told.as_bytes());
        said.push(format!("unary {:?} {seen:?}", answer.get_ref()));
    }
    let large = vec![b'l'; 1_000_000];
    let answer = unary(channel.clone(), call, Request::new(large.clone())).await;
    said.push(format!("large {}", answer.expect("an answer").into_inner() == large));
    let missing = unary(channel.clone(), call, Request::new(b"missing".to_vec())).await;
    let missing = missing.expect_err("there is none");
    said.push(format!("missing {:?} {}", missing.code(), missing.message()));
    let nowhere = unary(channel.clone(), "/shop.Cart/Nowhere", Request::new(vec![])).await;
    said.push(format!("nowhere {:?}", nowhere.expect_err("there is none").code()));
    let mut slow = Request::new(b"slow".to_vec());
    slow.set_timeout(Duration::from_millis(300));
    said.push(format!("late {}", unary(channel.clone(), "/shop.Cart/Slow", slow).await.is_err()));
    let mut client = Client::new(channel.clone());
    let path = http::uri::PathAndQuery::from_static;
    for asked in ["100", "forever"] {
        client.ready().await.expect("a connection");
        let request = Request::new(asked.as_bytes().to_vec());
        let answer = client.server_streaming(request, path("/shop.Cart/ServerStream"), Plain).await;
        let answer = answer.expect("an answer");
        if asked == "100" {
            said.push(format!("out {:?}", all(answer).await));
        } else {
            // What is dropped is cancelled.
            said.push(format!("forever {:?}", answer.into_inner().message().await));
        }
    }
    client.ready().await.expect("a connection");
    let into = path("/shop.Cart/ClientStream");
    let answer = client.client_streaming(Request::new(numbers(50)), into, Plain).await;
    said.push(format!("into {:?}", answer.expect("an answer").into_inner()));
    client.ready().await.expect("a connection");
    let both = path("/shop.Cart/BothStream");
    let answer = client.streaming(Request::new(numbers(50)), both, Plain).await;
    said.push(format!("both {:?}", all(answer.expect("an answer")).await));
    let mut many = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let channel = channel.clone();
        many.spawn(async move {
            for _ in 0..25 {
                let answer = unary(channel.clone(), call, Request::new(b"many".to_vec())).await;
                assert_eq!(answer.expect("an answer").into_inner(), b"many");
            }
        });
    }
    many.join_all().await;
    said.join("\n")
}

/// What its client sees stays the same, and every call has a span that says what the client knows of it.
#[test]
fn grpc_as_tonic_speaks_it() {
    let Some(world) = World::new() else { return };
    let address = SocketAddr::from((POD_V4, 50051));
    let _server = serve(&world, address);
    let load = || world.client.enter(|| runtime().block_on(day(address)));
    let all = expected([
        ("Unary", "OK", "", 20 + 1 + 200),
        ("Unary", "NOT_FOUND", "", 1),
        ("Nowhere", "UNIMPLEMENTED", "UNIMPLEMENTED", 1),
        ("ServerStream", "OK", "", 1),
        ("ServerStream", "", "downstream_reset", 1),
        ("ClientStream", "OK", "", 1),
        ("BothStream", "OK", "", 1),
    ]);
    compare_where(&world, ("NETRA_HTTP_PORTS", "50051"), load, |netra, sink| {
        let scrape = read_along(netra)?;
        let count = 1 + all.values().sum::<u64>();
        let spans = sink.take(usize::try_from(count).expect("few"))?;
        // Client and server of tonic both keep to the deadline that the client has set: which of them
        // ends the call is a race.
        let (late, others): (Vec<_>, Vec<_>) =
            spans.into_iter().partition(|span| span.tag("rpc.method").ends_with("/Slow"));
        let ends =
            late.iter().map(|span| (span.tag("rpc.response.status_code"), span.tag("error.type")));
        let ends: Vec<_> = ends.collect();
        let is_late = match &ends[..] {
            [(status, error)] => status == "CANCELLED" || error == "deadline",
            _ => false,
        };
        if !is_late || calls(&others) != all {
            return Err(format!("late {ends:?}, others {:#?}", calls(&others)));
        }
        let asked = scrape.sum("netra_http_requests_total", &[("method", "POST")]);
        if asked == count { Ok(()) } else { Err(format!("{asked} requests, {count} spans")) }
    });
}
