"""One request and one answer of each protocol, as little as servers and clients of a measurement need: where a message ends, what
is answered, and whether an answer is an error."""
import struct


class Http1:
    port, host, name = 8081, "fleet", "http"
    request = b"GET /thing HTTP/1.1\r\nHost: fleet\r\n\r\n"

    @staticmethod
    def end(held):
        """Where the first message ends; 0 while it is not whole."""
        end = held.find(b"\r\n\r\n") + 4
        if end < 4:
            return 0
        head = held[:end].lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in head else 0
        return end + length if len(held) >= end + length else 0

    @staticmethod
    def answer(_request, is_well):
        return b"HTTP/1.1 %s\r\nContent-Length: 5\r\n\r\nhello" % (b"200 OK" if is_well else b"503 No")

    @staticmethod
    def is_well(answer):
        return answer[9:12] == b"200"

    @staticmethod
    def is_last(answer):
        return b"connection: close" in answer.lower()


class Counted:
    """Protocols whose connections go on after each answer."""
    @staticmethod
    def is_last(_answer):
        return False


class Redis(Counted):
    port, host, name = 6381, "fleet", "tcp-redis"
    request = b"*2\r\n$3\r\nGET\r\n$5\r\nkey:1\r\n"

    @staticmethod
    def end(held):
        if held[:1] == b"*":
            parts, at = held.split(b"\r\n"), 0
            count = 1 + 2 * int(parts[0][1:]) if len(parts) > 1 else 1
            return sum(len(part) + 2 for part in parts[:count]) if len(parts) > count else 0
        line = held.find(b"\r\n") + 2
        if line < 2 or held[:1] != b"$":
            return max(line, 0) if line >= 2 else 0
        end = line + int(held[1:line - 2]) + 2
        return end if len(held) >= end else 0

    @staticmethod
    def answer(_request, is_well):
        return b"$5\r\nhello\r\n" if is_well else b"-LOADING Redis is loading the dataset in memory\r\n"

    @staticmethod
    def is_well(answer):
        return answer[:1] == b"$"


class Dubbo(Counted):
    """Dubbo 2 with Hessian 2; ids are all the same, as each connection has one request at a time."""
    port, host, name = 20881, "org.demo.svc", "tcp-metaprotocol-dubbo"
    body = b"\x052.0.2\x0corg.demo.Svc\x050.0.0\x08sayHello\x12Ljava/lang/String;\x03joeH\x04path\x0corg.demo.SvcZ"
    request = struct.pack(">HBBQI", 0xDABB, 0xC2, 0, 7, len(body)) + body

    @staticmethod
    def end(held):
        end = 16 + struct.unpack(">I", held[12:16])[0] if len(held) >= 16 else 0
        return end if len(held) >= end else 0

    @staticmethod
    def answer(request, is_well):
        # 20: OK, with a value; 80: the server failed, with a text.
        status, body = (20, b"\x91\x09hello joe") if is_well else (80, b"\x06failed")
        return b"\xda\xbb\x02" + bytes([status]) + request[4:12] + struct.pack(">I", len(body)) + body

    @staticmethod
    def is_well(answer):
        # Dubbo's filters answer what they cannot serve with an exception (\x90, \x93) in place of a value.
        return answer[3] == 20 and answer[16:17] in b"\x91\x92\x94\x95"


class Thrift(Counted):
    """Framed, strict binary."""
    port, host, name = 9091, "hello", "tcp-metaprotocol-thrift"
    call = b"\x80\x01\x00\x01\x00\x00\x00\x05hello\x00\x00\x00\x07\x0b\x00\x01\x00\x00\x00\x03joe\x00"
    request = struct.pack(">I", len(call)) + call

    @staticmethod
    def end(held):
        end = 4 + struct.unpack(">I", held[:4])[0] if len(held) >= 4 else 0
        return end if len(held) >= end else 0

    @staticmethod
    def answer(request, is_well):
        rest = request[8:21]
        if is_well:
            body = b"\x80\x01\x00\x02" + rest + b"\x0b\x00\x00\x00\x00\x00\x09hello joe\x00"
        else:
            # A TApplicationException: INTERNAL_ERROR.
            body = b"\x80\x01\x00\x03" + rest + b"\x0b\x00\x01\x00\x00\x00\x02no\x08\x00\x02\x00\x00\x00\x06\x00"
        return struct.pack(">I", len(body)) + body

    @staticmethod
    def is_well(answer):
        return answer[7] == 2


WIRES = {"http1": Http1, "redis": Redis, "dubbo": Dubbo, "thrift": Thrift}
