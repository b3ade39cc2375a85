"""The one form of an image reference in which two are equal exactly if a container runtime pulls the same.

It is the form that a runtime gives a reference before it pulls: registry first, `docker.io/library/` where there is
none, `:latest` where there is neither tag nor digest, no tag beside a digest. What a runtime would not read as a
reference is none here.

A parser of our own, since this decides what may run: of the libraries, docker-image-py comes closest, and takes a
reference that ends in a new line for the one without. Pure.
"""

import re

_HOST = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?")
_PART = re.compile(r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HUB = "docker.io"


class NotAReference(ValueError):
    """The text is not an image reference, or not an entry of the list. The message is one sentence for people."""


def normal_form(image: str) -> str:
    """Return a reference in the form in which two are the same exactly if a runtime pulls the same.

    Raises:
        NotAReference: if it is none.
    """
    name, at, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if not last or (at and not _DIGEST.fullmatch(digest)) or (colon and not _TAG.fullmatch(tag)):
        raise NotAReference(f"{image!r} is not an image reference; write registry/name:tag.")
    path = _path(f"{head}{slash}{last}", image)
    return f"{path}@{digest}" if at else f"{path}:{tag or 'latest'}"


def normal_entry(entry: str) -> str:
    """Return an entry of the list in that form.

    Raises:
        NotAReference: if it is neither a reference nor a prefix that ends in `/`.
    """
    if not entry.endswith("/"):
        return normal_form(entry)
    host, parts = _split(entry)
    if not _HOST.fullmatch(host) or not all(_PART.fullmatch(part) for part in parts):
        raise NotAReference(f"{entry!r} is no prefix of images; write registry/ or registry/folder/.")
    return "/".join([host, *parts, ""])


def _path(name: str, shown: str) -> str:
    host, parts = _split(name)
    if host == _HUB and len(parts) == 1:
        parts = ["library", *parts]
    if not parts or not _HOST.fullmatch(host) or not all(_PART.fullmatch(part) for part in parts):
        raise NotAReference(f"{shown!r} is not an image reference; write registry/name:tag, in lower case.")
    return "/".join([host, *parts])


def _split(name: str) -> tuple[str, list[str]]:
    """Return the registry and the path. What stands before a slash is a registry if it looks like a host."""
    parts = name.removesuffix("/").split("/")
    is_host = "." in parts[0] or ":" in parts[0] or parts[0] == "localhost"
    host = parts.pop(0) if is_host and "/" in name else _HUB
    return (_HUB if host == f"index.{_HUB}" else host), parts
