"""`server PORT` echoes, speaking first; `client URL` says how many messages came back whole."""
import asyncio
import os
import sys

import websockets


async def echo(socket):
    await socket.send("hello")
    async for message in socket:
        await socket.send(message)


async def serve(port):
    async with websockets.serve(echo, "0.0.0.0", port, max_size=None):
        await asyncio.Future()


async def ask(url):
    count = 0
    async with websockets.connect(url, max_size=None) as socket:
        count += await socket.recv() == "hello"
        for size in [0, 1, 125, 126, 65535, 65536, 1_000_000]:
            message = os.urandom(size)
            await socket.send(message)
            count += await socket.recv() == message
        await (await socket.ping())
        count += 1
    print("websocket:", count)


role, where = sys.argv[1:3]
asyncio.run(serve(int(where)) if role == "server" else ask(where))
