//! A recording of netramesh: what its peers did, and what they saw.

use super::http::{Context, Head, body_len, from_latin1, head_end, latin1, shown};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A file of the recordings.
pub fn recorded(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http_recordings/data");
    fs::read_to_string(folder.join(name)).expect("a recording")
}

/// What a peer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Do {
    Send(Vec<u8>),
    /// Said that no more will be sent.
    Finish,
    Reset,
    Close,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Client(Do),
    /// The server on this port.
    Server(u16, Do),
}

#[derive(Clone, Debug)]
pub struct Recording {
    pub case: String,
    pub is_outbound: bool,
    pub port: u16,
    pub env: Vec<(String, String)>,
    pub acts: Vec<Act>,
    /// By connection: the port of its server, and what that received.
    pub servers: Vec<(u16, Vec<u8>)>,
    pub client_sent: Vec<u8>,
    pub client_received: Vec<u8>,
    pub client_saw_end: bool,
    /// Some bytes were sent on more than 300 ms after they came, or never.
    pub was_withheld: bool,
    pub spans: Vec<Value>,
    /// All of it.
    pub json: Value,
}

impl Recording {
    /// All of them.
    pub fn all() -> Vec<Self> {
        recorded("recordings.jsonl").lines().map(Self::read).collect()
    }

    /// Reads a line; addresses become those of the tests' world, which are as long.
    fn read(line: &str) -> Self {
        let line = line.replace("10.78.0.", "10.61.0.");
        let json: Value = serde_json::from_str(&line).expect("a recording is JSON");
        let events = json["events"].as_array().cloned().unwrap_or_default();
        let of = |key: &str| from_latin1(json[key].as_str().unwrap_or_default());
        let connections = |key: &str| -> Vec<(u16, Vec<u8>)> {
            let list = json[key].as_array().cloned().unwrap_or_default();
            let pair = |one: &Value| {
                let port = one["port"].as_u64().and_then(|port| u16::try_from(port).ok());
                (port.expect("a port"), from_latin1(one["data"].as_str().expect("bytes")))
            };
            list.iter().map(pair).collect()
        };
        let env = json["env"].as_object().cloned().unwrap_or_default();
        let dst = json["dst"].as_str().unwrap_or_default();
        Self {
            case: json["case"].as_str().unwrap_or_default().into(),
            is_outbound: json["direction"] == "outbound",
            port: dst.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0),
            env: env.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or("").into())).collect(),
            acts: acts(&events, &of("client_sent"), &connections("server_sent")),
            servers: connections("server_received"),
            client_sent: of("client_sent"),
            client_received: of("client_received"),
            client_saw_end: events.iter().any(|e| e[1] == "client" && e[2] == "eof"),
            was_withheld: was_withheld(&events),
            spans: json["spans"].as_array().cloned().unwrap_or_default(),
            json,
        }
    }
}

/// What the peers did, in order.
fn acts(events: &[Value], client: &[u8], servers: &[(u16, Vec<u8>)]) -> Vec<Act> {
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    let mut acts = Vec::new();
    // Conversations of three peers are recorded without who sent what.
    let events = if client.is_empty() && servers.is_empty() { &[][..] } else { events };
    for event in events {
        let who = event[1].as_str().unwrap_or_default();
        let server = who.strip_prefix("server:").and_then(|rest| {
            let (port, number) = rest.split_once('#')?;
            Some((port.parse::<u16>().ok()?, number.parse::<usize>().ok()?))
        });
        let all = match server {
            Some((port, number)) => {
                let mut those = servers.iter().filter(|(at, _)| *at == port);
                those.nth(number).map_or(&[][..], |(_, bytes)| bytes)
            }
            None => client,
        };
        let what = match event[2].as_str().unwrap_or_default() {
            "send" => {
                let at = sent.entry(who.into()).or_default();
                let len = event[3].as_u64().expect("how many bytes were sent");
                let len = usize::try_from(len).expect("a few");
                *at += len;
                Do::Send(all[*at - len..*at].to_vec())
            }
            "shutdown-write" => Do::Finish,
            "reset" => Do::Reset,
            "close" => Do::Close,
            _ => continue,
        };
        acts.push(match server {
            Some((port, _)) => Act::Server(port, what),
            None => Act::Client(what),
        });
    }
    acts
}

/// Whether somebody sent, and nobody received within 300 ms.
fn was_withheld(events: &[Value]) -> bool {
    let at = |event: &Value| event[0].as_i64().unwrap_or(0);
    let is_client = |event: &Value| event[1] == "client";
    events.iter().filter(|event| event[2] == "send").any(|send| {
        !events.iter().any(|other| {
            let late = at(other) - at(send);
            other[2] == "recv" && is_client(other) != is_client(send) && (-20..300).contains(&late)
        })
    })
}

