//! What netra is to do with HTTP bytes, said a second time and without netra's code: which lines
//! of a request head are inserted or replaced, and what a span says of an exchange.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The end of the head that begins here, its empty line included.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

pub fn shown(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string().replace("\\r\\n", "\n");
    if text.len() > 2000 { format!("{}... {} bytes", &text[..2000], bytes.len()) } else { text }
}

/// A head, line by line.
#[derive(Clone, Debug)]
pub struct Head(pub Vec<Vec<u8>>);

impl Head {
    pub fn of(bytes: &[u8]) -> Self {
        let text = bytes.strip_suffix(b"\r\n\r\n").unwrap_or(bytes);
        let mut lines = vec![Vec::new()];
        for (at, byte) in text.iter().enumerate() {
            match (byte, text.get(at + 1)) {
                (b'\r', Some(b'\n')) => {}
                (b'\n', _) if at > 0 && text[at - 1] == b'\r' => lines.push(Vec::new()),
                _ => lines.last_mut().expect("never empty").push(*byte),
            }
        }
        Self(lines)
    }

    pub fn bytes(&self) -> Vec<u8> {
        [&self.0.join(&b"\r\n"[..])[..], b"\r\n\r\n"].concat()
    }

    fn name_of(line: &[u8]) -> &[u8] {
        line.split(|byte| *byte == b':').next().unwrap_or_default()
    }

    /// The values of a name, trimmed.
    pub fn values(&self, name: &str) -> Vec<String> {
        let named =
            self.0[1..].iter().filter(|l| Self::name_of(l).eq_ignore_ascii_case(name.as_bytes()));
        named.map(|line| latin1(line[name.len() + 1..].trim_ascii())).collect()
    }

    pub fn value(&self, name: &str) -> Option<String> {
        self.values(name).into_iter().next()
    }

    /// As netra does it: the first line of the name gets the value, others of the name go, and
    /// where there is none a line is added at the end.
    pub fn set(&mut self, name: &str, value: &str) {
        let is_named = |line: &[u8]| Self::name_of(line).eq_ignore_ascii_case(name.as_bytes());
        let Some(at) = (1..self.0.len()).find(|at| is_named(&self.0[*at])) else {
            return self.0.push(format!("{name}: {value}").into_bytes());
        };
        self.0[at] = [&self.0[at][..=name.len()], b" ", value.as_bytes()].concat();
        let mut number = 0;
        self.0.retain(|line| {
            number += 1;
            number <= at + 1 || !is_named(line)
        });
    }

    /// A word of the first line.
    pub fn word(&self, number: usize) -> String {
        self.0[0].split(|byte| *byte == b' ').nth(number).map(latin1).unwrap_or_default()
    }
}

pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Bytes that a recording wrote as characters.
pub fn from_latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect()
}

/// How long the body behind this head is, of what there is of it; none is until the close.
pub fn body_len(head: &Head, after: &[u8], is_request: bool) -> (usize, Option<i64>) {
    if head.value("transfer-encoding").is_some_and(|te| te.eq_ignore_ascii_case("chunked")) {
        return (chunked_len(after), Some(-1));
    }
    match head.value("content-length").and_then(|text| text.parse::<usize>().ok()) {
        Some(len) => (len.min(after.len()), Some(i64::try_from(len).expect("a short body"))),
        None if is_request => (0, Some(0)),
        None => (after.len(), None),
    }
}

fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].windows(2).position(|two| two == b"\r\n").map(|at| from + at + 2)
}

/// The length of a chunked body; all that there is when it is not whole.
fn chunked_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(end) = line_end(bytes, at) {
        let digits: String = latin1(&bytes[at..end - 2]).split(';').next().unwrap_or("").into();
        let Ok(size) = usize::from_str_radix(digits.trim(), 16) else { return bytes.len() };
        if size == 0 {
            let mut from = end;
            while let Some(next) = line_end(bytes, from) {
                if next == from + 2 {
                    return next;
                }
                from = next;
            }
            return bytes.len();
        }
        at = end + size + 2;
        if at > bytes.len() {
            break;
        }
    }
    bytes.len()
}

/// The methods of the requests in what a client sent.
pub fn methods(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(len) = head_end(bytes) {
        let head = Head::of(&bytes[..len]);
        let (body, _) = body_len(&head, &bytes[len..], true);
        bytes = &bytes[len + body..];
        found.push(head.word(0));
    }
    found
}

/// `uber-trace-id` as it stands on a head that netra has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace: u128,
    pub span: u64,
    pub parent: u64,
    pub flags: u8,
}

