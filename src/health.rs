//! What stands on `NETRA_PROMETHEUS_PORT`, on all addresses: `/metrics` and the probes. Nothing
//! here depends on a receiver of spans, or on anything else outside.

use crate::endpoint::{Answer, Ask, Method, Site, StatusCode};
use netra_perf::{Exposition, Format};
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

/// Shared by the endpoint's connections and the control thread.
#[derive(Debug)]
pub(crate) struct Pages {
    exposition: Exposition,
    unread_bytes_max: usize,
    ready: AtomicBool,
    /// Connections have waited for room for a while.
    full: AtomicBool,
}

const PATHS: [&str; 4] = ["/metrics", "/live", "/ready", "/startup"];

impl Pages {
    /// Ready from the start: they are made when every shard listens.
    pub(crate) fn new(exposition: Exposition, unread_bytes_max: usize) -> Self {
        let (ready, full) = (AtomicBool::new(true), AtomicBool::new(false));
        Self { exposition, unread_bytes_max, ready, full }
    }

    /// From now on `/ready` says no, and whoever balances load looks elsewhere.
    pub(crate) fn set_draining(&self) {
        self.ready.store(false, Relaxed);
    }

    /// Whether `/ready` says no until there is room again.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Relaxed);
    }

    fn page(&self, method: &Method, path: &str, accept: Option<&str>) -> Answer {
        if !PATHS.contains(&path) {
            let text = format!("not found; there are {}\n", PATHS.join(", "));
            return Answer::plain(StatusCode::NOT_FOUND, &text);
        }
        if method != Method::GET && method != Method::HEAD {
            return Answer::only("GET, HEAD");
        }
        match path {
            "/metrics" => {
                let format = Format::accepted(accept);
                Answer::ok(format.content_type(), self.exposition.render(format))
            }
            "/ready" if !self.ready.load(Relaxed) => {
                Answer::plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            "/ready" if self.full.load(Relaxed) => {
                let text = "no room: new connections wait in the kernel's queue\n";
                Answer::plain(StatusCode::SERVICE_UNAVAILABLE, text)
            }
            "/ready" => Answer::plain(StatusCode::OK, "ready\n"),
            "/startup" => Answer::plain(StatusCode::OK, "started\n"),
            _ => Answer::plain(StatusCode::OK, "live\n"),
        }
    }
}

impl Site for Pages {
    const THINK_MAX: Duration = Duration::from_secs(10);
    const PROBES: &[&str] = &["/live", "/ready", "/startup"];

    fn unread_bytes_max(&self) -> usize {
        self.unread_bytes_max
    }

    async fn answer(&self, ask: Ask) -> Answer {
        self.page(&ask.method, &ask.path, ask.accept.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_perf::{About, Recorder};
    use std::sync::Arc;

    fn pages() -> Pages {
        let about = About {
            version: "0",
            driver: "epoll",
            drivers: &["epoll"],
            started: std::time::SystemTime::now(),
            counters: &[],
            exemplars: &crate::export::EXEMPLARS,
        };
        Pages::new(Exposition::new(vec![Arc::new(Recorder::default())], about), 1 << 20)
    }

    #[test]
    fn pages_by_path_and_method() {
        let pages = pages();
        let status = |method, path| pages.page(&method, path, None).status.as_u16();
        assert_eq!(status(Method::GET, "/live"), 200);
        assert_eq!(status(Method::HEAD, "/ready"), 200);
        assert_eq!(status(Method::GET, "/startup"), 200);
        assert_eq!(status(Method::GET, "/metrics"), 200);
        assert_eq!(status(Method::GET, "/"), 404);
        assert_eq!(status(Method::POST, "/nothing"), 404);
        assert_eq!(status(Method::POST, "/metrics"), 405);
        pages.set_full(true);
        assert_eq!((status(Method::GET, "/ready"), status(Method::GET, "/live")), (503, 200));
        pages.set_full(false);
        assert_eq!(status(Method::GET, "/ready"), 200);
        pages.set_draining();
        assert_eq!(status(Method::GET, "/ready"), 503);
        assert_eq!(status(Method::GET, "/startup"), 200);
        assert_eq!(status(Method::GET, "/live"), 200);
        let open = pages.page(&Method::GET, "/metrics", Some("application/openmetrics-text"));
        assert!(open.body.ends_with(b"# EOF\n"));
        assert!(open.kind.contains("openmetrics"));
        let refused = pages.page(&Method::PUT, "/live", None);
        assert_eq!(refused.headers, [("allow", "GET, HEAD".to_owned())]);
    }
}
