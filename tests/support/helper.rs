//! Servers in processes of their own: for descriptors by the thousand, and to be killed.
//!
//! The test program runs itself again as `--exact helper_process` with a role in the environment
//! and the listener as standard input.

use super::script;
use super::stream::Stream;
use super::world::{Namespace, POD_V4, World};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::Duration;
use std::{env, thread};

const ROLE: &str = "NETRA_TEST_HELPER";

/// What a helper does with each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends back what comes; ten thousand at once.
    Echo,
    /// Sends [`BLAST`] until the other goes away.
    Blast,
    /// Reads one MiB, then nothing more, and stays.
    Stall,
    /// Answers what ends like a request's head with [`ANSWER`]; thousands at once.
    Answer,
}

/// What [`Role::Answer`] answers.
pub const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What [`Role::Blast`] sends: without end for all purposes.
pub const BLAST: Stream = Stream { seed: 7, len: 1 << 50 };

impl Role {
    const ALL: [Self; 4] = [Self::Echo, Self::Blast, Self::Stall, Self::Answer];

    fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Blast => "blast",
            Self::Stall => "stall",
            Self::Answer => "answer",
        }
    }
}

/// A helper process. Dropping it kills it.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    pub address: SocketAddr,
}

impl Helper {
    pub fn spawn(namespace: &Namespace, address: IpAddr, role: Role) -> Self {
        let listener = script::listen(namespace, address);
        SockBacklog::deepen(&listener);
        let address = listener.local_addr().expect("a bound listener");
        let child = namespace
            .command(env::current_exe().expect("the path of this program"))
            .args(["--exact", "helper_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, role.name())
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .spawn()
            .expect("this program runs again");
        Self { child, address }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would: no destructor, no goodbye.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("wait");
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

struct SockBacklog;

impl SockBacklog {
    /// std listens with a queue of 128; a second listen(2) only changes its length.
    fn deepen(listener: &TcpListener) {
        socket2::SockRef::from(listener).listen(8192).expect("listen");
    }
}

/// The body of each test program's `helper_process`: plays the role that the environment names,
/// and without one tests that helpers work.
pub fn run() {
    let Ok(name) = env::var(ROLE) else { return helpers_work() };
    let role = Role::ALL.into_iter().find(|role| role.name() == name).expect("a known role");
    let stdin = io::stdin().as_fd().try_clone_to_owned().expect("standard input");
    let listener = TcpListener::from(stdin);
    match role {
        Role::Echo => serve(&listener, |came| came).expect("the echo server runs"),
        Role::Answer => {
            let answer = |came: &[u8]| if came.ends_with(b"\r\n\r\n") { ANSWER } else { b"" };
            serve(&listener, answer).expect("the HTTP server runs");
        }
        Role::Blast => each(&listener, |mut peer| drop(BLAST.send(&mut peer))),
        Role::Stall => each(&listener, |mut peer| {
            let mut first = vec![0; 1 << 20];
            if peer.read_exact(&mut first).is_ok() {
                thread::sleep(Duration::from_secs(600));
            }
        }),
    }
}

fn helpers_work() {
    let Some(world) = World::new() else { return };
    let mut helper = Helper::spawn(&world.pod, POD_V4, Role::Echo);
    let mut peer = script::connect(&world.client, helper.address).expect("connect");
    peer.write_all(b"hello").expect("send");
    let mut answer = [0; 5];
    peer.read_exact(&mut answer).expect("receive");
    assert_eq!(&answer, b"hello");
    helper.kill();
    assert_eq!(script::read(&mut peer, &mut answer).expect("a close after kill"), 0);
    let refused = script::connect(&world.client, helper.address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

fn each(listener: &TcpListener, serve: fn(TcpStream)) {
    for peer in listener.incoming().map_while(Result::ok) {
        thread::spawn(move || serve(peer));
    }
}

/// One thread, any number of connections; what comes is answered by what `answer` makes of it.
fn serve(listener: &TcpListener, answer: fn(&[u8]) -> &[u8]) -> io::Result<()> {
    const LISTENER: u64 = u64::MAX;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    listener.set_nonblocking(true)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut peers: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = vec![EpollEvent::empty(); 256];
    let mut bytes = vec![0; 64 << 10];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            if event.data() == LISTENER {
                while let Ok((peer, _)) = listener.accept() {
                    peer.set_nodelay(true)?;
                    let key = u64::try_from(peer.as_raw_fd()).expect("a descriptor");
                    epoll.add(&peer, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
                    peers.insert(key, peer);
                }
            } else if let Some(peer) = peers.get_mut(&event.data()) {
                let sent = match script::read(peer, &mut bytes) {
                    Ok(0) | Err(_) => false,
                    Ok(len) => peer.write_all(answer(&bytes[..len])).is_ok(),
                };
                if !sent {
                    peers.remove(&event.data());
                }
            }
        }
    }
}
