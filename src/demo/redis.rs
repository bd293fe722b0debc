//! As much of Redis as the demo asks for: a server that knows values by key, and one question.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// Longest word of a command, and most words of one.
const WORD_BYTES_MAX: usize = 1 << 10;
const WORDS_MAX: usize = 8;

/// Serves a connection: `GET` answers with what `value_of` has, anything else is refused.
pub(super) fn converse(
    mut stream: &TcpStream,
    value_of: impl Fn(&str) -> Option<&'static str>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(words) = command(&mut reader)? {
        let answer = match &words[..] {
            [verb, key] if verb.eq_ignore_ascii_case("GET") => match value_of(key) {
                Some(value) => bulk(value),
                None => "$-1\r\n".to_owned(),
            },
            _ => "-ERR this server only knows GET\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// Asks for the value of a key.
pub(super) fn get(mut stream: &TcpStream, key: &str) -> io::Result<String> {
    stream.write_all(format!("*2\r\n{}{}", bulk("GET"), bulk(key)).as_bytes())?;
    let mut reader = BufReader::new(stream);
    let head = line(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if head == "$-1" || !head.starts_with('$') {
        return Err(io::Error::other(format!("GET {key} is answered with {head}")));
    }
    word(&head, &mut reader)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// An array of bulk strings; none at the end of the stream.
fn command(reader: &mut impl BufRead) -> io::Result<Option<Vec<String>>> {
    let Some(head) = line(reader)? else { return Ok(None) };
    let count = head.strip_prefix('*').and_then(|count| count.parse().ok());
    let Some(count @ 1..=WORDS_MAX) = count else { return Err(odd(&head)) };
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let head = line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        words.push(word(&head, reader)?);
    }
    Ok(Some(words))
}

/// The string that `$LEN` announces.
fn word(head: &str, reader: &mut impl BufRead) -> io::Result<String> {
    let len = head.strip_prefix('$').and_then(|len| len.parse().ok());
    let Some(len @ 0..=WORD_BYTES_MAX) = len else { return Err(odd(head)) };
    let mut bytes = vec![0; len + 2];
    reader.read_exact(&mut bytes)?;
    bytes.truncate(len);
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// A line without its end; none at the end of the stream.
fn line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    reader.take(WORD_BYTES_MAX as u64).read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(whole) => Ok(Some(whole.to_owned())),
        None if line.is_empty() => Ok(None),
        None => Err(odd(&line)),
    }
}

fn odd(text: &str) -> io::Error {
    io::Error::other(format!("no Redis of ours: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_one_after_the_other() {
        let mut bytes = &b"*2\r\n$3\r\nGET\r\n$3\r\ntea\r\n*1\r\n$4\r\nPING\r\n"[..];
        assert_eq!(command(&mut bytes).unwrap().unwrap(), ["GET", "tea"]);
        assert_eq!(command(&mut bytes).unwrap().unwrap(), ["PING"]);
        assert!(command(&mut bytes).unwrap().is_none());
    }

    #[test]
    fn what_is_cut_broken_or_too_large_is_refused() {
        let whole = b"*2\r\n$3\r\nGET\r\n$3\r\ntea\r\n";
        for len in 1..whole.len() {
            assert!(command(&mut &whole[..len]).is_err(), "{len} bytes");
        }
        for text in ["GET tea\r\n", "*0\r\n", "*9\r\n", "*1\r\n$-1\r\n", "*1\r\n$99999\r\n"] {
            assert!(command(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
