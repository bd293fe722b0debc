//! `/connections`: the top of what all shards have, asked for a slice at a time.

use super::{Admin, json, number};
use crate::{
    endpoint::{Answer, Ask, StatusCode},
    event::Request,
    mask,
};
use netra_shards::{
    ConnectionDetails, ConnectionId, ConnectionView, FailuresView, StreamView, TcpInfo, Viewer,
};
use serde_json::{Value, json};
use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

/// How long the shards may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(1);
const SHOWN: u32 = 20;
const SHOWN_MAX: u32 = 200;

/// What puts a connection on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Age,
    Idle,
    Bytes,
    Overhead,
    Stalled,
}

const ORDERS: [(&str, Order); 5] = [
    ("age", Order::Age),
    ("idle", Order::Idle),
    ("bytes", Order::Bytes),
    ("overhead", Order::Overhead),
    ("stalled", Order::Stalled),
];

impl Order {
    /// The greater, the higher.
    fn key(self, view: &ConnectionView) -> u128 {
        match self {
            Self::Age => view.age.as_nanos(),
            Self::Idle => view.idle.as_nanos(),
            Self::Bytes => view.bytes.iter().map(|n| u128::from(*n)).sum(),
            Self::Overhead => view.overhead.as_nanos(),
            Self::Stalled => u128::from(view.stalled != [false; 2]) << 100 | view.idle.as_nanos(),
        }
    }
}

/// What shards answer.
#[derive(Debug)]
enum Seen {
    Connections(Vec<ConnectionView>, Option<u32>),
    Details(usize, Vec<ConnectionDetails>),
}

#[derive(Debug)]
struct Answers(mpsc::UnboundedSender<Seen>);

impl Viewer for Answers {
    fn connections(&self, _shard: usize, seen: Vec<ConnectionView>, next: Option<u32>) {
        // Whoever asked may have lost patience.
        let _ = self.0.send(Seen::Connections(seen, next));
    }

    fn details(&self, shard: usize, seen: Vec<ConnectionDetails>) {
        let _ = self.0.send(Seen::Details(shard, seen));
    }

    fn failures(&self, _: usize, _: FailuresView) {}
}

/// The top so far, and how many there are.
struct Top {
    order: Order,
    shown_max: usize,
    total: usize,
    shown: Vec<(usize, ConnectionView)>,
}

impl Top {
    fn take(&mut self, shard: usize, seen: Vec<ConnectionView>) {
        self.total += seen.iter().filter(|view| !view.is_leg).count();
        self.shown.extend(seen.into_iter().map(|view| (shard, view)));
        self.shown.sort_by_key(|(_, view)| Reverse(self.order.key(view)));
        self.shown.truncate(self.shown_max);
    }
}

impl Admin {
    pub(super) async fn connections(&self, ask: &Ask) -> Answer {
        let by = ask.parameter("by").unwrap_or("age");
        let Some((_, order)) = ORDERS.iter().find(|(word, _)| *word == by) else {
            let words: Vec<_> = ORDERS.iter().map(|(word, _)| *word).collect();
            let text = format!("by: one of {}\n", words.join(", "));
            return Answer::plain(StatusCode::BAD_REQUEST, &text);
        };
        let shown_max = match number(ask, "top", SHOWN, SHOWN_MAX) {
            Ok(count) => count as usize,
            Err(refused) => return refused,
        };
        let look = async {
            // What is held while it lasts, a slice and the top, is held once.
            let mut next = self.looking.lock().await;
            if let Some(next) = *next {
                sleep_until(next).await;
            }
            let begun = Instant::now();
            let seen = self.look(*order, shown_max).await;
            // Three parts of four are the shards' own.
            *next = Some(Instant::now() + (begun.elapsed() * 3).min(PAUSE_MAX));
            seen
        };
        match timeout(PATIENCE, look).await {
            Ok(Some(seen)) => json(&seen),
            Ok(None) | Err(_) => {
                Answer::plain(StatusCode::GATEWAY_TIMEOUT, "the shards did not answer\n")
            }
        }
    }

