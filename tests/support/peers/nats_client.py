"""What applications do with NATS and JetStream, by nats-py: HOST PORT [BYTES]. Says what each call came to."""
import asyncio
import sys

import nats
from nats.errors import NoRespondersError, TimeoutError as NatsTimeout

BIG = int(sys.argv[3]) if len(sys.argv) > 3 else 300_000


async def main(host, port):
    async def refused(error):
        pass

    url = f"nats://{host}:{port}"
    nc = await nats.connect(url, error_cb=refused, allow_reconnect=False)
    seen = []

    async def note(message):
        seen.append((message.subject, message.data[:8], len(message.data)))

    async def answer(message):
        await message.respond(b"you said " + message.data[:5])

    await nc.subscribe("orders.*", cb=note)
    await nc.subscribe("shop.add", "workers", cb=answer)
    await nc.flush()
    for number in range(20):
        await nc.publish("orders.new", b"order %d" % number)
    await nc.publish("orders.big", b"x" * BIG)
    await nc.publish("orders.told", b"head", headers={"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"})
    await nc.flush()
    await asyncio.sleep(0.2)
    print("seen", len(seen), seen[0], seen[-2], seen[-1][:2])
    for text in (b"one", b"two", b"three"):
        print((await nc.request("shop.add", text, timeout=5)).data)
    print((await nc.request("shop.add", b"old", timeout=5, old_style=True)).data)
    try:
        await nc.request("nobody.listens", b"", timeout=5)
    except NoRespondersError:
        print("nobody listens")
    js = nc.jetstream()
    await js.add_stream(name="events", subjects=["events.*"])
    for number in range(5):
        ack = await js.publish("events.made", b"event %d" % number)
        print("stored", ack.stream, ack.seq)
    pull = await js.pull_subscribe("events.*", "reader")
    for message in await pull.fetch(5, timeout=5):
        await message.ack()
        print("fetched", message.subject, message.data)
    try:
        await pull.fetch(1, timeout=0.3)
    except NatsTimeout:
        print("no more")
    # The server says so, too, before its stream is gone.
    await asyncio.sleep(0.5)
    await js.delete_stream("events")
    await nc.close()
    # Everything is answered.
    verbose = await nats.connect(url, verbose=True, allow_reconnect=False)
    await verbose.publish("orders.verbose", b"x")
    await verbose.flush()
    await verbose.close()
    print("done")


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
