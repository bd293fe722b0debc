//! Handing spans on to another receiver: what came as OTLP goes as it came, Jaeger's thrift as OTLP.
//! One request at a time, a bounded queue; what does not fit or is refused is counted.

use crate::batch::{Batch, Head, Item, Text, Value};
use crate::keeper::{Losses, count};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use prost::encoding::{WireType, bool, double, encode_key, encode_varint, fixed64, int64, string};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Protobuf,
    Json,
}

/// The way to the other receiver.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    queue: mpsc::Sender<(Form, Vec<u8>)>,
    room: Arc<tokio::sync::Semaphore>,
}

const WAITING_MAX: usize = 256;
const PATIENCE: Duration = Duration::from_secs(10);
const TRIES: u32 = 4;

impl Forward {
    /// Begins to send to `url`; requests that wait weigh no more than `bytes_max`.
    pub(crate) fn start(url: Uri, bytes_max: usize, losses: Arc<Losses>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(Form, Vec<u8>)>(WAITING_MAX);
        let room = Arc::new(tokio::sync::Semaphore::new(bytes_max / 1024));
        let freed = Arc::clone(&room);
        tokio::spawn(async move {
            let mut connection = None;
            while let Some((form, body)) = waiting.recv().await {
                let units = units(&body);
                let body = Bytes::from(body);
                let mut is_sent = false;
                for attempt in 0..TRIES {
                    match send(&url, &mut connection, form, body.clone()).await {
                        Sent::Taken => is_sent = true,
                        Sent::Refused => {}
                        Sent::Failed => {
                            connection = None;
                            tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
                            continue;
                        }
                    }
                    break;
                }
                count(if is_sent { &losses.forwarded } else { &losses.not_forwarded });
                freed.add_permits(units as usize);
            }
        });
        Self { queue, room }
    }

    /// A request as it came.
    pub(crate) fn send(&self, form: Form, body: Vec<u8>, losses: &Losses) {
        let Ok(permit) = self.room.try_acquire_many(units(&body)) else {
            return count(&losses.not_forwarded);
        };
        if self.queue.try_send((form, body)).is_err() {
            return count(&losses.not_forwarded);
        }
        // Given back when it has been sent.
        permit.forget();
    }

    /// Spans that came in another form.
    pub(crate) fn send_batch(&self, batch: &Batch, losses: &Losses) {
        self.send(Form::Protobuf, encode(batch), losses);
    }
}

fn units(body: &[u8]) -> u32 {
    u32::try_from(body.len() / 1024 + 1).unwrap_or(u32::MAX)
}

enum Sent {
    Taken,
    /// Another try would be refused as well.
    Refused,
    Failed,
}

type Connection = http1::SendRequest<Full<Bytes>>;

async fn send(url: &Uri, connection: &mut Option<Connection>, form: Form, body: Bytes) -> Sent {
    let sending = async {
        if connection.as_ref().is_none_or(Connection::is_closed) {
            *connection = Some(connect(url).await?);
        }
        let connection = connection.as_mut()?;
        connection.ready().await.ok()?;
        let kind = match form {
            Form::Protobuf => "application/x-protobuf",
            Form::Json => "application/json",
        };
        let path = url.path().trim_end_matches('/');
        let path = if path.is_empty() { "/v1/traces" } else { path };
        let request = Request::post(path)
            .header(header::HOST, url.authority()?.as_str())
            .header(header::CONTENT_TYPE, kind)
            .body(Full::new(body));
        let answer = connection.send_request(request.ok()?).await.ok()?;
        let status = answer.status();
        Limited::new(answer.into_body(), 64 << 10).collect().await.ok()?;
        Some(status)
    };
    match timeout(PATIENCE, sending).await {
        Ok(Some(status)) if status.is_success() => Sent::Taken,
        // Too many, or not for now.
        Ok(Some(status)) if status.as_u16() == 429 || status.is_server_error() => Sent::Failed,
        Ok(Some(_)) => Sent::Refused,
        _ => Sent::Failed,
    }
}

async fn connect(url: &Uri) -> Option<Connection> {
    let host = url.host()?.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, url.port_u16().unwrap_or(80))).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

/// A batch as `ExportTraceServiceRequest`.
pub(crate) fn encode(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, process) in batch.processes.iter().enumerate() {
        let mut resource = Vec::new();
        let service = Value::Text(batch.text(process.service));
        put_attribute(&mut resource, 1, "service.name", service);
        for item in batch.process_items(process) {
            put_tag(&mut resource, 1, batch, item);
        }
        let mut spans = Vec::new();
        let own = batch.spans.iter().filter(|span| span.process as usize == index);
        own.for_each(|span| message(&mut spans, 2, &encode_span(batch, span)));
        let mut resource_spans = Vec::new();
        message(&mut resource_spans, 1, &resource);
        message(&mut resource_spans, 2, &spans);
        message(&mut out, 1, &resource_spans);
    }
    out
}

