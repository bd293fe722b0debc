//! Any bytes, from either side, in any pieces: without edits the output is the input; with edits it
//! is the same however the input was cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netra_codecs::Limits;
use netra_codecs::h1::{
    Exchanges, HeadPatch, HeadReader, Reason, RequestHalf, RequestStep, ResponseHalf, ResponseStep,
};

// The input is a script: a control byte says who sends how many of the bytes behind it.
fuzz_target!(|script: &[u8]| {
    let limits = Limits {
        head_bytes_max: 200,
        exchanges_max: 4,
        chunk_extension_bytes_max: 20,
        trailer_bytes_max: 30,
        held_keep_bytes: 50,
        ..Limits::DEFAULT
    };
    let plain = play(script, &limits, false, usize::MAX);
    let (client, server) = concatenate(script);
    assert_eq!(plain.to_server, client);
    assert_eq!(plain.to_client, server);
    let edited = play(script, &limits, true, usize::MAX);
    for size in [1, 3] {
        let cut = play(script, &limits, true, size);
        assert_eq!(edited.to_server, cut.to_server);
        assert_eq!(edited.finished, cut.finished);
        assert_eq!(edited.sealed, cut.sealed);
    }
});

struct Played {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    finished: Vec<u16>,
    sealed: Option<Reason>,
}

fn parts(script: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let mut rest = script;
    std::iter::from_fn(move || {
        let (&control, after) = rest.split_first()?;
        let len = usize::from(control >> 1).min(after.len());
        let (part, after) = after.split_at(len);
        rest = after;
        Some((control & 1 == 0, part))
    })
}

fn concatenate(script: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut client, mut server) = (Vec::new(), Vec::new());
    for (from_client, part) in parts(script) {
        if from_client { &mut client } else { &mut server }.extend_from_slice(part);
    }
    (client, server)
}

fn play(script: &[u8], limits: &Limits, edit: bool, size: usize) -> Played {
    let mut reader = HeadReader::new(*limits);
    let mut connection = Connection {
        request: RequestHalf::new(),
        response: ResponseHalf::new(),
        exchanges: Exchanges::new(),
        edit,
        played: Played {
            to_server: Vec::new(),
            to_client: Vec::new(),
            finished: Vec::new(),
            sealed: None,
        },
    };
    for (from_client, part) in parts(script) {
        for piece in part.chunks(size.min(part.len().max(1))) {
            if from_client {
                connection.client(piece, &mut reader);
            } else {
                connection.server(piece, &mut reader);
            }
            assert!(connection.request.held_len() <= limits.head_bytes_max as usize);
            assert!(connection.response.held_len() <= limits.head_bytes_max as usize);
            assert!(connection.exchanges.len() <= usize::from(limits.exchanges_max));
        }
    }
    let held = connection.request.end(&mut connection.exchanges).to_vec();
    connection.played.to_server.extend(held);
    if let Some(exchange) = connection.response.end(&mut connection.exchanges) {
        connection.played.finished.extend(exchange.status);
    }
    connection.played.sealed = connection.exchanges.sealed();
    connection.played
}

struct Connection {
    request: RequestHalf,
    response: ResponseHalf,
    exchanges: Exchanges<()>,
    edit: bool,
    played: Played,
}

impl Connection {
    fn client(&mut self, mut input: &[u8], reader: &mut HeadReader) {
        loop {
            match self.request.step(input, reader, &mut self.exchanges, 0) {
                RequestStep::Need => return,
                RequestStep::Forward(count) => {
                    assert!(count > 0);
                    self.played.to_server.extend_from_slice(&input[..count]);
                    input = &input[count..];
                }
                RequestStep::Head { head, consumed, .. } => {
                    let mut patch = HeadPatch::new();
                    if self.edit {
                        let _ = patch.set(head.fields(), b"X-Source", b"netra");
                    }
                    for piece in patch.pieces(head.bytes()) {
                        self.played.to_server.extend_from_slice(piece.bytes());
                    }
                    input = &input[consumed..];
                }
                RequestStep::Opaque { held, .. } => self.played.to_server.extend_from_slice(held),
            }
        }
    }

    fn server(&mut self, mut input: &[u8], reader: &mut HeadReader) {
        self.played.to_client.extend_from_slice(input);
        loop {
            match self.response.step(input, reader, &mut self.exchanges) {
                ResponseStep::Need => return,
                ResponseStep::Body(count) => {
                    assert!(count > 0);
                    input = &input[count..];
                }
                ResponseStep::Head { consumed, .. } => input = &input[consumed..],
                ResponseStep::Finish(exchange) => self.played.finished.extend(exchange.status),
                ResponseStep::Opaque(_) => {
                    self.client(&[], reader);
                    assert_eq!(self.request.held_len(), 0);
                }
            }
        }
    }
}
