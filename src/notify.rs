//! systemd's notifications (sd_notify(3)): a unit with `Type=notify` is started when netra listens,
//! and restarted when the control thread stands still. Without systemd nothing happens.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::{ffi::OsStrExt, net::SocketAddr, net::UnixDatagram},
    },
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Every shard listens.
pub(crate) fn ready() {
    send("READY=1\nSTATUS=relaying\n");
}

/// No more connections are accepted; what is open may finish.
pub(crate) fn stopping() {
    send("STOPPING=1\nSTATUS=draining\n");
}

/// The control thread still turns. To be called often: it is sent as often as is asked for.
pub(crate) fn alive() {
    let Some(notifier) = notifier() else { return };
    let Some(every) = notifier.watchdog else { return };
    let now = u64::try_from(notifier.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
    let last = notifier.last_alive_ms.load(Relaxed);
    if last == 0 || now.saturating_sub(last) >= every {
        notifier.last_alive_ms.store(now.max(1), Relaxed);
        send("WATCHDOG=1\n");
    }
}

struct Notifier {
    socket: UnixDatagram,
    to: SocketAddr,
    /// How often to say that we are alive: half of what the unit allows.
    watchdog: Option<Duration>,
    begun: Instant,
    last_alive_ms: AtomicU64,
}

fn notifier() -> Option<&'static Notifier> {
    static NOTIFIER: OnceLock<Option<Notifier>> = OnceLock::new();
    NOTIFIER.get_or_init(from_environment).as_ref()
}

fn from_environment() -> Option<Notifier> {
    let name = env::var_os("NOTIFY_SOCKET")?;
    let to = address(name.as_bytes())?;
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    // The variables of a parent may be about the parent.
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let watchdog =
        number("WATCHDOG_USEC").filter(|_| is_ours).map(|us| Duration::from_micros(us / 2));
    let socket = UnixDatagram::unbound().ok()?;
    // A manager that does not read must not hold us up.
    socket.set_nonblocking(true).ok()?;
    Some(Notifier { socket, to, watchdog, begun: Instant::now(), last_alive_ms: AtomicU64::new(0) })
}

/// A path, or a name that begins with `@`.
fn address(name: &[u8]) -> Option<SocketAddr> {
    match name {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok(),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)).ok(),
        _ => None,
    }
}

fn send(message: &str) {
    if let Some(notifier) = notifier() {
        let _ = notifier.socket.send_to_addr(message.as_bytes(), &notifier.to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        assert!(address(b"/run/systemd/notify").is_some_and(|a| a.as_pathname().is_some()));
        let abstract_name = address(b"@/org/freedesktop/systemd1/notify/1").unwrap();
        let name = abstract_name.as_abstract_name();
        assert_eq!(name, Some(&b"/org/freedesktop/systemd1/notify/1"[..]));
        assert!(address(b"relative").is_none() && address(b"").is_none());
    }
}
