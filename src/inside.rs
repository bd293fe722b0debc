//! What a running netra tells of itself on its port for profiles and admin: for `netra top`, the
//! doctor and the support bundle.

use crate::mask;
use serde_json::Value;
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(3);
/// Far more than any page is.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// One GET, of text.
pub(crate) fn text(address: &str, target: &str) -> io::Result<String> {
    let found = address.to_socket_addrs()?.next();
    let found = found.ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&found, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // It is called by its address: a name could be anybody's.
    let host = SocketAddr::new(found.ip(), found.port());
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if !head.starts_with("HTTP/1.1 200 ") {
        let line = head.lines().next().unwrap_or("no answer");
        return Err(io::Error::other(format!("{target}: {}", mask::line(line))));
    }
    Ok(body.to_owned())
}

/// One GET, of JSON.
pub(crate) fn get(address: &str, target: &str) -> io::Result<Value> {
    serde_json::from_str(&text(address, target)?).map_err(io::Error::other)
}

/// Whether it is a netra that listens there; what it says of itself.
pub(crate) fn who(address: &str) -> Option<String> {
    let shards = get(address, "/shards").ok()?;
    let word = |name: &str| shards[name].as_str().map(|text| mask::line(text).into_owned());
    word("driver").and(Some(format!("netra {} of {}", word("version")?, word("service")?)))
}

/// What a running netra has for a setting.
pub(crate) fn value(address: &str, setting: &str) -> Option<String> {
    let config = get(address, "/config").ok()?;
    let row = config.as_array()?.iter().find(|row| row["name"] == setting)?;
    Some(row["value"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 256]);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn only_netra_says_that_it_is_netra() {
        let netra = r#"{"service": "shop", "version": "1", "driver": "epoll"}"#;
        let netra = format!("HTTP/1.1 200 OK\r\n\r\n{netra}").leak();
        assert_eq!(who(&answering(netra)).unwrap(), "netra 1 of shop");
        assert_eq!(who(&answering("HTTP/1.1 200 OK\r\n\r\n<html>")), None);
        assert_eq!(who(&answering("HTTP/1.0 200 OK\r\n\r\n{}")), None);
        assert_eq!(who(&answering("")), None);
    }

    #[test]
    fn a_setting_of_a_running_netra_is_found_by_its_name() {
        let config =
            r#"[{"name": "NETRA_IO", "value": "auto"}, {"name": "NETRA_PORT", "value": "7"}]"#;
        let config = &*format!("HTTP/1.1 200 OK\r\n\r\n{config}").leak();
        assert_eq!(value(&answering(config), "NETRA_PORT").unwrap(), "7");
        assert_eq!(value(&answering(config), "NETRA_POR"), None);
        assert_eq!(value(&answering("HTTP/1.1 200 OK\r\n\r\n{}"), "NETRA_PORT"), None);
    }

    /// netra is not to be called by a name there.
    #[test]
    fn a_server_is_called_by_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 256];
            let len = stream.read(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 421 \x1b[2J\r\n\r\n").unwrap();
            String::from_utf8_lossy(&head[..len]).into_owned()
        });
        let name = format!("localhost:{}", address.port());
        let refused = get(&name, "/shards").unwrap_err().to_string();
        assert_eq!(refused, r"/shards: HTTP/1.1 421 \u001b[2J");
        assert!(asked.join().unwrap().contains(&format!("Host: {address}\r\n")));
    }
}
