//! Taking spans: requests of OTLP and of Jaeger's collector, datagrams of Jaeger's agent.

use crate::batch::Batch;
use crate::forward::{Form, Forward};
use crate::keeper::{Grant, Keeper, count};
use crate::reply::Reply;
use crate::wire::{Malformed, jaeger, otlp, otlp_json};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::{Body, Incoming},
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use std::{io::Read, time::Duration};
use tokio::{net::UdpSocket, time::timeout};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// By how much JSON may grow when it is read, to a power of two: `[],` becomes 32 bytes.
const JSON_GROWS: usize = 8;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Where spans go that were taken.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) keeper: Keeper,
    pub(crate) forward: Option<Forward>,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Malformed,
    TooLong,
    NoRoom,
    NotHere,
    WrongMethod,
    WrongKind,
}

/// A body as it came, and the room that it takes.
struct Taken {
    bytes: Vec<u8>,
    grant: Grant,
}

impl Receiver {
    /// Answers a request to one of the receivers' ports.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Reply {
        let is_grpc = is_kind(request.headers(), "application/grpc");
        let path = request.uri().path();
        let result = match path {
            EXPORT if is_grpc => self.grpc(request).await,
            "/v1/traces" => self.otlp(request).await,
            "/api/traces" => self.jaeger(request).await,
            "/" | "/healthz" if request.method() == Method::GET => {
                return Reply::text(StatusCode::OK, "netra collect takes spans here\n");
            }
            _ => Err(Refusal::NotHere),
        };
        match result {
            Ok(reply) => reply,
            Err(refusal) => {
                self.count(refusal);
                if is_grpc { refused_grpc(refusal) } else { refused(refusal) }
            }
        }
    }

    fn count(&self, refusal: Refusal) {
        let losses = &self.keeper.losses;
        match refusal {
            Refusal::Malformed | Refusal::WrongKind => count(&losses.malformed),
            Refusal::TooLong => count(&losses.too_long),
            Refusal::NoRoom => count(&losses.no_room),
            Refusal::NotHere | Refusal::WrongMethod => {}
        }
    }

    async fn otlp(&self, request: Request<Incoming>) -> Result<Reply, Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::WrongMethod);
        }
        let is_json = is_kind(request.headers(), "application/json");
        if !is_json && !is_kind(request.headers(), "application/x-protobuf") {
            return Err(Refusal::WrongKind);
        }
        let mut taken = self.body(request).await?;
        if is_json {
            self.room_for_json(&mut taken).await?;
        }
        let form = if is_json { Form::Json } else { Form::Protobuf };
        self.forward(form, &taken.bytes);
        let read = taken.bytes.len();
        let batch = if is_json { otlp_json::read(&taken.bytes) } else { otlp::read(taken.bytes) };
        let refused = self.hand_over(batch, taken.grant, read).await?;
        Ok(if is_json {
            let partial = format!("{{\"partialSuccess\":{{\"rejectedSpans\":\"{refused}\"}}}}");
            let body = if refused > 0 { partial } else { "{}".to_owned() };
            Reply::of(StatusCode::OK, "application/json", body.into())
        } else {
            let body = partial_success(refused);
            Reply::of(StatusCode::OK, "application/x-protobuf", body.into())
        })
    }

    /// What JSON becomes in memory is many times what it was.
    async fn room_for_json(&self, taken: &mut Taken) -> Result<(), Refusal> {
        let len = taken.bytes.len();
        // A body may have half of the room.
        if len > 2 * self.keeper.body_max() / JSON_GROWS {
            return Err(Refusal::TooLong);
        }
        let room = self.keeper.room(len * (JSON_GROWS - 1), &mut taken.grant);
        room.await.ok_or(Refusal::NoRoom)
    }

    async fn grpc(&self, request: Request<Incoming>) -> Result<Reply, Refusal> {
        let encoding = request.headers().get("grpc-encoding").cloned();
        let is_gzip = encoding.is_some_and(|encoding| encoding == "gzip");
        let mut taken = self.body(request).await?;
        let begin = taken.bytes.split_first_chunk::<5>().ok_or(Refusal::Malformed)?;
        let ([flag, len @ ..], message) = begin;
        if u32::from_be_bytes(*len) as usize != message.len() {
            return Err(Refusal::Malformed);
        }
        let message = match (flag, is_gzip) {
            (0, _) => {
                taken.bytes.drain(..5);
                taken.bytes
            }
            (1, true) => self.unpack(message, &mut taken.grant).await?,
            _ => return Err(Refusal::Malformed),
        };
        self.forward(Form::Protobuf, &message);
        let read = message.len();
        let refused = self.hand_over(otlp::read(message), taken.grant, read).await?;
        let answer = partial_success(refused);
        let len = u32::try_from(answer.len()).unwrap_or(0);
        let framed = [&[0][..], &len.to_be_bytes(), &answer].concat();
        Ok(Reply::of(StatusCode::OK, "application/grpc", framed.into()).with_grpc_status("0"))
    }

    async fn jaeger(&self, request: Request<Incoming>) -> Result<Reply, Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::WrongMethod);
        }
        // Such as a page of another host cannot send without asking.
        let kinds = ["application/x-thrift", "application/vnd.apache.thrift.binary"];
        if !kinds.iter().any(|kind| is_kind(request.headers(), kind)) {
            return Err(Refusal::WrongKind);
        }
        let taken = self.body(request).await?;
        let batch = jaeger::read_body(&taken.bytes);
        let read = taken.bytes.len();
        self.forward_batch(batch.as_ref().ok());
        self.hand_over(batch, taken.grant, read).await?;
        Ok(Reply::of(StatusCode::ACCEPTED, "text/plain", Bytes::new()))
    }

    async fn hand_over(
        &self,
        batch: Result<Batch, Malformed>,
        grant: Grant,
        read: usize,
    ) -> Result<u64, Refusal> {
        let batch = batch.map_err(|Malformed| Refusal::Malformed)?;
        let refused = batch.refused;
        self.keeper.take(batch, grant, read).await.ok_or(Refusal::NoRoom)?;
        Ok(refused)
    }

    fn forward(&self, form: Form, body: &[u8]) {
        if let Some(forward) = &self.forward {
            forward.send(form, body.to_vec(), &self.keeper.losses);
        }
    }

    fn forward_batch(&self, batch: Option<&Batch>) {
        if let (Some(forward), Some(batch)) = (&self.forward, batch) {
            forward.send_batch(batch, &self.keeper.losses);
        }
    }

    /// The whole body, unpacked, within what a body may weigh and the room that there is.
    async fn body(&self, request: Request<Incoming>) -> Result<Taken, Refusal> {
        let packed = match request.headers().get(CONTENT_ENCODING) {
            None => false,
            Some(encoding) if encoding == "identity" => false,
            Some(encoding) if encoding == "gzip" => true,
            Some(_) => return Err(Refusal::WrongKind),
        };
        let max = self.keeper.body_max();
        let body = request.into_body();
        let told = body.size_hint().lower();
        if told > max as u64 {
            return Err(Refusal::TooLong);
        }
        let mut grant = Grant::default();
        let read = self.gather(body, max, &mut grant);
        let bytes = timeout(BODY_TIMEOUT, read).await.map_err(|_| Refusal::Malformed)??;
        let bytes = if packed { self.unpack(&bytes, &mut grant).await? } else { bytes };
        Ok(Taken { bytes, grant })
    }

    async fn gather(
        &self,
        mut body: Incoming,
        max: usize,
        grant: &mut Grant,
    ) -> Result<Vec<u8>, Refusal> {
        let told = usize::try_from(body.size_hint().lower()).unwrap_or(0).min(1 << 20);
        let mut bytes = Vec::with_capacity(told);
        let mut granted = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::Malformed)?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > max {
                return Err(Refusal::TooLong);
            }
            bytes.extend_from_slice(&data);
            if bytes.capacity() > granted {
                let more = bytes.capacity() - granted;
                self.keeper.room(more, grant).await.ok_or(Refusal::NoRoom)?;
                granted = bytes.capacity();
            }
        }
        Ok(bytes)
    }

    /// No more than a body may weigh, whatever it was packed into.
    async fn unpack(&self, packed: &[u8], grant: &mut Grant) -> Result<Vec<u8>, Refusal> {
        let max = self.keeper.body_max();
        let mut bytes = Vec::new();
        let mut limited = GzDecoder::new(packed).take(max as u64 + 1);
        loop {
            // Room is asked for before it is taken.
            let piece = 256 << 10;
            self.keeper.room(piece, grant).await.ok_or(Refusal::NoRoom)?;
            let before = bytes.len();
            let read = limited.by_ref().take(piece as u64).read_to_end(&mut bytes);
            read.map_err(|_| Refusal::Malformed)?;
            if bytes.len() > max {
                return Err(Refusal::TooLong);
            }
            if bytes.len() == before {
                return Ok(bytes);
            }
        }
    }

    /// Takes datagrams for as long as the runtime lives.
    pub(crate) async fn take_datagrams(self, socket: UdpSocket) {
        let mut packet = vec![0; 1 << 16];
        loop {
            let Ok(len) = socket.recv(&mut packet).await else { continue };
            match jaeger::read_datagram(&packet[..len]) {
                Ok(batch) => {
                    self.forward_batch(Some(&batch));
                    if self.keeper.take_at_once(batch).is_none() {
                        count(&self.keeper.losses.no_room);
                    }
                }
                Err(Malformed) => count(&self.keeper.losses.malformed),
            }
        }
    }
}

