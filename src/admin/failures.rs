//! `/failures`: the last ones of all shards, and the destinations that fail most.

use super::{Admin, json, number};
use crate::{
    endpoint::{Answer, Ask, StatusCode},
    event::Request,
    log::rfc3339,
    texts::errno_name,
};
use netra_codecs::trace::Flag;
use netra_shards::{
    ConnectionDetails, ConnectionRecord, ConnectionView, Destination, Direction, FAILURES_KEPT,
    FailuresView, Viewer,
};
use serde_json::{Map, Value, json};
use std::{cmp::Reverse, collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::timeout};

/// How long the shards may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
const SHOWN_MAX: u32 = 200;

#[derive(Debug)]
struct Answers(mpsc::UnboundedSender<FailuresView>);

impl Viewer for Answers {
    fn connections(&self, _: usize, _: Vec<ConnectionView>, _: Option<u32>) {}

    fn details(&self, _: usize, _: Vec<ConnectionDetails>) {}

    fn failures(&self, _shard: usize, seen: FailuresView) {
        // Whoever asked may have lost patience.
        let _ = self.0.send(seen);
    }
}

impl Admin {
    pub(super) async fn failures(&self, ask: &Ask) -> Answer {
        let kept = u32::try_from(FAILURES_KEPT).unwrap_or(SHOWN_MAX);
        let shown = number(ask, "last", kept, kept)
            .and_then(|last| Ok((last, number(ask, "top", 20, SHOWN_MAX)?)));
        let (last, top) = match shown {
            Ok(shown) => shown,
            Err(refused) => return refused,
        };
        match timeout(PATIENCE, self.ask_for_failures()).await {
            Ok(Some(views)) => json(&shown_of(views, last as usize, top as usize)),
            Ok(None) | Err(_) => {
                Answer::plain(StatusCode::GATEWAY_TIMEOUT, "the shards did not answer\n")
            }
        }
    }

    async fn ask_for_failures(&self) -> Option<Vec<FailuresView>> {
        let (answers, mut seen) = mpsc::unbounded_channel();
        let viewer: Arc<dyn Viewer> = Arc::new(Answers(answers));
        let mut views = Vec::new();
        for shard in 0..self.recorders.len() {
            let viewer = Arc::clone(&viewer);
            self.tell(Request::Failures { shard, viewer }).await.then_some(())?;
            views.push(seen.recv().await?);
        }
        Some(views)
    }
}

/// The newest first.
fn shown_of(views: Vec<FailuresView>, last: usize, top: usize) -> Value {
    let total: u64 = views.iter().map(|view| view.total).sum();
    let mut destinations: BTreeMap<(Option<SocketAddr>, Flag), Destination> = BTreeMap::new();
    let mut failures = Vec::new();
    for view in views {
        failures.extend(view.last);
        for new in view.destinations {
            destinations
                .entry((new.address, new.flag))
                .and_modify(|it| {
                    it.count += new.count;
                    it.excess += new.excess;
                    it.last_unix_ns = it.last_unix_ns.max(new.last_unix_ns);
                })
                .or_insert(new);
        }
    }
    failures.sort_by_key(|record| Reverse(record.end_unix_ns()));
    failures.truncate(last);
    let mut destinations: Vec<_> = destinations.into_values().collect();
    destinations.sort_by_key(|it| Reverse(it.count));
    destinations.truncate(top);
    json!({
        "total": total,
        "destinations": destinations.iter().map(destination).collect::<Vec<_>>(),
        "failures": failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

fn address(address: Option<SocketAddr>) -> Option<String> {
    address.map(|address| address.to_string())
}

fn destination(it: &Destination) -> Value {
    json!({
        "destination": address(it.address),
        "flag": it.flag.letters(),
        "reason": it.flag.word(),
        "side": it.flag.side(),
        "count": it.count,
        "count_may_exceed_by": it.excess,
        "last": rfc3339(it.last_unix_ns),
        "advice": it.flag.advice(),
    })
}

/// What is not known is left out.
fn failure(record: &ConnectionRecord) -> Value {
    let mut all = Map::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            all.insert(name.into(), value.into());
        }
    };
    put("time", Some(rfc3339(record.end_unix_ns())));
    if let Some(fault) = record.fault {
        put("flag", Some(fault.flag.letters().into()));
        put("reason", Some(fault.flag.word().into()));
        put("side", Some(fault.flag.side().into()));
        put("errno", errno_name(fault.errno));
        put("advice", Some(fault.flag.advice().into()));
    }
    put("direction", record.direction.map(Direction::name).map(Into::into));
    put("protocol", Some(record.protocol.into()));
    put("tunnel", record.tunnel.map(Into::into));
    put("peer", address(record.peer));
    put("original_dst", address(record.original_dst));
    put("dialled", address(record.dialled));
    if let Some(known) = &record.known {
        if known.trace_id != 0 {
            put("trace_id", Some(format!("{:032x}", known.trace_id)));
            put("span_id", Some(format!("{:016x}", known.span_id)));
        }
        let id = String::from_utf8_lossy(known.request_id());
        put("request_id", (!id.is_empty()).then(|| id.into_owned()));
    }
    all.insert("age_s".into(), record.duration.as_secs_f64().into());
    all.insert("bytes_request".into(), record.bytes[0].into());
    all.insert("bytes_response".into(), record.bytes[1].into());
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_codecs::trace::Fault;

    fn view(count: u64, excess: u64, start_unix_ns: u64) -> FailuresView {
        let address = "10.0.0.9:80".parse().ok();
        let flag = Flag::UpstreamRefused;
        let record = ConnectionRecord {
            direction: Some(Direction::Outbound),
            protocol: "http1",
            dialled: address,
            fault: Some(Fault::with_errno(flag, 111)),
            start_unix_ns,
            ..ConnectionRecord::default()
        };
        let destination = Destination { address, flag, count, excess, last_unix_ns: start_unix_ns };
        FailuresView { total: count, last: vec![record], destinations: vec![destination] }
    }

    #[test]
    fn every_flag_is_in_the_documents_table() {
        let document = include_str!("../../docs/SEE-INSIDE.md");
        for flag in Flag::ALL {
            let (letters, word, side) = (flag.letters(), flag.word(), flag.side());
            let row = format!("| {letters} | {word} | {side} |");
            let line = document.lines().find(|line| line.starts_with(&row));
            let line = line.unwrap_or_else(|| panic!("{row} is missing"));
            assert!(line.ends_with(&format!("| {} |", flag.advice())), "{line}");
        }
    }

    #[test]
    fn what_shards_tell_is_added_up_and_the_newest_comes_first() {
        let second = 1_000_000_000;
        let shown = shown_of(vec![view(3, 1, second), view(4, 0, 2 * second)], 100, 20);
        assert_eq!(shown["total"], 7);
        let [top] = &shown["destinations"].as_array().unwrap()[..] else { panic!("{shown}") };
        assert_eq!((&top["count"], &top["count_may_exceed_by"]), (&json!(7), &json!(1)));
        assert_eq!((&top["flag"], &top["side"]), (&json!("UF"), &json!("upstream")));
        let failures = shown["failures"].as_array().unwrap();
        assert_eq!(failures[0]["time"], "1970-01-01T00:00:02.000Z");
        assert_eq!(failures[0]["errno"], "ECONNREFUSED");
        assert_eq!(failures[0]["direction"], "outbound");
        assert!(failures[0].get("trace_id").is_none() && failures.len() == 2);
        assert_eq!(shown_of(vec![view(3, 1, 1)], 1, 1)["failures"].as_array().unwrap().len(), 1);
    }
}
