use super::*;
use crate::codec_check::{Pieces, Way, rows};
use netra_codecs::{
    Limits,
    codec::{Head, Refusal, Replied},
    tap::{Step, Tap},
};

/// The descriptions of `examples/protocols/`, each with messages by its public description, and what
/// is read of them.
fn example(name: &str) -> Protocol {
    let path = format!("{}/examples/protocols/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    Protocol::Private(Box::leak(Box::new(read(&path).unwrap())))
}

/// What is said is the same however the bytes come.
fn said(protocol: Protocol, parts: &[(Way, Vec<u8>)]) -> Vec<String> {
    let whole = rows(protocol, parts, Pieces::Whole);
    for size in [1, 2, 3, 5, 7, 64] {
        assert_eq!(rows(protocol, parts, Pieces::Of(size)), whole, "{size}");
    }
    whole.iter().map(|row| format!("{} {}", row.at, row.what)).collect()
}

fn rcon(id: i32, kind: i32, body: &str) -> Vec<u8> {
    let mut message = Vec::new();
    let len = i32::try_from(body.len()).unwrap() + 10;
    [len, id, kind].iter().for_each(|number| message.extend(number.to_le_bytes()));
    message.extend(body.as_bytes());
    message.extend([0, 0]);
    message
}

#[test]
fn rcon_has_its_lowest_bytes_first() {
    let asked = [rcon(7, 3, "secret"), rcon(8, 2, "status"), rcon(9, 2, "say")].concat();
    let answered = [rcon(7, 2, ""), rcon(9, 0, "ok"), rcon(8, 0, &"x".repeat(4000))].concat();
    let parts = [(Way::Request, asked), (Way::Response, answered)];
    let wanted = ["0 auth", "20 exec", "40 exec", "0 auth: ok", "14 exec: ok", "30 exec: ok"];
    assert_eq!(said(example("rcon"), &parts), wanted);
    // A length that is no message's.
    let odd =
        [(Way::Request, [rcon(1, 2, "a"), vec![1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]].concat())];
    assert_eq!(said(example("rcon"), &odd), ["0 exec", "15 stops: malformed", "0 exec: unseen"]);
}

fn smb2(command: u16, is_answer: bool, id: u64, status: u32, body: usize) -> Vec<u8> {
    let mut message = vec![0xfe, b'S', b'M', b'B', 64, 0, 0, 0];
    message.extend(status.to_le_bytes());
    message.extend(command.to_le_bytes());
    message.extend([0, 0]);
    message.extend(u32::from(is_answer).to_le_bytes());
    message.extend([0; 4]);
    message.extend(id.to_le_bytes());
    message.resize(64 + body, 0);
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    [vec![0], len[1..].to_vec(), message].concat()
}

#[test]
fn smb2_has_its_length_in_two_fields() {
    let asked = [smb2(0, false, 0, 0, 36), smb2(9, false, 1, 0, 70_000), smb2(5, false, 2, 0, 56)];
    // The write waits (STATUS_PENDING), the file is not there, and then the write is done.
    let pending = smb2(9, true, 1, 0x103, 8);
    let missing = smb2(5, true, 2, 0xc000_0034, 9);
    let answered = [smb2(0, true, 0, 0, 64), missing, pending].concat();
    let parts = [(Way::Request, asked.concat()), (Way::Response, answered)];
    let wanted = [
        "0 negotiate",
        "104 write",
        "70172 create",
        "0 negotiate: ok",
        "132 create: app_error 2147483647",
        "209 write: ok 259",
    ];
    assert_eq!(said(example("smb2"), &parts), wanted);
    let foreign = [(Way::Request, b"GET / HTTP/1.1\r\n\r\n".to_vec())];
    assert_eq!(said(example("smb2"), &foreign), ["0 stops: not_this_protocol"]);
}

fn gt06(number: u8, content: &[u8]) -> Vec<u8> {
    let len = u8::try_from(content.len() + 5).unwrap();
    let ends = [0, 1, 0xd9, 0xdc, 0x0d, 0x0a];
    [&[0x78, 0x78, len, number], content, &ends].concat()
}

#[test]
fn gt06_has_bytes_behind_all_that_it_counts() {
    let asked =
        [gt06(0x01, &[1; 8]), gt06(0x12, &[2; 21]), gt06(0x13, &[3; 5]), gt06(0x16, &[4; 32])];
    let answered = [gt06(0x01, &[]), gt06(0x13, &[]), gt06(0x16, &[])].concat();
    let parts = [(Way::Request, asked.concat()), (Way::Response, answered)];
    let wanted = [
        "0 login",
        "18 location",
        "18 location: sent",
        "49 heartbeat",
        "64 alarm",
        "0 login: ok",
        "10 heartbeat",
        "20 alarm: ok",
    ];
    assert_eq!(said(example("gt06"), &parts), wanted);
}

/// One of each kind of field.
const FIELDS: &str = "
name: orders
magic: {bytes: 4f52}
header: 8
length: {at: 2, width: 2, counts: body}
status: {at: 4, width: 1, ok: [0]}
operations: [buy, sell]
fields:
  service: {at: 8, length: 8}
  method: {at: 16, prefix: 2}
  group: {after: method, prefix: 1}
  version: {at: 28, tag: 7, tag-width: 1, length-width: 1}
";

#[test]
fn fields_are_found_wherever_they_are() {
    let protocol = Protocol::Private(Box::leak(Box::new(parse(FIELDS).unwrap())));
    let body = b"shop\0\0\0\0\0\x04sell\x03vip\0\0\x01\x01a\x07\x022b";
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    let message = [b"OR", &len[..], &[0; 4], body].concat();
    let parts = [(Way::Request, message), (Way::Response, b"OR\0\0\x05\0\0\0".to_vec())];
    assert_eq!(said(protocol, &parts), ["0 shop/sell", "0 shop/sell: app_error 5"]);
    assert_eq!(protocol.about().operations, ["buy", "sell", "other"]);
    let text = FIELDS.replace("{at: 16, prefix: 2}", "{at: 8, protobuf: [1, 2]}");
    let protocol = Protocol::Private(Box::leak(Box::new(parse(&text).unwrap())));
    let body = b"\x0a\x05\x12\x03buy";
    let message = [b"OR\0\x07\0\0\0\0", &body[..]].concat();
    assert_eq!(said(protocol, &[(Way::Request, message)]), ["0 buy", "0 buy: unanswered"]);
}

#[test]
fn what_is_wrong_has_its_place() {
    let good = "name: a\nheader: 4\nlength: {at: 0, width: 4, counts: rest}\n";
    assert!(parse(good).is_ok());
    for (text, place, what) in [
        ("", (1, 1), "there is nothing"),
        ("name: [a", (2, 1), "while parsing"),
        ("name: a\nheader: 4\n", (1, 1), "\"length\" is missing"),
        (&good.replace("name: a", "name: a b"), (1, 7), "has to be 1 to 40"),
        (&good.replace("header: 4", "header: 0"), (2, 9), "a whole number from 1 to 1024"),
        (
            &good.replace("header: 4", "header: 3"),
            (3, 9),
            "length ends at 4, behind the header's 3",
        ),
        (&good.replace("width: 4", "width: 9"), (3, 24), "a whole number from 1 to 8"),
        (&good.replace("rest", "all"), (3, 35), "message, rest or body"),
        (&format!("{good}lenght: 1\n"), (4, 1), "\"lenght\" is none of name, magic"),
        (&format!("{good}name: b\n"), (4, 1), "\"name\" comes twice"),
        (&format!("{good}magic: {{bytes: 4f5}}\n"), (4, 16), "hexadecimal"),
        (&format!("{good}magic: {{at: 3, bytes: 4f52}}\n"), (4, 8), "magic lies behind the header"),
        (&format!("{good}byte-order: middle\n"), (4, 13), "big or little"),
        (&format!("{good}id: {{at: 2, width: 4}}\n"), (4, 5), "id ends at 6"),
        (&format!("{good}kind: {{at: 0, width: 1, push: [1]}}\n"), (4, 7), "there is no request"),
        (
            &format!("{good}kind: {{at: 0, width: 1, mask: 1, request: [2]}}\n"),
            (4, 44),
            "beyond the mask",
        ),
        (&format!("{good}operations: [x]\n"), (4, 13), "needs the field method"),
        (&format!("{good}fields: {{colour: {{at: 1, length: 1}}}}\n"), (4, 10), "is none of"),
        (&format!("{good}fields: {{method: {{at: 1}}}}\n"), (4, 18), "a length, a prefix"),
        (
            &format!("{good}fields: {{method: {{after: service, prefix: 1}}}}\n"),
            (4, 26),
            "a field that stands before",
        ),
        (&format!("{good}---\n{good}"), (5, 1), "only one document"),
        (&format!("{good}status: &a {{at: 0, width: 1, ok: [0]}}\n"), (4, 9), "anchors"),
    ] {
        let Err(Wrong { at, what: said }) = parse(text) else { panic!("{text} is taken") };
        assert!(said.contains(what), "{said}: {text}");
        assert_eq!((at.line, at.column), place, "{said}: {text}");
    }
    assert!(parse(&"[".repeat(1000)).is_err());
}

/// What the client of this request is told when it is refused; None where it is closed.
fn refused(protocol: Protocol, request: &[u8], refusal: &Refusal<'_>) -> Option<Vec<u8>> {
    let (mut tap, mut head) = (Tap::<u32>::new(protocol), Head::default());
    let step = tap.step(Way::Request, request, &Limits::DEFAULT, 0, &mut head);
    let Step::Opened { message, .. } = step else { panic!("{step:?}") };
    let mut out = Vec::new();
    (message.reply(refusal, &mut out) == Replied::Sent).then_some(out)
}

#[test]
fn who_is_refused_is_told_by_the_template() {
    let refusal = Refusal { why: Why::Denied, text: "not by you", is_alone: true };
    let told = refused(example("rcon"), &rcon(0x0102, 2, "quit"), &refusal);
    assert_eq!(told.unwrap(), rcon(0x0102, 0, "not by you"));
    assert_eq!(refused(example("smb2"), &smb2(9, false, 1, 0, 40), &refusal), None);
    let text = "name: own\nheader: 8\nlength: {at: 0, width: 2, counts: body}\n\
        id: {at: 2, width: 2}\nkind: {at: 4, width: 1, request: [0], response: [1]}\n\
        status: {at: 5, width: 1, ok: [0]}\noperations: {at: 6, width: 1, names: {3: ask}}\n\
        reply: {bytes: \"0000 0000 01 09 00 00\", status: {denied: 7, limited: 8}, \
        copy: [{at: 6, length: 2}], text: {prefix: 2}}\n";
    let own = Protocol::Private(Box::leak(Box::new(parse(text).unwrap())));
    let request = b"\0\x01\0\x2a\0\0\x03\x04x";
    for (why, status) in [(Why::Denied, 7), (Why::Limited, 8), (Why::Aborted, 9)] {
        let told = refused(own, request, &Refusal { why, text: "no", is_alone: true }).unwrap();
        let header = [0, 4, 0, 0x2a, 1, status, 3, 4];
        assert_eq!(told, [&header[..], b"\0\x02no"].concat());
        // It is read as the answer that says so.
        let parts = [(Way::Request, request.to_vec()), (Way::Response, told)];
        assert_eq!(said(own, &parts), ["0 ask", &format!("0 ask: app_error {status}")]);
    }
}

#[test]
fn templates_that_are_no_answers_are_refused() {
    let base = "name: a\nheader: 4\nlength: {at: 0, width: 1, counts: message}\n\
        kind: {at: 1, width: 1, request: [0], response: [1]}\n";
    let status = "status: {at: 2, width: 1, ok: [0]}\n";
    for (more, reply, why) in [
        ("", "{bytes: \"00 01 00\"}", "reply has to have a header at least"),
        ("", "{bytes: \"00 00 00 00\"}", "reply is no answer, by its kind"),
        ("", "{bytes: \"00 02 00 00\"}", "reply is no answer, by its kind"),
        (
            status,
            "{bytes: \"00 01 00 00\", status: {denied: 1, limited: 1}}",
            "reply says that all is well, by its status, to a request that is refused as no_route",
        ),
        ("", "{bytes: \"00 01 00 00\", status: {denied: 1}}", "reply has a status"),
        (status, "{bytes: \"00 01 01 00\", status: {denied: 300}}", "reply has a number"),
        (status, "{bytes: \"00 01 01 00\", status: {odd: 1}}", "\"odd\" is none of"),
        ("", "{bytes: \"00 01 00 00\", copy: [{at: 3, length: 2}]}", "reply copies"),
        ("", "{bytes: \"00 01 00 00\", text: {at: 2}}", "reply has its text before"),
        // A text may be longer than one byte can say.
        ("", "{bytes: \"00 01 00 00\", text: {}}", "reply has a number that does not fit"),
        ("", "{bytes: \"00 01 0\"}", "has to be bytes in hexadecimal"),
        ("magic: {at: 3, bytes: \"4f\"}\n", "{bytes: \"00 01 00 00\"}", "reply is no message"),
    ] {
        let wrong = parse(&format!("{base}{more}reply: {reply}\n")).expect_err(reply);
        assert!(wrong.what.starts_with(why), "{reply}: {wrong:?}");
        assert!(wrong.at.line >= 5, "{wrong:?}");
    }
    assert!(parse(&format!("{base}reply: {{bytes: \"00 01 00 00\"}}\n")).is_ok());
    let with_trailer = base.replace("counts: message", "counts: message, trailer: 2");
    let wrong = parse(&format!("{with_trailer}reply: {{bytes: \"00 01 00 00\"}}\n")).unwrap_err();
    assert!(wrong.what.starts_with("reply cannot be"), "{wrong:?}");
}
