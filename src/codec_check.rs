//! `netra codec check`: whether a protocol is well described, and what it makes of a capture.

use crate::{exit::Exit, protocol_file};
use netra_codecs::{
    Limits,
    codec::{Exchange, Head, Outcome},
    tap::{Protocol, Step, Tap},
};
use std::fmt::Write as _;
use std::{fs, path::Path};

pub(crate) use netra_codecs::codec::Way;

mod pcap;

/// The largest capture that is read, in bytes.
const CAPTURE_BYTES_MAX: u64 = 256 << 20;

/// What is to be checked.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CodecArgs {
    /// The description, in YAML.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    /// A capture of packets (pcap or pcapng), or the bytes that a client sent.
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: Option<String>,
    /// The bytes that the server answered, where the capture has those of the client alone.
    #[arg(long, value_name = "CAPTURE", requires = "capture")]
    pub(crate) answers: Option<String>,
    /// The server's port in a capture of packets; else it is that of the first connection.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
}

/// How bytes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pieces {
    /// As they are.
    Whole,
    /// So many at a time.
    Of(usize),
}

/// Something that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) way: Way,
    /// The byte of the way at which it begins.
    pub(crate) at: u64,
    pub(crate) what: String,
}

/// Bytes of one connection, in the order in which they came.
pub(crate) type Parts = Vec<(Way, Vec<u8>)>;

/// Runs it.
pub(crate) fn run(args: &CodecArgs) -> Exit {
    match check(args) {
        Ok((text, is_good)) => {
            print!("{text}");
            if is_good { Exit::DONE } else { Exit::CONFIG }
        }
        Err(why) => {
            eprintln!("netra: {}", crate::mask::line(&why));
            Exit::CONFIG
        }
    }
}

/// What there is to say, and whether all was read.
fn check(args: &CodecArgs) -> Result<(String, bool), String> {
    let private = &*Box::leak(Box::new(protocol_file::read(&args.file)?));
    let protocol = Protocol::Private(private);
    let about = protocol.about();
    let operations = about.operations.join(", ");
    let refused = if private.replies() { "told by its reply" } else { "closed" };
    let mut out = format!(
        "{}: {} is a protocol; operations: {operations}; who is refused is {refused}\n",
        args.file, about.name
    );
    let Some(capture) = &args.capture else { return Ok((out, true)) };
    let mut is_good = true;
    for (name, parts) in connections(capture, args)? {
        let rows = rows(protocol, &parts, Pieces::Whole);
        for size in [1, 7] {
            if self::rows(protocol, &parts, Pieces::Of(size)) != rows {
                return Err(format!("{name}: in pieces of {size} bytes it reads otherwise"));
            }
        }
        let _ = writeln!(out, "\n{name}\n{:<9} {:>9}  message", "way", "byte");
        for Row { way, at, what } in &rows {
            let way = if *way == Way::Request { "request" } else { "response" };
            let _ = writeln!(out, "{way:<9} {at:>9}  {}", crate::mask::line(what));
            is_good &= !what.starts_with(STOPS);
        }
    }
    Ok((out, is_good))
}

const STOPS: &str = "stops: ";

/// The connections of a capture, each with its name.
fn connections(capture: &str, args: &CodecArgs) -> Result<Vec<(String, Parts)>, String> {
    let bytes = bytes_of(capture)?;
    if pcap::is_capture(&bytes) {
        return pcap::connections(&bytes, args.port).map_err(|why| format!("{capture}: {why}"));
    }
    let mut parts = vec![(Way::Request, bytes)];
    if let Some(answers) = &args.answers {
        parts.push((Way::Response, bytes_of(answers)?));
    }
    Ok(vec![(capture.to_owned(), parts)])
}

fn bytes_of(path: &str) -> Result<Vec<u8>, String> {
    let len = fs::metadata(Path::new(path)).map_err(|error| format!("{path}: {error}"))?.len();
    if len > CAPTURE_BYTES_MAX {
        return Err(format!("{path}: longer than {CAPTURE_BYTES_MAX} bytes"));
    }
    fs::read(path).map_err(|error| format!("{path}: {error}"))
}

/// What a protocol makes of a connection.
pub(crate) fn rows(protocol: Protocol, parts: &[(Way, Vec<u8>)], pieces: Pieces) -> Vec<Row> {
    let mut reader = Reader {
        tap: Tap::new(protocol),
        rows: Vec::new(),
        read: [0; 2],
        begun: [0; 2],
        is_over: false,
    };
    for (way, bytes) in parts {
        let size = match pieces {
            Pieces::Whole => bytes.len().max(1),
            Pieces::Of(size) => size,
        };
        bytes.chunks(size).for_each(|piece| reader.show(*way, piece));
    }
    let left: Vec<_> = reader.tap.drain().map(|(exchange, _)| exchange).collect();
    for exchange in left {
        let (at, what) = (exchange.data.at, done(&exchange, ""));
        reader.rows.push(Row { way: Way::Request, at, what });
    }
    reader.rows
}

/// What is remembered of a request.
#[derive(Clone, Debug, Default)]
struct Asked {
    name: String,
    at: u64,
}

struct Reader {
    tap: Tap<Asked>,
    rows: Vec<Row>,
    /// Bytes that were read, by way.
    read: [u64; 2],
    /// Where the message under way begins, by way.
    begun: [u64; 2],
    is_over: bool,
}

impl Reader {
    fn show(&mut self, way: Way, mut input: &[u8]) {
        let mut head = Head::default();
        let place = way as usize;
        while !self.is_over {
            if !self.tap.is_within_message(way) {
                self.begun[place] = self.read[place];
            }
            let mut at = self.begun[place];
            let (consumed, what) = match self.tap.step(way, input, &Limits::DEFAULT, 0, &mut head) {
                Step::Need => {
                    self.read[place] += input.len() as u64;
                    return;
                }
                Step::Body(count) | Step::Late(count) => (count, None),
                Step::Opened { consumed, message, exchange } => {
                    let name = String::from_utf8_lossy(&message.name().concat()).into_owned();
                    exchange.data = Asked { name: name.clone(), at };
                    (consumed, Some(name))
                }
                Step::Answered { consumed, .. } => (consumed, None),
                Step::Finished { consumed, exchange, error, .. } => {
                    if exchange.outcome == Outcome::Sent {
                        at = exchange.data.at;
                    }
                    (consumed, Some(done(&exchange, &String::from_utf8_lossy(error))))
                }
                Step::Aside { consumed, message } => (consumed, Some(message.kind().name().into())),
                Step::Tunnel(reason) => {
                    self.is_over = true;
                    (0, Some(format!("{STOPS}{reason}")))
                }
            };
            self.rows.extend(what.map(|what| Row { way, at, what }));
            self.read[place] += consumed as u64;
            input = &input[consumed..];
        }
    }
}

fn done(exchange: &Exchange<Asked>, error: &str) -> String {
    let mut what = format!("{}: {}", exchange.data.name, exchange.outcome);
    if exchange.status != 0 && exchange.outcome != Outcome::Unanswered {
        let _ = write!(what, " {}", exchange.status);
    }
    if !error.is_empty() {
        let _ = write!(what, " {error}");
    }
    what
}
