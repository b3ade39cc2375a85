"""Which version has which weights, so that other formats and gates are made of them without training again.

weights/<weights key>.json   -> version; written after the version, and only a hint: its manifest counts
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pydantic import ValidationError

from luthier_api.base import Document
from luthier_artifacts.errors import ObjectNotFound
from luthier_artifacts.publishing import Version
from luthier_artifacts.store import ObjectStore

log = logging.getLogger(__name__)


class WeightsDocument(Document):
    """The document weights/<weights key>.json."""

    version: Version


@dataclass(frozen=True)
class WeightsIndex:
    """The records of one model's folder in a store."""

    store: ObjectStore
    name: str

    def get(self, weights_key: str) -> str | None:
        """Return the version that is recorded, or None."""
        key = self._key(weights_key)
        try:
            return WeightsDocument.from_json(self.store.read(key)[0]).version
        except ObjectNotFound:
            return None
        except ValidationError:
            log.warning("%s/%s is damaged and is replaced by the next version of these weights", self.store.uri, key)
            return None

    def put(self, weights_key: str, version: str) -> None:
        """Record a version; of two that are recorded at once either one is right."""
        self.store.write(self._key(weights_key), WeightsDocument(version=version).to_json().encode())

    def _key(self, weights_key: str) -> str:
        return f"{self.name}/weights/{weights_key}.json"
