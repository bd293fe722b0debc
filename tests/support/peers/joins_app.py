"""A service that calls Redis, PostgreSQL and HTTP for each request, by threads or by tasks:
thread|async PORT HOST. For a request /r/N every call says N: by the name in a query, the target of a
request, or the length of a key or comment. It does work of its own all the while."""
import asyncio
import http.client
import queue
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import redis
import redis.asyncio

mode, port, host = sys.argv[1], int(sys.argv[2]), sys.argv[3]
LONGEST, SERVES = 1500, 8088
WHO = {"host": host, "user": "bench", "dbname": "postgres", "autocommit": True, "sslmode": "disable"}


def length(n):
    return "k" * (1000 + n % LONGEST)


def query(n):
    return f"with r{n} as (select 1) select * from r{n}"


def work():
    return random.expovariate(1 / 0.001)


def transaction(n):
    return [f"begin /*{length(n)}*/", query(n), query(n), f"commit /*{length(n)}*/"]


class Pool:
    """As many as are needed at once, each for one request at a time."""

    def __init__(self, make):
        self.make, self.idle = make, queue.LifoQueue()

    def take(self):
        try:
            return self.idle.get_nowait()
        except queue.Empty:
            return self.make()


def threads():
    cache = redis.Redis(host=host, protocol=2)
    databases = Pool(lambda: psycopg.connect(**WHO))
    services = Pool(lambda: http.client.HTTPConnection(host, SERVES))

    def serve(n):
        time.sleep(work())
        cache.get(length(n))
        database = databases.take()
        database.execute(query(n))
        if n % 2:
            for statement in transaction(n):
                database.execute(statement)
                time.sleep(work() / 4)
        databases.idle.put(database)
        service = services.take()
        service.request("GET", f"/h/{n}")
        service.getresponse().read()
        services.idle.put(service)
        time.sleep(work())

    def own():
        database, store = psycopg.connect(**WHO), redis.Redis(host=host, protocol=2)
        while True:
            store.set("alive", 1)
            database.execute("with jobs as (select 1) select * from jobs")
            time.sleep(0.02)

    class Served(BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def do_GET(self):
            serve(int(self.path.rsplit("/", 1)[1]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size, daemon_threads = 512, True

    threading.Thread(target=own, daemon=True).start()
    Server(("0.0.0.0", port), Served).serve_forever()


async def tasks():
    cache = redis.asyncio.Redis(host=host, protocol=2)
    databases, services = [], []

    async def call(n):
        pair = services.pop() if services else await asyncio.open_connection(host, SERVES)
        reader, writer = pair
        writer.write(f"GET /h/{n} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        services.append(pair)

    async def serve(n):
        await asyncio.sleep(work())
        await cache.get(length(n))
        database = databases.pop() if databases else await psycopg.AsyncConnection.connect(**WHO)
        await database.execute(query(n))
        if n % 2:
            for statement in transaction(n):
                await database.execute(statement)
                await asyncio.sleep(work() / 4)
        databases.append(database)
        await call(n)
        await asyncio.sleep(work())

    async def own():
        database, store = await psycopg.AsyncConnection.connect(**WHO), redis.asyncio.Redis(host=host, protocol=2)
        while True:
            await store.set("alive", 1)
            await database.execute("with jobs as (select 1) select * from jobs")
            await asyncio.sleep(0.02)

    async def connection(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await serve(int(head.split(b" ")[1].rsplit(b"/", 1)[1]))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    background = asyncio.create_task(own())
    server = await asyncio.start_server(connection, "0.0.0.0", port, backlog=512)
    await asyncio.gather(background, server.serve_forever())


threads() if mode == "thread" else asyncio.run(tasks())
