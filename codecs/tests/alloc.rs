//! After warm-up a message costs no allocation: counted, not claimed.

#![allow(unsafe_code)]

mod kit;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use netra_codecs::Limits;
use netra_codecs::codec::{Head, Way};
use netra_codecs::h1::{
    Exchange, Exchanges, HeadPatch, HeadReader, RequestHalf, RequestHead, RequestStep,
    ResponseHalf, ResponseStep,
};
use netra_codecs::route::{RouteNames, RouteText, find_target};
use netra_codecs::tap::{Protocol, Step, Tap};
use netra_codecs::trace::{
    Format, Formats, KeySeed, Operations, RequestId, RequestKey, SampleRule, Sampler, SamplerPlan,
    TraceContext, TraceFlags, TtlMap, extract, inject,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
    static BYTES_MOST: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count(added: usize) {
    ALLOCATIONS.with(|cell| cell.set(cell.get() + 1));
    BYTES.with(|cell| cell.set(cell.get().saturating_add(added)));
    BYTES_MOST.with(|most| most.set(most.get().max(BYTES.with(Cell::get))));
}

// SAFETY: every call goes to the system allocator unchanged; the counters are thread-local cells
// without destructor, so that counting neither allocates nor touches freed memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises about `layout` are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        BYTES.with(|cell| cell.set(cell.get().saturating_sub(layout.size())));
        // SAFETY: `place` came from `alloc` above with this layout, which is the system's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Everything a shard has for one connection, and what it shares among them.
struct Shard {
    request: RequestHalf,
    response: ResponseHalf,
    exchanges: Exchanges<Option<TraceContext>>,
    reader: HeadReader,
    patch: HeadPatch,
    contexts: TtlMap<TraceContext>,
    routes: TtlMap<RouteText>,
    names: RouteNames,
    seed: KeySeed,
    now_ns: u64,
    sent: Vec<u8>,
    finished: u64,
}

impl Shard {
    fn new() -> Self {
        let seed = KeySeed::from_random([1, 2, 3]);
        Self {
            request: RequestHalf::new(),
            response: ResponseHalf::new(),
            exchanges: Exchanges::new(),
            reader: HeadReader::new(Limits::DEFAULT),
            patch: HeadPatch::new(),
            contexts: TtlMap::new(1000, 1_000_000, &seed),
            routes: TtlMap::new(1000, 1_000_000, &seed),
            names: RouteNames { header: b"X-Route"[..].into(), cookie: Some(b"route"[..].into()) },
            seed,
            now_ns: 0,
            sent: Vec::with_capacity(1 << 20),
            finished: 0,
        }
    }

    fn client(&mut self, mut input: &[u8]) {
        self.now_ns += 1000;
        loop {
            let Self { request, reader, exchanges, .. } = self;
            match request.step(input, reader, exchanges, self.now_ns) {
                RequestStep::Need => break,
                RequestStep::Forward(count) => input = &input[count..],
                RequestStep::Head { head, consumed, exchange, .. } => {
                    let context =
                        trace(&head, &mut self.patch, &mut self.contexts, &self.seed, self.now_ns);
                    route(&head, &self.names, &mut self.routes, &self.seed, self.now_ns);
                    self.exchanges.get_mut(exchange).unwrap().data = Some(context);
                    self.sent.clear();
                    for piece in self.patch.pieces(head.bytes()) {
                        self.sent.extend_from_slice(piece.bytes());
                    }
                    input = &input[consumed..];
                }
                RequestStep::Opaque { reason, .. } => panic!("{reason}"),
            }
        }
    }

    fn server(&mut self, mut input: &[u8]) {
        loop {
            let Self { response, reader, exchanges, .. } = self;
            match response.step(input, reader, exchanges) {
                ResponseStep::Need => break,
                ResponseStep::Body(count) => input = &input[count..],
                ResponseStep::Head { consumed, .. } => input = &input[consumed..],
                ResponseStep::Finish(exchange) => {
                    assert!(exchange.data.is_some());
                    self.finished += 1;
                }
                ResponseStep::Opaque(reason) => panic!("{reason}"),
            }
        }
    }

    /// Pipelined, chunked, cut in the middle of heads, with an interim response.
    fn round(&mut self, number: u64) {
        let id = RequestId::from_random(u128::from(number) << 64);
        let mut request = *b"POST /a?b HTTP/1.1\r\nHost: shop:80\r\nX-Request-Id: \
            ....................................\r\nuber-trace-id: a:b:0:1\r\nx-b3-traceid: 1\r\n\
            Cookie: a=b; route=shop=other\r\nTransfer-Encoding: chunked\r\n\r\n\
            5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\n\
            GET / HTTP/1.1\r\nHost: shop\r\nX-Route: shop=10.0.0.1:81\r\n\r\n";
        let at = request.windows(4).position(|window| window == b"....").unwrap();
        request[at..at + 36].copy_from_slice(id.as_bytes());
        let cut = usize::try_from(number).unwrap() % request.len();
        self.client(&request[..cut]);
        self.client(&request[cut..]);
        let response = b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
            \r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
        let cut = usize::try_from(number).unwrap() % response.len();
        self.server(&response[..cut]);
        self.server(&response[cut..]);
    }
}

fn trace(
    head: &RequestHead<'_>,
    patch: &mut HeadPatch,
    contexts: &mut TtlMap<TraceContext>,
    seed: &KeySeed,
    now_ns: u64,
) -> TraceContext {
    patch.clear();
    let fields = head.fields();
    let made = RequestId::from_random(u128::from(now_ns));
    let id = head.field(b"x-request-id").unwrap_or_else(|| {
        patch.insert(fields, b"X-Request-Id", made.as_bytes()).unwrap();
        made.as_bytes()
    });
    let key = RequestKey::new(id, seed);
    let parent = extract(fields.iter()).context.or_else(|| contexts.get(&key, now_ns).copied());
    let context = match parent {
        Some(parent) => parent.child(now_ns),
        None => TraceContext::root(now_ns.into(), now_ns, TraceFlags::SAMPLED),
    };
    contexts.put(key, context, now_ns);
    let all = Formats::UBER.with(Format::W3c).with(Format::B3).with(Format::B3Multi);
    inject(&context, all, |name, value| patch.set(fields, name.as_bytes(), value).unwrap());
    context
}

fn route(
    head: &RequestHead<'_>,
    names: &RouteNames,
    routes: &mut TtlMap<RouteText>,
    seed: &KeySeed,
    now_ns: u64,
) {
    let value = names.value(head).unwrap();
    let routed = find_target(value, head.host().unwrap());
    assert!(routed.target.is_some() && routed.malformed == 0);
    let key = RequestKey::new(&now_ns.to_be_bytes(), seed);
    routes.put(key, RouteText::new(value).unwrap(), now_ns);
}

#[test]
fn a_message_costs_no_allocation() {
    let mut shard = Shard::new();
    // Long enough for both maps to be full and to have gone round their blocks.
    (0..3000).for_each(|number| shard.round(number));
    let before = ALLOCATIONS.with(Cell::get);
    (0..2000).for_each(|number| shard.round(number));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    assert_eq!(shard.finished, 10_000);
}

#[test]
fn a_new_connection_holds_no_storage() {
    let before = BYTES.with(Cell::get);
    let halves = (RequestHalf::new(), ResponseHalf::new(), Exchanges::<u64>::new());
    assert_eq!(BYTES.with(Cell::get), before);
    drop(halves);
}

/// A connection whose client does not pipeline has storage for one exchange, asked or not.
#[test]
fn a_connection_keeps_room_for_one_exchange() {
    let (mut reader, mut half) = (HeadReader::new(Limits::DEFAULT), RequestHalf::new());
    let mut response = ResponseHalf::new();
    let mut exchanges = Exchanges::<u64>::new();
    let before = BYTES.with(Cell::get);
    for now in 0..3 {
        let step = half.step(b"GET / HTTP/1.1\r\n\r\n", &mut reader, &mut exchanges, now);
        assert!(matches!(step, RequestStep::Head { .. }));
        let mut rest: &[u8] = b"HTTP/1.1 204 No\r\n\r\n";
        loop {
            match response.step(rest, &mut reader, &mut exchanges) {
                ResponseStep::Head { consumed, .. } => rest = &rest[consumed..],
                ResponseStep::Finish(_) => break,
                step => panic!("{step:?}"),
            }
        }
    }
    assert!(exchanges.is_empty());
    let kept = BYTES.with(Cell::get) - before;
    assert_eq!(kept, size_of::<Exchange<u64>>());
}

/// Between two heads no more is kept than the limit says, however long the first was.
#[test]
fn a_long_head_does_not_stay() {
    for (pad, kept) in [(100, true), (40_000, false)] {
        let mut reader = HeadReader::new(Limits::DEFAULT);
        let mut half = RequestHalf::new();
        let mut exchanges = Exchanges::<u64>::new();
        let head = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(pad));
        let (start, rest) = head.as_bytes().split_at(head.len() - 1);
        assert!(matches!(half.step(start, &mut reader, &mut exchanges, 0), RequestStep::Need));
        let step = half.step(rest, &mut reader, &mut exchanges, 0);
        assert!(matches!(step, RequestStep::Head { held: true, .. }));
        let before = BYTES.with(Cell::get);
        assert!(matches!(half.step(b"", &mut reader, &mut exchanges, 0), RequestStep::Need));
        assert_eq!(BYTES.with(Cell::get) == before, kept, "a head of {pad} bytes");
    }
}

