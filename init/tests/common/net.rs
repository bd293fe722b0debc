//! A pod and a peer: two network namespaces and a veth, servers in both, and clients.

use std::env;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::{line, must};

pub(crate) const POD: [&str; 2] = ["10.9.0.1", "fd09::1"];
pub(crate) const PEER: [&str; 2] = ["10.9.0.2", "fd09::2"];
/// What servers of the peer listen on.
const PEER_PORTS: &str = "53,80,8080";
pub(crate) const SIDECAR_PORT: u16 = 14956;
pub(crate) const APP_PORTS: [u16; 2] = [8080, 9090];
pub(crate) const APP_UID: u32 = 1000;
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Set for the processes this test makes of itself.
const DIAL: &str = "NETRA_TEST_DIAL";
const SERVE: &str = "NETRA_TEST_SERVE";

/// How long each dial may take, where it is not `TIMEOUT`.
const DIAL_MS: &str = "NETRA_TEST_DIAL_MS";

/// The client: dials what the environment says and prints what it is told.
pub(crate) fn dial_listed() {
    let Ok(list) = env::var(DIAL) else { return };
    let ms = env::var(DIAL_MS).ok().map(|ms| Duration::from_millis(ms.parse().unwrap()));
    for addr in list.split(' ') {
        let heard = hear(addr.parse().unwrap(), ms.unwrap_or(TIMEOUT));
        println!("TOLD {}", heard.unwrap_or_else(|e| format!("error {e}")));
    }
}

/// The servers of another namespace, as the environment says. Ends with its parent's pipe.
pub(crate) fn serve_listed() {
    let Ok(list) = env::var(SERVE) else { return };
    let (name, ports) = list.split_once(' ').unwrap();
    for port in ports.split(',') {
        let name = name.to_owned();
        serve(port.parse().unwrap(), move |_| name.clone());
    }
    println!("SERVING");
    let _ = io::stdin().read(&mut [0]);
}

fn hear(addr: SocketAddr, within: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, within)?;
    stream.set_read_timeout(Some(within))?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    Ok(told)
}

/// Serves both families on a port: tells each client one line.
pub(crate) fn serve(port: u16, says: impl Fn(&TcpStream) -> String + Send + 'static) {
    let listener = TcpListener::bind(("::", port)).expect("listen");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let line = says(&stream);
            let _ = stream.write_all(line.as_bytes());
        }
    });
}

/// The pod is this process's namespace; the peer is another one, with its servers.
pub(crate) struct Net {
    servers: Servers,
}

impl Net {
    pub(crate) fn new() -> Self {
        line("ip netns add peer");
        line("ip link add eth0 type veth peer name eth0 netns peer");
        for (addrs, netns) in [(POD, &[][..]), (PEER, &["-n", "peer"][..])] {
            let ip = |args: &str| {
                let args: Vec<&str> = args.split(' ').collect();
                must("ip", &[netns, &args].concat())
            };
            ip("link set lo up");
            ip("link set eth0 up");
            ip(&format!("addr add {}/24 dev eth0", addrs[0]));
            ip(&format!("addr add {}/64 dev eth0 nodad", addrs[1]));
        }
        // For verify, which dials addresses that nobody has: the peer says so at once.
        line("ip route add default via 10.9.0.2");
        line("ip -6 route add default via fd09::2");
        line("ip -n peer route add unreachable default");
        line("ip -n peer -6 route add unreachable default");
        for sysctl in [
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.icmp_ratelimit=0",
            "net.ipv6.icmp.ratelimit=0",
        ] {
            line(&format!("ip netns exec peer sysctl -qw {sysctl}"));
        }
        Self { servers: Servers::new("peer", PEER_PORTS) }
    }

    /// The sidecar's place: tells each client where it dialled to.
    pub(crate) fn with_sidecar(self) -> Self {
        serve(SIDECAR_PORT, |stream| match netra_init::original_dst(stream) {
            Ok(original) => format!("sidecar {original}"),
            Err(error) => format!("sidecar {error}"),
        });
        for port in APP_PORTS {
            serve(port, |_| "app".to_owned());
        }
        self
    }

    /// Dials from the pod as this user and group.
    pub(crate) fn dial(&self, uid: u32, gid: u32, addrs: &[String]) -> Vec<String> {
        let mut command = Command::new(env::current_exe().unwrap());
        command.uid(uid).gid(gid);
        told(command, addrs)
    }

    pub(crate) fn dial_from_peer(&self, addrs: &[String]) -> Vec<String> {
        told(in_netns("peer"), addrs)
    }

    #[track_caller]
    pub(crate) fn assert_dial(&self, who: (u32, u32), addr: &str, port: u16, says: &str) {
        let target = target(addr, port);
        let says = says.replace("TARGET", &target);
        assert_eq!(self.dial(who.0, who.1, &[target]), [says]);
    }

    #[track_caller]
    pub(crate) fn assert_dial_from_peer(&self, addr: &str, port: u16, says: &str) {
        let target = target(addr, port);
        let says = says.replace("TARGET", &target);
        assert_eq!(self.dial_from_peer(&[target]), [says]);
    }
}

/// Servers in another namespace, which say its name.
pub(crate) struct Servers(Child);

impl Servers {
    pub(crate) fn new(netns: &str, ports: &str) -> Self {
        let mut servers = in_netns(netns)
            .args(["--exact", "helper_serve", "--nocapture"])
            .env(SERVE, format!("{netns} {ports}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = io::BufReader::new(servers.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("SERVING") {
            line.clear();
            assert_ne!(io::BufRead::read_line(&mut out, &mut line).unwrap(), 0, "no servers");
        }
        Self(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This test, in another network namespace.
fn in_netns(netns: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns]).arg(env::current_exe().unwrap());
    command
}

/// Dials from another namespace.
pub(crate) fn dial_from(netns: &str, within: Duration, addrs: &[String]) -> Vec<String> {
    let mut command = in_netns(netns);
    command.env(DIAL_MS, within.as_millis().to_string());
    told(command, addrs)
}

pub(crate) fn target(addr: &str, port: u16) -> String {
    SocketAddr::new(addr.parse().unwrap(), port).to_string()
}

fn told(mut command: Command, addrs: &[String]) -> Vec<String> {
    let output = command
        .args(["--exact", "helper_dial", "--nocapture"])
        .env(DIAL, addrs.join(" "))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    // libtest may have begun a line of its own.
    let told = |line: &str| line.split_once("TOLD ").map(|(_, told)| told.to_owned());
    stdout.lines().filter_map(told).collect()
}
