"""A service of Dubbo 2 by dubbo-py: server PORT [GREETING [NOTES]] | client HOST PORT | routes HOST PORT |
calls HOST PORT COUNT METHOD [NAME=VALUE ...] | late HOST PORT. The client says what each call came to;
routes asks over one connection who answers, with an attachment and without, and 1000 calls at that; calls
counts the answers to so many calls with these attachments; late asks for what takes a second, and for what
comes of it then. Where there is a file NOTES.closed the server cannot greet."""
import logging
import os
import signal
import sys
import time

logging.disable(logging.CRITICAL)
INTERFACE = "org.apache.dubbo.samples.basic.api.DemoService"


def serve(port, greeting="hello", notes=os.devnull):
    import threading

    import dubbo.server

    # What came with the call that this thread answers.
    call = threading.local()

    class Decoder(dubbo.server.Decoder):
        def decode(self):
            message = super().decode()
            call.attachment = getattr(message, "attachment", {})
            return message

    dubbo.server.Decoder = Decoder

    def attached(name):
        return f"{name}={call.attachment.get(name)}"

    # It would open a socket towards a public address to learn its own.
    dubbo.server.get_pub_ip = lambda: "127.0.0.1"
    service = dubbo.server.DubboService(port, "demo")
    seen = []

    def boom(name):
        raise ValueError("boom " + name)

    def tell(name):
        seen.append(name)

    hellos = []

    def hello(name):
        if os.path.exists(notes + ".closed"):
            # dubbo-py makes a status of it.
            raise RuntimeError("closed")
        hellos.append(name)
        return greeting + " " + name

    service.add_method(INTERFACE, "sayHello", hello)
    written = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(name):
        # It is there whatever becomes of this process.
        os.write(written, name.encode() + b"\n")
        return name

    service.add_method(INTERFACE, "note", note)
    service.add_method(INTERFACE, "hellos", lambda _: str(len(hellos)))
    service.add_method(INTERFACE, "boom", boom)
    service.add_method(INTERFACE, "told", lambda _: len(seen) > 0)
    service.add_method(INTERFACE, "tell", tell)
    service.add_method(INTERFACE, "attached", attached)
    service.add_method(INTERFACE, "echo", lambda value: value)
    service.add_method(INTERFACE, "wait", lambda seconds: time.sleep(seconds))
    service.start()
    signal.pause()


def ask(host, port):
    from dubbo.client import DubboClient
    from dubbo.codec.hessian2 import DubboRequest

    client = DubboClient(host, port)

    def rest():
        """What comes without having been asked for: dubbo-py answers what is told one way."""
        time.sleep(0.3)
        while not client._msg_queue.empty():
            client._msg_queue.get()

    def tried(method, value):
        answer = client.send_request_and_return_response(
            service_name=INTERFACE, method_name=method, args=[value]
        )
        data = answer.data
        if isinstance(data, str) and len(data) > 60:
            data = len(data)
        print(method, answer.ok, data if answer.ok else "")

    tried("sayHello", "joe")
    tried("boom", "x")
    tried("echo", 7)
    tried("echo", "y" * 60000)
    client.send_request_without_response(service_name=INTERFACE, method_name="tell", args=["psst"])
    rest()
    tried("told", "x")
    client.send_heartbeat_request(99)
    rest()
    tried("sayHello", "again")
    requests = [
        DubboRequest(
            id=1000 + number,
            twoway=True,
            dubbo_version="2.5.3",
            service_name=INTERFACE,
            method_name="echo",
            args=[str(number)],
        ).encode()
        for number in range(100)
    ]
    rest()
    client._sock.sendall(b"".join(requests))
    ids = sorted(client._msg_queue.get(True, 5).id for _ in range(100))
    print("pipelined", ids == list(range(1000, 1100)))


def ask_routes(host, port):
    from collections import Counter

    from dubbo.client import DubboClient

    client = DubboClient(host, port)

    def asked(method, attachment):
        answer = client.send_request_and_return_response(
            service_name=INTERFACE, method_name=method, args=["joe"], attachment=attachment
        )
        return answer.data if answer.ok else "refused"

    print("with", asked("sayHello", {"foo": "bar"}))
    print("without", asked("sayHello", {}))
    print("with", asked("sayHello", {"foo": "bar"}))
    # Each is answered by whom it was for: nothing is lost, and nothing comes twice.
    counted = Counter(asked("sayHello", {"split": "yes"}) for _ in range(1000))
    print("split", sorted(counted.items()))
    print("gone", asked("sayHello", {"foo": "gone"}))


def ask_late(host, port):
    from dubbo.client import DubboClient

    client = DubboClient(host, port)

    def asked(method, value):
        answer = client.send_request_and_return_response(
            service_name=INTERFACE, method_name=method, args=[value]
        )
        return answer.data if answer.ok else "refused"

    print("wait", asked("wait", 1))
    print("sayHello", asked("sayHello", "joe"))
    time.sleep(1.5)
    print("late", client._msg_queue.qsize())
    print("sayHello", asked("sayHello", "joe"))


def ask_many(host, port, count, method, *attachments):
    from collections import Counter

    from dubbo.client import DubboClient

    client = DubboClient(host, port)
    attachment = dict(pair.split("=") for pair in attachments)
    method, _, value = method.partition(":")

    def asked():
        answer = client.send_request_and_return_response(
            service_name=INTERFACE, method_name=method, args=[value or "joe"], attachment=attachment
        )
        return answer.data if answer.ok else "refused"

    for answer, number in sorted(Counter(asked() for _ in range(int(count))).items()):
        print(number, answer)


if sys.argv[1] == "server":
    serve(int(sys.argv[2]), *sys.argv[3:])
elif sys.argv[1] in ("routes", "calls", "late"):
    ask_them = {"routes": ask_routes, "calls": ask_many, "late": ask_late}[sys.argv[1]]
    ask_them(sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
    sys.stdout.flush()
    os._exit(0)
else:
    ask(sys.argv[2], int(sys.argv[3]))
    # Its threads wait for ever.
    sys.stdout.flush()
    os._exit(0)