impl Context {
    /// Plain or URL-encoded.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.replace("%3A", ":").replace("%3a", ":");
        let parts: Vec<_> = plain.split(':').collect();
        let [trace, span, parent, flags] = parts[..] else { return None };
        let id = |text| u64::from_str_radix(text, 16).ok();
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        Some(Self { trace, span: id(span)?, parent: id(parent)?, flags: flags.parse().ok()? })
    }

    fn of_traceparent(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.split('-').collect();
        let [_, trace, span, flags] = parts[..] else { return None };
        let trace = u128::from_str_radix(trace, 16).ok()?;
        let span = u64::from_str_radix(span, 16).ok()?;
        Some(Self { trace, span, parent: 0, flags: u8::from_str_radix(flags, 16).ok()? })
    }

    /// As netra writes it: ids in full width.
    pub fn text(&self) -> String {
        let width = if self.trace >> 64 == 0 { 16 } else { 32 };
        let Self { trace, span, parent, flags } = self;
        format!("{trace:0width$x}:{span:016x}:{parent:016x}:{flags:x}")
    }

    pub fn is_root(&self) -> bool {
        self.parent == 0 && u128::from(self.span) == self.trace & u128::from(u64::MAX)
    }

    /// Whether this is a new span below `parent`.
    pub fn is_child_of(&self, parent: &Self) -> bool {
        (self.trace, self.parent, self.flags) == (parent.trace, parent.span, parent.flags)
            && ![0, parent.span].contains(&self.span)
    }
}

/// Which lines netra edits under the settings of a case.
#[derive(Clone, Debug)]
pub struct Edits<'a> {
    pub is_outbound: bool,
    pub id_name: &'a str,
    pub source: (&'a str, &'a str),
    pub ignored: &'a [&'a str],
    /// Flags of new traces.
    pub flags: u8,
    /// What an outbound request without a context continues.
    pub remembered: Option<Context>,
    /// The route that is added to an outbound request without one.
    pub route: Option<&'a str>,
}

impl Edits<'_> {
    pub const INBOUND: Self = Self {
        is_outbound: false,
        id_name: "X-Request-Id",
        source: ("X-Source", "netra"),
        ignored: &[],
        flags: 1,
        remembered: None,
        route: None,
    };
    pub const OUTBOUND: Self = Self { is_outbound: true, ..Self::INBOUND };
}

/// A request as netra sent it on.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: Head,
    pub id: String,
    /// None when the path is ignored.
    pub context: Option<Context>,
    /// -1 when it came in chunks.
    pub size: i64,
}

/// What has to come out where `client` went in, given what did come out: that must have the right
/// form, and is taken from there, only for ids that netra makes. From request `raw_from` on,
/// bytes are bytes. The error says what is wrong, or missing yet.
pub fn expected(
    client: &[u8],
    got: &[u8],
    edits: &Edits<'_>,
    raw_from: usize,
) -> Result<(Vec<u8>, Vec<Request>), String> {
    let (mut out, mut seen, mut rest) = (Vec::new(), Vec::new(), client);
    while seen.len() < raw_from {
        // RFC 9112 §2.2: an empty line before a request is none.
        if let Some(after) = rest.strip_prefix(b"\r\n") {
            out.extend_from_slice(b"\r\n");
            rest = after;
        }
        let Some(len) = head_end(rest) else { return Ok((out, seen)) };
        let missing = || format!("no head yet after {:?}", shown(&out));
        let came = got.get(out.len()..).ok_or_else(missing)?;
        let came = Head::of(&came[..head_end(came).ok_or_else(missing)?]);
        let mut request = edited(&Head::of(&rest[..len]), &came, edits)?;
        out.extend(request.head.bytes());
        let (body, size) = body_len(&request.head, &rest[len..], true);
        // Of a body that is announced, what came of it.
        request.size = size.map_or(0, |size| size.min(i64::try_from(body).unwrap_or(size)));
        out.extend_from_slice(&rest[len..len + body]);
        rest = &rest[len + body..];
        seen.push(request);
    }
    out.extend_from_slice(rest);
    Ok((out, seen))
}

