"""Data from a hub and from https://, from real servers on this machine."""

from __future__ import annotations

import hashlib
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tenacity import wait_none

from luthier_api.documents import Access, RunDocument
from luthier_artifacts import IntegrityError, StorageDenied, StorageUnavailable
from luthier_dev.pki import Authority
from luthier_trainer.data.dataset import FetchedDataset, fetch_dataset
from luthier_trainer.runtime import web
from luthier_trainer.runtime.errors import InputNotFound, InvalidData, InvalidSpec
from support.trainer.hub import Hub, serving

pytestmark = pytest.mark.unit

CSV = b"text,label\ngood,pos\nbad,neg\n"
SHA256 = hashlib.sha256(CSV).hexdigest()


def fetched(folder: Path, access: Access | None = None, **dataset: Any) -> FetchedDataset:
    spec = {
        "model": {"uri": "s3://models/base"},
        "dataset": dataset,
        "output": {"name": "m", "uri": "s3://models/", "endpoint": "https://s3.example.com"},
    }
    output = Access(endpoint="https://s3.example.com", credentials="output")
    run = RunDocument.model_validate({"spec": spec, "output_access": output, "dataset_access": access or output})
    return fetch_dataset(run, folder / "dataset")


def contents(dataset: FetchedDataset) -> dict[str, list[bytes]]:
    return {str(part): [file.path.read_bytes() for file in files] for part, files in dataset.files.items()}


def repository(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_csv", ".csv").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def test_each_part_reads_the_split_of_its_name_and_no_other_file_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    files = "{train: en/a*, test: en/b.csv}"
    card = f"---\nconfigs:\n- config_name: en\n  data_files: {files}\n---\n# Reviews\n"
    folder = repository(tmp_path / "r", README="", en__a1_csv="1", en__a2_csv="2", en__b_csv="3", de_csv="4")
    (folder / "README").rename(folder / "README.md")
    (folder / "README.md").write_text(card)
    hub.folders["datasets/luthier/reviews"] = folder
    uri = "hf://datasets/luthier/reviews"
    found = fetched(tmp_path, train={"uri": uri}, test={"uri": uri}, eval={"uri": uri, "split": "test", "config": "en"})
    assert contents(found) == {"train": [b"1", b"2"], "test": [b"3"], "eval": [b"3"]}
    assert "de.csv" not in hub.downloads
    assert set(hub.tokens) == {None}, "the keys of the output are not for the hub"


def test_another_revision_is_another_data_set(hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hub.folders["datasets/luthier/reviews"] = repository(tmp_path / "main", train_csv="new")
    hub.folders["datasets/luthier/reviews@v1"] = repository(tmp_path / "v1", train_csv="old")
    train = {"uri": "hf://datasets/luthier/reviews"}
    new, old = fetched(tmp_path / "1", train=train), fetched(tmp_path / "2", train={**train, "revision": "v1"})
    assert (contents(new), contents(old)) == ({"train": [b"new"]}, {"train": [b"old"]})
    assert new.digest != old.digest
    assert not capfd.readouterr().err, "no progress bars, which are no lines of a log"
    with pytest.raises(InputNotFound, match="hf://datasets/luthier/reviews has no revision 'v2'"):
        fetched(tmp_path / "3", train={**train, "revision": "v2"})


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("en/a.csv", [b"1"]),
        ("en/*.csv", [b"1", b"2"]),
        ("en/", [b"1", b"2", b"3"]),
    ],
)
def test_a_path_in_a_data_set_names_files_as_elsewhere(
    hub: Hub, tmp_path: Path, path: str, wanted: list[bytes]
) -> None:
    hub.folders["datasets/luthier/reviews"] = repository(
        tmp_path / "r", en__a_csv="1", en__b_csv="2", en__sub__c_csv="3", de__a_csv="4", en__notes="5"
    )
    assert contents(fetched(tmp_path, train={"uri": f"hf://datasets/luthier/reviews/{path}"})) == {"train": wanted}


def test_files_of_formats_that_are_not_read_come_from_the_hubs_conversion(hub: Hub, tmp_path: Path) -> None:
    train = {"uri": "hf://datasets/luthier/reviews"}
    hub.folders["datasets/luthier/reviews"] = repository(tmp_path / "r", train_json="[]")
    with pytest.raises(InputNotFound, match=r"holds no \.csv, \.tsv, \.jsonl or \.parquet file"):
        fetched(tmp_path / "1", train=train)
    converted = tmp_path / "converted" / "default" / "train"
    converted.mkdir(parents=True)
    (converted / "0000.parquet").write_bytes(b"parquet")
    hub.folders["datasets/luthier/reviews@refs/convert/parquet"] = tmp_path / "converted"
    assert contents(fetched(tmp_path / "2", train=train)) == {"train": [b"parquet"]}
    named = {**train, "revision": "refs/convert/parquet", "config": "default", "split": "train"}
    assert contents(fetched(tmp_path / "3", train=named)) == {"train": [b"parquet"]}
    with pytest.raises(InputNotFound, match="holds no"):
        fetched(tmp_path / "4", train={**train, "revision": "main"})


