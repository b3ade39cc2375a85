"""An adapter over a loaded model: fetched, verified, held against the base model that it was learned beside, attached.

It becomes a `Model` of its own, with its own tokenizer, labels and head over the engine that all of them share. Which
base model an adapter needs is told by a digest: that of the files of the version in service, if the adapter was trained
on that; or that of the base model beside which the version in service was itself learned with LoRA.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from luthier_api.artifact_files import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_DOCUMENT_FILE,
    ADAPTER_FOLDER,
    ADAPTER_WEIGHTS_FILE,
    SERVING_DOCUMENT_FILE,
    TOKENIZER_FILE,
    is_model_file,
)
from luthier_api.documents import AdapterConfig, AdapterDocument, RevisionConfig
from luthier_api.reasons import Reason
from luthier_artifacts import Manifest, tree_digest
from luthier_serving.compute.engines import AdaptableEngine
from luthier_serving.compute.loading import cache_folder, fetch
from luthier_serving.compute.model import Model, read_document
from luthier_serving.errors import LoadError
from luthier_serving.tasks import OUTPUTS

_ADAPTER_FILES = {
    f"{ADAPTER_FOLDER}/{name}" for name in (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, ADAPTER_DOCUMENT_FILE)
}
_NEEDED = {SERVING_DOCUMENT_FILE, TOKENIZER_FILE, *_ADAPTER_FILES}

OnComputeThread = Callable[[Callable[[], Model]], Model]


def load_adapter(
    base: Model, revision: RevisionConfig, adapter: AdapterConfig, attached_as: str, compute: OnComputeThread
) -> Model:
    """Return the model that an adapter makes of a loaded one. Blocks; the loaded one answers meanwhile.

    Args:
        base: the model of the revision.
        revision: where it came from, and how storage is reached.
        adapter: which version.
        attached_as: its name in the engine, another than that of any other adapter there.
        compute: runs a function on the thread that computes `base`, and returns its result.

    Raises:
        LoadError: it cannot be fetched, or does not fit.
    """
    engine = base.engine
    if not isinstance(engine, AdaptableEngine):
        raise LoadError(Reason.INVALID_SPEC, "Adapters are computed by engine torch alone; set runtime.engine: torch.")
    adaptable: AdaptableEngine = engine
    with tempfile.TemporaryDirectory(prefix="adapter-", dir=cache_folder()) as work:
        folder, base_folder = Path(work) / "adapter", Path(work) / "base"
        manifest = fetch(revision, adapter.uri, folder, digest=adapter.digest, choose=_NEEDED.intersection)
        about = _read_about(folder)
        if about is None:
            raise LoadError(
                Reason.INVALID_MODEL,
                f"Version {adapter.version} has no {ADAPTER_FOLDER}/{ADAPTER_DOCUMENT_FILE}; name a version of a "
                "FineTuneJob with method LoRA or QLoRA.",
            )
        document = read_document(folder)
        if OUTPUTS[document.task].per_token != OUTPUTS[base.info.task].per_token:
            raise LoadError(
                Reason.INVALID_MODEL,
                f"The adapter's task is {document.task} and that of the version in service {base.info.task}: one "
                "labels words and the other texts, so they cannot share a model.",
            )
        of_base = fetch(
            revision,
            revision.model_uri,
            base_folder,
            digest=revision.digest,
            choose=_ADAPTER_FILES.intersection,
        )
        without = _updates_of_base(about, of_base, base_folder)
        files = folder / ADAPTER_FOLDER
        like = base if manifest.file(TOKENIZER_FILE) == of_base.file(TOKENIZER_FILE) else None

        def attach() -> Model:
            view = adaptable.attach(attached_as, files, without)
            try:
                return Model(
                    folder,
                    document,
                    view,
                    version=adapter.version,
                    digest=adapter.digest,
                    max_tokens=base.max_tokens,
                    like=like,
                )
            except BaseException:
                adaptable.detach(attached_as)
                raise

        return compute(attach)


def _updates_of_base(about: AdapterDocument, manifest: Manifest, folder: Path) -> Path | None:
    """Return the folder of the updates that the version's weights contain and the adapter's replace; None: of none."""
    digest = tree_digest(entry for entry in manifest.files if is_model_file(entry.path))
    if about.base_model_digest == digest:
        return None
    own = _read_about(folder)
    if own and own.base_model_digest == about.base_model_digest:
        return folder / ADAPTER_FOLDER
    beside = f"{own.base_model_uri} ({own.base_model_digest})" if own else "no base model with LoRA"
    raise LoadError(
        Reason.INVALID_MODEL,
        f"The adapter was learned beside {about.base_model_uri} ({about.base_model_digest}). The version in service "
        f"was learned beside {beside}, and its own files have the digest {digest}; train the adapter on one of these.",
    )


def _read_about(folder: Path) -> AdapterDocument | None:
    path = folder / ADAPTER_FOLDER / ADAPTER_DOCUMENT_FILE
    if not path.is_file():
        return None
    try:
        return AdapterDocument.from_json(path.read_bytes())
    except ValidationError as error:
        raise LoadError(
            Reason.INVALID_MODEL, f"This server cannot read the adapter's {ADAPTER_DOCUMENT_FILE}: {error}"
        ) from error
