"""What applications do with RabbitMQ, by pika: HOST PORT [BYTES]. Says what each call came to."""
import sys

import pika
from pika.exceptions import ChannelClosedByBroker, ProbableAuthenticationError, UnroutableError

host, port = sys.argv[1], int(sys.argv[2])
BIG = int(sys.argv[3]) if len(sys.argv) > 3 else 300_000
TRACED = pika.BasicProperties(headers={"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "n": 7})


def parameters(password="guest"):
    return pika.ConnectionParameters(host, port, credentials=pika.PlainCredentials("guest", password))


def main():
    connection = pika.BlockingConnection(parameters())
    channel = connection.channel()
    channel.exchange_declare("shop", "topic")
    channel.queue_declare("orders")
    channel.queue_purge("orders")
    channel.queue_bind("orders", "shop", "order.*")
    for number in range(10):
        channel.basic_publish("shop", "order.new", b"order %d" % number)
    channel.basic_publish("", "orders", b"told", properties=TRACED)
    confirmed = connection.channel()
    confirmed.confirm_delivery()
    for number in range(10):
        confirmed.basic_publish("shop", "order.sure", b"sure %d" % number)
    confirmed.basic_publish("shop", "order.big", b"x" * BIG)
    try:
        confirmed.basic_publish("shop", "nobody.listens", b"x", mandatory=True)
    except UnroutableError:
        print("nobody listens")
    method, _, body = channel.basic_get("orders")
    print("got", method.routing_key, body)
    channel.basic_ack(method.delivery_tag)
    channel.basic_qos(prefetch_count=5)
    seen = []
    for method, properties, body in channel.consume("orders", inactivity_timeout=5):
        seen.append((method.routing_key, len(body), (properties.headers or {}).get("n")))
        channel.basic_ack(method.delivery_tag)
        if len(seen) == 21:
            break
    print("consumed", len(seen), seen[0], seen[9], seen[-1])
    channel.cancel()
    print("nothing", channel.basic_get("orders"))
    channel.tx_select()
    channel.basic_publish("shop", "order.tx", b"x")
    channel.tx_rollback()
    try:
        connection.channel().queue_declare("missing", passive=True)
    except ChannelClosedByBroker as error:
        print("closed", error.reply_code)
    channel.queue_delete("orders")
    channel.exchange_delete("shop")
    connection.close()
    try:
        pika.BlockingConnection(parameters("wrong"))
    except ProbableAuthenticationError:
        print("refused")


main()
print("done")
