"""What applications do with ZooKeeper, by kazoo: HOST PORT [BYTES]. Says what each call came to."""
import sys
import threading

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException

BIG = int(sys.argv[3]) if len(sys.argv) > 3 else 500_000
client = KazooClient(hosts=f"{sys.argv[1]}:{sys.argv[2]}", timeout=10)
client.start(timeout=20)


def tried(name, call):
    try:
        print(f"{name}={call()!r}")
    except KazooException as error:
        print(f"{name}!{type(error).__name__}")


def main():
    if client.exists("/shop"):
        client.delete("/shop", recursive=True)
    changed = threading.Event()
    tried("create", lambda: client.create("/shop", b"s3cret"))
    tried("again", lambda: client.create("/shop", b""))
    tried("get", lambda: client.get("/shop", watch=lambda event: changed.set())[0])
    tried("set", lambda: client.set("/shop", b"changed").version)
    print("told", changed.wait(10))
    tried("stale", lambda: client.set("/shop", b"", version=0))
    tried("missing", lambda: client.get("/nothing"))
    tried("exists", lambda: client.exists("/nothing"))
    tried("sequence", lambda: client.create("/shop/n-", sequence=True, ephemeral=True))
    results = [client.create_async(f"/shop/c{number}") for number in range(50)]
    print("pipelined", len([result.get(10) for result in results]))
    tried("children", lambda: len(client.get_children("/shop")))
    tried("acls", lambda: len(client.get_acls("/shop")[0]))
    transaction = client.transaction()
    transaction.create("/shop/t")
    transaction.check("/shop", version=99)
    print("transaction", [type(result).__name__ for result in transaction.commit()])
    tried("sync", lambda: client.sync("/shop"))
    tried("not empty", lambda: client.delete("/shop"))
    tried("auth", lambda: client.add_auth("digest", "bob:s3cret"))
    tried("big", lambda: client.set("/shop", b"x" * BIG).dataLength)
    tried("gone", lambda: client.delete("/shop", recursive=True))
    client.stop()
    client.close()


main()
print("done")
