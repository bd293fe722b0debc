//! One pod and one client, each a network namespace, joined by a veth pair.

use super::sys::{self, Birth};
use super::{PATIENCE, wait_until};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;
use std::{panic, process, thread};

/// The client's addresses.
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 61, 0, 1));
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd61, 0, 0, 0, 0, 0, 0, 1));
/// The pod's addresses.
pub const POD_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 61, 0, 2));
pub const POD_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd61, 0, 0, 0, 0, 0, 0, 2));
/// The pod's secondary addresses.
pub const POD_SECOND_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 61, 0, 3));
pub const POD_SECOND_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd61, 0, 0, 0, 0, 0, 0, 3));

/// A network namespace that lives as long as this value and the processes in it.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
    name: &'static str,
}

impl Namespace {
    fn new(name: &'static str) -> Self {
        let made = thread::spawn(|| -> io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = made.join().expect("thread").expect("a new network namespace (need root)");
        let namespace = Self { fd, name };
        namespace.enter(|| tune(name)).expect("sysctls of a fresh namespace");
        namespace
    }

    /// Runs `work` in this namespace. Sockets made there stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.fd, CloneFlags::CLONE_NEWNET).expect("setns");
                work()
            });
            inside.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// A program in this namespace that dies with the calling thread.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_as(program, None, None)
    }

    /// The same, as another user and with a limit of descriptors.
    pub fn command_as(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        identity: Option<u32>,
        nofile: Option<u64>,
    ) -> Command {
        self.command_born(program, identity, Birth { nofile, ..Birth::default() })
    }

    /// The same, with all that a child can be born with.
    pub fn command_born(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        identity: Option<u32>,
        birth: Birth,
    ) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        let netns = Some(self.fd.try_clone().expect("dup"));
        sys::on_birth(&mut command, Birth { netns, ..birth }, identity);
        command
    }

    /// Changes a kernel setting of this namespace, given below /proc/sys/net.
    pub fn sysctl(&self, name: &str, value: &str) {
        self.enter(|| fs::write(format!("/proc/sys/net/{name}"), value)).expect(name);
    }

    /// Where other programs find this namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.fd.as_raw_fd())
    }
}

/// The client's local ports: it stands for many clients, the pod is as every pod.
const CLIENT_PORTS: (&str, &str) = ("ipv4/ip_local_port_range", "20000 65000");

/// Long queues, and addresses that are there at once.
fn tune(namespace: &str) -> io::Result<()> {
    let of_client = (namespace == "client").then_some(CLIENT_PORTS);
    let of_all = [
        // Inherited from the machine otherwise, and a router answers for what it cannot reach.
        ("ipv4/ip_forward", "0"),
        ("ipv6/conf/all/forwarding", "0"),
        ("ipv4/tcp_max_syn_backlog", "8192"),
        ("ipv4/tcp_syncookies", "0"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("core/somaxconn", "8192"),
    ];
    for (name, value) in of_all.into_iter().chain(of_client) {
        fs::write(format!("/proc/sys/net/{name}"), value)?;
    }
    Ok(())
}

/// A pod and a client. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct World {
    pub client: Namespace,
    pub pod: Namespace,
    dir: PathBuf,
    blackholes: AtomicU8,
}

impl World {
    /// `None` where the machine does not let us: then the caller returns, having said so. With
    /// `NETRA_REQUIRE_NETNS=1` that is a failure instead.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            let required = std::env::var("NETRA_REQUIRE_NETNS").is_ok_and(|value| value == "1");
            assert!(!required, "NETRA_REQUIRE_NETNS=1, but network namespaces need root here");
            eprintln!("SKIPPED: network namespaces need root (or: unshare -Ur --map-auto)");
            return None;
        }
        let world = Self {
            client: Namespace::new("client"),
            pod: Namespace::new("pod"),
            dir: fresh_dir(),
            blackholes: AtomicU8::new(0),
        };
        world.wire();
        Some(world)
    }

    fn wire(&self) {
        let (client, pod) =
            ([CLIENT_V4, CLIENT_V6], [POD_V4, POD_SECOND_V4, POD_V6, POD_SECOND_V6]);
        // Different indexes: with equal ones, as two fresh namespaces would give, the kernel takes
        // the ends for unrelated links and lets IPv6 wait a second for the carrier.
        let make = format!(
            "link add eth0 index 10 type veth peer name eth0 index 11 netns {}\n",
            self.pod.path()
        );
        ip(&self.client, &make);
        ip(&self.client, &face(&client));
        ip(&self.pod, &face(&pod));
        let routes =
            format!("route add default via {CLIENT_V4}\nroute add 2000::/3 via {CLIENT_V6}\n");
        ip(&self.pod, &routes);
        // Addresses come up a little after their interface.
        for address in pod {
            assert!(answers(&self.client, address), "{address} does not answer");
        }
        for address in client {
            assert!(answers(&self.pod, address), "{address} does not answer");
        }
    }

    /// Addresses (v4, v6) that the pod routes to the client, who drops what is not for it without
    /// a word. New ones with every call: conntrack remembers an unanswered SYN of netra's for two
    /// minutes, and a client that happens to take the same port to the same address meanwhile is
    /// taken for it and not redirected.
    pub fn blackhole(&self) -> [IpAddr; 2] {
        let number = self.blackholes.fetch_add(1, Ordering::Relaxed);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into());
        [Ipv4Addr::new(192, 0, 2, number).into(), v6.into()]
    }

    /// A directory of this test's own, readable by every user.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the files of this test stay in {}", self.dir.display());
        } else if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{}: {error}", self.dir.display());
        }
    }
}

fn face(addresses: &[IpAddr]) -> String {
    let mut batch = String::from("link set lo up\n");
    for address in addresses {
        match address {
            IpAddr::V4(v4) => batch += &format!("addr add {v4}/24 dev eth0\n"),
            IpAddr::V6(v6) => batch += &format!("addr add {v6}/64 dev eth0 nodad\n"),
        }
    }
    batch + "link set eth0 up\n"
}

/// Whether a connection to a closed port is refused, as by a host that is there.
fn answers(from: &Namespace, address: IpAddr) -> bool {
    let refused = || {
        let dial = TcpStream::connect_timeout(&(address, 9).into(), Duration::from_millis(10));
        dial.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    from.enter(|| wait_until(PATIENCE, refused))
}

/// Has `ip` do these things in a namespace, one a line.
pub fn ip(namespace: &Namespace, batch: &str) {
    let mut child = namespace
        .command("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ip (Debian package iproute2)");
    child.stdin.take().expect("piped").write_all(batch.as_bytes()).expect("ip reads its batch");
    checked(child.wait_with_output().expect("ip"), batch);
}

/// Panics with what a failed program said.
pub fn checked(output: Output, what: &str) -> String {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        said(&output.stdout),
        said(&output.stderr)
    );
    said(&output.stdout)
}

fn fresh_dir() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("netra-e2e.{}.{number}", process::id()));
    fs::create_dir_all(&dir).expect("a directory for the test");
    let anyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&dir, anyone).expect("its permissions");
    dir
}
