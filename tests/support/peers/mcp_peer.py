"""The Model Context Protocol by its own SDK, over HTTP.

    mcp_peer.py serve HOST PORT           two tools; `slow` tells its progress before it answers
    mcp_peer.py ask HOST PORT             asks for tools, calls both, writes what came, and when
"""
import asyncio
import json
import sys
import time

import anyio
from mcp import Client
from mcp.server.mcpserver import Context, MCPServer

HOST, PORT = sys.argv[2], int(sys.argv[3])


def serve():
    server = MCPServer("shop")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    @server.tool()
    async def slow(steps: int, ctx: Context) -> str:
        """Takes its time, and says so."""
        for step in range(steps):
            await ctx.report_progress(step + 1, steps)
            await anyio.sleep(0.3)
        return "done"

    from mcp.server.transport_security import TransportSecuritySettings

    open_to_all = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    asyncio.run(server.run_streamable_http_async(host=HOST, port=PORT, transport_security=open_to_all))


async def ask():
    begun, seen = time.monotonic(), []

    async def progress(now, total, message):
        seen.append(time.monotonic() - begun)

    async with Client("http://%s:%d/mcp" % (HOST, PORT)) as client:
        tools = sorted(tool.name for tool in (await client.list_tools()).tools)
        three = await client.call_tool("add", {"a": 1, "b": 2})
        begun = time.monotonic()
        done = await client.call_tool("slow", {"steps": 4}, progress_callback=progress)
        whole = time.monotonic() - begun
        text = [three.content[0].text, done.content[0].text]
        # Each step was heard when it was told, long before the end.
        early = sum(at < 0.3 * (n + 1) + 0.25 for n, at in enumerate(seen))
        print(json.dumps({"tools": tools, "text": text, "progress": len(seen), "early": early,
                          "is_slow": whole > 1.1, "at": seen}))


serve() if sys.argv[1] == "serve" else asyncio.run(ask())
