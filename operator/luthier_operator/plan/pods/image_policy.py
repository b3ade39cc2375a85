"""Which images a resource may name: the operator's allow-list, and how a reference is compared with it.

An entry is a whole reference, or a prefix that ends in `/`. Both sides are brought into the one form that a container
runtime gives them before it pulls: registry first, `docker.io/library/` where there is none, `:latest` where there is
neither tag nor digest, no tag beside a digest. What a runtime would not read as a reference is never allowed. Pure.
"""

import re
from collections.abc import Sequence

_HOST = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?")
_PART = re.compile(r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HUB = "docker.io"
_SHOWN = 8


class NotAReference(ValueError):
    """The text is not an image reference, or not an entry of the list. The message is one sentence for people."""


def refusal(image: str | None, allowed: Sequence[str], own: str) -> str | None:
    """Return why an image may not be used, in one sentence, or None if it may.

    Args:
        image: What the resource names; None is the operator's own.
        allowed: The list; empty allows every image.
        own: The operator's own image for this purpose, which is always allowed.
    """
    if image is None or image == own or not allowed:
        return None
    remedy = "Name one that may, leave image out for the operator's own, or ask whoever runs Luthier to allow it."
    may = f"what may be named is {_listed(allowed)}"
    try:
        wanted = normal_form(image)
    except NotAReference as error:
        return f"{error} Images are restricted here, and {may}. {remedy}"
    if any(_covers(entry, wanted) for entry in allowed):
        return None
    return f"The image {image} may not be used: {may}. {remedy}"


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


def _covers(entry: str, wanted: str) -> bool:
    normal = normal_entry(entry)
    return wanted.startswith(normal) if normal.endswith("/") else wanted == normal


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


def _listed(allowed: Sequence[str]) -> str:
    shown = ", ".join(allowed[:_SHOWN])
    return f"{shown} and {len(allowed) - _SHOWN} more" if len(allowed) > _SHOWN else shown
