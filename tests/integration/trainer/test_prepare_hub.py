"""*prepare* with a base model from a hub, which is played by a server on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from luthier_api.documents import credential_env
from luthier_api.exitcodes import ExitCode

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The few answers of a hub that a download needs, with the files of one model."""

    folder: Path
    tokens: list[str | None]

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, *, with_body: bool) -> None:
        self.tokens.append(self.headers.get("Authorization"))
        path = self.path.split("?")[0]
        files = [(file.name, file.stat().st_size) for file in self.folder.iterdir()]
        if path == f"/api/models/luthier/tiny/tree/{COMMIT}":
            body = json.dumps([{"type": "file", "path": n, "size": s, "oid": n} for n, s in files]).encode()
            self.send_response(200)
        elif path.startswith("/api/models/luthier/tiny"):
            siblings = [{"rfilename": name} for name, _ in files]
            body = json.dumps({"id": "luthier/tiny", "sha": COMMIT, "siblings": siblings}).encode()
            self.send_response(200)
        elif path.startswith(f"/luthier/tiny/resolve/{COMMIT}/"):
            body = (self.folder / path.rsplit("/", 1)[-1]).read_bytes()
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        else:
            body = b""
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_request(self, *arguments: object) -> None:
        """The test's output is about the trainer."""


def test_a_hubs_revision_is_resolved_to_its_commit(
    bench: Any, document: dict[str, Any], tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(credential_env("model")["HF_TOKEN"], "hf_secret")
    monkeypatch.setattr(Hub, "folder", tiny_models("bert"), raising=False)
    monkeypatch.setattr(Hub, "tokens", [], raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        document["modelAccess"] = {"endpoint": f"http://127.0.0.1:{server.server_port}", "credentials": "model"}
        from_storage = bench.run("prepare", document | {"modelAccess": {}}).result.prepared.resolved
        document["spec"]["model"] = {"uri": "hf://luthier/tiny", "revision": "main"}
        resolved = bench.prepared(document)["resolved"]
        document["spec"]["model"] = {"uri": "hf://luthier/other"}
        missing = bench.run("prepare", document)
        server.shutdown()
    silent = bench.run("prepare", document)
    assert resolved == from_storage.to_wire() | {"modelRevision": COMMIT}
    assert set(Hub.tokens) == {"Bearer hf_secret"}
    assert missing.code == ExitCode.INPUT_NOT_FOUND
    assert silent.code == ExitCode.STORAGE_UNAVAILABLE
    assert missing.message == "hf://luthier/other does not exist, or is private and HF_TOKEN gives no access to it."
