//! What may be ordered, and what is asked of the shards by way of the control thread.

use super::Admin;
use crate::{
    control::Event,
    endpoint::{Answer, Ask, Method, StatusCode},
    log::{self, Level},
};
use netra_shards::{ConnectionId, ShardSet, TimeLine, Viewer};
use std::sync::Arc;
use tracing::info;

/// Something for the control thread.
#[derive(Debug)]
pub(crate) enum Request {
    /// A slice of a shard's connections.
    Connections { shard: usize, from: u32, viewer: Arc<dyn Viewer> },
    /// What the kernel knows about some.
    Details { shard: usize, of: Vec<ConnectionId>, viewer: Arc<dyn Viewer> },
    /// A shard's turns.
    NoteTurns { shard: usize, line: Arc<TimeLine> },
    /// As SIGTERM.
    Drain,
    /// As a second one.
    Quit,
}

impl Request {
    /// Passes a question on to its shard.
    pub(crate) fn ask(self, set: &ShardSet) {
        match self {
            Self::Connections { shard, from, viewer } => set.connections(shard, from, viewer),
            Self::Details { shard, of, viewer } => set.details(shard, of, viewer),
            Self::NoteTurns { shard, line } => set.note_turns(shard, line),
            Self::Drain | Self::Quit => {}
        }
    }
}

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

    pub(super) async fn quit(&self) -> Answer {
        if !self.config.admin.may_quit {
            let text = "not allowed: NETRA_ADMIN_QUIT is false\n";
            return Answer::plain(StatusCode::FORBIDDEN, text);
        }
        self.order(Request::Quit).await
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
