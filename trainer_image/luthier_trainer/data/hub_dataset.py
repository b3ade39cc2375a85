"""Downloads the files of a data set on a hub: those that a path names, or those of a split."""

import logging
from pathlib import Path
from typing import Any

from luthier_api.documents import Access
from luthier_api.storage import HUB_DATASET
from luthier_api.training import DataFile
from luthier_artifacts import names_matching
from luthier_artifacts.readers.formats import is_known
from luthier_trainer.data.hub_files import CONVERTED, Choice, files_of
from luthier_trainer.formats.prepared import PartName
from luthier_trainer.runtime.errors import InputNotFound, InvalidSpec
from luthier_trainer.runtime.hub import HubRepository, Snapshot

log = logging.getLogger(__name__)

_CARD = "README.md"
_USUAL_SPLIT: dict[PartName, str] = {"train": "train", "eval": "validation", "test": "test"}


def fetch_hub_files(file: DataFile, part: PartName, access: Access, folder: Path) -> list[str]:
    """Download the files that are wanted into a folder, and return their names there, in order.

    Raises:
        StorageError: if the hub refuses or does not answer.
        InputNotFound: if there is no such data set, revision, configuration, split or file.
        InvalidSpec: if the spec leaves open which of several is wanted.
    """
    owner, name, *rest = file.uri.removeprefix(HUB_DATASET).split("/", 2)
    repository = HubRepository(file.uri, "dataset", f"{owner}/{name}", file.revision, access, "dataset")
    snapshot = repository.snapshot()
    path = rest[0] if rest else ""
    if path:
        names = _named(file.uri, path, snapshot)
    else:
        choice = Choice(file.uri, file.config, file.split or _USUAL_SPLIT[part])
        converted = file.revision == CONVERTED
        card = {} if converted else _card(repository, snapshot, folder)
        names = files_of(choice, snapshot.names, card, converted=converted)
        if not names and file.revision is None:
            repository, snapshot, names = _converted(repository, choice)
        if not names:
            raise InputNotFound(
                f"{file.uri} holds no .csv, .tsv, .jsonl or .parquet file; try revision: {CONVERTED}, where the hub "
                "converts data sets to Parquet, or copy it to s3://."
            )
    log.info("%s is commit %s; it is read from %s", file.uri, snapshot.commit, ", ".join(names[:10]))
    repository.download(snapshot.commit, names, folder)
    return names


def _named(uri: str, path: str, snapshot: Snapshot) -> list[str]:
    if "*" in path.rpartition("/")[0]:
        raise InvalidSpec(f"{uri} has * in the name of a folder; it may stand in the last part only.")
    if path.endswith("/"):
        names = [name for name in names_matching(snapshot.names, path) if is_known(name)]
    else:
        names = names_matching(snapshot.names, path)
    if not names:
        raise InputNotFound(f"{uri} names no file that can be used; check the path and the revision.")
    return names


def _card(repository: HubRepository, snapshot: Snapshot, folder: Path) -> dict[str, Any]:
    """Return the front matter of the data set's card; nothing if there is none."""
    if _CARD not in snapshot.names:
        return {}
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError

    repository.download(snapshot.commit, [_CARD], folder)
    try:
        found = metadata_load(folder / _CARD)
    except (ValueError, YAMLError) as error:
        raise InvalidSpec(
            f"The card of {repository.uri} cannot be read ({str(error).splitlines()[0]}); name the files by their path."
        ) from None
    finally:
        (folder / _CARD).unlink(missing_ok=True)
    return found or {}


def _converted(repository: HubRepository, choice: Choice) -> tuple[HubRepository, Snapshot, list[str]]:
    """Look where the hub converts data sets; what cannot be found there is as if it did not."""
    there = repository.at(CONVERTED)
    try:
        snapshot = there.snapshot()
    except InputNotFound:
        return repository, Snapshot("", []), []
    return there, snapshot, files_of(choice, snapshot.names, {}, converted=True)
