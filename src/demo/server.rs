//! Serving connections; and the first pod's application, a small HTTP server that tells what it
//! sees of its connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Connections that are served at a time; the demo needs three.
const AT_A_TIME: usize = 16;

/// Serves connections, each on one of some threads that wait for them, so that no connection pays
/// for the start of a thread.
pub(super) fn serve(
    listener: &TcpListener,
    converse: impl Fn(&TcpStream) -> std::io::Result<()> + Clone + Send + 'static,
) -> std::io::Result<()> {
    for _ in 0..AT_A_TIME {
        let (listener, converse) = (listener.try_clone()?, converse.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A peer that goes away in the middle is no event for a demo's server.
                drop(converse(&stream));
            }
        });
    }
    Ok(())
}

/// Answers `GET /N` with N bytes, again and again, and with the address that it was reached by.
pub(super) fn converse(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let reached = plain(stream.local_addr()?);
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let body = vec![b'n'; 64 << 10];
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let size = line.split(' ').nth(1).and_then(|path| path.strip_prefix('/')?.parse().ok());
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let size: usize = size.unwrap_or(0);
        let head =
            format!("HTTP/1.1 200 OK\r\nReached: {reached}\r\nContent-Length: {size}\r\n\r\n");
        let first = size.min(body.len());
        // Head and a small body in one segment.
        (&*stream).write_all(&[head.as_bytes(), &body[..first]].concat())?;
        let mut left = size - first;
        while left > 0 {
            let part = left.min(body.len());
            (&*stream).write_all(&body[..part])?;
            left -= part;
        }
    }
}

/// An IPv4 address as such, also where one socket serves both families.
fn plain(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    };
    (ip, address.port()).into()
}
