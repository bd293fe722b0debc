//! Kafka: librdkafka and kafka-python against Tansu.

use super::capture::captured;
use super::*;

/// A client's whole day: what it sees stays the same, and tshark, which reads the same packets, has
/// the same calls.
#[test]
fn kafka_as_two_clients_use_it_and_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    let host = POD_V4.to_string();
    let _server = python_server(&world, "kafka_peer.py", 9092, &["server", &host, "9092"]);
    let capture = world.dir().join("kafka.pcap");
    let ask = || python(&world.client, "kafka_peer.py", &["client", &host, "9092"]);
    let load = || captured(&world, &capture, &[9092], ask);
    compare(&world, "9092=kafka", load, |netra, sink| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let seen = exchanges(&scrape, "kafka");
        let mut by_operation = BTreeMap::new();
        for ((operation, _), count) in &seen {
            *by_operation.entry(operation.clone()).or_insert(0) += count;
        }
        let read = calls_by_tshark(&world, &capture);
        if by_operation != read {
            return Err(format!("netra: {by_operation:?}\ntshark: {read:?}"));
        }
        // The topic was to be made twice.
        if seen.get(&("CreateTopics".into(), "error".into())) != Some(&1) {
            return Err(format!("CreateTopics is wrong once, but {seen:?}"));
        }
        // What sets a connection up has no span.
        let total = read.values().sum::<u64>() - read["ApiVersions"];
        let spans = sink.take(usize::try_from(total).expect("few"))?;
        let of = |name: &'static str| spans.iter().filter(move |span| span.name.starts_with(name));
        let wrong = of("CreateTopics orders-").find(|span| span.tag("error") == "true");
        let wrong = wrong.ok_or("no span of the second CreateTopics")?;
        let produced = of("Produce orders-").next().ok_or("no span of Produce")?;
        let read = of("Fetch").next().ok_or("no span of Fetch")?;
        let kept = of("OffsetCommit orders-").next().ok_or("no span of OffsetCommit")?;
        for (span, key, value) in [
            (wrong, "error.type", "TOPIC_ALREADY_EXISTS"),
            (produced, "messaging.system", "kafka"),
            (produced, "messaging.operation.name", "Produce"),
            (produced, "messaging.operation.type", "send"),
            (produced, "messaging.client.id", "shop"),
            (produced, "span.kind", "server"),
            (read, "messaging.operation.type", "receive"),
            (kept, "messaging.operation.type", "settle"),
        ] {
            if span.tag(key) != value {
                return Err(format!("{key} is {:?}, not {value}: {span:?}", span.tag(key)));
            }
        }
        let topic = produced.name.strip_prefix("Produce ").expect("it begins so");
        let group =
            topic.starts_with("orders-") && produced.tag("messaging.destination.name") == topic;
        let is_kept = kept.tag("messaging.consumer.group.name").starts_with("billing-");
        if !group || !is_kept {
            return Err(format!("{produced:?}\n{kept:?}"));
        }
        // Each of librdkafka's three producers sent 20 messages, kafka-python 10.
        let sent: u64 = of("Produce orders-")
            .map(|span| span.tag("messaging.batch.message_count").parse().unwrap_or(0))
            .sum();
        if sent == 70 { Ok(()) } else { Err(format!("{sent} messages were produced, not 70")) }
    });
}

/// Batches that come one behind the other are spliced but for their heads, by either driver: what has
/// come while one was spliced is not received as well.
#[test]
fn long_batches_are_spliced() {
    const BATCHES: u64 = 100;
    let Some(world) = World::new() else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/bench/databases.py");
    let mut broker = world.pod.command("python3");
    broker.args([script, "broker"]);
    let _broker = Server::start(&world, &world.pod, broker, 9092);
    apply_rules(&world, Backend::NftNative);
    for cell in cells_with(2) {
        let setup = Setup::new(cell).env("NETRA_PROTOCOLS", "9092=kafka");
        let netra = Netra::start(&world, &setup.env("NETRA_REPORTER", "none"));
        let (host, count) = (POD_V4.to_string(), BATCHES.to_string());
        let args = [script, "produce", &host, "9092", &count, "1048576"];
        let said = run(&world.client, Path::new("python3"), &args);
        assert_eq!(said.trim(), count);
        netra.scrape_until("all over", |scrape| scrape.active() == 0).expect("they end");
        let scrape = netra.scrape();
        no_tunnel(&scrape).expect("it is Kafka");
        let spliced = scrape.sum("netra_splice_bytes_total", &[]);
        assert!(spliced > (BATCHES << 20) / 10 * 8, "{spliced} of {BATCHES} MiB by {cell:?}");
        netra.end().expect("a clean end");
    }
    remove_rules(&world, Backend::NftNative);
}

/// The calls of a capture by name, as tshark reads their numbers.
fn calls_by_tshark(world: &World, capture: &Path) -> BTreeMap<String, u64> {
    let file = capture.display().to_string();
    let args = ["-r", &file, "-d", "tcp.port==9092,kafka", "-Y", "kafka && tcp.dstport==9092"];
    let fields = ["-T", "fields", "-e", "kafka.api_key"];
    let text = run(&world.client, &tool("tshark", "tshark"), &[&args[..], &fields].concat());
    let names = netra_codecs::tap::Protocol::Kafka.about().operations;
    let mut counts = BTreeMap::new();
    for key in text.lines().flat_map(|line| line.split(',')) {
        let key: usize = key.parse().expect("a number");
        *counts.entry(names[key].to_owned()).or_insert(0) += 1;
    }
    counts
}
