"""What becomes of an application of which a rule forbids the deletions: KIND HOST PORT. Says what each
call came to, and whether its connection is the one that it began with."""
import sys

kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])


def tried(name, call):
    try:
        print(f"{name}={call()!r}")
    except Exception as error:
        number = {"mysql": "args", "postgresql": "sqlstate", "mongodb": "code"}[kind]
        number = getattr(error, number, None)
        print(f"{name}!{type(error).__name__} {number[0] if kind == 'mysql' else number}")


def mysql():
    import pymysql

    c = pymysql.connect(host=host, port=port, user="bench", password="secret", autocommit=True,
                        ssl_disabled=True)

    def ask(text, *args):
        with c.cursor() as cursor:
            cursor.execute(text, args or None)
            return cursor.fetchall()

    first = ask("SELECT connection_id()")
    ask("CREATE DATABASE IF NOT EXISTS shop")
    ask("USE shop")
    ask("CREATE OR REPLACE TABLE t (a INT)")
    ask("INSERT INTO t VALUES (1), (2)")
    tried("delete", lambda: ask("DELETE FROM t"))
    tried("delete where", lambda: ask("DELETE FROM t WHERE a = %s", 1))
    tried("count", lambda: ask("SELECT count(*) FROM t"))
    ask("BEGIN")
    ask("INSERT INTO t VALUES (3)")
    tried("delete in a transaction", lambda: ask("DELETE FROM t"))
    ask("ROLLBACK")
    tried("count", lambda: ask("SELECT count(*) FROM t"))
    print("same connection:", ask("SELECT connection_id()") == first)


def postgresql():
    import psycopg

    def connect():
        return psycopg.connect(host=host, port=port, user="bench", dbname="postgres", autocommit=True)

    c = connect()

    def ask(text, *args):
        cursor = c.execute(text, args or None)
        return cursor.fetchall() if cursor.description else cursor.rowcount

    first = ask("SELECT pg_backend_pid()")
    ask("DROP TABLE IF EXISTS t")
    ask("CREATE TABLE t (a INT, b TEXT)")
    tried("insert", lambda: ask("INSERT INTO t VALUES (1, %s), (2, '')", "x" * 300_000))
    tried("delete", lambda: ask("DELETE FROM t"))
    tried("delete where", lambda: ask("DELETE FROM t WHERE a = %s", 1))
    tried("delete much", lambda: ask("DELETE FROM t WHERE b = %s", "x" * 300_000))
    tried("prepared", lambda: c.execute("DELETE FROM t WHERE a = %s", (1,), prepare=True))

    def piped():
        with c.pipeline():
            c.execute("DELETE FROM t WHERE a = %s", (2,))

    tried("pipeline", piped)
    tried("count", lambda: ask("SELECT count(*), sum(a) FROM t WHERE a < %s", 9))
    print("same connection:", ask("SELECT pg_backend_pid()") == first)
    ask("BEGIN")
    ask("INSERT INTO t VALUES (3, '')")
    tried("delete in a transaction", lambda: ask("DELETE FROM t"))
    print("closed:", c.closed)
    c = connect()
    tried("count", lambda: ask("SELECT count(*) FROM t"))


def mongodb():
    import pymongo

    c = pymongo.MongoClient(host, port, directConnection=True, serverSelectionTimeoutMS=5000)
    t = c.shop.t
    t.drop()
    t.insert_many([{"a": 1}, {"a": 2}])
    tried("delete", lambda: t.delete_one({"a": 1}).deleted_count)
    tried("find", lambda: sorted(it["a"] for it in t.find()))
    tried("delete many", lambda: t.delete_many({}).deleted_count)
    tried("count", lambda: len(list(t.find())))


{"mysql": mysql, "postgresql": postgresql, "mongodb": mongodb}[kind]()
