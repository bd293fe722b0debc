"""What applications do with MongoDB and mongodb_server.py answers, by pymongo: HOST PORT. Says what
each call came to."""
import sys
import time

import pymongo

OPTIONS = {"serverSelectionTimeoutMS": 5000, "heartbeatFrequencyMS": 500}


def main(name, **more):
    client = pymongo.MongoClient(sys.argv[1], int(sys.argv[2]), **OPTIONS, **more)
    db = client.shop
    told = db.get_collection("told", write_concern=pymongo.WriteConcern(w=0))

    def tried(what, call):
        try:
            print(f"{name} {what}={call()!r}")
        except pymongo.errors.PyMongoError as error:
            details = getattr(error, "details", None) or {}
            print(f"{name} {what}!{type(error).__name__}: {error.code} {details.get('codeName')}")

    def exhausted():
        kind = pymongo.CursorType.EXHAUST
        return len(list(db.orders.find({}, cursor_type=kind, batch_size=20)))

    tried("ping", lambda: client.admin.command("ping")["ok"])
    tried("insert", lambda: db.orders.insert_one({"_id": 1}).acknowledged)
    tried("told", lambda: [told.insert_one({"_id": it}).acknowledged for it in range(3)])
    tried("count", lambda: db.command("count", "orders")["ok"])
    tried("find", lambda: len(list(db.orders.find({}, batch_size=20))))
    tried("exhaust", exhausted)
    tried("twice", lambda: db.dup.insert_one({"_id": 1}))
    tried("slow", lambda: db.slow.insert_one({"_id": 1}))
    tried("unknown", lambda: db.command("nosuchcommand"))
    time.sleep(1.2)
    tried("ping", lambda: client.admin.command("ping")["ok"])
    client.close()


main("plain")
main("zlib", compressors="zlib")