fn encode_span(batch: &Batch, span: &Head) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, 1, &span.trace.to_be_bytes());
    message(&mut out, 2, &span.id.to_be_bytes());
    if span.parent != 0 {
        message(&mut out, 4, &span.parent.to_be_bytes());
    }
    message(&mut out, 5, batch.text(span.name).as_bytes());
    int64::encode(6, &i64::from(span.kind as u8), &mut out);
    fixed64::encode(7, &span.start_ns, &mut out);
    fixed64::encode(8, &span.start_ns.saturating_add(span.duration_ns), &mut out);
    let mut event: Option<Vec<u8>> = None;
    for item in batch.items(span) {
        match (item, &mut event) {
            (Item::Tag(..), Some(event)) => put_tag(event, 3, batch, item),
            (Item::Tag(..), None) => put_tag(&mut out, 9, batch, item),
            (Item::Event(time_ns, name), _) => {
                if let Some(done) = event.take() {
                    message(&mut out, 11, &done);
                }
                let mut begun = Vec::new();
                fixed64::encode(1, time_ns, &mut begun);
                message(&mut begun, 2, batch.text(*name).as_bytes());
                event = Some(begun);
            }
            (Item::Link(trace, id), _) => {
                let mut link = Vec::new();
                message(&mut link, 1, &trace.to_be_bytes());
                message(&mut link, 2, &id.to_be_bytes());
                message(&mut out, 13, &link);
            }
        }
    }
    if let Some(done) = event {
        message(&mut out, 11, &done);
    }
    if span.is_error {
        let mut status = Vec::new();
        int64::encode(3, &2, &mut status);
        message(&mut out, 15, &status);
    }
    out
}

fn put_tag(out: &mut Vec<u8>, number: u32, batch: &Batch, item: &Item<Text>) {
    let Item::Tag(key, value) = item else { return };
    let value = match *value {
        Value::Text(text) => Value::Text(batch.text(text)),
        Value::Int(number) => Value::Int(number),
        Value::Float(number) => Value::Float(number),
        Value::Bool(is) => Value::Bool(is),
    };
    put_attribute(out, number, batch.text(*key), value);
}

fn put_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: Value<&str>) {
    let mut any = Vec::new();
    match value {
        Value::Text(text) => string::encode(1, &text.to_owned(), &mut any),
        Value::Bool(is) => bool::encode(2, &is, &mut any),
        Value::Int(number) => int64::encode(3, &number, &mut any),
        Value::Float(number) => double::encode(4, &number, &mut any),
    }
    let mut pair = Vec::new();
    message(&mut pair, 1, key.as_bytes());
    message(&mut pair, 2, &any);
    message(out, number, &pair);
}

/// A text, bytes or a message within.
fn message(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tests::{batch, made};
    use crate::batch::{Kind, NAME_MAX};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value;
    use prost::Message;

    #[test]
    fn what_is_encoded_is_what_prost_reads_and_what_we_read() {
        let mut one = made("shop", Kind::Client, (7 << 64 | 1, 2, 3));
        one.is_error = true;
        one.tags = vec![("a", "b".into())];
        one.process = vec![("ip", "10.0.0.1")];
        let made = batch(&[one]);
        let bytes = encode(&made);
        let request = ExportTraceServiceRequest::decode(&bytes[..]).unwrap();
        let resource = request.resource_spans[0].resource.as_ref().unwrap();
        let keys: Vec<_> = resource.attributes.iter().map(|pair| pair.key.as_str()).collect();
        assert_eq!(keys, ["service.name", "ip"]);
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!((span.name.as_str(), span.kind), ("work", 3));
        assert_eq!(span.trace_id, (7u128 << 64 | 1).to_be_bytes());
        assert_eq!(span.parent_span_id, 3u64.to_be_bytes());
        assert_eq!(span.status.as_ref().unwrap().code, 2);
        let value = span.attributes[0].value.as_ref().unwrap().value.as_ref().unwrap();
        assert_eq!(*value, any_value::Value::StringValue("b".into()));
        let again = crate::wire::otlp::read(bytes).unwrap();
        assert_eq!(again.spans[0].duration_ns, made.spans[0].duration_ns);
        assert_eq!(again.text(again.spans[0].name), "work");
    }

    #[test]
    fn events_and_links_have_what_is_theirs() {
        let mut batch = Batch::default();
        batch.begin();
        let process = batch.end_process(Text::default());
        batch.begin();
        let [key, name] = ["key", "name"].map(|text| batch.add(text, NAME_MAX));
        batch.put(Item::Link(5, 6));
        batch.put(Item::Event(9, name));
        batch.tag(key, Value::Int(-1));
        batch.put(Item::Event(10, name));
        batch.tag(key, Value::Bool(true));
        batch.end_span(Head { trace: 1, id: 1, process, ..Head::default() });
        let request = ExportTraceServiceRequest::decode(&encode(&batch)[..]).unwrap();
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!((span.events.len(), span.links.len(), span.attributes.len()), (2, 1, 0));
        assert_eq!(span.events[1].attributes.len(), 1);
    }
}
