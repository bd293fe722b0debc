//! `netra ready`: whether the netra beside it is ready, by exit code. For health checks of
//! containers, whose image has neither shell nor curl.

use crate::{exit::Exit, mask};
use std::{
    env,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Say by exit code whether the netra in here is ready: for health checks
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReadyArgs {
    /// Its NETRA_PROMETHEUS_PORT [default: that variable, else 14958]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

const PORT: u16 = 14958;
const PATIENCE: Duration = Duration::from_secs(3);
/// Status line, a few fields, a word.
const ANSWER_BYTES_MAX: u64 = 4 << 10;

/// Asks once.
pub(crate) fn run(args: &ReadyArgs) -> Exit {
    let variable = env::var("NETRA_PROMETHEUS_PORT").ok().and_then(|port| port.parse().ok());
    let port = args.port.or(variable).unwrap_or(PORT);
    match ask(port) {
        Ok(()) => Exit::DONE,
        Err(error) => {
            let advice = match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    ": no netra runs here, or NETRA_PROMETHEUS_PORT is another: --port"
                }
                _ => "",
            };
            eprintln!("netra ready: port {port}: {error}{advice}");
            Exit::UNAVAILABLE
        }
    }
}

fn ask(port: u16) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&answer);
    let line = answer.lines().next().unwrap_or("no answer");
    Err(io::Error::other(mask::line(line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    fn answering(answer: &'static str) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let len = stream.read(&mut request).unwrap();
            assert!(request[..len].starts_with(b"GET /ready "));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        port
    }

    #[test]
    fn only_a_200_is_ready() {
        assert_eq!(
            run(&ReadyArgs { port: Some(answering("HTTP/1.1 200 OK\r\n\r\n")) }),
            Exit::DONE
        );
        let draining = "HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\n";
        assert_eq!(
            ask(answering(draining)).unwrap_err().to_string(),
            "HTTP/1.1 503 Service Unavailable"
        );
        assert!(ask(answering("")).is_err());
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        assert_eq!(run(&ReadyArgs { port: Some(nobody.port()) }), Exit::UNAVAILABLE);
    }
}
