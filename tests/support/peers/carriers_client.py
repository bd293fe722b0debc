"""One call of each kind that carries a trace context where its protocol has a place for it: HOST. The trace of each is
its number, and its caller's span as well."""
import sys

import psycopg
import pymongo
import pymysql
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

host = sys.argv[1]


def parent(number):
    return f"00-{number:032x}-{number:016x}-01"


def comment(number):
    return f"/*application='shop',traceparent='{parent(number)}'*/"


with psycopg.connect(host=host, user="bench", dbname="postgres", autocommit=True, sslmode="disable") as database:
    database.execute(f"select 1 {comment(1)}")
    # Parse, Bind and Execute in one cycle.
    database.execute(f"select %s::int {comment(2)}", (7,))
    database.execute("select '/*" + f"traceparent=''{parent(99)}''" + "*/'")
maria = pymysql.connect(host=host, user="bench", password="secret", ssl_disabled=True)
with maria.cursor() as cursor:
    cursor.execute(f"select 1 {comment(3)}")
    cursor.execute("select 2")
kafka = {"bootstrap.servers": f"{host}:9092"}
for made in AdminClient(kafka).create_topics([NewTopic("orders", 1, 1)]).values():
    # It is there when this is asked a second time.
    made.exception(20)
producer = Producer(kafka)
producer.produce("orders", b"value", b"key", headers=[("traceparent", parent(4))])
assert producer.flush(20) == 0
with pymongo.MongoClient(host, 27017, serverSelectionTimeoutMS=5000) as client:
    list(client.shop.orders.find({}, comment=comment(5)[2:-2]))
    list(client.shop.orders.find({}, comment={"traceparent": parent(6)}))
print("done")
