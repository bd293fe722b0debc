//! What may be ordered, and what is asked of the shards by way of the control thread.

use super::Admin;
use crate::{
    endpoint::{Answer, Ask, Method, Sender, StatusCode},
    event::{Event, Request},
    log::{self, Level},
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tracing::info;

/// Orders that were obeyed.
pub(crate) static OBEYED: AtomicU64 = AtomicU64::new(0);
/// Orders of those who may not give them.
pub(crate) static REFUSED: AtomicU64 = AtomicU64::new(0);

/// What changes what netra does.
pub(super) const PATHS: [&str; 3] = ["/drain", "/log-level", "/quitquitquit"];
const QUIT: &str = "/quitquitquit";

impl Admin {
    /// Tells the control thread; false when it is gone.
    pub(super) async fn tell(&self, request: Request) -> bool {
        self.tell.send(Event::Asked(request)).await.is_ok()
    }

    pub(super) async fn order(&self, request: Request) -> Answer {
        if self.tell(request).await {
            return Answer::plain(StatusCode::OK, "done\n");
        }
        Answer::plain(StatusCode::SERVICE_UNAVAILABLE, "netra is ending\n")
    }

    /// Whether an order of this sender is obeyed; if not, what it is told.
    pub(super) fn allows(&self, from: &Sender, path: &str) -> Result<(), Answer> {
        let allowed = self.judge(from, path);
        let counter = if allowed.is_ok() { &OBEYED } else { &REFUSED };
        counter.fetch_add(1, Relaxed);
        allowed.map_err(|(status, text)| match status {
            StatusCode::UNAUTHORIZED => {
                Answer::plain(status, text).with("www-authenticate", "Bearer realm=\"netra\"")
            }
            status => Answer::plain(status, text),
        })
    }

    fn judge(&self, from: &Sender, path: &str) -> Result<(), (StatusCode, &'static str)> {
        let settings = &self.config.admin;
        if path == QUIT && !settings.may_quit {
            return Err((StatusCode::FORBIDDEN, "not allowed: NETRA_ADMIN_QUIT is false\n"));
        }
        // Who gets to the socket is netra's own user, or root.
        if from.is_owner {
            return Ok(());
        }
        if !from.is_order {
            return Err((StatusCode::FORBIDDEN, "an order has the header X-Netra-Order: 1\n"));
        }
        match &settings.token {
            Some(token) if from.token.as_deref().is_some_and(|shown| token.is(shown)) => Ok(()),
            Some(_) => Err((
                StatusCode::UNAUTHORIZED,
                "not allowed without NETRA_ADMIN_TOKEN_FILE's token\n",
            )),
            None if path == QUIT || settings.may_order => Ok(()),
            None => Err((
                StatusCode::FORBIDDEN,
                "not allowed: NETRA_ADMIN_ORDERS is false, and there is no NETRA_ADMIN_TOKEN_FILE\n",
            )),
        }
    }
}

pub(super) fn log_level(ask: &Ask) -> Answer {
    if ask.method != Method::POST {
        return Answer::plain(StatusCode::OK, &format!("{}\n", log::level().word()));
    }
    let body = String::from_utf8_lossy(&ask.body);
    let wanted = ask.parameter("level").unwrap_or_else(|| {
        let body = body.trim();
        body.strip_prefix("level=").unwrap_or(body)
    });
    let known = Level::WORDS.iter().position(|word| word.eq_ignore_ascii_case(wanted));
    let Some(level) = known.map(|index| Level::ALL[index]) else {
        let text = format!("level: one of {}\n", Level::WORDS.join(", "));
        return Answer::plain(StatusCode::BAD_REQUEST, &text);
    };
    log::set_level(level);
    info!(level = level.word(), "log level changed");
    Answer::plain(StatusCode::OK, &format!("{}\n", level.word()))
}
