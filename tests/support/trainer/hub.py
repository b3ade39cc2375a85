"""A server on this machine that answers as a Hugging Face hub does, with folders as its repositories."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """The hub.

    Attributes:
        folders: {"models/owner/name" or "datasets/owner/name@revision": its files}; without a revision, of the main
            branch. COMMIT is that of the first, and the others begin with other digits.
        endpoint: its URL.
        tokens: what each request gave as its Authorization.
        downloads: paths of files that were sent.
    """

    folders: dict[str, Path]
    endpoint: str = ""
    tokens: list[str | None] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)

    def find(self, kind: str, name: str, revision: str) -> tuple[str, Path] | None:
        """Return commit and files of a revision."""
        for number, (key, folder) in enumerate(self.folders.items()):
            place, _, branch = key.partition("@")
            commit = f"{number + 1:02x}{COMMIT[2:]}"
            if place == f"{kind}/{name}" and revision in (branch or "main", commit):
                return commit, folder
        return None

    def knows(self, kind: str, name: str) -> bool:
        """Tell whether there is such a repository."""
        return any(key.partition("@")[0] == f"{kind}/{name}" for key in self.folders)


@contextmanager
def serving(context: ssl.SSLContext | None = None, **folders: Path) -> Iterator[Hub]:
    """Serve folders as repositories, as long as the block is entered; see `Hub.folders`. With a context, by TLS."""
    hub = Hub(folders)
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        hub.endpoint = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    """The few answers that a download needs."""

    hub: Hub

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, *, with_body: bool) -> None:
        self.hub.tokens.append(self.headers.get("Authorization"))
        parts = [unquote(part) for part in self.path.split("?")[0].strip("/").split("/")]
        status, headers, body = self.api(*parts[1:]) if parts[0] == "api" else self.file(parts, sent=with_body)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def api(self, kind: str, *parts: str) -> tuple[int, Any, bytes]:
        if kind not in ("models", "datasets") or len(parts) < 2:
            return 404, {}, b""  # what the library asks besides
        owner, name, what, *rest = (*parts, "revision")
        revision = rest[0] if len(parts) > 3 else "main"
        found = self.hub.find(kind, f"{owner}/{name}", revision)
        if found is None:
            known = self.hub.knows(kind, f"{owner}/{name}")
            return 404, {"X-Error-Code": "RevisionNotFound" if known else "RepoNotFound"}, b""
        commit, folder = found
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        if what == "tree":
            listed = [
                {"type": "file", "path": each, "size": path.stat().st_size, "oid": each} for each, path in files.items()
            ]
            return 200, {}, json.dumps(listed).encode()
        siblings = [{"rfilename": each} for each in files]
        return 200, {}, json.dumps({"id": f"{owner}/{name}", "sha": commit, "siblings": siblings}).encode()

    def file(self, parts: list[str], *, sent: bool) -> tuple[int, Any, bytes]:
        kind, *parts = parts if parts[0] == "datasets" else ["models", *parts]
        owner, name, _, revision, *rest = parts
        found = self.hub.find(kind, f"{owner}/{name}", revision)
        if found is None or not (found[1] / "/".join(rest)).is_file():
            return 404, {"X-Error-Code": "EntryNotFound" if found else "RepoNotFound"}, b""
        commit, folder = found
        body = (folder / "/".join(rest)).read_bytes()
        if sent:
            self.hub.downloads.append("/".join(rest))
        return 200, {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": commit}, body

    def log_request(self, *arguments: object) -> None:
        """The test's output is about the trainer."""
