//! The orders' protocol, whose messages say their own length:
//!
//! ```text
//! bytes   0..2   "OR"
//!         2      kind: 0 request, 1 answer, 2 request without an answer, 3 heartbeat
//!         3      operation of a request (0 place, 1 cancel, 2 list); status of an answer, 0 is good
//!         4..8   id, which an answer has from its request
//!         8..12  length of what follows
//!        12..    customer: its length (1), its name; then pairs of one header each: length (1), name,
//!                length (1), value; a length of 0 ends them; then the body
//! ```
//! All that a codec has to say is here. Heads that come in pieces, bodies that are spliced, which
//! answer belongs to which request, spans, metrics: netra does that.

use netra::codecs::codec::{
    About, Convention, Correlation, Frame, FrameCodec, Head, Key, Kind, Outcome, Pair, Reason, Speaks,
    Spot, Way,
};

/// The codec. What it has to remember of a connection is nothing.
#[derive(Debug)]
pub struct Orders;

const MAGIC: &[u8] = b"OR";
/// Bytes in front of the body's length and with it.
const HEADER: usize = 12;
/// Longer ones are another protocol's, or broken.
const BODY_MAX: u32 = 64 << 20;

/// All operations that metrics tell apart; the index is the number on the wire, the last is for others.
const OPERATIONS: &[&str] = &["place", "cancel", "list", "other"];
const OTHER: u8 = 3;

impl FrameCodec for Orders {
    const ABOUT: &'static About = &About {
        name: "orders",
        operations: OPERATIONS,
        port: 7070,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Unique,
        keys: &[Key::Group],
        carries_context: true,
        convention: Convention::Rpc("orders"),
    };

    type Memory = ();

    /// How long the message is that begins so.
    fn frame((): &(), _: Way, bytes: &[u8]) -> Frame {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Frame::Not(Reason::NotThisProtocol);
        }
        let Some(length) = bytes.get(8..HEADER).and_then(|it| it.first_chunk()) else {
            return Frame::Need(HEADER);
        };
        match u32::from_be_bytes(*length) {
            0..=BODY_MAX => Frame::Total(HEADER as u64 + u64::from(u32::from_be_bytes(*length))),
            _ => Frame::Not(Reason::TooLarge),
        }
    }

    /// What its head says. There are as many bytes as the message has, or as heads may have.
    fn head((): &mut (), way: Way, bytes: &[u8], head: &mut Head) -> Result<(), Reason> {
        let [_, _, kind, code, a, b, c, d, ..] = *bytes else { return Err(Reason::Malformed) };
        head.id = u32::from_be_bytes([a, b, c, d]).into();
        head.kind = match (kind, way) {
            (0, Way::Request) => Kind::Request,
            (1, Way::Response) => Kind::Response,
            (2, Way::Request) => Kind::Oneway,
            (3, _) => Kind::Heartbeat,
            _ => return Err(Reason::Malformed),
        };
        if head.kind == Kind::Response {
            head.status = code.into();
            head.outcome = if code == 0 { Outcome::Ok } else { Outcome::AppError };
        } else {
            head.operation = code.min(OTHER);
            head.extra = customer(bytes);
        }
        Ok(())
    }

    /// The value of a key, only when somebody asks for it.
    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        match key {
            Key::Group => head.extra.of(bytes),
            _ => None,
        }
    }

    /// What travels with a request: a trace context is among it, if the caller has one.
    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        if !head.kind.opens() {
            return;
        }
        let mut rest = bytes.get(HEADER..).unwrap_or_default();
        let mut text = || {
            let (len, behind) = rest.split_first()?;
            let (text, behind) = behind.split_at_checked((*len).into())?;
            rest = behind;
            Some(text)
        };
        // The customer comes first.
        if text().is_none() {
            return;
        }
        while let Some(name) = text().filter(|name| !name.is_empty()) {
            let Some(value) = text() else { return };
            take((name, value));
        }
    }

    /// What the span is called.
    fn name<'b>(head: &Head, _: &'b [u8]) -> [&'b [u8]; 3] {
        match head.kind.opens() {
            true => [OPERATIONS[usize::from(head.operation)].as_bytes(), b"", b""],
            false => [b"", b"", b""],
        }
    }
}

/// Where the customer's name is.
fn customer(bytes: &[u8]) -> Spot {
    let len = bytes.get(HEADER).copied().unwrap_or_default();
    Spot::new(HEADER + 1, len.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra::codecs::kit::{ask, say, stands};

    fn message(kind: u8, code: u8, id: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [MAGIC, &[kind, code], &id.to_be_bytes(), &length, body].concat()
    }

    /// One conversation with all there is, and what is read of it, however it is cut.
    #[test]
    fn it_stands() {
        let context = b"\x03ann\x0btraceparent\x3700-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\0{}";
        let asked = [
            message(0, 0, 7, context),
            message(3, 0, 0, b""),
            message(2, 1, 8, b"\x02bo\0"),
            message(0, 9, 9, &[&b"\x02cy\0"[..], &[b'x'; 5000]].concat()),
        ];
        let answered = [message(1, 4, 9, b""), message(3, 0, 0, b""), message(1, 0, 7, b"done")];
        let told = stands(super::super::orders(), &[ask(asked.concat()), say(answered.concat())]);
        assert_eq!(
            told,
            [
                "open 0 request place group=ann \
                 traceparent:00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "aside heartbeat",
                "open 1 oneway cancel group=bo",
                "done 1 oneway cancel sent 16/0",
                "open 2 request other group=cy",
                "done 2 request other app_error 4 5016/12",
                "aside heartbeat",
                "done 0 request place ok 87/16",
            ]
        );
    }

    #[test]
    fn what_is_something_else_is_said_to_be() {
        for (bytes, reason) in [
            (&b"GET / HTTP/1.1\r\n"[..], "not_this_protocol"),
            (b"OR\x09\0\0\0\0\0\0\0\0\0", "malformed"),
            (b"OR\0\0\0\0\0\0\xff\xff\xff\xff", "too_large"),
        ] {
            let told = stands(super::super::orders(), &[ask(bytes)]);
            assert_eq!(told, [format!("tunnel {reason}")]);
        }
    }
}
