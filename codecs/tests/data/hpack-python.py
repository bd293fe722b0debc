"""Writes hpack-python.txt: stories as those of hpack-stories.txt, by the encoder of Python's hpack (MIT), which has
Huffman, never-indexed fields and tables whose size changes. `target/span-venv/bin/python hpack-python.py`."""
import os
import random

import hpack

draw = random.Random(7541)
NAMES = ["accept", "cookie", "te", "grpc-timeout", "x-request-id", "traceparent", "user-agent", "x-" + "n" * 40]
TEXT = "abcdefghijklmnopqrstuvwxyz0123456789 -_/;=%+.,:\"{}~^|<>\\"


def value():
    most = draw.choice([3, 20, 20, 120, 900])
    return "".join(draw.choice(TEXT) for _ in range(draw.randrange(most))).strip()


def fields():
    yield ":method", draw.choice(["GET", "POST", "PATCH"])
    yield ":scheme", "http"
    yield ":path", "/" + draw.choice(["", "shop.Cart/Add", "index.html", value()])
    yield ":authority", draw.choice(["shop", "cart:50051"])
    for _ in range(draw.randrange(9)):
        yield draw.choice(NAMES), draw.choice(["trailers", "999m", value(), value()])


with open(os.path.join(os.path.dirname(__file__), "hpack-python.txt"), "w") as out:
    for story in range(24):
        encoder = hpack.Encoder()
        out.write(f"story python/{story}\n")
        for _ in range(6):
            if draw.random() < 0.3:
                encoder.header_table_size = draw.choice([0, 64, 300, 1000, 4096])
            listed = list(fields())
            sent = [hpack.NeverIndexedHeaderTuple(*it) if draw.random() < 0.1 else it for it in listed]
            out.write(f"block {encoder.encode(sent, huffman=draw.random() < 0.7).hex()}\n")
            out.writelines(f"{name}\t{value}\n" for name, value in listed)
