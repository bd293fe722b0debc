//! A sidecar without sockets: drives both halves as a shard does and notes what they say.

// Each test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

use netra_codecs::Limits;
use netra_codecs::h1::{
    Exchanges, Framing, HeadPatch, HeadReader, Reason, RequestHalf, RequestHead, RequestStep,
    ResponseHalf, ResponseStep,
};

/// What the halves said, without how the bytes were cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Request { method: String, target: String, framing: Framing },
    RequestOpaque(Reason),
    Response { status: u16, interim: bool },
    Finish { number: u32, status: u16, request_bytes: u64, response_bytes: u64, interim: u32 },
    ResponseOpaque(Reason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

pub struct Sidecar {
    pub request: RequestHalf,
    pub response: ResponseHalf,
    pub exchanges: Exchanges<u32>,
    pub reader: HeadReader,
    pub patch: HeadPatch,
    /// Whether heads are edited.
    pub edits: bool,
    pub events: Vec<Event>,
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
    /// Bytes that passed without being shown to a half.
    pub unseen: u64,
    heads: u32,
}

impl Sidecar {
    pub fn new(limits: Limits) -> Self {
        Self {
            request: RequestHalf::new(),
            response: ResponseHalf::new(),
            exchanges: Exchanges::new(),
            reader: HeadReader::new(limits),
            patch: HeadPatch::new(),
            edits: true,
            events: Vec::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            unseen: 0,
            heads: 0,
        }
    }

    pub fn feed(&mut self, side: Side, bytes: &[u8]) {
        match side {
            Side::Client => self.client(bytes),
            Side::Server => self.server(bytes),
        }
    }

    /// Bytes from the client.
    pub fn client(&mut self, mut input: &[u8]) {
        loop {
            let step = self.request.step(input, &mut self.reader, &mut self.exchanges, 1);
            match step {
                RequestStep::Need => break,
                RequestStep::Forward(count) => {
                    assert!(count > 0, "a step that takes nothing");
                    self.to_server.extend_from_slice(&input[..count]);
                    input = &input[count..];
                }
                RequestStep::Head { head, consumed, held, exchange } => {
                    assert!(held || head.bytes() == &input[..consumed]);
                    self.heads += 1;
                    self.exchanges.get_mut(exchange).expect("just opened").data = self.heads;
                    self.events.push(Event::Request {
                        method: String::from_utf8_lossy(head.method()).into_owned(),
                        target: String::from_utf8_lossy(head.target()).into_owned(),
                        framing: head.framing(),
                    });
                    if self.edits {
                        edit(&mut self.patch, &head, self.heads);
                    } else {
                        self.patch.clear();
                    }
                    for piece in self.patch.pieces(head.bytes()) {
                        self.to_server.extend_from_slice(piece.bytes());
                    }
                    input = &input[consumed..];
                }
                RequestStep::Opaque { reason, held } => {
                    self.to_server.extend_from_slice(held);
                    self.events.push(Event::RequestOpaque(reason));
                    assert_eq!(self.exchanges.sealed(), Some(reason));
                }
            }
        }
    }

    /// Bytes from the server.
    pub fn server(&mut self, mut input: &[u8]) {
        self.to_client.extend_from_slice(input);
        loop {
            let step = self.response.step(input, &mut self.reader, &mut self.exchanges);
            match step {
                ResponseStep::Need => break,
                ResponseStep::Body(count) => {
                    assert!(count > 0, "a step that takes nothing");
                    input = &input[count..];
                }
                ResponseStep::Head { head, consumed, .. } => {
                    let (status, interim) = (head.status(), head.is_interim());
                    self.events.push(Event::Response { status, interim });
                    input = &input[consumed..];
                }
                ResponseStep::Finish(exchange) => self.finish(&exchange),
                ResponseStep::Opaque(reason) => {
                    self.events.push(Event::ResponseOpaque(reason));
                    assert_eq!(self.exchanges.sealed(), Some(reason));
                    self.client(&[]);
                    assert_eq!(self.request.held_len(), 0, "withheld from an opaque connection");
                }
            }
        }
    }

    /// As [`client`](Self::client), letting pass unseen what may.
    pub fn client_spliced(&mut self, input: &[u8]) {
        let count = usize::try_from(self.request.passable()).unwrap_or(usize::MAX);
        let (unseen, seen) = input.split_at(count.min(input.len()));
        self.to_server.extend_from_slice(unseen);
        self.request.passed(unseen.len() as u64, &mut self.exchanges);
        self.unseen += unseen.len() as u64;
        self.client(seen);
    }

    /// As [`server`](Self::server), letting pass unseen what may.
    pub fn server_spliced(&mut self, input: &[u8]) {
        let count = usize::try_from(self.response.passable()).unwrap_or(usize::MAX);
        let (unseen, seen) = input.split_at(count.min(input.len()));
        self.to_client.extend_from_slice(unseen);
        self.response.passed(unseen.len() as u64, &mut self.exchanges);
        self.unseen += unseen.len() as u64;
        self.server(&[]);
        self.server(seen);
    }

    pub fn client_end(&mut self) {
        let held = self.request.end(&mut self.exchanges);
        self.to_server.extend_from_slice(held);
        assert_eq!(self.request.held_len(), 0, "withheld at the end");
    }

    pub fn server_end(&mut self) {
        if let Some(exchange) = self.response.end(&mut self.exchanges) {
            self.finish(&exchange);
        }
    }

    fn finish(&mut self, exchange: &netra_codecs::h1::Exchange<u32>) {
        self.events.push(Event::Finish {
            number: exchange.data,
            status: exchange.status.expect("finished without an answer"),
            request_bytes: exchange.request_body_bytes,
            response_bytes: exchange.response_body_bytes,
            interim: exchange.interim_count.into(),
        });
    }

    pub fn opaque(&self) -> Option<Reason> {
        self.exchanges.sealed()
    }

    pub fn finished(&self) -> Vec<(u32, u16)> {
        let finish = |event: &Event| match *event {
            Event::Finish { number, status, .. } => Some((number, status)),
            _ => None,
        };
        self.events.iter().filter_map(finish).collect()
    }
}

/// The lines that this sidecar sets in the head of the n-th request.
pub fn lines(number: u32) -> [(&'static str, String); 2] {
    [("uber-trace-id", format!("{number:x}:{number:x}:0:1")), ("X-Source", "netra".to_owned())]
}

fn edit(patch: &mut HeadPatch, head: &RequestHead<'_>, number: u32) {
    patch.clear();
    for (name, value) in lines(number) {
        patch.set(head.fields(), name.as_bytes(), value.as_bytes()).expect("room for two lines");
    }
}

/// What a head with none of the lines must look like when it has been edited.
pub fn expected_head(head: &[u8], number: u32) -> Vec<u8> {
    let mut expected = head[..head.len() - 2].to_vec();
    for (name, value) in lines(number) {
        expected.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    expected.extend_from_slice(b"\r\n");
    expected
}

/// SplitMix64: small, seeded, good enough.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A size up to one of these, so that small ones are common.
    pub fn size(&mut self, upto: &[usize]) -> usize {
        let max = *self.pick(upto);
        self.below(max + 1)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}
