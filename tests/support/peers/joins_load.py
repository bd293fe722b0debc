"""Requests at random times, so many a second, 60 at once at most: HOST PORT FIRST RATE SECONDS. The first one comes
alone. Says how many were answered, and how many were due."""
import asyncio
import random
import sys
import time

host, port, first, rate, seconds = sys.argv[1], *(int(it) for it in sys.argv[2:4]), *(float(it) for it in sys.argv[4:6])
idle, answered, under_way = [], 0, 0


async def ask(n):
    global answered, under_way
    under_way += 1
    reader, writer = idle.pop() if idle else await asyncio.open_connection(host, port)
    writer.write(f"GET /r/{n} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    idle.append((reader, writer))
    answered, under_way = answered + 1, under_way - 1


async def main():
    await ask(first)
    await asyncio.sleep(0.3)
    running, n, at = [], first + 1, time.monotonic()
    end = at + seconds
    while (at := at + random.expovariate(rate)) < end:
        await asyncio.sleep(max(0, at - time.monotonic()))
        if under_way < 60:
            running.append(asyncio.create_task(ask(n)))
        n += 1
    await asyncio.gather(*running)
    print(answered, n - first)


asyncio.run(main())
