"""The three kinds of resource, as the API server names them, and a resource as it was read.

A `Resource` keeps the raw object, which is what `-o json` prints, beside typed views of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luthier_api import API_VERSION
from luthier_api.base import ApiModel
from luthier_api.batchprediction import BatchPredictionSpec, BatchPredictionStatus
from luthier_api.conditions import Condition, ResourceStatus, find_condition
from luthier_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from luthier_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from luthier_api.reasons import ConditionType

Raw = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of resource."""

    name: str
    plural: str
    short: str
    spec: type[ApiModel]

    @property
    def label(self) -> str:
        """Label of a resource's pods and Jobs, whose value is its name."""
        return f"luthier.dev/{self.name.lower()}"


FINETUNEJOB = Kind("FineTuneJob", "finetunejobs", "ftj", FineTuneJobSpec)
MODELDEPLOYMENT = Kind("ModelDeployment", "modeldeployments", "mdep", ModelDeploymentSpec)
BATCHPREDICTION = Kind("BatchPrediction", "batchpredictions", "bp", BatchPredictionSpec)
KINDS = (FINETUNEJOB, MODELDEPLOYMENT, BATCHPREDICTION)


def kind_names(conjunction: str) -> str:
    """Return the names of all kinds as a list in a sentence."""
    *others, last = (kind.name for kind in KINDS)
    return f"{', '.join(others)} {conjunction} {last}"


@dataclass(frozen=True)
class Resource:
    """One resource as it was read."""

    kind: Kind
    raw: Raw

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.raw["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.raw["metadata"].get("namespace", ""))

    @property
    def title(self) -> str:
        """What it is called in sentences."""
        return f"{self.kind.name} {self.name}"

    @property
    def generation(self) -> int:
        """Generation of its spec."""
        return int(self.raw["metadata"].get("generation", 0))

    @property
    def annotations(self) -> Mapping[str, str]:
        """Its annotations."""
        return self.raw["metadata"].get("annotations") or {}

    @property
    def spec(self) -> Raw:
        """Its spec, with the defaults that the API server wrote."""
        return dict(self.raw.get("spec") or {})

    @property
    def status(self) -> ResourceStatus:
        """What the status of every kind has."""
        return ResourceStatus.model_validate(self.raw.get("status") or {})

    @property
    def job_status(self) -> FineTuneJobStatus:
        """The status of a FineTuneJob."""
        return FineTuneJobStatus.model_validate(self.raw.get("status") or {})

    @property
    def deployment_status(self) -> ModelDeploymentStatus:
        """The status of a ModelDeployment."""
        return ModelDeploymentStatus.model_validate(self.raw.get("status") or {})

    @property
    def batch_status(self) -> BatchPredictionStatus:
        """The status of a BatchPrediction."""
        return BatchPredictionStatus.model_validate(self.raw.get("status") or {})

    @property
    def observed(self) -> bool:
        """Whether the operator has seen the present spec."""
        return self.status.observed_generation == self.generation

    def condition(self, type_: ConditionType) -> Condition | None:
        """Return a condition, if there is one."""
        return find_condition(self.status.conditions, type_)

    def is_true(self, type_: ConditionType) -> bool:
        """Tell whether a condition holds for the present spec."""
        found = self.condition(type_)
        return self.observed and found is not None and found.status == "True"

    @property
    def follows(self) -> str | None:
        """Name of the FineTuneJob whose versions a ModelDeployment serves, or a BatchPrediction predicts with."""
        reference = self.spec.get("model", {}).get("fineTuneJobRef")
        return str(reference["name"]) if reference else None


def manifest_of(kind: Kind, name: str, spec: Raw) -> Raw:
    """Return a manifest."""
    return {"apiVersion": API_VERSION, "kind": kind.name, "metadata": {"name": name}, "spec": spec}
