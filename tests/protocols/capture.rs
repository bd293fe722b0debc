//! What passes the client's interfaces while a load runs, written to a file by tshark.

use super::support::programs::tool;
use super::support::script;
use super::support::world::World;
use super::support::{PATIENCE, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Stdio};

/// What `load` says, with the TCP of these ports in the file.
pub(super) fn captured(
    world: &World,
    file: &Path,
    ports: &[u16],
    load: impl FnOnce() -> String,
) -> String {
    let capture = Capture::start(world, file, ports);
    let said = load();
    capture.stop();
    said
}

/// tshark while it writes.
struct Capture<'a> {
    tshark: Child,
    world: &'a World,
    file: &'a Path,
    port: u16,
}

impl<'a> Capture<'a> {
    /// TCP of these ports.
    fn start(world: &'a World, file: &'a Path, ports: &[u16]) -> Self {
        let _ = fs::remove_file(file);
        let filter: Vec<String> = ports.iter().map(|port| format!("tcp port {port}")).collect();
        let mut command = world.client.command(tool("tshark", "tshark"));
        // 2 MiB, its own choice, are full when it does not run for a moment on a busy machine.
        command.args(["-q", "-i", "any", "-B", "64", "-f", &filter.join(" or "), "-w"]).arg(file);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let tshark = command.spawn().expect("tshark starts");
        let capture = Self { tshark, world, file, port: ports[0] };
        // Its file begins before its filter is in the kernel.
        capture.until_it_has_a_knock(Ipv4Addr::new(127, 0, 0, 2));
        capture
    }

    /// Connects to where nobody listens, inside the client, until the file has that: what was sent before
    /// is in it, too.
    fn until_it_has_a_knock(&self, at: Ipv4Addr) {
        let to = SocketAddr::from((at, self.port));
        let is_there = || {
            let refused = script::connect(&self.world.client, to);
            assert!(refused.is_err(), "{to} of the client is meant to be free");
            let bytes = fs::read(self.file).unwrap_or_default();
            let end = &bytes[bytes.len().saturating_sub(0x4000)..];
            end.windows(4).any(|it| it == at.octets())
        };
        assert!(wait_until(PATIENCE, is_there), "tshark captures nothing");
    }

    fn stop(self) {
        self.until_it_has_a_knock(Ipv4Addr::new(127, 0, 0, 3));
        let pid = Pid::from_raw(i32::try_from(self.tshark.id()).expect("a pid"));
        kill(pid, Signal::SIGINT).expect("the child is ours and not yet reaped");
        let said = self.tshark.wait_with_output().expect("tshark ends").stderr;
        let said = String::from_utf8_lossy(&said);
        assert!(!said.contains("dropped"), "the capture is not whole: {said}");
    }
}
