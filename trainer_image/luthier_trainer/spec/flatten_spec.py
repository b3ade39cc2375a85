"""The spec as settings with dotted names: what the report lists and what a tracking server is told. Pure."""

from collections.abc import Iterator
from typing import Any

from luthier_api.training import TrainingSpec

_ACCESS = {"secretRef", "endpoint", "region", "caBundle", "forcePathStyle"}


def flatten_spec(spec: TrainingSpec) -> dict[str, str]:
    """Return every value of the spec, defaults too, by its path in the manifest: hyperparameters.learningRate.

    How storage and the tracking server are reached decides nothing, may hold a password, and is left out.
    """
    return {name: value for name, value in _leaves("", spec.to_wire()) if not _is_access(name)}


def _is_access(name: str) -> bool:
    return name == "tracking.mlflow.uri" or not _ACCESS.isdisjoint(name.split("."))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), each)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for number, each in enumerate(value):
            yield from _leaves(f"{path}.{number}", each)
    elif isinstance(value, list):
        yield path, ", ".join(map(str, value))
    else:
        yield path, str(value).lower() if isinstance(value, bool) else str(value)
