"""A Git repository and a real server for it, which the cluster reaches: `git http-backend` behind a WSGI server."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

_BACKEND = ("git", "http-backend")
_CGI = ("REQUEST_METHOD", "QUERY_STRING", "CONTENT_TYPE", "REMOTE_ADDR", "HTTP_CONTENT_ENCODING", "HTTP_GIT_PROTOCOL")


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


class Repository:
    """A working tree whose commits are pushed to the server's bare repository.

    Attributes:
        url: of the repository, as the cluster reaches it.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self._tree = folder / "tree"
        self._bare = folder / "served" / "config.git"
        self._tree.mkdir(parents=True)
        self._bare.mkdir(parents=True)
        _git(self._bare, "init", "--bare", "--initial-branch=main")
        _git(self._tree, "init", "--initial-branch=main")
        _git(self._tree, "config", "user.name", "A user")
        _git(self._tree, "config", "user.email", "user@example.com")
        _git(self._tree, "remote", "add", "origin", str(self._bare))

    def push(self, message: str, files: Mapping[str, str]) -> str:
        """Write files, commit them and push; return the commit."""
        for name, text in files.items():
            path = self._tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        _git(self._tree, "add", "--all")
        _git(self._tree, "commit", "--message", message)
        return self._push()

    def revert(self) -> str:
        """Revert the last commit and push; return the new commit."""
        _git(self._tree, "revert", "--no-edit", "HEAD")
        return self._push()

    def _push(self) -> str:
        _git(self._tree, "push", "origin", "main")
        return _git(self._tree, "rev-parse", "HEAD").strip()


@contextmanager
def serve(folder: Path, address: str) -> Iterator[Repository]:
    """Serve a new repository, for reading, at an address of this machine."""
    with make_server(address, 0, _application(folder / "served"), handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Repository(folder, f"http://{address}:{server.server_port}/config.git")
        server.shutdown()
        thread.join()


def _application(root: Path) -> Callable[..., list[bytes]]:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        cgi = {name: environ[name] for name in _CGI if name in environ}
        settings = {"GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "CONTENT_LENGTH": str(len(body))}
        environment = {"PATH": "/usr/bin:/bin", "PATH_INFO": environ["PATH_INFO"], **settings, **cgi}
        done = subprocess.run(_BACKEND, input=body, capture_output=True, env=environment, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
        status = next((value for name, value in headers if name == "Status"), "200 OK")
        start_response(status, [each for each in headers if each[0] != "Status"])
        return [content]

    return answer


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(("git", "-C", str(folder), *arguments), check=True, capture_output=True, text=True).stdout
