"""Downloads the dataset's files, and identifies them by a digest. What is in them is for `readers`."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from luthier_api.documents import RunDocument
from luthier_api.keys import digest_of
from luthier_api.training import DataFile
from luthier_artifacts import fetch_files
from luthier_trainer.data.readers.formats import SourceFile, format_of, is_known
from luthier_trainer.formats.prepared import PartName
from luthier_trainer.runtime.storage import input_storage


@dataclass(frozen=True)
class FetchedDataset:
    """The dataset's files.

    Attributes:
        files: of each part, in order.
        names: how to speak of each part's files together.
        digest: over their bytes, formats and order; where they lie and what they are called is not in it.
    """

    files: dict[PartName, list[SourceFile]]
    names: dict[PartName, str]
    digest: str


def fetch_dataset(run: RunDocument, folder: Path) -> FetchedDataset:
    """Download the dataset.

    Raises:
        StorageError: if it does not exist or cannot be read.
        InvalidSpec: if the name of a file says no format that is known.
    """
    dataset = run.spec.dataset
    config = input_storage(run, run.dataset_access)
    wanted: dict[PartName, DataFile | None] = {"train": dataset.train, "eval": dataset.eval, "test": dataset.test}
    files: dict[PartName, list[SourceFile]] = {}
    names: dict[PartName, str] = {}
    digests: dict[PartName, list[tuple[str, str]]] = {}
    for part, file in wanted.items():
        if not file:
            continue
        # What an earlier attempt left may be of other files.
        shutil.rmtree(folder / part, ignore_errors=True)
        found = fetch_files(file.uri, folder / part, config, wanted=is_known).files
        digests[part] = [(format_of(name), entry.sha256) for name, entry in found.items()]
        files[part] = [SourceFile(folder / part / name, name) for name in found]
        names[part] = _last_part(file.uri)
    return FetchedDataset(files, names, f"sha256:{digest_of(digests)}")


def _last_part(uri: str) -> str:
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    return f"{name}/" if uri.endswith("/") else name
