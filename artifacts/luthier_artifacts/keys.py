"""The keys of one role as they are now: the files of a mounted Secret, or else environment variables.

Kubernetes replaces the files of a mounted Secret about a minute after the Secret has changed, all in one step, so
whoever reads them for each request always signs with keys that belong together. Environment variables never change.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from luthier_api.documents import CREDENTIALS_VARIABLE, Role, credential_env, credential_folder

ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
KEYS = (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN)
# The link that the kubelet moves when it replaces the files.
_CURRENT = "..data"
_ATTEMPTS = 5


def mounted_folder(role: Role) -> Path | None:
    """Return the folder in which a role's Secret is mounted, if it is."""
    root = os.environ.get(CREDENTIALS_VARIABLE)
    folder = Path(root, role) if root else Path(credential_folder(role))
    return folder if folder.is_dir() else None


def read_keys(role: Role) -> dict[str, str]:
    """Return {key: value} of a role, of those that are set."""
    folder = mounted_folder(role)
    return read_variables(credential_env(role)) if folder is None else read_folder(folder)


def read_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return {key: value} of {key: environment variable}."""
    return _set({key: os.environ.get(variable, "") for key, variable in variables.items()})


def read_folder(folder: Path) -> dict[str, str]:
    """Return {key: value} of the files in a folder, all of the same moment."""
    for _ in range(_ATTEMPTS):
        current = _current(folder)
        try:
            found = {path.name: path.read_text() for path in current.iterdir() if path.is_file()}
        except FileNotFoundError:
            continue
        # The kubelet removes the old files only after it has moved the link.
        if _current(folder) == current:
            return _set(found)
    return {}


def age_s(folder: Path) -> float:
    """Return how long ago the kubelet last replaced the files of a mounted Secret; the Secret may be newer."""
    link = folder / _CURRENT
    return time.time() - link.lstat().st_mtime if link.is_symlink() else 0.0


def _set(found: Mapping[str, str]) -> dict[str, str]:
    return {key: value.strip() for key, value in found.items() if value.strip()}


def _current(folder: Path) -> Path:
    link = folder / _CURRENT
    return link.resolve() if link.exists() else folder