def test_names_that_look_like_patterns_are_names(hub: Hub, tmp_path: Path) -> None:
    hub.folders["datasets/luthier/reviews"] = repository(tmp_path / "r", **{"a[1]_csv": "1", "a1_csv": "2"})
    assert contents(fetched(tmp_path, train={"uri": "hf://datasets/luthier/reviews/a[1].csv"})) == {"train": [b"1"]}


def authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a private authority's certificate, and what a server of this machine shows that it has signed."""
    folder.mkdir()
    made = Authority(folder)
    pair = made.issue("web", "web", hosts=["127.0.0.1", "data.example.com"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return made.pair.certificate, context


def test_a_hub_behind_a_private_authority_is_trusted_by_the_ca_bundle_and_not_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever the process has set is put back at the end.
    monkeypatch.setenv("SSL_CERT_FILE", ssl.get_default_verify_paths().cafile or "")
    certificate, context = authority(tmp_path / "pki")
    train = {"uri": "hf://datasets/luthier/reviews"}
    with serving(context, **{"datasets/luthier/reviews": repository(tmp_path / "r", train_csv="1")}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        with pytest.raises(StorageDenied, match=r"The certificate of the hub of .* is not trusted; set caBundle"):
            fetched(tmp_path / "1", train=train)
        found = fetched(tmp_path / "2", Access(ca_bundle=str(certificate)), train=train)
    assert contents(found) == {"train": [b"1"]}
    with pytest.raises(StorageDenied, match="holds no certificates that can be read"):
        fetched(tmp_path / "3", Access(ca_bundle=str(tmp_path / "none.crt")), train=train)


@dataclass
class Web:
    """A web server with a certificate of a private authority.

    Attributes:
        answers: {path: (status, headers, body)}.
        asked: path and headers of each request.
        repeats: how often a body is sent.
        sent: bytes of bodies.
    """

    url: str
    authority: Path
    answers: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    repeats: int = 1
    sent: int = 0

    def access(self) -> Access:
        return Access(ca_bundle=str(self.authority), credentials="dataset")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(web._stream.retry, "wait", wait_none())  # type: ignore[attr-defined]
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    certificate, context = authority(tmp_path / "pki")
    site = Web("", certificate, {})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append((self.path, dict(self.headers)))
            status, headers, body = site.answers.get(self.path, (404, {}, b"the secret of an inner page"))
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                # A header that is empty is left out.
                if value:
                    self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # the client has heard enough
                for _ in range(site.repeats):
                    self.wfile.write(body)
                    site.sent += len(body)

        def log_request(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        site.url = f"https://127.0.0.1:{listening.server_port}"
        Thread(target=listening.serve_forever, daemon=True).start()
        yield site
        listening.shutdown()


def test_a_file_from_the_web_is_the_same_data_as_the_file(server: Web, tmp_path: Path) -> None:
    server.answers = {
        "/moved": (302, {"Location": "/reviews.csv?signature=x"}, b""),
        "/go.csv?download=1": (301, {"Location": f"{server.url}/moved"}, b""),
        "/reviews.csv?signature=x": (200, {}, CSV),
    }
    (tmp_path / "reviews.csv").write_bytes(CSV)
    local = fetched(tmp_path / "1", train={"uri": (tmp_path / "reviews.csv").as_uri(), "sha256": SHA256})
    found = fetched(tmp_path / "2", server.access(), train={"uri": f"{server.url}/go.csv?download=1", "sha256": SHA256})
    assert contents(found) == {"train": [CSV]} and found.digest == local.digest
    assert found.names == {"train": "go.csv"}, "the query is no part of the name"
    assert all("Authorization" not in headers for _, headers in server.asked)


def refusal(server: Web, folder: Path, path: str, sha256: str = SHA256) -> str:
    with pytest.raises(
        (IntegrityError, StorageDenied, StorageUnavailable, InputNotFound, InvalidData, InvalidSpec)
    ) as refused:
        fetched(folder, server.access(), train={"uri": f"{server.url}{path}", "sha256": sha256})
    assert not any(path.is_file() for path in (folder / "dataset").rglob("*")), "nothing is left"
    return str(refused.value).replace(server.url, "https://host")


def test_what_a_server_answers_is_told_without_its_words(server: Web, tmp_path: Path) -> None:
    page = (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>the secret of an inner page")
    server.answers = {
        "/other.csv": (200, {}, b"other"),
        "/page.csv": page,
        "/mine.csv": (403, {}, b"the secret of an inner page"),
        "/down.csv": (503, {}, b"the secret of an inner page"),
        "/plain.csv": (302, {"Location": "http://169.254.169.254/latest/meta-data/"}, b""),
        "/local.csv": (302, {"Location": "file:///etc/passwd"}, b""),
        "/loop.csv": (302, {"Location": "/loop.csv"}, b""),
        "/cut.csv": (200, {"Content-Length": "100", "Connection": "close"}, CSV),
    }
    other = hashlib.sha256(b"other").hexdigest()
    assert refusal(server, tmp_path, "/other.csv?token=secret") == (
        "https://host/other.csv does not exist (HTTP 404); check the address."
    )
    assert refusal(server, tmp_path, "/other.csv").startswith(
        f"https://host/other.csv has the sha256 {other}, and the spec says {SHA256}; check the address, or"
    )
    assert refusal(server, tmp_path, "/page.csv").endswith("it is a web page: take the address of the file itself.")
    assert "(HTTP 403), and no credentials are sent; copy the file to s3://" in refusal(server, tmp_path, "/mine.csv")
    assert "(HTTP 503); try again later" in refusal(server, tmp_path, "/down.csv")
    assert len([path for path, _ in server.asked if path == "/down.csv"]) == web.ATTEMPTS
    assert "leads to http://169.254.169.254/latest/meta-data/, which is not https://" in refusal(
        server, tmp_path, "/plain.csv"
    )
    assert "leads to file:///etc/passwd, which is not https://" in refusal(server, tmp_path, "/local.csv")
    assert "leads from one address to the next, more than 5 times" in refusal(server, tmp_path, "/loop.csv")
    assert "did not serve https://host/cut.csv" in refusal(server, tmp_path, "/cut.csv")


@pytest.mark.parametrize("announced", [{"Content-Length": "100000000000"}, {"Content-Length": ""}])
def test_a_file_that_is_too_large_is_not_read_to_its_end(
    server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announced: dict[str, str]
) -> None:
    monkeypatch.setenv(web.MAX_BYTES_VARIABLE, "10")
    server.answers["/large.csv"] = (200, announced, bytes(65536))
    server.repeats = 1000
    assert refusal(server, tmp_path, "/large.csv") == (
        "https://host/large.csv is larger than 10 bytes, which is the limit here; copy it to s3://, or have the "
        "administrator raise LUTHIER_MAX_DOWNLOAD_BYTES in podEnv."
    )
    assert server.sent < 500 * 65536


def test_bytes_are_those_that_were_sent_and_not_unpacked(server: Web, tmp_path: Path) -> None:
    server.answers["/a.csv"] = (200, {"Content-Encoding": "gzip"}, CSV)
    found = fetched(tmp_path, server.access(), train={"uri": f"{server.url}/a.csv", "sha256": SHA256})
    assert contents(found) == {"train": [CSV]}


def test_a_server_whose_authority_nobody_named_is_not_trusted(server: Web, tmp_path: Path) -> None:
    server.answers["/a.csv"] = (200, {}, CSV)
    with pytest.raises(StorageDenied, match=r"The certificate of .* is not trusted; set caBundle to its authority's"):
        fetched(tmp_path, train={"uri": f"{server.url}/a.csv", "sha256": SHA256})
    assert not server.asked


class Proxy(BaseHTTPRequestHandler):
    """Connects to this machine, whatever host is asked for."""

    asked: list[str]
    port: int

    def do_CONNECT(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        with socket.create_connection(("127.0.0.1", self.port)) as there:
            ends = {self.connection: there, there: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    if not (data := end.recv(65536)):
                        return
                    ends[end].sendall(data)

    def log_request(self, *arguments: object) -> None: ...


def test_the_proxy_of_the_environment_is_used_but_for_hosts_that_need_none(
    server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/a.csv"] = (200, {}, CSV)
    Proxy.asked, Proxy.port = [], int(server.url.rpartition(":")[2])
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for number, host in enumerate(("https://data.example.com", server.url)):
            folder = tmp_path / str(number)
            found = fetched(folder, server.access(), train={"uri": f"{host}/a.csv", "sha256": SHA256})
            assert contents(found) == {"train": [CSV]}
        proxy.shutdown()
    assert Proxy.asked == ["data.example.com:443"]


@pytest.mark.parametrize("host", ["127.0.0.1:99999", "a..b", "a" * 64])
def test_an_address_that_is_none_is_told_and_nothing_crashes(server: Web, tmp_path: Path, host: str) -> None:
    with pytest.raises((InvalidSpec, StorageUnavailable), match=f"https://{host}/a.csv"):
        fetched(tmp_path, train={"uri": f"https://{host}/a.csv", "sha256": SHA256})


def test_a_redirect_to_what_is_no_address_and_a_limit_that_is_no_number_are_told(
    server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/a.csv"] = (302, {"Location": "https://[::1/a.csv"}, b"")
    assert "is no address that can be asked, or leads to none" in refusal(server, tmp_path, "/a.csv")
    monkeypatch.setenv(web.MAX_BYTES_VARIABLE, "20Gi")
    assert "LUTHIER_MAX_DOWNLOAD_BYTES is '20Gi', which is no number of bytes" in refusal(server, tmp_path, "/a.csv")


def test_a_proxy_that_cannot_be_used_is_named(server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTPS_PROXY", "gopher://127.0.0.1:1")
    assert "The proxy that the environment names cannot be used" in refusal(server, tmp_path, "/a.csv")


def test_a_named_file_must_have_the_sha256_that_the_spec_says(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"changed")
    with pytest.raises(IntegrityError, match=f"a.csv has the sha256 .*, and the spec says {SHA256}"):
        fetched(tmp_path, train={"uri": (tmp_path / "a.csv").as_uri(), "sha256": SHA256})
