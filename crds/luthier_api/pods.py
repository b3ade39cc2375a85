"""The few pod settings that a user may choose. A full PodTemplate would be beyond what client-side apply can hold."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from luthier_api.base import ApiModel, DnsLabel, ObjectName, Quantity, cel

ResourceName = Annotated[str, Field(max_length=128, pattern=r"^[a-z0-9A-Z]([-a-zA-Z0-9_./]*[a-zA-Z0-9])?$")]
Resources = Annotated[dict[ResourceName, Quantity], Field(max_length=16)]
LabelValue = Annotated[str, Field(max_length=63)]
LabelKey = Annotated[str, Field(max_length=317)]


class ResourceRequirements(ApiModel):
    """CPU and memory of a pod, as in a container."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!(has(self.limits) && 'nvidia.com/gpu' in self.limits)"
                " && !(has(self.requests) && 'nvidia.com/gpu' in self.requests)",
                "GPUs are asked for by gpusPerNode or gpusPerReplica, not in resources",
            )
        )
    )

    requests: Resources = Field(default={}, description="What the scheduler sets aside.")
    limits: Resources = Field(default={}, description="What the pod may not exceed.")


class Toleration(ApiModel):
    """A taint that the pod accepts."""

    key: LabelKey | None = Field(default=None, description="Taint key; unset with operator Exists matches every taint.")
    operator: Literal["Exists", "Equal"] | None = Field(default=None, description="Exists or Equal (the default).")
    value: LabelValue | None = Field(default=None, description="Taint value for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect; unset matches all."
    )
    toleration_seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="How long NoExecute is tolerated."
    )


class Placement(ApiModel):
    """Where pods run and as whom."""

    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(
        default={}, description="Labels that the node must have."
    )
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(
        default=[], description="Taints that the pods accept."
    )
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the pods.")
    service_account_name: ObjectName | None = Field(
        default=None,
        description="ServiceAccount of the pods, for workload identity. Its token is not mounted.",
    )
    image_pull_secrets: Annotated[list[DnsLabel], Field(max_length=8)] = Field(
        default=[], description="Names of Secrets for private registries."
    )
