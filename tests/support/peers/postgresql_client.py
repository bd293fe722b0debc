"""What applications do with PostgreSQL, by psycopg (libpq): HOST PORT. Says what each call came to."""
import sys
import threading

import psycopg

host, port = sys.argv[1], int(sys.argv[2])


def client(**more):
    who = {"user": "bench", "dbname": "postgres", "autocommit": True, "sslmode": "prefer"}
    return psycopg.connect(host=host, port=port, **{**who, **more})


def tried(name, call):
    try:
        print(f"{name}={call()!r}")
    except psycopg.Error as error:
        print(f"{name}!{type(error).__name__} {error.sqlstate}")


c = client()
rows = lambda text, *args, **more: c.execute(text, args or None, **more).fetchall()


def prepared():
    return [rows("select v from kv where k = %s", k, prepare=True) for k in (1, 2, 3)]


def pipelined():
    with c.pipeline():
        cursors = [c.execute("select %s::int + count(*) from kv", (i,)) for i in range(200)]
    return sum(cursor.fetchone()[0] for cursor in cursors)


def broken_pipeline():
    with c.pipeline() as pipeline:
        c.execute("select 1 from kv")
        c.execute("select 1 / 0 from kv")
        c.execute("delete from kv")
        pipeline.sync()


def copied():
    with c.cursor().copy("copy kv from stdin") as copy:
        for k in range(100, 2100):
            copy.write_row((k, "x" * 50))
    size = 0
    with c.cursor().copy("copy kv to stdout") as copy:
        for block in copy:
            size += len(block)
    return size


def wrongly_copied():
    with c.cursor().copy("copy kv from stdin") as copy:
        copy.write_row((1, "again"))


def told():
    c.execute("listen events")
    with client() as other:
        other.execute("notify events, 'secret'")
    for notification in c.notifies(timeout=3, stop_after=1):
        return notification.payload


def cancelled():
    later = threading.Timer(0.3, c.cancel)
    later.start()
    try:
        c.execute("select pg_sleep(20)")
    finally:
        later.join()


def transaction():
    with c.transaction():
        c.execute("update kv set v = 'secret' where k = 1")
        with c.cursor("mine") as cursor:
            cursor.execute("select k from kv order by k")
            return len(cursor.fetchmany(10)) + len(cursor.fetchmany(10))


def refused():
    client(user="nobody").close()


tried("create", lambda: c.execute("create table kv (k int primary key, v text)").statusmessage)
tried("insert", lambda: c.execute("insert into kv values (1, 'secret'), (2, 'b')").rowcount)
tried("select", lambda: rows("select * from kv where v = 'secret'"))
tried("parameters", lambda: rows("select v from kv where k = %s", 2))
tried("prepared", prepared)
tried("twice", lambda: c.execute("insert into kv values (%s, 'secret')", (1,)))
tried("nothing", lambda: rows("select * from nowhere"))
tried("several", lambda: c.execute("select 1; update kv set v = 'c' where k = 2; select 2").rowcount)
tried("pipeline", pipelined)
tried("broken pipeline", broken_pipeline)
tried("copy", copied)
tried("wrong copy", wrongly_copied)
tried("notify", told)
tried("cancel", cancelled)
tried("transaction", transaction)
tried("long", lambda: len(rows("select repeat('z', 300000)")[0][0]))
tried("long parameter", lambda: rows("select length(%s::text)", "y" * 300000))
tried("refused", refused)
c.execute("drop table kv")
c.close()
