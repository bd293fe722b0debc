//! `netra top`: what the page at `/` shows, in a terminal. A program of its own that asks a running
//! netra once a second. The only user of ratatui.

mod draw;
#[cfg(test)]
#[path = "example_tests.rs"]
mod example;
mod figures;

use crate::exit::Exit;
use figures::{Figures, Totals};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use serde_json::Value;
use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

/// How to look.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Where profiling and admin are: NETRA_ADMIN_ADDRESS and NETRA_PPROF_PORT
    #[arg(long, default_value = "127.0.0.1:14957", value_name = "HOST:PORT")]
    pub(crate) address: String,
}

/// What the keys 1 to 5 order connections by.
const ORDERS: [&str; 5] = ["age", "idle", "bytes", "overhead", "stalled"];
const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);
/// Far more than any page is.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Runs until somebody presses q.
pub(crate) fn run(args: &TopArgs) -> Exit {
    // A wrong address is told before the screen is taken.
    if let Err(error) = get(&args.address, "/shards") {
        eprintln!("netra top: {}: {error}", args.address);
        return Exit::UNAVAILABLE;
    }
    let outcome = ratatui::try_init().and_then(|mut terminal| {
        let outcome = watch(&mut terminal, &args.address);
        ratatui::restore();
        outcome
    });
    match outcome {
        Ok(()) => Exit::DONE,
        Err(error) => {
            eprintln!("netra top: {error}");
            Exit::OS
        }
    }
}

/// What is on the screen.
#[derive(Debug, Default)]
struct Screen {
    address: String,
    order: usize,
    totals: Option<Totals>,
    figures: Option<Figures>,
    connections: Value,
    trouble: Option<String>,
}

fn watch(terminal: &mut DefaultTerminal, address: &str) -> io::Result<()> {
    let mut screen = Screen { address: address.into(), ..Screen::default() };
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            next = Instant::now() + EVERY;
            screen.look();
        }
        terminal.draw(|frame| draw::draw(frame, &screen))?;
        if !event::poll(next.saturating_duration_since(Instant::now()))? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
            KeyCode::Char(digit @ '1'..='5') => {
                screen.order = digit as usize - '1' as usize;
                next = Instant::now();
            }
            _ => {}
        }
    }
}

impl Screen {
    /// Asks again; what was there stays when there is no answer.
    fn look(&mut self) {
        let target = format!("/connections?top=50&by={}", ORDERS[self.order]);
        let seen = get(&self.address, "/shards").and_then(|shards| {
            let totals = Totals::read(&shards).ok_or_else(|| io::Error::other("odd answer"))?;
            Ok((totals, get(&self.address, &target)?))
        });
        match seen {
            Ok((totals, connections)) => {
                self.figures = Some(Figures::between(self.totals.as_ref(), &totals));
                (self.totals, self.connections, self.trouble) = (Some(totals), connections, None);
            }
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }
}

/// One GET, of JSON.
fn get(address: &str, target: &str) -> io::Result<Value> {
    let found = address.to_socket_addrs()?.next();
    let found = found.ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&found, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if !head.starts_with("HTTP/1.1 200 ") {
        let line = head.lines().next().unwrap_or("no answer");
        return Err(io::Error::other(format!("{target}: {line}")));
    }
    serde_json::from_str(body).map_err(io::Error::other)
}
