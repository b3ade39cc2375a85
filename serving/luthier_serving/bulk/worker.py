"""One worker of a batch prediction, from its document to its result.

    the input as it is now -> key -> found: nothing to do
      -> plan: rows of each file, counted by whoever comes first
      -> for each shard of mine that is not in storage: read, predict, write the part
      -> whoever finds all parts there: the manifest

Workers share the shards by number, and share nothing else; each may be killed at any point and begun again.
"""

import itertools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from luthier_api.documents import Access, BulkDocument, Predicted, RevisionConfig
from luthier_api.keys import digest_of
from luthier_artifacts import StorageConfig, open_store
from luthier_serving.bulk.output_folder import Manifest, Note, OutputFolder, Plan, now
from luthier_serving.bulk.part_files import check_format, write_part
from luthier_serving.bulk.predictions import check_columns, predict_rows
from luthier_serving.bulk.progress import Progress
from luthier_serving.bulk.source import InputFile, Source, changed
from luthier_serving.compute.engines import select_engine
from luthier_serving.compute.loading import load_model
from luthier_serving.compute.model import Model

# How long a request waits for other keys where those in the Secret have expired.
WAIT_VARIABLE = "LUTHIER_CREDENTIALS_WAIT_S"
DEFAULT_WAIT_S = 1800.0

# How often to list what other workers have done: a page for each thousand parts.
LOOK_S = 5.0

log = logging.getLogger("luthier_serving.bulk")


