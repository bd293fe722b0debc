//! `netra support`: all that whoever helps will ask for, in one text to attach to an issue. What is a
//! secret is masked, as everywhere.

use crate::{cpus::Plan, doctor, exit::Exit, inside, load::Loaded, log::rfc3339, mask, show};
use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

/// Write one text with all that a helper asks for: settings, doctors, connections, failures, metrics
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SupportArgs {
    /// Where to write it; standard output if not given
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Ask neither name servers nor receivers of spans, and dial nobody
    #[arg(long)]
    no_network: bool,
}

/// Pages of 14957, with what there may be much of cut to what a person reads.
const PAGES: [&str; 5] =
    ["/shards", "/connections?top=200", "/failures?top=200", "/contexts", "/config"];
/// What netra-init is asked, each of which changes nothing.
const ASKED: [&str; 3] = ["doctor", "status", "print"];
const INIT: &str = "netra-init";

pub(crate) fn run(prepared: &Result<(Loaded, Plan), Vec<String>>, args: &SupportArgs) -> Exit {
    let text = bundle(prepared, !args.no_network);
    let written = match &args.output {
        Some(path) => fs::write(path, &text),
        None => io::stdout().write_all(text.as_bytes()),
    };
    match (written, &args.output) {
        (Ok(()), Some(path)) => {
            eprintln!("netra support: {} bytes in {}", text.len(), path.display());
            Exit::DONE
        }
        (Ok(()), None) => Exit::DONE,
        (Err(error), _) => {
            eprintln!("netra support: {error}: --output FILE names a place that can be written");
            Exit::OS
        }
    }
}

fn bundle(prepared: &Result<(Loaded, Plan), Vec<String>>, has_network: bool) -> String {
    let mut all = Bundle::default();
    all.add("versions", &versions());
    all.add("settings", &settings(prepared));
    all.add("netra doctor", &doctor::told(prepared, has_network));
    for command in ASKED {
        all.add(&format!("{INIT} {command}"), &asked(command));
    }
    let (admin, metrics) = match prepared {
        Ok((loaded, _)) => (doctor::admin_of(&loaded.config), loaded.config.metrics_port),
        Err(_) => ("127.0.0.1:14957".into(), 14958),
    };
    let metrics = format!("127.0.0.1:{metrics}");
    let pages = PAGES.map(|page| (&admin, page));
    for (address, page) in pages.into_iter().chain([(&metrics, "/ready"), (&metrics, "/metrics")]) {
        let body = inside::text(address, page);
        all.add(&format!("{address}{page}"), &body.unwrap_or_else(|e| format!("no answer: {e}\n")));
    }
    for file in ["/proc/self/limits", "/proc/net/sockstat", "/proc/net/dev", "/etc/resolv.conf"] {
        all.add(file, &fs::read_to_string(file).unwrap_or_else(|error| format!("{error}\n")));
    }
    all.text
}

#[derive(Debug, Default)]
struct Bundle {
    text: String,
}

impl Bundle {
    fn add(&mut self, title: &str, body: &str) {
        self.text += &format!("==== {title}\n");
        for line in body.lines() {
            self.text += &mask::line(line);
            self.text.push('\n');
        }
        self.text.push('\n');
    }
}

fn versions() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let system = read("/etc/os-release");
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    format!(
        "netra {}\n{INIT} {}\nkernel {}\nsystem {}\ncgroup {}\ntime {}\n",
        env!("CARGO_PKG_VERSION"),
        ask(&["--version"]).trim(),
        read("/proc/sys/kernel/osrelease").trim(),
        system.unwrap_or("unknown"),
        read("/proc/self/cgroup").trim(),
        rfc3339(u64::try_from(now.as_nanos()).unwrap_or(0)),
    )
}

fn settings(prepared: &Result<(Loaded, Plan), Vec<String>>) -> String {
    match prepared {
        Ok((loaded, plan)) => {
            let decided: Vec<_> =
                plan.decided().into_iter().chain(loaded.decided.clone()).collect();
            show::show(&loaded.effective, &decided, show::Shape::Text)
        }
        Err(refused) => refused.join("\n"),
    }
}

fn asked(command: &str) -> String {
    ask(&[command])
}

/// What netra-init says, where it is beside netra or on the path.
fn ask(args: &[&str]) -> String {
    let beside = env::current_exe().ok().map(|path| path.with_file_name(INIT));
    let program = beside.filter(|path| path.exists()).unwrap_or_else(|| Path::new(INIT).into());
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(said) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            text(&said.stdout) + &text(&said.stderr)
        }
        Err(error) => {
            format!("not in this image ({error}): run it in the same network, with CAP_NET_ADMIN\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_title_and_what_moves_a_cursor_is_written_out() {
        let text = bundle(&Err(vec!["NETRA_PORT: bad \u{1b}[2J".into()]), false);
        for title in ["versions", "settings", "netra doctor", "netra-init status", "/failures"] {
            assert!(text.contains(&format!("==== {title}")) || text.contains(title), "{title}");
        }
        assert!(text.contains(r"bad \u001b[2J") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("==== 127.0.0.1:14957/shards\n"));
    }
}
