"""What applications do with MySQL by mysqlclient, which calls the C library: HOST PORT. Says what each call
came to."""
import sys

import MySQLdb
from MySQLdb.constants import CLIENT
from MySQLdb.cursors import SSCursor

host, port = sys.argv[1], int(sys.argv[2])


def client(**more):
    flags = CLIENT.MULTI_STATEMENTS | CLIENT.MULTI_RESULTS
    more = {"user": "bench", "password": "secret", "autocommit": True, **more}
    return MySQLdb.connect(host=host, port=port, client_flag=flags, charset="utf8mb4", **more)


def tried(name, call):
    try:
        print(f"{name}={call()!r}")
    except MySQLdb.Error as error:
        print(f"{name}!{type(error).__name__} {error.args[0]}")


c = client()


def rows(text, args=None):
    with c.cursor() as cursor:
        cursor.execute(text, args)
        return cursor.fetchall()


def count(text, args=None):
    with c.cursor() as cursor:
        return cursor.execute(text, args)


def many():
    with c.cursor() as cursor:
        return cursor.executemany(
            "insert into kv values (%s, %s)", [(key, f"secret{key}") for key in range(10, 510)]
        )


def several():
    with c.cursor() as cursor:
        cursor.execute("select 1; update kv set v = 'c' where k = 2; select k from kv where k < 5")
        seen = [cursor.fetchall()]
        while cursor.nextset() is not None:
            seen.append(cursor.fetchall())
        return seen


def streamed():
    with c.cursor(SSCursor) as cursor:
        cursor.execute("select k, v from kv")
        return sum(1 for _ in cursor)


def called():
    with c.cursor() as cursor:
        cursor.callproc("two", (7,))
        seen = [cursor.fetchall()]
        while cursor.nextset() is not None:
            seen.append(cursor.fetchall())
        return seen


def transaction():
    c.autocommit(False)
    count("delete from kv")
    c.rollback()
    c.autocommit(True)
    return rows("select count(*) from kv")


def locked():
    """Two transactions that wait for each other: one of them is told so at once."""
    other = client(database="shop", autocommit=False)
    other.cursor().execute("set innodb_lock_wait_timeout = 1")
    c.begin()
    count("update kv set v = 'x' where k = 1")
    try:
        return other.cursor().execute("update kv set v = 'y' where k = 1")
    finally:
        other.close()
        c.rollback()


def changed(password):
    c.change_user("bench", password, "shop")
    return rows("select database(), count(*) from kv")


tried("database", lambda: count("create database shop"))
tried("use", lambda: c.select_db("shop"))
tried("create", lambda: count("create table kv (k int primary key, v longtext)"))
tried("insert", lambda: count("insert into kv values (1, 'secret'), (2, 'b')"))
tried("many", many)
tried("select", lambda: rows("select v from kv where k = %s", (1,)))
tried("twice", lambda: count("insert into kv values (1, 'secret')"))
tried("nothing", lambda: rows("select * from nowhere"))
tried("no text", lambda: count("selec 1"))
tried("several", several)
tried("stream", streamed)
tried("transaction", transaction)
tried("locked", locked)
tried("ping", c.ping)
tried("statistics", lambda: "Uptime" in c.stat())
tried("procedure", lambda: count("create procedure two(n int) begin select n; select k from kv limit 2; end"))
tried("call", called)
tried("other user", lambda: changed("secret"))
tried("big", lambda: len(rows("select repeat('z', 3000000)")[0][0]))
tried("big text", lambda: rows("select length(%s)", ("y" * 900000,)))
tried("refused", lambda: client(password="wrong"))
tried("drop", lambda: count("drop database shop"))
c.close()