fn is_kind(headers: &HeaderMap, wanted: &str) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.starts_with(wanted)
}

/// `ExportTraceServiceResponse`, which is empty where all was taken.
fn partial_success(refused: u64) -> Vec<u8> {
    if refused == 0 {
        return Vec::new();
    }
    let mut partial = vec![];
    prost::encoding::uint64::encode(1, &refused, &mut partial);
    let why = "spans without trace id or span id, or too many of them".to_owned();
    prost::encoding::string::encode(2, &why, &mut partial);
    let mut out = vec![];
    prost::encoding::bytes::encode(1, &partial, &mut out);
    out
}

fn refused(refusal: Refusal) -> Reply {
    let (status, text) = match refusal {
        Refusal::Malformed => (StatusCode::BAD_REQUEST, "this cannot be read\n"),
        Refusal::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "this is too long\n"),
        Refusal::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, "no room; come again\n"),
        Refusal::NotHere => (StatusCode::NOT_FOUND, "spans go to /v1/traces or /api/traces\n"),
        Refusal::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "only POST\n"),
        Refusal::WrongKind => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "application/x-protobuf, application/json or application/x-thrift, as it is or as gzip\n",
        ),
    };
    let reply = Reply::text(status, text);
    if refusal == Refusal::NoRoom { reply.with("retry-after", "1") } else { reply }
}

fn refused_grpc(refusal: Refusal) -> Reply {
    let status = match refusal {
        Refusal::Malformed | Refusal::WrongKind => "3",
        Refusal::TooLong => "8",
        // A code that exporters try again after.
        Refusal::NoRoom => "14",
        Refusal::NotHere | Refusal::WrongMethod => "12",
    };
    Reply::of(StatusCode::OK, "application/grpc", Bytes::new()).with_grpc_status(status)
}
