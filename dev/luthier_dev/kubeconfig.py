"""Writes kubeconfig files: address of an API server, its authority, and one user's certificate, all embedded.

Owns the file format only; who the users are is decided in controlplane and node.
"""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from luthier_dev.pki import KeyPair


def write(path: Path, server: str, authority: Path, user: KeyPair, name: str = "luthier-dev") -> Path:
    """Write a kubeconfig with one cluster, one user and one context, all called `name`."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _embed(authority)}}],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": _embed(user.certificate),
                    "client-key-data": _embed(user.key),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    partial = path.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(yaml.safe_dump(document))
    return partial.replace(path)


def _embed(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
