//! Protocols beside HTTP/1 that a load can be made of: one question, its answer, and where a
//! question ends. Both are always the same bytes, so that whatever changes them is noticed.

/// A protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    /// `GET` of a value of 64 bytes: 36 bytes, and 71.
    Redis,
    /// A call with one string, answered with one: 181 bytes, and 46.
    Dubbo,
    /// A call in framed binary form: 93 bytes, and 285.
    Thrift,
}

/// Bytes of the strings in question and answer.
const REDIS_VALUE: usize = 64;
const DUBBO_VALUE: usize = 28;
const THRIFT_ARGUMENT: usize = 64;
const THRIFT_VALUE: usize = 256;

const DUBBO_HEAD: usize = 16;
/// Longest question that is taken; one that is longer is none.
const QUESTION_BYTES_MAX: usize = 64 * 1024;

/// Bytes that are no question of this protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NotOurs;

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::Redis, Self::Dubbo, Self::Thrift];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Dubbo => "dubbo",
            Self::Thrift => "thrift",
        }
    }

    /// What a client asks.
    pub(crate) fn question(self) -> Vec<u8> {
        match self {
            Self::Redis => b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000042\r\n".to_vec(),
            Self::Dubbo => {
                let service = "org.apache.dubbo.demo.DemoSvc";
                let call = ["2.0.2", service, "0.0.0", "sayHello", "Ljava/lang/String;", "joe"];
                let attachments = ["path", service, "interface", service, "version", "0.0.0"];
                let mut body: Vec<u8> = call.iter().flat_map(|text| hessian(text)).collect();
                body.push(b'H');
                body.extend(attachments.iter().flat_map(|text| hessian(text)));
                body.push(b'Z');
                dubbo(0xc2, 0, &body)
            }
            Self::Thrift => thrift(1, 1, THRIFT_ARGUMENT, b'x'),
        }
    }

    /// What our own server answers to that.
    pub(crate) fn answer(self) -> Vec<u8> {
        match self {
            Self::Redis => {
                let value = "y".repeat(REDIS_VALUE);
                format!("${REDIS_VALUE}\r\n{value}\r\n").into_bytes()
            }
            // A value is returned, which is a string.
            Self::Dubbo => {
                dubbo(2, 20, &[&[0x91], &hessian(&"y".repeat(DUBBO_VALUE))[..]].concat())
            }
            Self::Thrift => thrift(2, 0, THRIFT_VALUE, b'y'),
        }
    }

    /// How long the question is that these bytes begin with; none when it has not come whole.
    pub(crate) fn question_len(self, bytes: &[u8]) -> Result<Option<usize>, NotOurs> {
        let total = match self {
            Self::Redis => return redis_len(bytes),
            Self::Dubbo if !bytes.starts_with(&[0xda, 0xbb][..bytes.len().min(2)]) => {
                return Err(NotOurs);
            }
            Self::Dubbo => number(bytes, 12).map(|body| DUBBO_HEAD + body),
            Self::Thrift => number(bytes, 0).map(|frame| 4 + frame),
        };
        match total {
            Some(total) if total > QUESTION_BYTES_MAX => Err(NotOurs),
            total => Ok(total.filter(|total| *total <= bytes.len())),
        }
    }

    /// Answers a whole question: `ready` is what [`Self::answer`] made. A proxy between may have
    /// given the call a number of its own, or ask for itself whether anybody is there.
    pub(crate) fn put_answer(self, question: &[u8], ready: &[u8], out: &mut Vec<u8>) {
        let from = out.len();
        match self {
            Self::Redis if question.starts_with(b"*1\r\n") => out.extend_from_slice(b"+PONG\r\n"),
            Self::Redis => out.extend_from_slice(ready),
            Self::Dubbo => {
                out.extend_from_slice(ready);
                copy(question, 4, &mut out[from..], 4, 8);
            }
            Self::Thrift => {
                out.extend_from_slice(ready);
                // Behind the length of the frame, the version, and the name with its length.
                let at =
                    number(question, 8).map_or(usize::MAX, |name| 12usize.saturating_add(name));
                let to = 12 + THRIFT_METHOD.len();
                copy(question, at, &mut out[from..], to, 4);
            }
        }
    }
}

const THRIFT_METHOD: &str = "hello";

/// `count` bytes of a question into its answer, as far as they are there.
fn copy(question: &[u8], at: usize, answer: &mut [u8], to: usize, count: usize) {
    let from = at.checked_add(count).and_then(|end| question.get(at..end));
    if let (Some(from), Some(to)) = (from, answer.get_mut(to..to + count)) {
        to.copy_from_slice(from);
    }
}

/// Four bytes of a number that a length can be.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_be_bytes(*bytes)).ok()
}

