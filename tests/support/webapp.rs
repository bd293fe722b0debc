//! A small HTTP application and its clients, for tests that need requests rather than HTTP.

use super::script;
use super::world::Namespace;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// Starts an application that answers every request: `/status/503` with that status, others with
/// 200 and a body of `body_bytes`. It ends with the test.
pub fn serve(namespace: &Namespace, address: IpAddr, body_bytes: usize) -> SocketAddr {
    let listener = script::listen(namespace, address);
    let at = listener.local_addr().expect("a bound listener");
    thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            thread::spawn(move || answer(peer, body_bytes));
        }
    });
    at
}

fn answer(peer: TcpStream, body_bytes: usize) -> Option<()> {
    peer.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(peer.try_clone().ok()?);
    let mut writer = peer;
    loop {
        let (mut target, mut length) = (String::new(), 0usize);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            if target.is_empty() {
                target = line.split(' ').nth(1)?.to_owned();
            } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            } else if line.is_empty() {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()?;
        let status = target.strip_prefix("/status/").unwrap_or("200");
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {body_bytes}\r\n\r\n");
        let mut response = head.into_bytes();
        response.resize(response.len() + body_bytes, b'b');
        writer.write_all(&response).ok()?;
    }
}

/// A connection with requests in turn.
#[derive(Debug)]
pub struct Client {
    host: &'static str,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(namespace: &Namespace, to: SocketAddr) -> Self {
        let stream = script::connect(namespace, to).expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        Self { reader: BufReader::new(stream), host: "shop" }
    }

    /// Calls the server so.
    pub fn calling(self, host: &'static str) -> Self {
        Self { host, ..self }
    }

    /// Sends a request without a body; the status that came.
    pub fn request(&mut self, method: &str, target: &str, headers: &str) -> u16 {
        let host = self.host;
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        self.send(head.as_bytes());
        let (mut status, mut length) = (0, 0usize);
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("a response");
            let line = line.trim_end();
            if status == 0 {
                let code = line.split(' ').nth(1).expect(line);
                status = code.parse().expect("a status");
            } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.parse().expect("a length");
            } else if line.is_empty() {
                break;
            }
        }
        let length = if method == "HEAD" { 0 } else { length };
        self.reader.read_exact(&mut vec![0; length]).expect("a body");
        status
    }

    pub fn get(&mut self, target: &str) -> u16 {
        self.request("GET", target, "")
    }

    fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("sent");
    }
}
