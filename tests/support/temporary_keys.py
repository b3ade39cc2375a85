"""Keys that expire: a Secret that the kubelet has mounted, and a server that knows which session token is valid now."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from support.faulty_s3 import TOKEN_HEADER


class MountedSecret:
    """A folder of files that is replaced as the kubelet does it: all of them at once, by moving one link."""

    def __init__(self, folder: Path, **keys: str) -> None:
        self.folder = folder
        self._versions = itertools.count()
        folder.mkdir(parents=True)
        self.replace(**keys)

    def replace(self, **keys: str) -> None:
        """Give it other keys; those that are not named are gone."""
        link, old = self.folder / "..data", self.folder / "..data_tmp"
        before = link.resolve() if link.exists() else None
        new = self.folder / f"..version-{next(self._versions)}"
        new.mkdir()
        for name, value in keys.items():
            (new / name).write_text(value)
        old.symlink_to(new.name)
        os.replace(old, link)
        for name in keys:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        if before:
            shutil.rmtree(before)

    def age(self, seconds: float) -> None:
        """Make it as if the kubelet had last replaced the files so long ago."""
        then = time.time() - seconds
        os.utime(self.folder / "..data", (then, then), follow_symlinks=False)


def temporary(token: str) -> dict[str, str]:
    """Return the keys of a session; the server that knows its token asks for nothing else."""
    return {"AWS_ACCESS_KEY_ID": "ASIA", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": token}


class OneToken:
    """A fault of `FaultyServer`: it refuses, as AWS does, what is signed with another token than the valid one."""

    def __init__(self, valid: str) -> None:
        self.valid = valid
        self.refused: list[str] = []

    def __call__(self, handler: BaseHTTPRequestHandler) -> bool:
        if handler.headers.get(TOKEN_HEADER) == self.valid:
            return False
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.refused.append(f"{handler.command} {handler.path}")
        body = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
        handler.answer(400, [("Content-Type", "application/xml")], body)  # type: ignore[attr-defined]
        return True
