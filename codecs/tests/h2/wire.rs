//! Frames and fields as peers write them, and a sidecar without sockets.

// Each test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::h1::{HeadPatch, Reason};
use netra_codecs::h2::{Http2, PREFACE, Scratch, Step, mend};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITY: u8 = 32;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field as a literal that goes into the table, or not.
pub fn literal(first: u8, name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![first];
    for text in [name, value] {
        assert!(text.len() < 127);
        field.push(u8::try_from(text.len()).unwrap());
        field.extend(text.bytes());
    }
    field
}

/// `:method POST`, `:scheme http`, `:path`, `:authority`, and the rest.
pub fn request(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    block.extend(literal(0, ":path", path));
    block.extend(literal(0x40, ":authority", "shop:50051"));
    for (name, value) in fields {
        block.extend(literal(0, name, value));
    }
    block
}

pub fn begin() -> Vec<u8> {
    [&PREFACE[..], &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A sidecar: what comes in, what goes out, and what it says of it.
pub struct Sidecar {
    pub http: Http2<u32>,
    pub scratch: Scratch,
    pub limits: Limits,
    /// Fields that every request gets.
    pub sets: Vec<(&'static str, String)>,
    pub told: Vec<String>,
    pub sent: [Vec<u8>; 2],
    pub held_most: usize,
    /// Requests that are not told of.
    pub untold: u32,
    /// Fields that could not be changed.
    pub kept: u32,
    pub now_ns: u64,
    /// What may pass unseen does.
    pub passes: bool,
}

impl Sidecar {
    pub fn new() -> Self {
        Self {
            http: Http2::new(),
            scratch: Scratch::default(),
            limits: Limits::DEFAULT,
            sets: Vec::new(),
            told: Vec::new(),
            sent: [Vec::new(), Vec::new()],
            held_most: 0,
            untold: 0,
            kept: 0,
            now_ns: 0,
            passes: false,
        }
    }

    pub fn setting(name: &'static str, value: &str) -> Self {
        Self { sets: vec![(name, value.into())], ..Self::new() }
    }

    pub fn ask(&mut self, bytes: impl AsRef<[u8]>) {
        self.show(Way::Request, bytes.as_ref());
    }

    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.show(Way::Response, bytes.as_ref());
    }

    /// Shows bytes of a way, and sends what a gate would.
    pub fn show(&mut self, way: Way, bytes: &[u8]) {
        let mut rest = bytes;
        let mut is_asked = false;
        while !rest.is_empty() || self.http.has_pending(way) || !is_asked {
            is_asked = true;
            let may_pass = self.http.passable(way).min(rest.len() as u64);
            if self.passes && may_pass > 1 {
                self.http.passed(way, may_pass);
                let (passed, after) = rest.split_at(usize::try_from(may_pass).unwrap());
                self.sent[way as usize].extend_from_slice(passed);
                rest = after;
            }
            let step = self.http.step(way, rest, &mut self.scratch, &self.limits, self.now_ns);
            self.held_most = self.held_most.max(self.http.storage());
            let taken = match step {
                Step::Need => return,
                Step::Opaque(reason, held) => {
                    self.go_opaque(way, reason, &rest[held..]);
                    return;
                }
                Step::Pass(taken) => taken,
                Step::Request(taken, None) => {
                    self.untold += 1;
                    taken
                }
                Step::Request(taken, id) => {
                    let bytes = match taken.is_held {
                        true => self.http.held(way).to_vec(),
                        false => rest[..taken.consumed].to_vec(),
                    };
                    self.request(&bytes, id);
                    rest = &rest[taken.consumed..];
                    continue;
                }
                Step::Response(taken, id) => {
                    let status = self.scratch.section.status();
                    self.told.push(format!("response {id} {status}"));
                    taken
                }
                Step::Finished { taken, stream, end, has_fields } => {
                    let field = |name: &str| {
                        let fields = self.scratch.section.fields();
                        fields.named(name.as_bytes()).next().map(<[u8]>::to_vec)
                    };
                    let grpc = if has_fields { field("grpc-status") } else { None };
                    let grpc = grpc.map(|it| String::from_utf8_lossy(&it).into_owned());
                    let counts = stream.carried.map(|it| (it.bytes, it.messages));
                    let (id, status) = (stream.id, stream.status);
                    self.told.push(format!("end {id} {status} {end:?} {counts:?} {grpc:?}"));
                    taken
                }
            };
            let held = if taken.is_held { self.http.held(way) } else { &rest[..taken.consumed] };
            self.sent[way as usize].extend_from_slice(held);
            rest = &rest[taken.consumed..];
        }
    }

    fn go_opaque(&mut self, way: Way, reason: Reason, rest: &[u8]) {
        let told = format!("opaque {reason}");
        if !self.told.contains(&told) {
            self.told.push(told);
        }
        let held = if self.http.held_len(way) > 0 { self.http.held(way) } else { &[] };
        self.sent[way as usize].extend_from_slice(held);
        self.http.let_go(way);
        self.sent[way as usize].extend_from_slice(rest);
    }

    fn request(&mut self, frames: &[u8], id: Option<u32>) {
        let section = &self.scratch.section;
        let head = section.request().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let host = text(head.host().unwrap_or_default());
        self.told.push(format!(
            "request {id:?} {} {} {host} {}",
            text(head.method()),
            text(head.target()),
            head.fields().len()
        ));
        let mut patch = HeadPatch::new();
        for (name, value) in &self.sets {
            patch.set(head.fields(), name.as_bytes(), value.as_bytes()).unwrap();
        }
        let out = &mut self.sent[Way::Request as usize];
        let mended = mend(frames, section, &patch, self.http.server(), out);
        self.kept += mended.kept;
        if mended.is_too_long {
            self.told.push("too long".into());
        }
    }
}

/// The header lists of a way's blocks, as another decoder reads them.
pub fn lists(bytes: &[u8]) -> Vec<Vec<(String, String)>> {
    let mut decoder = loona_hpack::Decoder::new();
    let (mut lists, mut block) = (Vec::new(), Vec::new());
    let mut rest = bytes.strip_prefix(&PREFACE[..]).unwrap_or(bytes);
    while !rest.is_empty() {
        let len = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
        let (kind, flags) = (rest[3], rest[4]);
        let mut payload = &rest[9..9 + len];
        rest = &rest[9 + len..];
        if !matches!(kind, HEADERS | CONTINUATION) {
            assert!(block.is_empty(), "a frame within a block");
            continue;
        }
        if kind == HEADERS && flags & PADDED != 0 {
            payload = &payload[1..payload.len() - usize::from(payload[0])];
        }
        if kind == HEADERS && flags & PRIORITY != 0 {
            payload = &payload[5..];
        }
        block.extend_from_slice(payload);
        if flags & END_HEADERS != 0 {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let list = decoder.decode(&block).expect("a block");
            lists.push(list.into_iter().map(|(n, v)| (text(n), text(v))).collect());
            block.clear();
        }
    }
    lists
}
