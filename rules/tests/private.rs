//! Rules name protocols that are not built in, where somebody says that there are such.

mod support;

use netra_codecs::codec::Key;
use netra_codecs::private::{
    Counts, Description, Field, Length, LengthPart, Number, Operations, Order, Place, Private,
};
use netra_codecs::tap;
use netra_rules::{Context, Direction, Documents, Example, Expectations, Protocol, Source};
use support::World;

const RULES: &str = "\
apiVersion: netra.io/v1alpha1
kind: Authorization
metadata: {name: no-exec}
spec:
  action: DENY
  protocol: orders
  rules: [{to: [{attributes: {operation: {exact: exec}, service: {prefix: shop}}}]}]
---
apiVersion: netra.io/v1alpha1
kind: Authorization
metadata: {name: nobody-drops}
spec: {action: DENY, rules: [{to: [{attributes: {method: {exact: drop}}}]}]}
";

fn described(name: &'static str) -> tap::Protocol {
    let field = |key, at| Field { key, place: Place::Fixed { at, len: 8 } };
    let description = Description {
        name,
        magic: None,
        order: Order::Big,
        header: 20,
        length: Length {
            parts: vec![LengthPart { number: Number { at: 0, width: 2 }, times: 1 }],
            counts: Counts::Message,
            trailer: 0,
            max: 1 << 16,
        },
        id: None,
        kinds: None,
        status: None,
        fields: vec![field(Key::Service, 4), field(Key::Method, 12)],
        operations: Operations::Numbered(
            Number { at: 2, width: 1 },
            vec![(1, "exec"), (2, "look")],
        ),
        reply: None,
    };
    tap::Protocol::Private(Box::leak(Box::new(Private::described(description).unwrap())))
}

fn world(private: &[tap::Protocol]) -> World {
    World::of(RULES, &Context::default().with_private(private))
}

fn deciding(world: &mut World, protocol: tap::Protocol, values: &[(&str, &str)]) -> String {
    let mut example = Example::new(Protocol::Of(protocol), "10.0.0.6:7070".parse().unwrap());
    example.direction = Direction::Inbound;
    values.iter().for_each(|(name, value)| example.set(name, value).unwrap());
    let verdict = world.decide(&example);
    world.rule(&verdict).rsplit('/').next().unwrap_or_default().to_owned()
}

#[test]
fn a_rule_is_for_the_protocol_that_it_names() {
    let (orders, other) = (described("orders"), described("other"));
    let mut world = world(&[orders, other]);
    let exec = [("operation", "exec"), ("service", "shop.a"), ("method", "a")];
    assert_eq!(deciding(&mut world, orders, &exec), "no-exec");
    assert_eq!(deciding(&mut world, other, &exec), "");
    let look = [("operation", "look"), ("service", "shop.a"), ("method", "a")];
    assert_eq!(deciding(&mut world, orders, &look), "");
    assert_eq!(deciding(&mut world, orders, &[("operation", "exec"), ("service", "bank")]), "");
    // One that names none is for all of them.
    for protocol in [orders, other] {
        assert_eq!(deciding(&mut world, protocol, &[("method", "drop")]), "nobody-drops");
    }
    assert_eq!(deciding(&mut world, tap::Protocol::Dubbo, &[("method", "drop")]), "nobody-drops");
    let concern = |protocol, to: &str| {
        world.table.concern(Direction::Inbound, to.parse().unwrap(), Protocol::Of(protocol))
    };
    assert!(concern(orders, "10.0.0.6:7070").is_some());
}

#[test]
fn what_nobody_described_is_unknown() {
    let found = support::compile(RULES, &Context::default()).troubles;
    let said = found.errors()[0].to_string();
    assert!(said.contains("the protocol \"orders\" is unknown"), "{said}");
    let known = Context::default().with_private(&[described("orders")]);
    let text = RULES.replace("service: {prefix: shop}", "topic: {exact: a}");
    let found = support::compile(&text, &known).troubles;
    let said = found.errors()[0].to_string();
    assert!(said.contains("topic") && said.contains("service, method, operation"), "{said}");
    // Both lists of what is allowed have its name.
    let found = support::compile(&RULES.replace("orders", "odrers"), &known).troubles;
    assert!(found.errors()[0].to_string().contains("amqp, orders"), "{found}");
}

#[test]
fn expectations_know_it() {
    let orders = [described("orders")];
    let source = |text: &str| Source { name: "rules".into(), text: text.into() };
    let tests = "\
tests:
- name: nobody executes
  protocol: orders
  direction: inbound
  to: 10.0.0.6:7070
  set: {operation: exec, service: shop.a}
  expect: {action: refuse, rule: no-exec}
";
    let expectations = Expectations::read(&source(tests)).unwrap();
    let documents = Documents::read(&[source(RULES)]);
    let results = expectations.run(&documents, &orders).unwrap();
    assert_eq!(results[0].wrong, Vec::<String>::new());
    assert!(expectations.run(&documents, &[]).is_err());
}

/// Routes of a protocol whose messages cannot move lead nowhere else.
#[test]
fn each_says_by_itself_whether_its_messages_move() {
    let context = Context::default().with_private(&[described("orders")]);
    assert!(context.pinned.is_empty(), "messages of those that are described move");
    let last = context.protocols().last().map(Protocol::name);
    assert_eq!((last, context.protocol("orders").map(Protocol::name)), (Some("orders"), last));
}
