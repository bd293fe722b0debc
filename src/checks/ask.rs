//! One question, and what came of it.

use netra_codecs::ping::{ANSWER_BYTES_MAX, Ping, Said};
use netra_rules::{HealthCheck, Unwell};
use nix::errno::Errno;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Well,
    Unwell(Unwell),
    /// Nothing is said of the endpoint: netra itself could not ask.
    Own,
}

/// Asks an endpoint.
pub(super) async fn ask(address: SocketAddr, check: &HealthCheck) -> Outcome {
    let limit = Duration::from_nanos(check.timeout_ns);
    timeout(limit, asked(address, &check.ping)).await.unwrap_or(Outcome::Unwell(Unwell::Timeout))
}

async fn asked(address: SocketAddr, ping: &Ping) -> Outcome {
    let mut stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) => return failed(&error),
    };
    if let Err(error) = stream.write_all(&ping.question()).await {
        return failed(&error);
    }
    let mut answer = Vec::new();
    loop {
        match ping.said(&answer) {
            Said::More => {}
            Said::Well => return Outcome::Well,
            Said::Unwell => return Outcome::Unwell(Unwell::Answer),
            Said::Odd => return Outcome::Unwell(Unwell::Odd),
        }
        let mut part = (&mut stream).take((ANSWER_BYTES_MAX - answer.len()) as u64);
        match part.read_buf(&mut answer).await {
            Ok(0) => return Outcome::Unwell(Unwell::Unreachable),
            Ok(_) => {}
            Err(error) => return failed(&error),
        }
    }
}

/// What lacks here is no fault of who was to be asked.
fn failed(error: &io::Error) -> Outcome {
    let errno = error.raw_os_error().map(Errno::from_raw);
    match errno {
        Some(
            Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOBUFS
            | Errno::ENOMEM
            | Errno::EADDRNOTAVAIL
            | Errno::EPERM
            | Errno::EACCES,
        ) => Outcome::Own,
        Some(Errno::ECONNREFUSED) => Outcome::Unwell(Unwell::Refused),
        Some(Errno::ETIMEDOUT) => Outcome::Unwell(Unwell::Timeout),
        _ => Outcome::Unwell(Unwell::Unreachable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, TcpListener},
        thread,
    };

    fn check(name: &str) -> HealthCheck {
        HealthCheck {
            ping: Ping::named(name, "/", "it").unwrap(),
            interval_ns: 1_000_000_000,
            timeout_ns: 200_000_000,
            unhealthy: 1,
            healthy: 1,
        }
    }

    fn asked_for(name: &str, address: SocketAddr) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(address, &check(name)))
    }

    /// Of a server that reads something, says these parts, and ends.
    fn answered(name: &str, parts: &[&str]) -> Outcome {
        let parts: Vec<String> = parts.iter().map(|it| (*it).to_owned()).collect();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]);
            for part in parts {
                // Who has heard enough hangs up.
                let _ = stream.write_all(part.as_bytes());
                thread::park_timeout(Duration::from_millis(10));
            }
        });
        let outcome = asked_for(name, address);
        server.join().unwrap();
        outcome
    }

    #[test]
    fn answers_are_told_apart() {
        use Outcome::{Unwell as Not, Well};
        let endless = "x".repeat(ANSWER_BYTES_MAX);
        for (name, parts, outcome) in [
            ("tcp", &[][..], Well),
            ("redis", &["+PO", "NG\r\n"], Well),
            ("redis", &["-LOADING\r\n"], Not(Unwell::Answer)),
            ("redis", &["SSH-2.0\r\n"], Not(Unwell::Odd)),
            ("redis", &["+PO"], Not(Unwell::Unreachable)),
            ("http", &["HTTP/1.1 503 no\r\n\r\n"], Not(Unwell::Answer)),
            ("memcached", &[&endless, "more"], Not(Unwell::Odd)),
        ] {
            assert_eq!(answered(name, parts), outcome, "{name} {parts:?}");
        }
    }

    #[test]
    fn who_is_not_there_or_silent_is_not_well() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(asked_for("redis", address), Outcome::Unwell(Unwell::Timeout));
        assert_eq!(asked_for("tcp", address), Outcome::Well);
        drop(listener);
        assert_eq!(asked_for("tcp", address), Outcome::Unwell(Unwell::Refused));
        let full = io::Error::from_raw_os_error(Errno::EMFILE as i32);
        assert_eq!(failed(&full), Outcome::Own);
    }
}
