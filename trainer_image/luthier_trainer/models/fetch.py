"""Downloads the base model's files, from storage or a hub, and identifies them by a digest.

Judges nothing that it downloads; that is for `base_model`. Where the pod is given a cache of models, it is looked for
there first.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from luthier_api.artifact_files import is_model_file
from luthier_api.documents import RunDocument
from luthier_api.keys import digest_of
from luthier_artifacts import StorageConfig, fetch_tree, list_tree
from luthier_trainer.models.base_model import digest_of_model
from luthier_trainer.models.model_cache import ModelCache
from luthier_trainer.runtime.errors import InputNotFound
from luthier_trainer.runtime.hub import HUB_SCHEME, HubRepository
from luthier_trainer.runtime.storage import input_storage

_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class FetchedModel:
    """The base model's files, the digest over them, and the commit where a hub has one."""

    folder: Path
    digest: str
    revision: str | None


def fetch_model(run: RunDocument, folder: Path, cache: Path) -> FetchedModel:
    """Download the base model's files; of a hub's model, of the commit that the revision stands for.

    Raises:
        StorageError: if storage or the hub refuses or does not answer.
        InputNotFound: if there is no such model or revision, or the folder holds no model.
    """
    model = run.spec.model
    shared = ModelCache.of_environment()
    if model.uri.startswith(HUB_SCHEME):
        revision = run.resolved.model_revision if run.resolved else model.revision
        name = model.uri.removeprefix(HUB_SCHEME).strip("/")
        return _of_hub(HubRepository(model.uri, "model", name, revision, run.model_access, "model"), folder, shared)
    config = input_storage(run, run.model_access)
    if shared and model.uri.startswith("s3://"):
        return _of_storage(model.uri, config, folder, cache, shared)
    return FetchedModel(folder, _downloaded(model.uri, config, folder, cache), None)


def _of_hub(repository: HubRepository, folder: Path, shared: ModelCache | None) -> FetchedModel:
    def identity(commit: str) -> str:
        return digest_of(["hub", repository.endpoint, repository.name, commit])

    # A commit is what it is; a hub that does not answer holds nobody up who names one.
    named = repository.revision if _COMMIT.fullmatch(repository.revision or "") else None
    if shared and named and (digest := shared.get(identity(named), folder)):
        return FetchedModel(folder, digest, named)
    snapshot = repository.snapshot()
    if shared and (digest := shared.get(identity(snapshot.commit), folder)):
        return FetchedModel(folder, digest, snapshot.commit)
    repository.download(snapshot.commit, [name for name in snapshot.names if is_model_file(name)], folder)
    digest = digest_of_model(folder)
    if shared:
        shared.put(identity(snapshot.commit), digest, folder)
    return FetchedModel(folder, digest, snapshot.commit)


def _of_storage(uri: str, config: StorageConfig, folder: Path, cache: Path, shared: ModelCache) -> FetchedModel:
    def identity() -> str:
        found = [(info.key, info.etag, info.size) for info in list_tree(uri, config, wanted=is_model_file)]
        return digest_of(["storage", config.endpoint, uri.rstrip("/"), found])

    before = identity()
    if digest := shared.get(before, folder):
        return FetchedModel(folder, digest, None)
    digest = _downloaded(uri, config, folder, cache)
    # Otherwise it is not known which files these are.
    if identity() == before:
        shared.put(before, digest, folder)
    return FetchedModel(folder, digest, None)


def _downloaded(uri: str, config: StorageConfig, folder: Path, cache: Path) -> str:
    tree = fetch_tree(uri, folder, config, cache=cache, wanted=is_model_file)
    if not tree.files:
        raise InputNotFound(
            f"{uri} holds no file of a model; give the folder that holds config.json and model.safetensors."
        )
    return tree.digest