    async fn look(&self, order: Order, shown_max: usize) -> Option<Value> {
        let (answers, mut seen) = mpsc::unbounded_channel();
        let viewer: Arc<dyn Viewer> = Arc::new(Answers(answers));
        let mut top = Top { order, shown_max, total: 0, shown: Vec::new() };
        for shard in 0..self.recorders.len() {
            let mut next = Some(0);
            while let Some(from) = next {
                let viewer = Arc::clone(&viewer);
                self.tell(Request::Connections { shard, from, viewer }).await.then_some(())?;
                let Seen::Connections(some, after) = seen.recv().await? else { return None };
                top.take(shard, some);
                next = after;
            }
        }
        let mut details = HashMap::new();
        for shard in 0..self.recorders.len() {
            let of: Vec<ConnectionId> = top
                .shown
                .iter()
                .filter(|(its, _)| *its == shard)
                .map(|(_, view)| view.id)
                .collect();
            if of.is_empty() {
                continue;
            }
            let viewer = Arc::clone(&viewer);
            self.tell(Request::Details { shard, of, viewer }).await.then_some(())?;
            let Seen::Details(shard, some) = seen.recv().await? else { return None };
            details.extend(some.into_iter().map(|it| ((shard, it.id), it)));
        }
        let row = |(shard, view): &(usize, ConnectionView)| {
            row(*shard, view, details.get(&(*shard, view.id)))
        };
        Some(json!({
            "total": top.total,
            "by": ORDERS.iter().find(|(_, it)| *it == order).map(|(word, _)| *word),
            "connections": top.shown.iter().map(row).collect::<Vec<_>>(),
        }))
    }
}

fn row(shard: usize, view: &ConnectionView, details: Option<&ConnectionDetails>) -> Value {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let hop = |side: usize| -> Option<TcpInfo> { details?.tcp[side] };
    let rtt = |side| hop(side).map(|tcp| micros(tcp.rtt));
    let retransmits = |side| hop(side).map(|tcp| tcp.retransmits);
    json!({
        "shard": shard,
        "direction": view.direction.name(),
        "protocol": view.protocol,
        "state": match (view.is_deferred, view.is_dialling, view.is_leg, view.is_mirror) {
            (true, ..) => "deferred",
            (false, true, ..) => "dialling",
            (false, false, _, true) => "mirror",
            (false, false, true, false) => "leg",
            (false, false, false, false) => "relaying",
        },
        "is_leg": view.is_leg,
        "is_mirror": view.is_mirror,
        "upstream": view.upstream.map(|upstream| upstream.to_string()),
        "peer": details.and_then(|it| it.peer).map(|peer| peer.to_string()),
        "original_dst": view.original_dst.to_string(),
        "age_s": view.age.as_secs_f64(),
        "idle_s": view.idle.as_secs_f64(),
        "bytes_request": view.bytes[0],
        "bytes_response": view.bytes[1],
        "overhead_us": micros(view.overhead),
        "stalled": match view.stalled {
            [false, false] => None,
            [true, false] => Some("downstream"),
            [false, true] => Some("upstream"),
            [true, true] => Some("both"),
        },
        "downstream_rtt_us": rtt(0),
        "upstream_rtt_us": rtt(1),
        "downstream_retransmits": retransmits(0),
        "upstream_retransmits": retransmits(1),
        "streams_open": details.map_or(0, |it| it.stream_count),
        "streams": details.map_or_else(Vec::new, |it| it.streams.iter().map(stream).collect()),
    })
}

/// A stream of HTTP/2 that goes on: its path without the query, which is nobody's business here.
fn stream(view: &StreamView) -> Value {
    let path = view.path.split(|byte| *byte == b'?').next().unwrap_or_default();
    json!({
        "id": view.id,
        "age_s": view.age.as_secs_f64(),
        "path": mask::line(&String::from_utf8_lossy(path)),
        "is_grpc": view.is_grpc,
        "status": view.status,
        "bytes_request": view.bytes[0],
        "bytes_response": view.bytes[1],
        "messages_request": view.messages[0],
        "messages_response": view.messages[1],
    })
}
