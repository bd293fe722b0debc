//! `netra top`: what the page at `/` shows, in a terminal. A program of its own that asks a running
//! netra once a second. The only user of ratatui.

mod clusters;
mod draw;
#[cfg(test)]
#[path = "example_tests.rs"]
mod example;
mod figures;
mod units;

use crate::{exit::Exit, inside::get};
use figures::{Figures, Totals};
use ratatui::{
    DefaultTerminal, Terminal,
    backend::TestBackend,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use serde_json::Value;
use std::{
    io::{self, IsTerminal, Write},
    thread,
    time::{Duration, Instant},
};

/// Watch a running netra in the terminal: rates, percentiles, shards, connections
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Where profiling and admin are: NETRA_ADMIN_ADDRESS and NETRA_PPROF_PORT
    #[arg(long, default_value = "127.0.0.1:14957", value_name = "HOST:PORT")]
    pub(crate) address: String,
    /// Print one second of it as text, and end; for scripts, and where there is no terminal
    #[arg(long)]
    pub(crate) once: bool,
}

/// What the keys 1 to 5 order connections by.
const ORDERS: [&str; 5] = ["age", "idle", "bytes", "overhead", "stalled"];
/// What is asked for of what has failed.
const FAILURES: &str = "/failures?last=5&top=5";
/// What is asked for of clusters: those first that have something to tell.
const CLUSTERS: &str = "/clusters?top=12";
const EVERY: Duration = Duration::from_secs(1);

/// Why nothing is drawn, and what helps.
const NO_TERMINAL: &str = "standard output is no terminal: give it one (docker exec -it, \
                           kubectl exec -it, ssh -t), or print one second of it by --once";

/// Runs until somebody presses q.
pub(crate) fn run(args: &TopArgs) -> Exit {
    if !args.once && !io::stdout().is_terminal() {
        eprintln!("netra top: {NO_TERMINAL}");
        return Exit::CONFIG;
    }
    // A wrong address is told before the screen is taken.
    if let Err(error) = get(&args.address, "/shards") {
        if error.kind() == io::ErrorKind::InvalidInput {
            eprintln!("netra top: --address={}: allowed is HOST:PORT", args.address);
            return Exit::CONFIG;
        }
        let advice = match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                ": no netra runs here, or NETRA_PPROF_PORT or NETRA_ADMIN_ADDRESS is another: \
                 --address HOST:PORT"
            }
            _ => "",
        };
        eprintln!("netra top: {}: {error}{advice}", args.address);
        return Exit::UNAVAILABLE;
    }
    if args.once {
        let _ = io::stdout().write_all(once(&args.address).as_bytes());
        return Exit::DONE;
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

/// The screen of one second, as lines.
fn once(address: &str) -> String {
    let mut screen = Screen { address: address.into(), is_once: true, ..Screen::default() };
    screen.look();
    thread::park_timeout(EVERY);
    screen.look();
    let (width, height) = draw::size_of_all(&screen);
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| draw::draw(frame, &screen));
    let cells = terminal.backend().buffer().content().chunks(width.into());
    let lines = cells.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
    lines.fold(String::new(), |text, line| text + line.trim_end() + "\n").trim_end().to_owned()
        + "\n"
}

/// What is on the screen.
#[derive(Debug, Default)]
struct Screen {
    address: String,
    /// Printed, so that no key changes it.
    is_once: bool,
    order: usize,
    totals: Option<Totals>,
    figures: Option<Figures>,
    connections: Value,
    failures: Value,
    clusters: Value,
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
            let failures = get(&self.address, FAILURES)?;
            Ok((totals, get(&self.address, &target)?, failures, get(&self.address, CLUSTERS)?))
        });
        match seen {
            Ok((totals, connections, failures, clusters)) => {
                (self.failures, self.clusters) = (failures, clusters);
                self.figures = Some(Figures::between(self.totals.as_ref(), &totals));
                (self.totals, self.connections, self.trouble) = (Some(totals), connections, None);
            }
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, net::TcpListener, thread};

    #[test]
    fn once_prints_a_second_with_every_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            for (at, accepted) in listener.incoming().take(8).enumerate() {
                let mut stream = accepted.unwrap();
                let mut head = [0; 256];
                let len = stream.read(&mut head).unwrap();
                let asks = |target: &str| head[..len].starts_with(target.as_bytes());
                let (is_shards, is_failures) = (asks("GET /shards "), asks("GET /failures?"));
                let is_clusters = asks("GET /clusters?top=");
                let peers = (0..30).map(|n| serde_json::json!({"peer": format!("10.0.0.9:{n}")}));
                let body = match () {
                    () if is_shards => example::answer(10.0 + at as f64, 1000 * (at as u64 + 1)),
                    () if is_failures => example::failures(),
                    () if is_clusters => example::clusters(),
                    () => serde_json::json!({"total": 30, "connections": Value::from_iter(peers)}),
                };
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n{body}").unwrap();
            }
        });
        let text = once(&address);
        server.join().unwrap();
        assert!(text.starts_with("netra shop  1.2.3  io_uring  up 14.0 s"), "{text}");
        for part in [
            "inbound      1100 req/s",
            "shard-0",
            "10.0.0.9:29",
            "failures, 7 since the start",
            "10.0.0.5:80",
            "nobody listens there",
            "ECONNREFUSED",
            "clusters, 2; more at /clusters",
            "ejected: faults, 12.0 s more",
            "10.0.0.6:80",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(!text.contains("quit") && text.ends_with('\n') && !text.contains(" \n"), "{text}");
    }
}
