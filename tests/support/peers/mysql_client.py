"""What applications do with MySQL, by PyMySQL: HOST PORT FOLDER. Says what each call came to."""
import sys

import pymysql
from pymysql.constants import CLIENT

host, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def client(**more):
    more = {"user": "bench", "password": "secret", "autocommit": True, **more}
    flags = CLIENT.MULTI_STATEMENTS
    return pymysql.connect(
        host=host, port=port, client_flag=flags, local_infile=True, ssl_disabled=True,
        max_allowed_packet=64 << 20, **more
    )


def tried(name, call):
    try:
        print(f"{name}={call()!r}")
    except (pymysql.Error, OSError) as error:
        print(f"{name}!{type(error).__name__} {error.args[0]}")


c = client()


def rows(text, *args):
    with c.cursor() as cursor:
        cursor.execute(text, args or None)
        return cursor.fetchall()


def count(text, *args):
    with c.cursor() as cursor:
        return cursor.execute(text, args or None)


def several():
    with c.cursor() as cursor:
        cursor.execute("select 1; update kv set v = 'c' where k = 2; select k from kv")
        seen = [cursor.fetchall()]
        while cursor.nextset():
            seen.append(cursor.fetchall())
        return seen


def streamed():
    with c.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute("select k, v from kv join (select 1 as one) as o")
        return sum(1 for _ in cursor)


def transaction():
    c.begin()
    count("delete from kv")
    c.rollback()
    return rows("select count(*) from kv")


def loaded(name):
    return lambda: count(f"load data local infile '{folder}/{name}' into table kv")


with open(f"{folder}/rows.txt", "w") as file:
    for key in range(1000, 41000):
        file.write(f"{key}\tsecret{key}\n")

tried("database", lambda: count("create database shop"))
tried("use", lambda: c.select_db("shop"))
tried("create", lambda: count("create table kv (k int primary key, v longtext)"))
tried("insert", lambda: count("insert into kv values (1, 'secret'), (2, 'b')"))
tried("select", lambda: rows("select * from kv where v = 'secret'"))
tried("twice", lambda: count("insert into kv values (%s, 'secret')", 1))
tried("nothing", lambda: rows("select * from nowhere"))
tried("too many", lambda: rows("select k, (select k from kv) from kv"))
tried("several", several)
tried("load", loaded("rows.txt"))
tried("no file", loaded("nothing.txt"))
tried("stream", streamed)
tried("transaction", transaction)
tried("ping", lambda: c.ping(reconnect=False))
tried("big", lambda: len(rows("select repeat('z', 20000000)")[0][0]))
tried("exactly", lambda: len(rows("select repeat('z', 16777206)")[0][0]))
tried("big parameter", lambda: rows("select length(%s)", "y" * 18000000))
tried("procedure", lambda: count("create procedure two() begin select k from kv limit 2; select 1; end"))
tried("call", lambda: rows("call two()"))
tried("gone", lambda: count("kill 99999999"))
tried("refused", lambda: client(password="wrong"))
tried("drop", lambda: count("drop database shop"))
c.close()
