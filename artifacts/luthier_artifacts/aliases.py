"""Aliases: names such as `production` that point at a version and are moved by compare-and-swap.

A move says what it replaces, so that of two people who move an alias at once one is told, and neither is overwritten.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from luthier_api.base import Document
from luthier_artifacts.errors import IntegrityError, InvalidUri, ObjectNotFound, PreconditionFailed
from luthier_artifacts.publishing import Version
from luthier_artifacts.store import ObjectStore

_ALIAS = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


class AliasDocument(Document):
    """The document aliases/<alias>.json."""

    version: Version
    moved_at: str
    writer: str


@dataclass(frozen=True)
class Alias:
    """An alias as it was read; pass it to `set_alias` to move it."""

    alias: str
    version: str
    moved_at: str
    etag: str


@dataclass(frozen=True)
class Aliases:
    """The aliases of one model's folder in a store."""

    store: ObjectStore
    name: str

    def get(self, alias: str) -> Alias | None:
        """Return where an alias points, or None when there is none of this name."""
        try:
            document, etag = self._read(alias)
        except ObjectNotFound:
            return None
        return Alias(alias, document.version, document.moved_at, etag)

    def put(self, alias: str, version: str, *, replacing: Alias | None, moved_at: str) -> Alias:
        """Point an alias at a version, if it still points where `replacing` says.

        Raises:
            PreconditionFailed: if somebody else moved or made it first.
        """
        document = AliasDocument(version=version, moved_at=moved_at, writer=secrets.token_hex(8))
        try:
            etag = self.store.write(
                self._key(alias),
                document.to_json().encode(),
                if_absent=replacing is None,
                if_match=replacing.etag if replacing else None,
            )
        except PreconditionFailed:
            etag = self._etag_if_ours(alias, document)
        return Alias(alias, version, moved_at, etag)

    def all(self) -> Iterator[Alias]:
        """Return every alias."""
        folder = f"{self.name}/aliases"
        for info in self.store.list(folder):
            alias = info.key.removeprefix(f"{folder}/").removesuffix(".json")
            found = self.get(alias)
            if found:
                yield found

    def _etag_if_ours(self, alias: str, document: AliasDocument) -> str:
        """After a refused write: the answer to one that succeeded may have been lost and the request sent again."""
        try:
            current, etag = self._read(alias)
        except ObjectNotFound:
            current, etag = None, ""
        if current != document:
            now = f"points at {current.version}" if current else "is gone"
            raise PreconditionFailed(f"The alias {alias} was moved by somebody else and {now}; read it again.")
        return etag

    def _read(self, alias: str) -> tuple[AliasDocument, str]:
        key = self._key(alias)
        data, etag = self.store.read(key)
        try:
            return AliasDocument.from_json(data), etag
        except ValidationError:
            raise IntegrityError(f"{self.store.uri}/{key} is damaged; delete it and set the alias again.") from None

    def _key(self, alias: str) -> str:
        if not _ALIAS.fullmatch(alias):
            raise InvalidUri(f"{alias!r} is no alias; use lower-case letters, digits, '-' and '.', at most 63.")
        return f"{self.name}/aliases/{alias}.json"
