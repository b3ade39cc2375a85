"""Bodies that are compressed: read within the limit of a body, and never inflated beyond it."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from luthier_serving.replica.bodies import DISCARD_BYTES
from luthier_serving.replica.http import build_http
from support.serving.asgi import post_predict
from support.serving.doubles import RecordedRequests, predictor, ready, respond

pytestmark = pytest.mark.unit

BODY = json.dumps({"text": "good " * 200}).encode()
GZIP = {"Content-Type": "application/json", "Content-Encoding": "gzip"}


@pytest.fixture
def requests() -> RecordedRequests:
    return RecordedRequests()


@pytest.fixture
def client(requests: RecordedRequests) -> Iterator[TestClient]:
    with TestClient(build_http(predictor(respond), requests, ready)) as client:
        yield client


@pytest.mark.parametrize("encoding", ["gzip", "GZip", "x-gzip"])
def test_a_body_in_gzip_is_answered_as_if_it_were_plain(client: TestClient, encoding: str) -> None:
    plain = client.post("/predict", content=BODY, headers={"Content-Type": "application/json"})
    packed = client.post(
        "/predict", content=gzip.compress(BODY, mtime=0), headers={**GZIP, "Content-Encoding": encoding}
    )
    assert packed.status_code == 200 and packed.json() == plain.json()


def test_identity_is_no_encoding(client: TestClient) -> None:
    assert client.post("/predict", content=BODY, headers={**GZIP, "Content-Encoding": "identity"}).status_code == 200


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, br", "gzip, gzip"])
def test_another_encoding_is_a_415_that_names_the_one_that_is_read(client: TestClient, encoding: str) -> None:
    reply = client.post("/predict", content=BODY, headers={**GZIP, "Content-Encoding": encoding})
    assert (reply.status_code, reply.headers["Accept-Encoding"]) == (415, "gzip")
    assert reply.json() == {"error": f"Content-Encoding is {encoding!r}; send the body plain, or with gzip."}


PACKED = gzip.compress(BODY, mtime=0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (BODY, "The body is not gzip"),
        (PACKED[:-9], "ends in the middle"),
        (PACKED[:-4] + b"0000", "The body is not gzip"),
        (PACKED + PACKED, "Something follows"),
        (PACKED + b"x", "Something follows"),
        (zlib.compress(BODY), "The body is not gzip"),
    ],
)
async def test_what_is_not_gzip_is_a_400_that_is_counted_however_it_arrives(body: bytes, words: str) -> None:
    for size in (7, 1 << 20):
        requests = RecordedRequests()
        app = build_http(predictor(respond), requests, ready)
        status, document = await post_predict(app, pieces(body, size), headers=gzip_headers())
        assert status == 400 and words in document["error"], (size, document)
        assert requests.codes == [(400, "")]


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def gzip_headers() -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]


def test_a_body_that_is_empty_says_so(client: TestClient) -> None:
    assert "no body" in client.post("/predict", content=b"", headers=GZIP).json()["error"]


@pytest.mark.parametrize(("spaces", "status"), [(0, 200), (1, 413)])
async def test_the_limit_is_that_of_the_inflated_body(spaces: int, status: int) -> None:
    body = BODY + b" " * spaces
    app = build_http(predictor(respond, max_body_bytes=len(BODY)), RecordedRequests(), ready)
    for size in (11, 1 << 20):
        assert (await post_predict(app, pieces(gzip.compress(body, mtime=0), size), headers=gzip_headers()))[
            0
        ] == status


def bomb(inflated: int) -> bytes:
    """Return zeros in gzip, a thousandth of them."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(inflated >> 20)]
    return b"".join([*parts, packer.flush()])


async def test_a_bomb_is_a_413_before_memory_is_spent() -> None:
    packed = bomb(64 << 20)
    app = build_http(predictor(respond), RecordedRequests(), ready)
    await post_predict(app, [b"{}"])
    tracemalloc.start()
    try:
        status, document = await post_predict(app, pieces(packed, 1 << 16), headers=gzip_headers())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert status == 413 and "larger than 1048576 bytes" in document["error"]
    assert peak < 8 << 20, f"{peak} bytes for a limit of 1 MiB"


async def test_data_that_holds_nothing_cannot_be_sent_for_ever() -> None:
    packer = zlib.compressobj(wbits=31)
    nothing = packer.compress(b"") + packer.flush(zlib.Z_SYNC_FLUSH)
    empty_block = b"\x00\x00\x00\xff\xff" * 20_000
    read: list[int] = []

    def endless() -> Iterator[bytes]:
        yield nothing
        while True:
            read.append(len(empty_block))
            yield empty_block

    app = build_http(predictor(respond), RecordedRequests(), ready)
    status, document = await post_predict(app, endless(), headers=gzip_headers())
    assert status == 413 and "The compressed body is larger" in document["error"]
    assert sum(read) < 2 * DISCARD_BYTES


async def test_a_client_that_leaves_while_it_sends_gzip_is_counted_as_any_other() -> None:
    requests = RecordedRequests()
    app = build_http(predictor(respond), requests, ready)
    await post_predict(app, [PACKED[:5]], disconnects=True, headers=gzip_headers())
    assert requests.codes == [(499, "")]


def test_the_documents_limit_is_of_what_is_inside(client: TestClient, requests: RecordedRequests) -> None:
    many: Any = {"texts": ["a"] * 10_000}
    reply = client.post("/predict", content=gzip.compress(json.dumps(many).encode()), headers=GZIP)
    assert reply.status_code == 413 and "10000 texts" in reply.json()["error"]
    assert requests.codes == [(413, "")]