#[test]
fn an_endless_head_costs_no_more_than_the_limit() {
    let mut reader = HeadReader::new(Limits::DEFAULT);
    let mut half = RequestHalf::new();
    let mut exchanges = Exchanges::<u64>::new();
    let buffer = [b'x'; 16 * 1024];
    let before = BYTES.with(Cell::get);
    BYTES_MOST.with(|most| most.set(before));
    let start = b"GET / HTTP/1.1\r\nA: ";
    assert!(matches!(half.step(start, &mut reader, &mut exchanges, 0), RequestStep::Need));
    let mut sent = 0;
    for _ in 0..1000 {
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            match half.step(rest, &mut reader, &mut exchanges, 0) {
                RequestStep::Need => rest = &[],
                RequestStep::Opaque { held, .. } => sent += held.len(),
                RequestStep::Forward(count) => {
                    sent += count;
                    rest = &rest[count..];
                }
                RequestStep::Head { .. } => unreachable!(),
            }
        }
    }
    assert_eq!(sent, start.len() + 1000 * buffer.len());
    let most = BYTES_MOST.with(Cell::get) - before;
    // Growing means that old and new storage are there for a moment.
    assert!(most <= 3 * Limits::DEFAULT.head_bytes_max as usize, "{most}");
    assert_eq!(BYTES.with(Cell::get), before);
}

