"""What applications do with MongoDB, by pymongo: HOST PORT. Says what each call came to."""
import sys

import pymongo

client = pymongo.MongoClient(sys.argv[1], int(sys.argv[2]), serverSelectionTimeoutMS=5000)
db = client.shop


def tried(name, call):
    try:
        print(f"{name}={call()!r}")
    except pymongo.errors.PyMongoError as error:
        print(f"{name}!{type(error).__name__}: {getattr(error, 'code', None)}")


tried("ping", lambda: client.admin.command("ping")["ok"])
tried("drop", lambda: (db.orders.drop(), db.big.drop()))
rows = [{"_id": number, "text": "x" * number} for number in range(300)]
tried("insert", lambda: len(db.orders.insert_many(rows).inserted_ids))
tried("count", lambda: db.orders.count_documents({}))
tried("find", lambda: len(list(db.orders.find({"_id": {"$gte": 10}}, batch_size=50))))
tried("find one", lambda: db.orders.find_one({"_id": 7}))
tried("update", lambda: db.orders.update_one({"_id": 1}, {"$set": {"z": 5}}).modified_count)
tried("delete", lambda: db.orders.delete_one({"_id": 2}).deleted_count)
sums = [{"$group": {"_id": None, "n": {"$sum": 1}}}]
tried("aggregate", lambda: list(db.orders.aggregate(sums)))
tried("twice", lambda: db.orders.insert_one({"_id": 1}))
tried("unknown", lambda: db.command("nosuchcommand"))
tried("big", lambda: db.big.insert_one({"_id": 1, "b": b"x" * (12 << 20)}).acknowledged)
tried("big again", lambda: len(db.big.find_one()["b"]))
exhaust = pymongo.CursorType.EXHAUST
tried("exhaust", lambda: len(list(db.orders.find({}, cursor_type=exhaust, batch_size=50))))
client.close()
