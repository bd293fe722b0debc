"""Answers every HTTP request: PORT."""
import asyncio
import sys


async def connection(reader, writer):
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(connection, "0.0.0.0", int(sys.argv[1]), backlog=512)
    await server.serve_forever()


asyncio.run(main())
