"""What applications do with a Redis Cluster, by redis-py's cluster client: HOST PORT. Says what each
call came to. One slot is on its way from one node to another for a while, so that a key of it is
answered by ASK, and who asks a node that does not have a slot is answered by MOVED."""
import sys

import redis
from redis.cluster import ClusterNode, RedisCluster

host, port = sys.argv[1], int(sys.argv[2])


def plain(at):
    return redis.Redis(host, at, decode_responses=True)


def said(call):
    try:
        return call()
    except redis.RedisError as error:
        return f"{type(error).__name__}: {error}"


def between_two_nodes(cluster, key):
    """The key's slot is: what is not at the first any more is asked for at the other."""
    slot = cluster.keyslot(key)
    first = cluster.get_node_from_key(key).port
    other = next(node.port for node in cluster.get_primaries() if node.port != first)
    here, there = plain(first), plain(other)
    there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", here.execute_command("CLUSTER", "MYID"))
    here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", there.execute_command("CLUSTER", "MYID"))
    print("set:", cluster.set(key, "asked"), "get:", cluster.get(key))
    print("first:", said(lambda: here.get(key)))
    print("other:", said(lambda: there.get(key)))
    for node in (there, here):
        node.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
        node.close()


def main():
    cluster = RedisCluster(startup_nodes=[ClusterNode(host, port)], decode_responses=True)
    nodes = sorted(node.port for node in cluster.get_primaries())
    print("nodes:", nodes)
    for at in nodes:
        plain(at).flushall()
    for number in range(60):
        cluster.set(f"key:{number}", number)
    print("sum:", sum(int(cluster.get(f"key:{number}")) for number in range(60)))
    pipe = cluster.pipeline()
    for number in range(60):
        pipe.incr(f"key:{number}")
    print("pipeline:", sum(pipe.execute()))
    print("tags:", cluster.mset({"{t}a": 1, "{t}b": 2}), cluster.mget("{t}a", "{t}b"))
    for at in nodes:
        print(at, "alone:", said(lambda: plain(at).get("key:1")))
        print(at, "slots:", said(lambda: plain(at).execute_command("MSET", "a", 1, "b", 2)))
    between_two_nodes(cluster, "moving")
    cluster.close()


main()
