"""A batch prediction over files in a folder or on S3: rows in, and what comes out as rows again."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier_api.documents import BulkDocument, Origin, Predicted, RevisionConfig
from luthier_artifacts import StorageConfig, open_store
from luthier_serving.answers import ModelInfo, Row, Text
from luthier_serving.bulk.output_folder import Manifest
from luthier_serving.bulk.progress import Progress
from luthier_serving.bulk.worker import Worker
from support.serving.doubles import MODEL, row

DIGEST = "sha256:" + "1" * 64
ORIGIN = Origin(name="reviews", namespace="team", uid="uid-1", generation=1, run="reviews-1")


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class ToldModel:
    """A model whose answer to a text is the text's own; remembers the texts."""

    def __init__(self, info: ModelInfo = MODEL) -> None:
        self.info, self.texts = info, list[Text]()

    def predict(self, texts: Sequence[Text]) -> list[Row]:
        self.texts += texts
        return [row(text) for text in texts]


@dataclass
class Bulk:
    """A place for input and output, and workers that are run there."""

    uri: str
    config: StorageConfig = field(default_factory=StorageConfig)
    model: ToldModel = field(default_factory=ToldModel)

    def put(self, name: str, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        open_store(f"{self.uri}/input", self.config).write(name, data)

    def document(self, **changes: Any) -> BulkDocument:
        fields: dict[str, Any] = {
            "model": RevisionConfig(name="run", model_uri=f"{self.uri}/m/versions/v1", version="v1", digest=DIGEST),
            "input_uri": f"{self.uri}/input/",
            "output_uri": f"{self.uri}/output/",
            "shard_rows": 10,
            "origin": ORIGIN,
            "begun": "2026-01-01T00:00:00Z",
        }
        return BulkDocument(**{**fields, **changes})

    def run(self, work: Path, index: int = 0, progress: Progress | None = None, **changes: Any) -> Predicted:
        work.mkdir(exist_ok=True)
        document = self.document(**changes)
        return Worker(document, index, work, progress or Progress(), lambda _: self.model).run()  # type: ignore[arg-type, return-value]


@dataclass(frozen=True)
class Written:
    """What a reader finds in the folder of a run, by its manifest."""

    uri: str
    config: StorageConfig

    @property
    def manifest(self) -> Manifest:
        content, _ = open_store(self.uri, self.config).read("_manifest.json")
        return Manifest.from_json(content)

    def content(self, name: str) -> bytes:
        store = open_store(self.uri, self.config)
        with store.read_range(name, 0, max(store.stat(name).size, 1)) as body:
            return b"".join(body.chunks)

    @property
    def files(self) -> list[str]:
        """Files that hold data: those whose names do not begin with `_`."""
        found = open_store(self.uri, self.config).list()
        return sorted(info.key for info in found if not info.key.startswith("_"))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, as whoever reads all files of the folder in order finds them."""
        lines = (line for name in self.files for line in gzip.decompress(self.content(name)).decode().splitlines())
        return [json.loads(line) for line in lines]
