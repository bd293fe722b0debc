"""What applications do with Redis, by redis-py: HOST PORT. Says what each call came to; ends with 1
where one did not come to what it should."""
import sys
import threading

import redis

host, port = sys.argv[1], int(sys.argv[2])


def client(**more):
    return redis.Redis(host, port, decode_responses=True, **more)


def main(protocol):
    r = client(protocol=protocol)
    r.flushall()

    def tried(name, call):
        try:
            print(f"RESP{protocol} {name}={call()!r}")
        except redis.RedisError as error:
            print(f"RESP{protocol} {name}!{type(error).__name__}: {str(error)[:60]}")

    def pipelined(count):
        pipe = r.pipeline(transaction=False)
        for _ in range(count):
            pipe.get("a")
        return len(pipe.execute())

    def blocked():
        later = threading.Timer(0.2, lambda: client().rpush("q", "v"))
        later.start()
        value = r.blpop("q", 3)
        later.join()
        return value

    def told():
        subscriber = r.pubsub()
        subscriber.subscribe("c")
        subscriber.psubscribe("d*")
        for _ in range(2):
            subscriber.get_message(timeout=2)
        client().publish("c", "hi")
        message = subscriber.get_message(timeout=2)
        subscriber.close()
        return message and message["data"]

    def watched():
        with r.pipeline() as pipe:
            pipe.watch("a")
            client().set("a", "9")
            pipe.multi()
            pipe.set("a", "5")
            try:
                return pipe.execute()
            except redis.WatchError:
                return "aborted"

    tried("ping", r.ping)
    tried("set", lambda: r.set("a", "1"))
    tried("incr", lambda: r.incr("a"))
    tried("hash", lambda: (r.hset("h", mapping={"x": 1, "y": 2}), r.hgetall("h"))[1])
    tried("wrong type", lambda: r.lpush("a", 1))
    tried("multi", lambda: r.pipeline(transaction=True).set("b", 1).incr("b").execute())
    tried("pipeline", lambda: pipelined(1000))
    tried("script", lambda: r.eval("return {KEYS[1],ARGV[1]}", 1, "a", "z"))
    tried("blocking", blocked)
    tried("publish", told)
    tried("watch", watched)
    tried("big", lambda: (r.setrange("big", 0, "x" * (8 << 20)), len(r.get("big")))[1])
    tried("stream", lambda: (r.xadd("s", {"f": "1"}), len(r.xread({"s": "0"})))[1])
    r.close()


for version in (2, 3):
    main(version)
