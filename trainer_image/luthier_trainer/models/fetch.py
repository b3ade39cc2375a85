"""Downloads the base model's files, from storage or a hub, and identifies them by a digest.

Judges nothing that it downloads; that is for `base_model`.
"""

from dataclasses import dataclass
from pathlib import Path

from luthier_api.documents import RunDocument
from luthier_artifacts import describe_folder, fetch_tree, tree_digest
from luthier_trainer.models.base_model import is_wanted
from luthier_trainer.runtime.errors import InputNotFound
from luthier_trainer.runtime.hub import HUB_SCHEME, HubRepository
from luthier_trainer.runtime.storage import input_storage


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
    if model.uri.startswith(HUB_SCHEME):
        revision = run.resolved.model_revision if run.resolved else model.revision
        name = model.uri.removeprefix(HUB_SCHEME).strip("/")
        repository = HubRepository(model.uri, "model", name, revision, run.model_access, "model")
        snapshot = repository.snapshot()
        repository.download(snapshot.commit, [name for name in snapshot.names if is_wanted(name)], folder)
        return FetchedModel(folder, digest_of_model(folder), snapshot.commit)
    tree = fetch_tree(model.uri, folder, input_storage(run, run.model_access), cache=cache, wanted=is_wanted)
    if not tree.files:
        raise InputNotFound(
            f"{model.uri} holds no file of a model; give the folder that holds config.json and model.safetensors."
        )
    return FetchedModel(folder, tree.digest, None)


def digest_of_model(folder: Path) -> str:
    """Return the digest over the files of a local folder that are the model."""
    return tree_digest(entry for entry in describe_folder(folder) if is_wanted(entry.path))
