"""Who may ask: keys of a mounted Secret, as they are now, and what everybody else gets."""

import hmac
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from luthier_api.documents import ApiKeysState
from luthier_serving.replica import access
from luthier_serving.replica.access import OPEN_PATHS, SCOPE_KEY, ApiKeys, KeyCheck
from luthier_serving.replica.http import build_http
from support.serving.doubles import RecordedRequests, predictor, ready, respond
from support.temporary_keys import MountedSecret

pytestmark = pytest.mark.unit

FIRST, SECOND = "a-key-of-team-one", "a key of team two".replace(" ", "_")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def secret(tmp_path: Path) -> MountedSecret:
    return MountedSecret(tmp_path / "keys", one=f"{FIRST}\n", two=SECOND)


@pytest.fixture
def keys(secret: MountedSecret, clock: Clock) -> ApiKeys:
    return ApiKeys(secret.folder, clock)


@pytest.fixture
def requests() -> RecordedRequests:
    return RecordedRequests()


@pytest.fixture
def client(keys: ApiKeys, requests: RecordedRequests) -> Iterator[TestClient]:
    with TestClient(build_http(predictor(respond), requests, ready, keys)) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_each_key_of_the_secret_is_valid_without_the_new_line_at_its_end(client: TestClient) -> None:
    for key in (FIRST, SECOND):
        assert client.post("/predict", json={"text": "a"}, headers=bearer(key)).status_code == 200
    assert client.post("/predict", json={"text": "a"}, headers={"Authorization": f"bearer  {FIRST}"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "challenge", "words"),
    [
        ({}, 'Bearer realm="luthier"', "has no API key"),
        (bearer("wrong"), 'Bearer realm="luthier", error="invalid_token"', "not known here"),
        (bearer(""), 'Bearer realm="luthier", error="invalid_token"', "not known here"),
        (bearer(FIRST[:-1]), 'Bearer realm="luthier", error="invalid_token"', "not known here"),
        ({"Authorization": FIRST}, 'Bearer realm="luthier", error="invalid_token"', "not known here"),
        ({"Authorization": f"Basic {FIRST}"}, 'Bearer realm="luthier", error="invalid_token"', "not known here"),
    ],
)
def test_whoever_has_no_valid_key_gets_a_401_and_one_sentence_and_asks_nothing_of_the_model(
    client: TestClient, requests: RecordedRequests, headers: dict[str, str], challenge: str, words: str
) -> None:
    reply = client.post("/predict", json={"text": "a"}, headers=headers)
    assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, challenge)
    assert list(reply.json()) == ["error"] and words in reply.json()["error"]
    assert requests.codes == [(401, "")]


def test_two_authorization_headers_are_nobodys(client: TestClient) -> None:
    twice = [("Authorization", f"Bearer {FIRST}"), ("Authorization", "Bearer x")]
    assert client.post("/predict", json={"text": "a"}, headers=twice).status_code == 401


