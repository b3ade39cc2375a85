"""Brings a run's inputs to local folders, and says by digest what they are.

The one place where the trainer reads from outside: storage through `luthier_artifacts`, hf:// through huggingface_hub.
It judges nothing that it brings; that is for `readers` and `base_model`.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from luthier_api.documents import Access, RunDocument, credential_env
from luthier_api.keys import digest_of
from luthier_api.training import DataFile
from luthier_artifacts import (
    Registry,
    StorageConfig,
    StorageDenied,
    StorageUnavailable,
    describe_folder,
    fetch_files,
    fetch_tree,
    open_registry,
    tree_digest,
)
from luthier_trainer.data.readers import SourceFile, format_of, is_known
from luthier_trainer.formats.prepared import PartName
from luthier_trainer.models.base_model import is_wanted
from luthier_trainer.runtime.errors import InputNotFound, InvalidSpec

HUB_SCHEME = "hf://"


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


@dataclass(frozen=True)
class FetchedModel:
    """The base model's files, the digest over them, and the commit where a hub has one."""

    folder: Path
    digest: str
    revision: str | None


def open_output(run: RunDocument) -> Registry:
    """Open the registry that the run publishes to."""
    output = run.spec.output
    return open_registry(output.uri, output.name, StorageConfig.from_access(run.output_access))


def fetch_dataset(run: RunDocument, folder: Path) -> FetchedDataset:
    """Download the dataset.

    Raises:
        StorageError: if it does not exist or cannot be read.
        InvalidSpec: if the name of a file says no format that is known.
    """
    dataset = run.spec.dataset
    config = StorageConfig.from_access(_or_output(run, run.dataset_access))
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


def fetch_model(run: RunDocument, folder: Path, cache: Path) -> FetchedModel:
    """Download the base model's files; of a hub's model, of the commit that the revision stands for.

    Raises:
        StorageError: if storage or the hub refuses or does not answer.
        InputNotFound: if there is no such model or revision, or the folder holds no model.
    """
    model = run.spec.model
    if model.uri.startswith(HUB_SCHEME):
        revision = run.resolved.model_revision if run.resolved else model.revision
        return _fetch_from_hub(model.uri, revision, run.model_access, folder)
    config = StorageConfig.from_access(_or_output(run, run.model_access))
    tree = fetch_tree(model.uri, folder, config, cache=cache, wanted=is_wanted)
    if not tree.files:
        raise InputNotFound(
            f"{model.uri} holds no file of a model; give the folder that holds config.json and model.safetensors."
        )
    return FetchedModel(folder, tree.digest, None)


def digest_of_model(folder: Path) -> str:
    """Return the digest over the files of a local folder that are the model."""
    return tree_digest(entry for entry in describe_folder(folder) if is_wanted(entry.path))


def _or_output(run: RunDocument, access: Access) -> Access:
    """Where an input names no access of its own, the output's is used (as in the resource)."""
    return run.output_access if access == Access() else access


def _fetch_from_hub(uri: str, revision: str | None, access: Access, folder: Path) -> FetchedModel:
    # Only runs that name a hub pay for this import.
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # Which HTTP library raises differs by release; the hub's own error inherits from that library's.
    http_error = cast(type[Exception], HfHubHTTPError.__bases__[0])

    repository = uri.removeprefix(HUB_SCHEME).strip("/")
    variable = credential_env(access.credentials or "model")["HF_TOKEN"]
    api = HfApi(endpoint=access.endpoint, token=os.environ.get(variable) or os.environ.get("HF_TOKEN") or None)
    try:
        info = api.model_info(repository, revision=revision)
        files = [file.rfilename for file in info.siblings or [] if is_wanted(file.rfilename)]
        api.snapshot_download(repository, revision=info.sha, local_dir=folder, allow_patterns=files)
    except GatedRepoError as error:
        raise StorageDenied(f"{uri} is gated: accept its terms on the hub and give a token as HF_TOKEN.") from error
    except RevisionNotFoundError as error:
        raise InputNotFound(f"{uri} has no revision {revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise InputNotFound(f"{uri} does not exist, or is private and HF_TOKEN does not open it.") from error
    except HFValidationError as error:
        raise InvalidSpec(f"{uri} does not name a model; write hf://owner/name.") from error
    except (http_error, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise StorageUnavailable(f"The hub did not give {uri}: {str(error).splitlines()[0]}") from error
    return FetchedModel(folder, digest_of_model(folder), info.sha)
