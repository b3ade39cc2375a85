"""What makes two runs the same.

Five hashes, each over canonical JSON (sorted keys, no white space, decimals in one spelling):

- the *spec hash*: the part of a spec that decides the result. An edit that is reverted comes back to it, so
  `status.versions` answers without a Job. Names of Secrets and endpoints are not in it.
- the *run hash*: the spec hash and all that shapes the run's pods. A failed run is tried again when it changes, for
  instance with more memory or another Secret. It names the Jobs.
- the *run key*: what decides the result with every input resolved to a digest. Equal in every cluster.
- the *weights key*: the run key without what is only made of the trained weights: other formats, other gates.
- the *data key*: what decides the prepared data.

The first two leave out what is as its default: a release that adds a field then neither stops a run nor starts one.
The keys hold every value in full; they are the trainer image's own, and the image is part of the run key.
"""

import hashlib
import json
from typing import Any

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_api.training import DataFile, TrainingSpec

# What does not decide the result: how storage is reached, and names that only say where to put it.
_ACCESS = {"secretRef", "endpoint", "region", "caBundle", "forcePathStyle"}
# Nor does how the run survives and where else it is told.
_CONDUCT = {"checkpoint", "tracking"}
# What a user may change on a run without stopping it.
_LIFECYCLE = {
    "suspend",
    "concurrencyPolicy",
    "ttlSecondsAfterFinished",
    "progressDeadlineSeconds",
    "versionHistoryLimit",
    "deletionPolicy",
}


def digest_of(value: Any) -> str:
    """Return the sha256 hex digest of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _said(spec: FineTuneJobSpec) -> dict[str, Any]:
    """Return the wire form of all that differs from its default."""
    wire: dict[str, Any] = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return wire


def _result_deciding(spec: FineTuneJobSpec) -> dict[str, Any]:
    """Return the result-deciding part of what is said, without how its storage is reached."""
    fields = {field.alias or name for name, field in TrainingSpec.model_fields.items()} - _CONDUCT
    said = {key: value for key, value in _said(spec).items() if key in fields}
    for part in ("model", "dataset", "output"):
        said[part] = {key: value for key, value in said[part].items() if key not in _ACCESS}
    return said


def spec_hash(spec: FineTuneJobSpec, image: str) -> str:
    """Return the hash of what decides a spec's result, with the trainer image that runs it."""
    return digest_of({"spec": _result_deciding(spec), "image": image})


def run_hash(spec: FineTuneJobSpec, image: str, retry: str = "") -> str:
    """Return the hash that names a run: all that its pods are made from, and the user's retry annotation."""
    said = {key: value for key, value in _said(spec).items() if key not in _LIFECYCLE}
    return digest_of({"spec": said, "image": image, "retry": retry})


def _columns(file: DataFile) -> list[Any]:
    """Return what says how a file is read; what came after the first release only where it is set."""
    later = {"textColumns": file.text_columns, "labelColumns": file.label_columns, "format": file.format.said()}
    set_later = {name: value for name, value in later.items() if value}
    columns: list[Any] = [file.text_column, file.text_pair_column, file.label_column, file.label_separator]
    return [*columns, set_later] if set_later else columns


def data_key(spec: TrainingSpec, *, dataset_digest: str, tokenizer_digest: str) -> str:
    """Return the hash of what decides the prepared data: bytes, columns, cleaning, split, labels, tokenizer."""
    dataset = spec.dataset
    columns = {
        name: _columns(file)
        for name, file in (("train", dataset.train), ("eval", dataset.eval), ("test", dataset.test))
        if file
    }
    split = dataset.effective_split()
    return digest_of(
        {
            "task": spec.task,
            "dataset": dataset_digest,
            "columns": columns,
            "preprocessing": dataset.preprocessing.to_wire(),
            "split": split.to_wire() if split else None,
            "labels": spec.labels,
            "labelMap": dataset.label_map,
            "tokenizer": tokenizer_digest,
        }
    )


def run_key(spec: TrainingSpec, *, model_digest: str, data_key: str, image: str | None) -> str:
    """Return the hash of everything that decides the result; where the inputs lie is not in it."""
    made_of_weights = {"evaluation": spec.evaluation.to_wire(), "export": sorted(spec.export)}
    return digest_of(_weights_deciding(spec, model_digest, data_key, image) | made_of_weights)


def weights_key(spec: TrainingSpec, *, model_digest: str, data_key: str, image: str | None) -> str:
    """Return the hash of what decides the trained weights; exports and gates are made of them."""
    return digest_of(_weights_deciding(spec, model_digest, data_key, image))


def _weights_deciding(spec: TrainingSpec, model_digest: str, data_key: str, image: str | None) -> dict[str, Any]:
    return {
        "task": spec.task,
        "model": model_digest,
        "data": data_key,
        "method": spec.method.to_wire(),
        "precision": spec.precision,
        "hyperparameters": spec.hyperparameters.to_wire(),
        "trainingArguments": spec.training_arguments,
        "image": image,
    }