@pytest.mark.parametrize(("path", "status"), [("/", 401), ("/docs", 401), ("/openapi.json", 401), ("/nothing", 401)])
def test_only_health_can_be_asked_without_a_key(client: TestClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status
    assert client.get(path, headers=bearer(FIRST)).status_code in (200, 404)
    for health in ("/healthz", "/readyz"):
        assert client.get(health).status_code == 200
    assert {"/healthz", "/readyz"} < OPEN_PATHS


def test_without_keys_nothing_is_asked_for_and_the_description_says_so_either_way(client: TestClient) -> None:
    with TestClient(build_http(predictor(respond), RecordedRequests(), ready)) as everybody:
        assert everybody.post("/predict", json={"text": "a"}).status_code == 200
        assert "security" not in everybody.get("/openapi.json").json()
    document = client.get("/openapi.json", headers=bearer(FIRST)).json()
    assert document["security"] == [{"apiKey": []}]
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    assert document["paths"]["/healthz"]["get"]["security"] == []


def test_keys_that_the_kubelet_replaces_are_valid_or_not_within_a_second(
    client: TestClient, secret: MountedSecret, clock: Clock
) -> None:
    def status(key: str) -> int:
        return client.post("/predict", json={"text": "a"}, headers=bearer(key)).status_code

    assert (status(FIRST), status("new")) == (200, 401)
    secret.replace(two=SECOND, three="new\r\n")
    clock.now += 1
    assert (status(FIRST), status(SECOND), status("new")) == (401, 200, 200)


def test_the_folder_is_read_once_a_second_however_many_ask(
    keys: ApiKeys, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = access._read
    monkeypatch.setattr(access, "_read", lambda folder: reads.append(folder) or read(folder))
    for _ in range(40):
        clock.now += 0.125
        assert keys.identify(f"Bearer {FIRST}".encode()) == "one"
    assert len(reads) == 5


@pytest.mark.parametrize("presented", [FIRST, SECOND, "neither"])
def test_a_key_is_compared_with_every_key_there_is_whichever_fits(
    keys: ApiKeys, monkeypatch: pytest.MonkeyPatch, presented: str
) -> None:
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", lambda a, b: compared.append(len(a)) or compare(a, b))
    keys.identify(f"Bearer {presented}".encode())
    assert compared == [32, 32], "digests of one length, and no early end"


async def test_what_is_behind_learns_the_name_of_the_key_and_never_its_value(keys: ApiKeys) -> None:
    scopes = []

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        scopes.append(scope)

    check = KeyCheck(app, keys, lambda: None)  # type: ignore[arg-type]
    scope = {"type": "http", "path": "/predict", "headers": [(b"authorization", f"Bearer {SECOND}".encode())]}
    await check(scope, None, None)  # type: ignore[arg-type]
    assert scopes[0][SCOPE_KEY] == "two"
    assert SCOPE_KEY not in scope, "of this request, not of whoever made the scope"


class Log:
    """What Ray's logger, which does not propagate, is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.handler = logging.Handler()
        self.handler.emit = lambda record: self.lines.append((record.levelno, record.getMessage()))  # type: ignore[method-assign]


@pytest.fixture
def log() -> Iterator[Log]:
    found, level = Log(), access.logger.level
    access.logger.setLevel(logging.DEBUG)  # the attribute alone leaves what the logger has cached
    access.logger.addHandler(found.handler)
    yield found
    access.logger.removeHandler(found.handler)
    access.logger.setLevel(level)


def test_a_secret_without_a_usable_key_admits_nobody_and_says_so_until_it_has_one(
    tmp_path: Path, clock: Clock, log: Log
) -> None:
    secret = MountedSecret(tmp_path / "keys", blank="\n", spaced="two words", uml="ü")
    keys = ApiKeys(secret.folder, clock)
    for key in ("", "two words", "ü"):
        assert keys.identify(f"Bearer {key}".encode()) is None
    said = "The Secret with the API keys holds no usable key, so nobody is admitted."
    assert keys.state == ApiKeysState(count=0, message=said)
    clock.now += 1
    keys.refresh()
    ((level, line),) = log.lines
    assert level == logging.ERROR and said in line and "blank, spaced, uml" in line, "once, with their names"
    secret.replace(good="k1")
    clock.now += 1
    assert keys.identify(b"Bearer k1") == "good"
    assert keys.state == ApiKeysState(count=1)
    assert log.lines[1:] == [(logging.INFO, "API keys: good")]


def test_a_folder_that_is_not_there_admits_nobody_and_a_later_one_is_read(tmp_path: Path, clock: Clock) -> None:
    keys = ApiKeys(tmp_path / "keys", clock)
    assert keys.identify(b"Bearer k1") is None
    assert keys.state.message.startswith(f"The folder {tmp_path}/keys with the API keys cannot be read (No such file")
    MountedSecret(tmp_path / "keys", good="k1")
    clock.now += 1
    assert keys.identify(b"Bearer k1") == "good"


def test_a_value_of_a_key_is_nowhere_in_the_log(tmp_path: Path, clock: Clock, log: Log) -> None:
    secret = MountedSecret(tmp_path / "keys", one="s3cr3t-one", two="has a s3cr3t space")
    keys = ApiKeys(secret.folder, clock)
    secret.replace(three="s3cr3t-three")
    clock.now += 1
    keys.identify(b"Bearer s3cr3t-guess")
    assert len(log.lines) == 2 and "s3cr3t" not in str(log.lines)


def test_a_body_is_read_before_its_sender_is_turned_away(client: TestClient) -> None:
    reply = client.post("/predict", content=b" " * 5_000_000, headers={"Content-Type": "application/json"})
    assert reply.status_code == 401