/// Bytes of a stream of messages in a form that forgets what may differ: the order and the case of
/// names of head lines, and ids that the proxy made.
pub fn normal(bytes: &[u8], given: &[u8], methods: Option<&[String]>) -> Vec<String> {
    let (mut rest, mut out, mut number) = (bytes, Vec::new(), 0);
    while let Some(len) = head_end(rest) {
        let head = Head::of(&rest[..len]);
        if !head.0[0].windows(7).any(|seven| seven == b"HTTP/1.") {
            break;
        }
        let mut lines: Vec<String> = head.0[1..].iter().map(|line| line_of(line, given)).collect();
        lines.sort();
        let is_interim = methods.is_some() && head.word(1).starts_with('1');
        let is_bare = methods.is_some_and(|methods| {
            methods.get(number).is_some_and(|method| method == "HEAD")
                || matches!(&*head.word(1), "204" | "304" | "101")
        });
        let after = &rest[len..];
        let (body, _) = body_len(&head, after, methods.is_none());
        let body = if is_bare || is_interim { 0 } else { body };
        let first = latin1(&head.0[0]);
        out.push(format!("{first}\n{}\n\n{}", lines.join("\n"), shown(&after[..body])));
        rest = &after[body..];
        number += usize::from(!is_interim);
    }
    if !rest.is_empty() {
        out.push(shown(rest));
    }
    out
}

fn line_of(line: &[u8], given: &[u8]) -> String {
    let text = latin1(line);
    let (name, value) = text.split_once(':').unwrap_or((&text, ""));
    let (name, value) = (name.to_ascii_lowercase(), value.trim());
    let is_given = given.windows(value.len().max(1)).any(|part| part == value.as_bytes());
    let value = match name.as_str() {
        "x-request-id" | "x-rid" if !is_given => "<made>".into(),
        "uber-trace-id" => Context::parse(value).map_or(value.into(), |c| place(&c, given)),
        _ => value.to_owned(),
    };
    format!("{name}: {value}")
}

/// Where a context stands in its trace, without the ids that were made.
pub fn place(context: &Context, given: &[u8]) -> String {
    let Context { trace, parent, flags, .. } = context;
    let parent_text = format!("{parent:x}");
    let is_given = given.windows(parent_text.len()).any(|part| part == parent_text.as_bytes());
    match (context.is_root(), is_given) {
        (true, _) => format!("<root, flags {flags}>"),
        (false, true) => format!("<in {trace:x} of {parent:x}, flags {flags}>"),
        (false, false) => format!("<child, flags {flags}>"),
    }
}

/// A span in a form that forgets what may differ: ids and ports that were made, times.
pub fn normal_span(
    name: &str,
    context: &Context,
    tags: &BTreeMap<String, Value>,
    given: &[u8],
) -> String {
    let mut text = format!("{name} {}", place(context, given));
    for (key, value) in tags {
        let value = match key.as_str() {
            // What netramesh does not tell.
            name if name.starts_with("netra.") => continue,
            // The port of a client was the kernel's choice, that of a server was not.
            "remote_addr" if tags.get("span.kind").is_some_and(|kind| kind == "server") => {
                value.as_str().and_then(|v| v.split(':').next()).unwrap_or_default().into()
            }
            "http.request_id" => {
                let id = value.as_str().unwrap_or_default();
                let is_given = given.windows(id.len().max(1)).any(|part| part == id.as_bytes());
                if is_given { id.into() } else { String::from("<made>") }
            }
            _ => value.to_string(),
        };
        text += &format!("\n  {key} = {value}");
    }
    text
}

/// A span of a recording, likewise.
pub fn normal_recorded(span: &Value, given: &[u8]) -> String {
    let id = |text: &str| u64::from_str_radix(text, 16).expect("an id");
    let field = |key: &str| span[key].as_str().unwrap_or_default();
    let (high, low) = field("trace").split_once('/').expect("two halves");
    let flags = span["flags"].as_u64().and_then(|flags| u8::try_from(flags).ok());
    let context = Context {
        trace: u128::from(id(high)) << 64 | u128::from(id(low)),
        span: id(field("span")),
        parent: id(field("parent")),
        flags: flags.expect("flags"),
    };
    // Bytes of UTF-8, each written as a character.
    let fixed = |text: &str| String::from_utf8_lossy(&from_latin1(text)).into_owned();
    let tags = span["tags"].as_object().cloned().unwrap_or_default().into_iter();
    let tags = tags.map(|(key, value)| {
        let value = value.as_str().map_or(value.clone(), |text| fixed(text).into());
        (key, value)
    });
    normal_span(&fixed(field("op")), &context, &tags.collect(), given)
}
