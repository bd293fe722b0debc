"""What three client libraries of Python get from a server: one line `name: successes` each.

Arguments: the server's URL, and whether it echoes what is posted (1 or 0)."""
import asyncio
import sys

import aiohttp
import httpx
import requests

base, echoes = sys.argv[1], sys.argv[2] == "1"
BODY = bytes(range(256)) * 4096


def pieces():
    for at in range(0, len(BODY), 100_000):
        yield BODY[at : at + 100_000]


async def async_pieces():
    for piece in pieces():
        yield piece


def good(status, body, wanted):
    return int(status == 200 and body == wanted)


def by_requests():
    with requests.Session() as session:
        small = session.get(base + "/small").content
        count = sum(good(r.status_code, r.content, small) for r in (session.get(base + "/small") for _ in range(20)))
        count += session.head(base + "/small").status_code == 200
        count += session.get(base + "/none").status_code == 404
        count += len(session.get(base + "/large").content) == 2_000_000
        if echoes:
            answer = session.post(base + "/echo", data=BODY)
            count += good(answer.status_code, answer.content, BODY)
            answer = session.post(base + "/echo", data=pieces())
            count += good(answer.status_code, answer.content, BODY)
    return count


def by_httpx():
    with httpx.Client() as client:
        small = client.get(base + "/small").content
        count = sum(good(r.status_code, r.content, small) for r in (client.get(base + "/small") for _ in range(20)))
        with client.stream("GET", base + "/large") as answer:
            count += sum(len(piece) for piece in answer.iter_bytes()) == 2_000_000
        if echoes:
            answer = client.post(base + "/echo", content=pieces())
            count += good(answer.status_code, answer.content, BODY)
    return count


async def by_aiohttp():
    async with aiohttp.ClientSession() as session:

        async def get():
            async with session.get(base + "/small") as answer:
                return int(answer.status == 200 and len(await answer.read()) == 1024)

        count = sum(await asyncio.gather(*(get() for _ in range(40))))
        if echoes:
            async with session.post(base + "/echo", data=async_pieces(), expect100=True) as answer:
                count += good(answer.status, await answer.read(), BODY)
    return count


print("requests:", by_requests())
print("httpx:", by_httpx())
print("aiohttp:", asyncio.run(by_aiohttp()))
