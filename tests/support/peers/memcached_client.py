"""What applications do with memcached in each of its protocols, by pymemcache (text),
python-binary-memcached and meta-memcache: HOST PORT [PROTOCOL]. Says what each call came to."""
import sys

import bmemcached
import meta_memcache
import pymemcache

host, port = sys.argv[1], int(sys.argv[2])
BIG = 900_000


def tried(protocol, name, call):
    try:
        print(f"{protocol} {name}={call()!r}")
    except Exception as error:  # noqa: BLE001: whatever a client raises is what it saw
        print(f"{protocol} {name}!{type(error).__name__}: {str(error)[:60]}")


def text():
    c = pymemcache.Client((host, port), timeout=5, default_noreply=False)

    def say(name, call):
        tried("text", name, call)

    say("flush", c.flush_all)
    say("set", lambda: c.set("a", b"1"))
    say("get", lambda: c.get("a"))
    say("miss", lambda: c.get("nothing"))
    say("add", lambda: c.add("a", b"1"))
    say("replace", lambda: c.replace("nothing", b"1"))
    say("append", lambda: (c.append("a", b"2"), c.prepend("a", b"3"), c.get("a")))
    say("many", lambda: c.set_many({f"k{i}": b"v" * i for i in range(20)}, noreply=True))
    say("get many", lambda: sorted(c.get_many([f"k{i}" for i in range(25)])))
    say("number", lambda: (c.set("n", b"7"), c.incr("n", 5), c.decr("n", 2), c.incr("nothing", 1)))
    say("no number", lambda: c.incr("k3", 5))
    say("cas", lambda: c.cas("a", b"2", c.gets("a")[1]))
    say("lost cas", lambda: c.cas("a", b"2", b"1"))
    say("touch", lambda: (c.touch("a", 100), c.touch("nothing", 100)))
    say("gat", lambda: c.raw_command("gat 100 a k1", "END\r\n"))
    say("told", lambda: (c.set("u", b"x", noreply=True), c.delete("k1", noreply=True)))
    say("get", lambda: c.get("u"))
    say("big", lambda: (c.set("big", b"x" * BIG), len(c.get("big"))))
    say("too big", lambda: c.set("big", b"x" * 2_000_000))
    say("delete", lambda: (c.delete("a"), c.delete("a")))
    say("stats", lambda: c.stats()[b"version"])
    say("version", c.version)
    c.quit()


def binary():
    c = bmemcached.Client(f"{host}:{port}", socket_timeout=5)

    def say(name, call):
        tried("binary", name, call)

    say("flush", c.flush_all)
    say("set", lambda: c.set("a", "1"))
    say("get", lambda: c.get("a"))
    say("miss", lambda: c.get("nothing"))
    say("add", lambda: c.add("a", "1"))
    say("replace", lambda: c.replace("nothing", "1"))
    say("many", lambda: c.set_multi({f"k{i}": "v" * i for i in range(20)}))
    say("get many", lambda: sorted(c.get_multi([f"k{i}" for i in range(25)])))
    say("number", lambda: (c.incr("n", 5), c.incr("n", 5), c.decr("n", 2)))
    say("cas", lambda: c.cas("a", "2", c.gets("a")[1]))
    say("big", lambda: (c.set("big", "x" * BIG, compress_level=0), len(c.get("big"))))
    say("delete", lambda: (c.delete("a"), c.delete("a")))
    say("delete many", lambda: c.delete_multi(["k1", "k2", "k30"]))
    say("stats", lambda: [it["version"] for it in c.stats().values()])
    c.disconnect_all()


def meta():
    c = meta_memcache.CacheClient.cache_client_from_servers(
        servers=[meta_memcache.ServerAddress(host, port)],
        connection_pool_factory_fn=meta_memcache.connection_pool_factory_builder(
            connection_timeout=5, recv_timeout=5
        ),
    )
    key = meta_memcache.Key

    def say(name, call):
        tried("meta", name, call)

    say("set", lambda: c.set(key("a"), "1", ttl=100))
    say("get", lambda: c.get(key("a")))
    say("miss", lambda: c.get(key("nothing")))
    keys = [key(f"k{i}") for i in range(8)]
    say("many", lambda: [c.set(it, "v", ttl=100, no_reply=it.key < "k4") for it in keys])
    say("get many", lambda: sorted(it.key for it in c.multi_get(keys)))
    say("odd key", lambda: (c.set(key("ключ"), "x", ttl=100), c.get(key("ключ"))))
    say("number", lambda: (c.delta_initialize(key("n"), 5, 7, 100), c.delta_and_get(key("n"), 5)))
    say("cas", lambda: c.set(key("a"), "2", ttl=100, cas_token=c.get_cas(key("a"))[1]))
    say("lost cas", lambda: c.set(key("a"), "2", ttl=100, cas_token=1))
    say("touch", lambda: (c.touch(key("a"), 100), c.touch(key("nothing"), 100)))
    say("big", lambda: (c.set(key("big"), b"x" * BIG, ttl=100), len(c.get(key("big")))))
    say("delete", lambda: (c.delete(key("a")), c.delete(key("a"))))
    say("told", lambda: c.delete(key("k1"), no_reply=True))
    say("stale", lambda: c.invalidate(key("k2")))


for name in sys.argv[3:] or ["text", "binary", "meta"]:
    {"text": text, "binary": binary, "meta": meta}[name]()