@dataclass
class Worker:
    """One of a run's workers.

    Attributes:
        document: what is to be done.
        index: which worker this is, from 0.
        work: an empty folder on the disk.
        progress: is told how far all workers are.
        load: loads the model, once some shard needs it.
    """

    document: BulkDocument
    index: int
    work: Path
    progress: Progress
    load: Callable[[RevisionConfig], Model] = load_model
    _told_at: float = 0.0

    def run(self) -> Predicted:
        """Do this worker's share; return what there is then.

        Raises:
            StorageError, ReadError, LoadError, BulkError: with one sentence of what is wrong and what to do.
        """
        document = self.document
        check_format(document.output_format)
        source = Source(document, _storage(document.input_access), self.work)
        files = source.files
        root = open_store(document.output_uri, _storage(document.output_access))
        folder = OutputFolder(root, results_key(document, files), document.output_format)
        folder.prove()
        self._check_unchanged(folder, files)
        if manifest := folder.manifest():
            log.info("%s has all predictions; nothing is computed", folder.uri)
            return _predicted(folder, manifest, reused=True)
        plan = self._plan(source, files, folder)
        self._compute(source, plan, folder)
        return self._finished(plan, folder)

    def _check_unchanged(self, folder: OutputFolder, files: list[InputFile]) -> None:
        """Check that the input is what the run's first worker saw.

        Raises:
            InputChanged: it is not.
        """
        if self.document.origin is None:
            return
        origin = self.document.origin
        first = folder.begin(digest_of([origin.uid, origin.run, self.document.begun])[:16], files)
        if first != files:
            names = sorted({each.name for each in [*first, *files] if (each in first) != (each in files)})
            raise changed(f"{self.document.input_uri} ({', '.join(names[:3])})")

    def _plan(self, source: Source, files: list[InputFile], folder: OutputFolder) -> Plan:
        plan = folder.plan()
        if plan is None:
            self.progress.enter("Downloading")
            log.info("counting the rows of %d files", len(files))
            plan = folder.agree(Plan(files=files, counts=source.counts(), shard_rows=self.document.shard_rows))
        log.info("%d rows in %d shards", plan.rows, plan.shards)
        return plan

    def _compute(self, source: Source, plan: Plan, folder: OutputFolder) -> None:
        notes = folder.notes()
        self.progress.begin(plan.shards, plan.rows, len(notes), _rows(notes))
        mine = [shard for shard in range(self.index, plan.shards, self.document.workers) if shard not in notes]
        missing = self._without_stored(mine, plan, folder)
        if not missing:
            return
        model = self._model
        at = missing[0] * plan.shard_rows
        rows = source.rows(plan.counts, at)
        for shard in missing:
            first, count = shard * plan.shard_rows, plan.rows_of(shard)
            next(itertools.islice(rows, first - at, first - at), None)
            texts = list(itertools.islice(rows, count))
            at = first + count
            if len(texts) != count:
                raise changed(self.document.input_uri)
            predictions = predict_rows(model, texts, first, self.document)
            errors = sum("error" in each for each in predictions)
            content = write_part(predictions, self.document.output_format, model.info.task)
            folder.store(shard, content, count, errors)
            self._tell(folder)
            log.info("shard %d is stored: %d rows, %d of them with an error", shard, count, errors)

    def _without_stored(self, shards: list[int], plan: Plan, folder: OutputFolder) -> list[int]:
        """Return those of these shards that must be computed; note the parts of those that died before they could."""
        stored = folder.stored().intersection(shards)
        for shard in sorted(stored):
            log.info("shard %d was stored by a worker that has ended", shard)
            folder.adopt(shard, plan.rows_of(shard))
        return [shard for shard in shards if shard not in stored]

    def _tell(self, folder: OutputFolder) -> None:
        """Look now and then what all workers have done."""
        if time.monotonic() - self._told_at >= LOOK_S:
            notes = folder.notes()
            self.progress.finish(len(notes), _rows(notes))
            self._told_at = time.monotonic()

    def _finished(self, plan: Plan, folder: OutputFolder) -> Predicted:
        """Write the manifest if all parts are there, those of other workers too."""
        notes = folder.notes()
        self.progress.finish(len(notes), _rows(notes))
        if len(notes) < plan.shards:
            log.info("all of this worker's shards are stored; %d of others are not yet", plan.shards - len(notes))
            return Predicted(output=folder.uri, rows=plan.rows, shards=plan.shards, complete=False)
        manifest = self._manifest(plan, folder, notes)
        folder.finish(manifest)
        self.progress.enter("Done")
        log.info("%s is complete: %d rows", folder.uri, manifest.rows)
        return _predicted(folder, manifest, reused=False)

    def _manifest(self, plan: Plan, folder: OutputFolder, notes: dict[int, Note]) -> Manifest:
        model = self.document.model
        return Manifest(
            model_uri=model.model_uri,
            version=model.version,
            digest=model.digest,
            input_uri=self.document.input_uri,
            files=plan.files,
            rows=_rows(notes),
            errors=sum(note.errors for note in notes.values()),
            parts=folder.parts(notes, plan.shard_rows),
            created_at=now(),
        )

    @cached_property
    def _model(self) -> Model:
        model = self.load(self.document.model)
        check_columns(model, self.document)
        return model


def _rows(notes: dict[int, Note]) -> int:
    return sum(note.rows for note in notes.values())


def results_key(document: BulkDocument, files: list[InputFile]) -> str:
    """Return the hash of all that decides the predictions; where things lie, and who computes them, is not in it."""
    model = document.model
    return digest_of(
        {
            "digest": model.digest,
            "engine": select_engine(model.engine, gpus=model.gpus_per_replica),
            "files": [each.to_wire() for each in files],
            "columns": [
                document.text_columns or document.text_column,
                document.text_pair_column,
                document.id_column,
                document.format.said(),
            ],
            "output": [document.output_format, document.include_text],
            "limits": [document.shard_rows, document.max_text_characters],
        }
    )


def _predicted(folder: OutputFolder, manifest: Manifest, *, reused: bool) -> Predicted:
    return Predicted(
        output=folder.uri,
        rows=manifest.rows,
        errors=manifest.errors,
        shards=len(manifest.parts),
        complete=True,
        reused=reused,
    )


def _storage(access: Access) -> StorageConfig:
    """Return how storage is reached; requests wait for new keys where some may come."""
    config = StorageConfig.from_access(access)
    if config.credentials_dir is None:
        return config
    return replace(config, renewal_wait_s=float(os.environ.get(WAIT_VARIABLE, DEFAULT_WAIT_S)))
