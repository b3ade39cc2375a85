"""Downloads the dataset's files, and identifies them by a digest. What is in them is for `readers`."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from luthier_api.documents import Access, RunDocument
from luthier_api.keys import digest_of
from luthier_api.storage import HUB_DATASET
from luthier_api.training import DataFile
from luthier_artifacts import IntegrityError, fetch_files, sha256_of
from luthier_artifacts.readers.formats import SourceFile, format_of, is_known
from luthier_trainer.data.hub_dataset import fetch_hub_files
from luthier_trainer.formats.prepared import PartName
from luthier_trainer.runtime.storage import input_storage
from luthier_trainer.runtime.web import WEB_SCHEME, download_file


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
    wanted: dict[PartName, DataFile | None] = {"train": dataset.train, "eval": dataset.eval, "test": dataset.test}
    files: dict[PartName, list[SourceFile]] = {}
    names: dict[PartName, str] = {}
    digests: dict[PartName, list[tuple[str, str]]] = {}
    for part, file in wanted.items():
        if not file:
            continue
        # What an earlier attempt left may be of other files.
        shutil.rmtree(folder / part, ignore_errors=True)
        found = _fetch(run, part, file, folder / part)
        digests[part] = [(format_of(source.name), sha256) for source, sha256 in found]
        files[part] = [source for source, _ in found]
        names[part] = last_part(file.uri)
    return FetchedDataset(files, names, f"sha256:{digest_of(digests)}")


def _fetch(run: RunDocument, part: PartName, file: DataFile, folder: Path) -> list[tuple[SourceFile, str]]:
    """Download the files of one part into a folder; return each with its sha256, in order."""
    config = input_storage(run, run.dataset_access)
    if file.uri.startswith(WEB_SCHEME):
        assert file.sha256
        # An address may be longer than the name of a file.
        source = SourceFile(folder / "download", last_part(file.uri))
        download_file(file.uri, file.sha256, source.path, config.ca_bundle)
        return [(source, file.sha256)]
    if file.uri.startswith(HUB_DATASET):
        # The endpoint and the keys that may be those of the output are of S3.
        access = Access(ca_bundle=str(config.ca_bundle) if config.ca_bundle else None)
        found = {name: sha256_of(folder / name) for name in fetch_hub_files(file, part, access, folder)}
    else:
        tree = fetch_files(file.uri, folder, config, wanted=is_known)
        found = {name: entry.sha256 for name, entry in tree.files.items()}
    for name, sha256 in found.items():
        if file.sha256 and sha256 != file.sha256:
            raise IntegrityError(
                f"{name} has the sha256 {sha256}, and the spec says {file.sha256}; if the file may have changed, look "
                "at it and give its new sha256."
            )
    return [(SourceFile(folder / name, name), sha256) for name, sha256 in found.items()]


def last_part(uri: str) -> str:
    """Return how to speak of what a URI names."""
    path = uri.partition("?")[0] if uri.startswith(WEB_SCHEME) else uri
    name = path.rstrip("/").rsplit("/", 1)[-1]
    return f"{name}/" if path.endswith("/") else name
