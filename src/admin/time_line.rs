//! `/debug/pprof/trace`: every turn of every shard for a while, in the trace event format that
//! ui.perfetto.dev and chrome://tracing read.

use super::{Admin, JSON, number};
use crate::{
    endpoint::{Answer, Ask, StatusCode},
    event::Request,
};
use netra_shards::{TimeLine, Turn};
use std::{fmt::Write, sync::Arc, time::Duration};
use tokio::time::sleep;

/// Turns that are kept, of all shards together, where there is memory for them.
const TURNS_MAX: usize = 8_192;
/// Bytes of JSON that a turn comes to.
const TURN_BYTES: usize = 224;
/// And all in all: in its cell, taken out of it, and as JSON.
const TURN_COST: usize = 32 + 40 + TURN_BYTES;
const SECONDS_MAX: u32 = 30;

impl Admin {
    pub(super) async fn time_line(&self, ask: &Ask) -> Answer {
        let seconds = match number(ask, "seconds", 1, SECONDS_MAX) {
            Ok(seconds) => seconds,
            Err(refused) => return refused,
        };
        // Until the answer is put together.
        let _one = match self.begin() {
            Ok(one) => one,
            Err(refused) => return refused,
        };
        let time = Duration::from_secs(seconds.into());
        let room = usize::try_from(self.config.pages.making()).unwrap_or(usize::MAX);
        let turns_max = (room / TURN_COST).min(TURNS_MAX) / self.recorders.len().max(1);
        let mut lines = Vec::new();
        for shard in 0..self.recorders.len() {
            let line = Arc::new(TimeLine::new(turns_max, time));
            lines.push(Arc::clone(&line));
            if !self.tell(Request::NoteTurns { shard, line }).await {
                return Answer::plain(StatusCode::SERVICE_UNAVAILABLE, "netra is ending\n");
            }
        }
        sleep(time).await;
        Answer::ok(JSON, events(&lines))
            .with("content-disposition", "attachment; filename=\"netra-trace.json\"")
    }
}

fn events(lines: &[Arc<TimeLine>]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| (line.is_full(), line.turns())).collect();
    let turns: usize = lines.iter().map(|(_, turns)| turns.len()).sum();
    let mut out = String::with_capacity(1024 + turns * TURN_BYTES);
    out.push_str("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
    let name = "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\"netra\"}}";
    out.push_str(name);
    for (shard, (is_full, turns)) in lines.into_iter().enumerate() {
        let full = if is_full { ", cut short: too many turns" } else { "" };
        let _ = write!(
            out,
            ",\n{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":{shard},\
             \"args\":{{\"name\":\"shard-{shard}{full}\"}}}}"
        );
        for turn in turns {
            push_turn(&mut out, shard, turn);
        }
    }
    out.push_str("\n]}\n");
    out
}

/// A wait and what came of it.
fn push_turn(out: &mut String, shard: usize, turn: Turn) {
    let wait = if turn.is_parked { "park" } else { "look" };
    let mut span = |name: &str, from: u64, to: u64, args: &str| {
        let (at, took) = (micros(from), micros(to.saturating_sub(from)));
        let _ = write!(
            out,
            ",\n{{\"name\":\"{name}\",\"ph\":\"X\",\"pid\":1,\"tid\":{shard},\"ts\":{at},\
             \"dur\":{took}{args}}}"
        );
    };
    span(wait, turn.waits_from_ns, turn.woke_at_ns, "");
    let args = format!(",\"args\":{{\"completions\":{}}}", turn.events);
    span("turn", turn.woke_at_ns, turn.quiet_at_ns, &args);
}

fn micros(ns: u64) -> String {
    format!("{}.{:03}", ns / 1000, ns % 1000)
}
