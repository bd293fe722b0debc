//! Where the network cuts a message must not matter: each conversation, cut at every offset, gives
//! the same steps and the same bytes.

mod support;

use Side::{Client, Server};
use netra_codecs::Limits;
use netra_codecs::h1::Reason;
use support::{Event, Side, Sidecar};

type Conversation = &'static [(Side, &'static str)];

const CONVERSATIONS: &[Conversation] = &[
    &[
        (Client, "GET /a?b HTTP/1.1\r\nHost: a\r\nX-Source: old\r\nx-source: older\r\n\r\n"),
        (Server, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        (Client, "\r\nPOST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc"),
        (Server, "HTTP/1.0 200 OK\r\nServer: x\r\n\r\nuntil close"),
    ],
    &[
        (Client, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Server, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nHTTP/1.1 304 Same\r\n\r\n"),
    ],
    &[
        (Client, "POST / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (Server, "HTTP/1.1 100 Continue\r\n\r\n"),
        (
            Client,
            "5;a=\"b;\\\"c\"\r\nhello\r\n1\r\n\n\r\n0\r\nTrailer: x\r\nOther:\r\n\r\n\
            GET / HTTP/1.1\r\n\r\n",
        ),
        (
            Server,
            "HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\
            Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\n\
            HTTP/1.1 204 No Content\r\n\r\n",
        ),
    ],
    &[
        (
            Client,
            "GET /ws HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        (Server, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u{1}\u{2}frame"),
        (Client, "\u{1}\u{2}GET / HTTP/1.1\r\n\r\n"),
        (Server, "HTTP/1.1 200 OK\r\n\r\n"),
    ],
    &[
        (Client, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        (Server, "HTTP/1.1 200 Established\r\n\r\n"),
        (Client, "\u{16}\u{3}\u{1}hello"),
        (Server, "\u{16}\u{3}\u{3}hello"),
    ],
    &[
        (Client, "GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"),
        (Server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
        (Client, "GET / HTTP/1.1\r\n\r\n"),
        (Server, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
    ],
    &[
        (Client, "POST /big HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc"),
        (Server, "HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n"),
        (Client, "defGET / HTTP/1.1\r\n\r\n"),
        (Server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
    &[
        (Client, "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\nx"),
        (Server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 400 Bad\r\n\r\n"),
    ],
    &[
        (Client, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n"),
        (Server, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"),
    ],
    &[
        (Client, "GET / HTTP/1.1\r\n\r\n"),
        (Server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 408 Late\r\n\r\n"),
        (Client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ],
    &[
        (Client, "GET / HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /half"),
        (Server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n"),
    ],
    &[(Client, "\u{16}\u{3}\u{1}\u{2}"), (Server, "\u{16}\u{3}\u{3}")],
    &[(Client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), (Server, "\0\0\0")],
    &[(Server, "220 mail ready\r\n"), (Client, "EHLO me\r\n")],
    &[(Client, "get key\r\n"), (Server, "VALUE key 0 1\r\nx\r\nEND\r\n")],
    &[(Client, "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"), (Server, "HTTP/1.1 200 OK\r\n\r\n")],
    &[(Client, "GET / HTTP/1.1\r\nA : b\r\n\r\n")],
    &[(Client, "GET / HTTP/1.1\nHost: a\n\n")],
    &[(Client, "\r\n\r\nGET / HTTP/1.1\r\n\r\n")],
    &[(Client, "GET / HTTP/1.1\r\n\r\n"), (Server, "HTTP/1.1 2x0 OK\r\nA: b\r\n\r\n")],
];

struct Outcome {
    events: Vec<Event>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    opaque: Option<Reason>,
}

/// Plays a conversation; `cut` gives the pieces of each part.
fn play(
    conversation: Conversation,
    mut cut: impl FnMut(usize, &'static [u8]) -> Vec<usize>,
) -> Outcome {
    let mut sidecar = Sidecar::new(Limits::DEFAULT);
    for (index, &(side, text)) in conversation.iter().enumerate() {
        let mut rest = text.as_bytes();
        for len in cut(index, text.as_bytes()) {
            let (piece, after) = rest.split_at(len);
            sidecar.feed(side, piece);
            rest = after;
        }
        sidecar.feed(side, rest);
    }
    sidecar.client_end();
    sidecar.server_end();
    Outcome {
        events: sidecar.events,
        to_server: sidecar.to_server,
        to_client: sidecar.to_client,
        opaque: sidecar.exchanges.sealed(),
    }
}

fn check(whole: &Outcome, cut: &Outcome, what: &str) {
    assert_eq!(whole.events, cut.events, "{what}");
    assert_eq!(whole.to_server, cut.to_server, "{what}");
    assert_eq!(whole.to_client, cut.to_client, "{what}");
    assert_eq!(whole.opaque, cut.opaque, "{what}");
}

#[test]
fn one_cut_at_every_offset() {
    let mut cuts = 0;
    for &conversation in CONVERSATIONS {
        let whole = play(conversation, |_, _| vec![]);
        for (part, (_, text)) in conversation.iter().enumerate() {
            for at in 0..=text.len() {
                let cut =
                    play(conversation, |index, _| if index == part { vec![at] } else { vec![] });
                check(&whole, &cut, &format!("{text:?} cut at {at}"));
                cuts += 1;
            }
        }
    }
    assert!(cuts > 1500, "{cuts}");
}

#[test]
fn two_cuts_at_every_pair_of_offsets() {
    for &conversation in CONVERSATIONS {
        let whole = play(conversation, |_, _| vec![]);
        for (part, (_, text)) in conversation.iter().enumerate() {
            for first in 0..text.len() {
                for second in 1..text.len() - first {
                    let cut = play(conversation, |index, _| {
                        if index == part { vec![first, second] } else { vec![] }
                    });
                    check(&whole, &cut, &format!("{text:?} cut at {first} and {second} on"));
                }
            }
        }
    }
}

#[test]
fn byte_by_byte() {
    for &conversation in CONVERSATIONS {
        let whole = play(conversation, |_, _| vec![]);
        for size in 1..=4 {
            let dripped = play(conversation, |_, text| vec![size; text.len() / size]);
            check(&whole, &dripped, &format!("{size} bytes at a time of {conversation:?}"));
        }
    }
}

/// What passes unseen changes nothing either.
#[test]
fn bodies_that_pass_unseen() {
    for &conversation in CONVERSATIONS {
        let whole = play(conversation, |_, _| vec![]);
        for size in [1, 2, 3, 5, 1000] {
            let mut sidecar = Sidecar::new(Limits::DEFAULT);
            for &(side, text) in conversation {
                for piece in text.as_bytes().chunks(size) {
                    match side {
                        Client => sidecar.client_spliced(piece),
                        Server => sidecar.server_spliced(piece),
                    }
                }
            }
            sidecar.client_end();
            sidecar.server_end();
            assert_eq!(whole.events, sidecar.events, "{conversation:?}");
            assert_eq!(whole.to_server, sidecar.to_server, "{conversation:?}");
            assert_eq!(whole.to_client, sidecar.to_client, "{conversation:?}");
        }
    }
}
