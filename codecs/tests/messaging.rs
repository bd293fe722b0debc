//! NATS, MQTT, AMQP and ZooKeeper: whose answer is whose, and what nobody waits for.

#[path = "messaging/amqp.rs"]
mod amqp;
mod kit;
#[path = "messaging/mqtt.rs"]
mod mqtt;
#[path = "messaging/nats.rs"]
mod nats;
#[path = "messaging/zookeeper.rs"]
mod zookeeper;

use kit::{Part, Pieces, tell};
use netra_codecs::tap::Protocol;

fn told(protocol: Protocol, parts: &[Part]) -> Vec<String> {
    let whole = tell(protocol, parts, Pieces::Whole);
    for pieces in [Pieces::Of(1), Pieces::Of(3), Pieces::Passing] {
        assert_eq!(tell(protocol, parts, pieces), whole, "{pieces:?}: {parts:?}");
    }
    whole
}

fn lines<'t>(told: &'t [String], begin: &str) -> Vec<&'t str> {
    told.iter().filter_map(|line| line.strip_prefix(begin)).collect()
}

/// The same without bytes.
fn came_to(told: &[String]) -> Vec<&str> {
    lines(told, "done ").iter().map(|line| line.rsplit_once(' ').unwrap().0).collect()
}