/// An array of bulk strings.
fn redis_len(bytes: &[u8]) -> Result<Option<usize>, NotOurs> {
    let mut at = 0;
    let Some(count) = announced(bytes, b'*', &mut at)? else { return Ok(None) };
    for _ in 0..count {
        let Some(len) = announced(bytes, b'$', &mut at)? else { return Ok(None) };
        at += len + 2;
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// The number in a line that begins with `mark`, which `at` is moved behind.
fn announced(bytes: &[u8], mark: u8, at: &mut usize) -> Result<Option<usize>, NotOurs> {
    let Some([first, rest @ ..]) = bytes.get(*at..) else { return Ok(None) };
    if *first != mark {
        return Err(NotOurs);
    }
    let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
        return if rest.len() > 8 { Err(NotOurs) } else { Ok(None) };
    };
    let digits = rest[..end].strip_suffix(b"\r").ok_or(NotOurs)?;
    let text = std::str::from_utf8(digits).map_err(|_| NotOurs)?;
    let count: usize = text.parse().map_err(|_| NotOurs)?;
    *at += 1 + end + 1;
    if count > QUESTION_BYTES_MAX { Err(NotOurs) } else { Ok(Some(count)) }
}

/// A string of fewer than 32 bytes by hessian2.
fn hessian(text: &str) -> Vec<u8> {
    debug_assert!(text.len() < 32, "{text}");
    [&[u8::try_from(text.len()).unwrap_or(0)], text.as_bytes()].concat()
}

fn dubbo(flags: u8, status: u8, body: &[u8]) -> Vec<u8> {
    let id = 1u64.to_be_bytes();
    [&[0xda, 0xbb, flags, status], &id[..], &length(body.len()), body].concat()
}

/// A message of this kind that has one string in one field.
fn thrift(kind: u8, field: u8, len: usize, fill: u8) -> Vec<u8> {
    let mut message = vec![0x80, 1, 0, kind];
    message.extend(length(THRIFT_METHOD.len()));
    message.extend(THRIFT_METHOD.as_bytes());
    message.extend(1u32.to_be_bytes());
    message.extend([11, 0, field]);
    message.extend(length(len));
    message.extend(vec![fill; len]);
    message.push(0);
    [&length(message.len())[..], &message].concat()
}

fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_found_whole_and_alone() {
        for protocol in Protocol::ALL {
            let question = protocol.question();
            for len in 0..question.len() {
                assert_eq!(protocol.question_len(&question[..len]), Ok(None), "{protocol:?} {len}");
            }
            let two = [&question[..], &question].concat();
            assert_eq!(protocol.question_len(&two), Ok(Some(question.len())), "{protocol:?}");
        }
    }

    #[test]
    fn what_is_none_or_too_long_is_refused() {
        for (protocol, bytes) in [
            (Protocol::Redis, &b"GET / HTTP/1.1\r\n"[..]),
            (Protocol::Redis, b"*2\r\n:3\r\n"),
            (Protocol::Redis, b"*-1\r\n"),
            (Protocol::Redis, b"*1\r\n$99999999\r\n"),
            (Protocol::Redis, b"*11111111111"),
            (Protocol::Dubbo, b"GET"),
            (Protocol::Dubbo, &[0xda, 0xbb, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 0, 0, 0]),
            (Protocol::Thrift, b"GET / HTTP/1.1\r\n"),
        ] {
            assert_eq!(protocol.question_len(bytes), Err(NotOurs), "{protocol:?} {bytes:?}");
        }
    }

    #[test]
    fn the_answer_has_the_number_of_the_question() {
        for (protocol, at, wanted) in [
            (Protocol::Redis, None, (36, 71)),
            (Protocol::Dubbo, Some(4..12), (181, 46)),
            (Protocol::Thrift, Some(17..21), (93, 285)),
        ] {
            let mut question = protocol.question();
            let asked = question.len();
            let ready = protocol.answer();
            let answered = |question: &[u8]| {
                let mut out = b"before".to_vec();
                protocol.put_answer(question, &ready, &mut out);
                out.split_off(6)
            };
            assert_eq!((asked, ready.len()), wanted, "{protocol:?}");
            assert_eq!(answered(&question), ready, "{protocol:?}");
            let Some(at) = at else { continue };
            question[at.clone()].fill(7);
            let other = answered(&question);
            assert!(other[at.clone()].iter().all(|byte| *byte == 7), "{other:?}");
            assert_eq!(
                (&other[..at.start], &other[at.end..]),
                (&ready[..at.start], &ready[at.end..])
            );
        }
        let mut out = Vec::new();
        Protocol::Redis.put_answer(b"*1\r\n$4\r\nPING\r\n", b"$1\r\n7\r\n", &mut out);
        assert_eq!(out, b"+PONG\r\n");
    }
}
