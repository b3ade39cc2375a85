"""The resources as the cluster has them, and how their spec and status are parsed.

An object may have been stored under an older schema: what no longer parses becomes an `Unreadable`, which ends in a
condition and never in a crash.
"""

import logging
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from luthier_api.base import ApiModel
from luthier_api.batchprediction import BatchPredictionSpec, BatchPredictionStatus
from luthier_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from luthier_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from luthier_operator.model.views import Meta, Raw

logger = logging.getLogger(__name__)
S = TypeVar("S", bound=ApiModel)


@dataclass(frozen=True)
class FineTuneJobResource:
    """A FineTuneJob as the cluster has it."""

    meta: Meta
    spec: FineTuneJobSpec
    status: FineTuneJobStatus


@dataclass(frozen=True)
class ModelDeploymentResource:
    """A ModelDeployment as the cluster has it."""

    meta: Meta
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus


@dataclass(frozen=True)
class BatchPredictionResource:
    """A BatchPrediction as the cluster has it."""

    meta: Meta
    spec: BatchPredictionSpec
    status: BatchPredictionStatus


class Unreadable(Exception):
    """A spec that this version of the operator cannot read. Its message is one sentence for people."""


def read_spec(model: type[S], raw: Raw) -> S:
    """Parse a spec.

    Raises:
        Unreadable: if it is not one.
    """
    try:
        return model.model_validate(raw["spec"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in ("spec", *first["loc"]))
        raise Unreadable(f"{place}: {first['msg']}. Correct it and apply the resource again.") from error


def read_status(model: type[S], raw: Raw, meta: Meta) -> S:
    """Parse a status; one that cannot be read is made anew, since all that it remembers can be found again."""
    try:
        return model.model_validate(raw.get("status") or {})
    except ValidationError as error:
        logger.warning("the status of %s/%s cannot be read and is made anew: %s", meta.namespace, meta.name, error)
        return model()