fn edited(given: &Head, came: &Head, edits: &Edits<'_>) -> Result<Request, String> {
    let mut head = given.clone();
    let came_with = |name: &str| {
        let last = came.values(name).pop();
        last.ok_or_else(|| format!("no {name} in {:?}", shown(&came.bytes())))
    };
    let id = match given.value(edits.id_name).filter(|id| !id.is_empty()) {
        Some(id) => id,
        None => {
            let id = came_with(edits.id_name)?;
            if !is_uuid4(&id) {
                return Err(format!("{id} is no UUID of version 4"));
            }
            head.set(edits.id_name, &id);
            id
        }
    };
    let mut context = None;
    let path = given.word(1);
    if !edits.ignored.contains(&path.split('?').next().unwrap_or_default()) {
        let text = came_with("uber-trace-id")?;
        let made = Context::parse(&text).ok_or_else(|| format!("{text} is no context"))?;
        let ubers = given.values("uber-trace-id");
        let parent = ubers.iter().find_map(|text| Context::parse(text));
        let parent = parent.or_else(|| Context::of_traceparent(&given.value("traceparent")?));
        let parent = parent.or(edits.remembered.filter(|_| edits.is_outbound));
        let is_right = match parent {
            Some(parent) => made.is_child_of(&parent),
            None => made.is_root() && made.flags == edits.flags,
        };
        if !is_right || made.text() != text {
            return Err(format!("{text} does not follow from {parent:?}"));
        }
        head.set("uber-trace-id", &text);
        context = Some(made);
    }
    if edits.is_outbound {
        head.set(edits.source.0, edits.source.1);
    }
    if let (Some(route), None) = (edits.route, given.value("x-route")) {
        head.set("X-Route", route);
    }
    Ok(Request { head, id, context, size: 0 })
}

fn is_uuid4(text: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.len() == 36
        && text.char_indices().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == '-',
            14 => c == '4',
            19 => "89ab".contains(c),
            _ => hex(c),
        })
}

/// The final answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// -1 when nobody announced it.
    pub size: i64,
    pub is_whole: bool,
}

/// The final answers in what servers sent to these methods.
pub fn answers(mut bytes: &[u8], methods: &[String], is_closed: bool) -> Vec<Answer> {
    let mut found = Vec::new();
    for method in methods {
        loop {
            let Some(len) = head_end(bytes) else { return found };
            let head = Head::of(&bytes[..len]);
            let Ok(status) = head.word(1).parse::<u16>() else { return found };
            bytes = &bytes[len..];
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let is_bare = method == "HEAD" || matches!(status, 101 | 204 | 304);
            if is_bare || (method == "CONNECT" && status / 100 == 2) {
                found.push(Answer { status, size: 0, is_whole: true });
                break;
            }
            let (body, size) = body_len(&head, bytes, false);
            let (size, is_whole) = match size {
                None => (-1, is_closed),
                Some(-1) => (-1, bytes[..body].ends_with(b"0\r\n\r\n") || !bytes.is_empty()),
                Some(size) if body as i64 == size => (size, true),
                Some(_) => (i64::try_from(body).expect("a short body"), false),
            };
            found.push(Answer { status, size, is_whole });
            bytes = &bytes[body..];
            break;
        }
    }
    found
}

/// What the span of an exchange has to say, in netramesh's names.
pub fn span_tags(
    request: &Request,
    answer: Option<Answer>,
    edits: &Edits<'_>,
    remote: &str,
) -> BTreeMap<String, Value> {
    let mut tags = BTreeMap::new();
    let mut put = |key: &str, value: Value| drop(tags.insert(key.to_owned(), value));
    let context = request.context.expect("a request with a span");
    if context.is_root() {
        put("sampler.type", json!("const"));
        put("sampler.param", json!(true));
    }
    put("span.kind", json!(if edits.is_outbound { "client" } else { "server" }));
    put("remote_addr", json!(remote));
    put("http.host", json!(request.host()));
    put("http.path", json!(utf8(&request.head.word(1))));
    put("http.method", json!(request.head.word(0)));
    put("http.request_size", json!(request.size));
    put("http.request_id", json!(request.id));
    if let Some(agent) = request.head.value("user-agent") {
        put("http.user_agent", json!(agent));
    }
    put("http.response_size", json!(answer.map_or(0, |answer| answer.size)));
    if let Some(answer) = answer {
        put("http.status_code", json!(answer.status));
    }
    if answer.is_none_or(|answer| !answer.is_whole || answer.status >= 500) {
        put("error", json!(true));
    }
    tags
}

impl Request {
    /// RFC 9112 §3.2.2: the authority of the target goes before Host.
    pub fn host(&self) -> String {
        let target = self.head.word(1);
        let authority = target.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        authority.map(str::to_owned).or_else(|| self.head.value("host")).unwrap_or_default()
    }

    /// Inbound the path, outbound host and path; without query, and unescaped.
    pub fn operation(&self, is_outbound: bool) -> String {
        let target = self.head.word(1);
        let path = match target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => &target,
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let path = unescaped(path);
        if is_outbound { self.host() + &path } else { path }
    }
}

fn utf8(text: &str) -> String {
    String::from_utf8_lossy(&from_latin1(text)).into_owned()
}

fn unescaped(path: &str) -> String {
    let bytes = from_latin1(path);
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).map(latin1);
        let escaped = digits.and_then(|digits| u8::from_str_radix(&digits, 16).ok());
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