#[test]
fn an_operation_that_was_seen_costs_no_allocation() {
    let rule = SampleRule::PerOperation(Operations {
        default_share: 0.5,
        least_per_second: 1.0,
        shares: vec![(b"shop/a"[..].into(), 0.1)],
        operations_max: 100,
    });
    let plan = SamplerPlan { rule, parent_based: true, is_remote: true };
    let mut sampler = Sampler::new(plan.into(), 2);
    let names: Vec<String> = (0..150).map(|number| format!("/{number}")).collect();
    let mut round = |now_ns| {
        for (number, name) in (0..).zip(&names) {
            sampler.decide(number << 55, b"shop", name.as_bytes(), now_ns);
        }
        sampler.decide(1, b"shop", b"/a", now_ns);
    };
    round(0);
    let before = ALLOCATIONS.with(Cell::get);
    (1..100).for_each(|second| round(second * 1_000_000_000));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
}

/// Reads along, asks for everything that can be asked for, and keeps nothing.
fn tap(tap: &mut Tap<u64>, way: Way, mut input: &[u8], finished: &mut u64) {
    loop {
        match tap.step(way, input, &Limits::DEFAULT, *finished, &mut Head::default()) {
            Step::Need => return,
            Step::Body(count) | Step::Late(count) => input = &input[count..],
            Step::Opened { consumed, message, exchange } => {
                message.pairs(|(_, value)| exchange.data += value.len() as u64);
                exchange.data += message.name().concat_len();
                input = &input[consumed..];
            }
            Step::Answered { consumed, .. } | Step::Aside { consumed, .. } => {
                input = &input[consumed..];
            }
            Step::Finished { consumed, .. } => {
                *finished += 1;
                input = &input[consumed..];
            }
            Step::Tunnel(reason) => panic!("{reason}"),
        }
    }
}

trait Pieces {
    fn concat_len(&self) -> u64;
}

impl Pieces for [&[u8]; 3] {
    fn concat_len(&self) -> u64 {
        self.iter().map(|piece| piece.len() as u64).sum()
    }
}

/// Connections as they were recorded, over and over, cut in two at another place each time.
#[test]
fn a_tapped_message_costs_no_allocation() {
    for capture in kit::captures() {
        let mut connection = Tap::new(capture.protocol);
        let mut finished = 0;
        let mut round = |number: usize| {
            for part in &capture.parts {
                let (start, rest) = part.bytes.split_at(number % part.bytes.len());
                tap(&mut connection, part.way, start, &mut finished);
                tap(&mut connection, part.way, rest, &mut finished);
            }
        };
        (0..100).for_each(&mut round);
        let before = ALLOCATIONS.with(Cell::get);
        (0..100).for_each(&mut round);
        assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "{}", capture.name);
        assert!(finished >= 200, "{}: {finished}", capture.name);
    }
}

/// What a tap holds, it says, and gives back; an idle one is its own size and nothing else.
#[test]
fn a_quiet_tap_holds_no_storage() {
    for protocol in Protocol::ALL {
        let before = BYTES.with(Cell::get);
        let mut connection = Tap::<u64>::new(*protocol);
        assert_eq!(BYTES.with(Cell::get), before, "{protocol}");
        let captures = kit::captures();
        let capture = captures.iter().find(|it| it.protocol == *protocol).unwrap();
        let mut finished = 0;
        let before = BYTES.with(Cell::get);
        for part in &capture.parts {
            for byte in part.bytes.chunks(1) {
                tap(&mut connection, part.way, byte, &mut finished);
            }
        }
        assert!(BYTES.with(Cell::get) > before && connection.held() == 0, "{protocol}");
        connection.release_memory();
        assert_eq!(BYTES.with(Cell::get), before, "{protocol}");
    }
    assert!(size_of::<Tap<Option<Box<u64>>>>() <= 456);
}
