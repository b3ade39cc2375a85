"""Hostile HTTP, as bytes: what no client library would send. From a seed, so that a failure can be had again.

Each kind is a function of a random generator. `MARKER` is a path inside what must never be taken for a request of its
own (smuggling): no answer may speak of it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

MARKER = "/smuggled"
ANSWER_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Hostile:
    """What a client sends on a connection of its own.

    Attributes:
        kind: name of the kind.
        sent: all its bytes.
        whole: whether the server must answer it, or end the connection; else the client leaves in the middle.
    """

    kind: str
    sent: bytes
    whole: bool = True


Kind = Callable[[Random], bytes]


def request(body: bytes = b"", *headers: bytes, method: bytes = b"POST", path: bytes = b"/predict") -> bytes:
    """Return a well-formed request that ends its connection, but for what it is given."""
    lines = [b"%s %s HTTP/1.1" % (method, path), b"Host: a", *headers]
    if not any(line.lower().startswith((b"content-length", b"transfer-encoding")) for line in headers):
        lines.append(b"Content-Length: %d" % len(body))
    lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def random_bytes(random: Random) -> bytes:
    return random.randbytes(random.randrange(1, 2000)) + b"\r\n\r\n"


def random_body(random: Random) -> bytes:
    return request(random.randbytes(random.randrange(2000)))


def odd_json(random: Random) -> bytes:
    depth = random.randrange(1, 20_000)
    values = [
        b"[" * depth,
        b'{"a":' * depth,
        b"[" * depth + b"]" * depth,
        b'{"text":' * depth + b"1" + b"}" * depth,
        b'{"text": 1e%d}' % random.randrange(10**6),
        b'{"text": ' + b"9" * random.randrange(1, 50_000) + b"}",
        b'{"text": -' + b"0" * random.randrange(1, 1000) + b"}",
        b'{"text": NaN}',
        b'{"texts": [Infinity]}',
        rb'{"text": "\ud800"}',
        rb'{"text": "a\udc00b"}',
        rb'{"\udfff": 1}',
        rb'{"text": "\u0000"}',
        rb'{"text": "\uD834\uDD1E"}',
        '{"text": "\ufeff"}'.encode(),
        "{'text': 'a'}".encode("utf-16"),
        b'\xef\xbb\xbf{"text": "a"}',
        b'{"text": "\xff\xfe"}',
        b'{"text": "\xed\xa0\x80"}',
        b'{"text": "a", "text": "b"}',
        b'{"text": "a"} x',
        b"null",
        b'"text"',
        b"{}" * random.randrange(1, 100),
        b" " * random.randrange(1, 10_000),
    ]
    return request(random.choice(values))


def odd_fields(random: Random) -> bytes:
    scalars: list[object] = [
        None,
        True,
        0,
        -1,
        1.5,
        "",
        " ",
        "\t\n",
        "a" * 100_001,
        "ä" * 1000,
        "\u200b",
        "a\x00b",
        {},
        [],
    ]
    document: dict[str, object] = {}
    for _ in range(random.randrange(4)):
        name = random.choice(["text", "texts", "text_pair", "text_pairs", "inputs", "", "__proto__", "a" * 300])
        one = random.choice(scalars)
        document[name] = random.choice([one, [one] * random.choice([0, 1, 3, 1001]), {"text": one}])
    return request(json.dumps(document).encode())


def too_large(random: Random) -> bytes:
    body = b'{"text": "' + b"a" * random.choice([1 << 20, (1 << 20) + 1, 3 << 20]) + b'"}'
    if random.random() < 0.5:
        return request(body)
    return request(chunked(body, 1 << 16), b"Transfer-Encoding: chunked")


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def wrong_length(random: Random) -> bytes:
    value = random.choice(
        [b"-1", b"+5", b"0x5", b"5, 5", b"5, 6", b"", b"a", b"9" * 40, b"18446744073709551616", b"1e3", b"5 5"]
    )
    return request(b"hello", b"Content-Length: " + value)


def two_lengths(random: Random) -> bytes:
    first, second = random.sample([0, 5, 50], 2)
    headers = (b"Content-Length: %d" % first, b"Content-Length: %d" % second)
    return request(b"hello" + smuggled(), *headers)


def header_bomb(random: Random) -> bytes:
    bombs = [
        [b"X-%d: a" % number for number in range(random.choice([101, 1000]))],
        [b"X-Long: " + b"a" * random.choice([20_000, 70_000, 200_000])],
        [b"Cookie: " + b"; ".join(b"c%d=%s" % (number, b"v" * 50) for number in range(random.choice([300, 3000])))],
        [b"a" * 70_000 + b": a"],
        [b"X-Same: a"] * 90,
    ]
    return request(b'{"text": "a"}', *random.choice(bombs))


def odd_header(random: Random) -> bytes:
    lines = [
        b"X-Nul: a\x00b",
        b"X-Control: a\x01b",
        b"No colon",
        b": no name",
        b"Spa ce: a",
        b"X-Folded: a\r\n b",
        b" X-Leading: a",
        b"X-\xc3\xa4: a",
        b"X-User: J\xc3\xbcrgen",
        b"X-Latin: \xe9",
        b"Content-Type: " + random.randbytes(20).replace(b"\r", b"").replace(b"\n", b""),
        b"Content-Type: text/html",
        b"Content-Encoding: gzip",
        b"Content-Encoding: br, gzip, deflate",
        b"Expect: 100-continue",
        b"Expect: the-unexpected",
        b"Accept-Encoding: gzip;q=1e9",
        b"Range: bytes=0-" + b"9" * 30,
        b"X-Luthier-Revision: rev-1",
        b"X-Forwarded-For: " + b"1.2.3.4, " * 500,
    ]
    return request(b'{"text": "a"}', random.choice(lines))


def header_for_ray(random: Random) -> bytes:
    """What Ray itself would read: a time limit, an id, a model, a session."""
    names = [
        b"X-Request-Timeout-Seconds", b"X-Request-Disconnect-Disabled", b"X-Request-Id", b"serve_multiplexed_model_id",
        b"Serve-Multiplexed-Model-Id", b"X-Session-Id", b"X-Ray-Serve-Session", b"Traceparent",
    ]  # fmt: skip
    values = [b"0.000001", b"-1", b"nan", b"inf", b"1e308", b"\xff\xfe", b"?1", b"a" * 5000, b"", b"00-" + b"f" * 32]
    return request(b'{"text": "a"}', random.choice(names) + b": " + random.choice(values))


def upgrade(random: Random) -> bytes:
    websocket = (b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    h2c = (b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    lines = [b"GET /predict HTTP/1.1", b"Host: a", b"Connection: Upgrade, close", *random.choice([websocket, h2c])]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def odd_method(random: Random) -> bytes:
    name = bytes(random.choices(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=random.randrange(1, 40)))
    methods = [
        name,
        name.lower(),
        b"get",
        b"TRACE",
        b"CONNECT",
        b"OPTIONS",
        b"HEAD",
        b"PUT",
        b"DELETE",
        b"",
        b"PO\x00ST",
        b"P/ST",
    ]
    return request(b"", method=random.choice(methods))


def odd_path(random: Random) -> bytes:
    paths = [
        b"/" + b"a" * random.choice([100, 8_000, 70_000]),
        b"//evil.example/predict",
        b"http://evil.example/predict",
        b"http://[/predict",
        b"/predict/",
        b"/../../etc/passwd",
        b"/%2e%2e/%00",
        b"/%ff%ed%a0%80",
        b"/%",
        b"/pre dict",
        b"/\xc3\xa4",
        b"/\x00",
        b"*",
        b"predict",
        b"",
        b"/predict?" + b"a=" * 5000,
        b"/predict#fragment",
        b"/-/healthz",
        b"/-/routes",
        b"/{{7*7}}",
    ]
    return request(b'{"text": "a"}', path=random.choice(paths), method=random.choice([b"GET", b"POST"]))


def odd_host(random: Random) -> bytes:
    hosts = [
        b"[",
        b"[::1",
        b"a b",
        b"evil.example\x00",
        b"",
        b"a" * 5000,
        b"evil.example/",
        b"a:99999999",
        b"\xff",
        b"@",
    ]
    head = b"GET %s HTTP/1.1\r\nConnection: close\r\n" % random.choice([b"/", b"/nowhere", b"/predict/", b"/healthz"])
    lines = [b"Host: " + random.choice(hosts) for _ in range(random.choice([0, 1, 1, 2]))]
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def odd_version(random: Random) -> bytes:
    version = random.choice(
        [b"HTTP/0.9", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/9.9", b"http/1.1", b"", b"HTTP/1.1 x"]
    )
    return b"GET /healthz " + version + b"\r\nHost: a\r\nConnection: close\r\n\r\n"


def http2(random: Random) -> bytes:
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + random.randbytes(random.randrange(200))


def tls(random: Random) -> bytes:
    return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(508)


def smuggled() -> bytes:
    return b"GET " + MARKER.encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n"


def smuggling(random: Random) -> bytes:
    """A request whose end a proxy and a server might see at different places."""
    inner = b"0\r\n\r\n" + smuggled()
    lines = [
        [b"Content-Length: %d" % len(inner), b"Transfer-Encoding: xchunked"],
        [b"Content-Length: %d" % len(inner), b"Transfer-Encoding : chunked"],
        [b"Content-Length: %d" % len(inner), b"Transfer-Encoding:\x0bchunked"],
        [b"Content-Length: %d" % len(inner), b"Transfer-Encoding: chunked, identity"],
        [b"Content-Length: %d" % len(inner), b"Transfer-Encoding: identity"],
        [b"Content-Length: %d" % len(inner), b"X: a\nTransfer-Encoding: chunked"],
        [b"Content-Length: %d" % len(inner), b"Transfer_Encoding: chunked"],
        [b"Content-Length: %d" % len(inner), b'Transfer-Encoding: "chunked"'],
    ]
    return request(inner, *random.choice(lines))


def odd_chunks(random: Random) -> bytes:
    bodies = [
        b"FFFFFFFFFFFFFFFFF\r\na\r\n0\r\n\r\n",
        b"-1\r\na\r\n0\r\n\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b"1 \r\na\r\n0\r\n\r\n",
        b"1;" + b"e" * 20_000 + b"\r\na\r\n0\r\n\r\n",
        b"1\na\n0\n\n",
        b"2\r\na\r\n0\r\n\r\n",
        b"1\r\nabc\r\n0\r\n\r\n",
        b"z\r\n",
        b"0\r\nTrailer: a\r\n" * 200 + b"\r\n",
        b"1\r\n{\r\n" * 1000 + b"0\r\n\r\n",
    ]
    return request(random.choice(bodies), b"Transfer-Encoding: chunked")


def pipelined(random: Random) -> bytes:
    one = b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{"text": "a"}'
    return one * random.randrange(2, 20) + request(b"")


def cut(random: Random) -> bytes:
    """The beginning of a request; the client leaves."""
    whole = request(b'{"texts": [' + b", ".join([b'"the film was good"'] * 50) + b"]}")
    return whole[: random.randrange(1, len(whole))]


WHOLE: dict[Kind, int] = {
    random_bytes: 4, random_body: 8, odd_json: 12, odd_fields: 12, too_large: 1, wrong_length: 4, two_lengths: 3,
    header_bomb: 4, odd_header: 8, header_for_ray: 8, upgrade: 3, odd_method: 8, odd_path: 6, odd_host: 6,
    odd_version: 3, http2: 2, tls: 2, smuggling: 5, odd_chunks: 5, pipelined: 2,
}  # fmt: skip


def storm(seed: int, count: int) -> Iterator[Hostile]:
    """Return so many hostile requests of all kinds; one in twelve is left in the middle."""
    random = Random(seed)
    for _ in range(count):
        if random.random() < 1 / 12:
            yield Hostile("cut", cut(random), whole=False)
        else:
            [kind] = random.choices(list(WHOLE), weights=list(WHOLE.values()))
            # These may end in the middle of what they seem to begin.
            yield Hostile(kind.__name__, kind(random), whole=kind not in (random_bytes, http2, tls))


async def send(port: int, hostile: Hostile, random: Random) -> bytes:
    """Send it, and return all that comes back.

    Raises:
        TimeoutError: neither an answer came nor the end of the connection.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    received = b""
    try:
        writer.write(hostile.sent)
        if hostile.whole:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                received = await reader.read(-1)
        else:
            await asyncio.sleep(random.uniform(0, 0.02))
    except ConnectionError:
        pass  # the server has hung up on us, which it may
    finally:
        if random.random() < 0.3:
            _reset(writer)
        writer.close()
    return received


def _reset(writer: asyncio.StreamWriter) -> None:
    """Have the connection end by a reset."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@dataclass(frozen=True)
class Response:
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes


def responses(received: bytes) -> list[Response]:
    """Return the responses in what came back on a connection; interim ones (1xx) are left out.

    Raises:
        ValueError: it is something else.
    """
    found = []
    while received:
        head, separator, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        if not separator or not first.startswith("HTTP/1."):
            raise ValueError(f"no HTTP response: {received[:200]!r}")
        status = int(first.split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body, rest = _unchunk(rest)
        else:
            size = int(headers.get("content-length", 0))
            body, rest = rest[:size], rest[size:]
        if status >= 200:
            found.append(Response(status, headers, body))
        received = rest
    return found


def _unchunk(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
        if length == 0:
            return body, data
