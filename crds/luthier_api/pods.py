"""The few pod settings that a user may choose. A full PodTemplate would be beyond what client-side apply can hold."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from luthier_api.base import OBJECT_NAME, ApiModel, ObjectName, Quantity, cel

ResourceName = Annotated[str, Field(max_length=128, pattern=r"^[a-z0-9A-Z]([-a-zA-Z0-9_./]*[a-zA-Z0-9])?$")]
Resources = Annotated[dict[ResourceName, Quantity], Field(max_length=16)]
LABEL_KEY = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
LabelKey = Annotated[str, Field(max_length=317, pattern=LABEL_KEY)]


def _each(test: str) -> str:
    """Return the rule that a test holds for every `name` in requests and in limits, which it calls PART."""
    parts = ("self.requests", "self.limits")
    return " && ".join(f"(!has({part}) || {part}.all(name, {test.replace('PART', part)}))" for part in parts)


class ResourceRequirements(ApiModel):
    """CPU and memory of a pod, as in a container."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits)"
                " || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
                "a request must not exceed its limit",
            ),
            (
                _each("name.contains('/') || name.matches('^(cpu|memory|ephemeral-storage|hugepages-.+)$')"),
                "a resource must be cpu, memory, ephemeral-storage or one of a device plugin, such as example.com/nic",
            ),
            (
                _each("!name.contains('/') || quantity(string(PART[name])).isInteger()"),
                "a resource of a device plugin must be a whole number",
            ),
            (
                "!(has(self.limits) && 'nvidia.com/gpu' in self.limits)"
                " && !(has(self.requests) && 'nvidia.com/gpu' in self.requests)",
                "request GPUs by gpusPerNode or gpusPerReplica, not in resources",
            ),
        )
    )

    requests: Resources = Field(default={}, description="What the scheduler reserves for the pod.")
    limits: Resources = Field(default={}, description="What the pod may not exceed.")


class Toleration(ApiModel):
    """A taint that the pod accepts."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
                "give the key of a taint, or operator Exists, which without a key accepts every taint",
            ),
            (
                "!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
                "operator Exists takes no value: remove it, or use operator Equal",
            ),
            (
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerationSeconds applies to effect NoExecute only",
            ),
        )
    )

    key: LabelKey | None = Field(default=None, description="Taint key; unset with operator Exists matches every taint.")
    operator: Literal["Exists", "Equal"] | None = Field(default=None, description="Exists or Equal (the default).")
    value: LabelValue | None = Field(default=None, description="Taint value for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect; unset matches all."
    )
    toleration_seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="How long NoExecute is tolerated."
    )


_RESERVED = "^([^/]*[.])?(luthier[.]dev|ray[.]io|batch[.]kubernetes[.]io)/.*$"
_POD_KEYS = cel(
    (
        f"self.all(key, key.matches('{LABEL_KEY}') && !key.matches('{_RESERVED}'))",
        "write the key of a label or annotation; not of luthier.dev, ray.io or batch.kubernetes.io",
    )
)


class PodMetadata(ApiModel):
    """Labels and annotations for the pods, such as those that switch the injection of a sidecar off."""

    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32, json_schema_extra=_POD_KEYS)] = Field(
        default={}, description="Labels of the pods. Those that Luthier sets itself stay as they are."
    )
    annotations: Annotated[
        dict[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=32, json_schema_extra=_POD_KEYS)
    ] = Field(default={}, description="Annotations of the pods.")


# A name, or as Kubernetes writes it in a pod, an object with a name. Inside it is the name.
SecretName = Annotated[
    ObjectName,
    BeforeValidator(lambda value: value["name"] if isinstance(value, dict) and set(value) == {"name"} else value),
    WithJsonSchema(
        {
            "x-kubernetes-preserve-unknown-fields": True,
            "maxLength": 253,
            "pattern": OBJECT_NAME,
            "properties": {
                "name": {
                    "type": "string",
                    "description": "Name of the Secret.",
                    "maxLength": 253,
                    "pattern": OBJECT_NAME,
                }
            },
            "required": ["name"],
            "maxProperties": 1,
        }
    ),
]


class Placement(ApiModel):
    """Where pods run, and under which identity."""

    node_selector: Annotated[
        dict[LabelKey, LabelValue],
        Field(
            max_length=32,
            json_schema_extra=cel(
                (f"self.all(key, key.matches('{LABEL_KEY}'))", "write the key of a label as kubectl get node shows it")
            ),
        ),
    ] = Field(default={}, description="Labels that the node must have.")
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(
        default=[], description="Taints that the pods accept."
    )
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the pods.")
    service_account_name: ObjectName | None = Field(
        default=None,
        description="ServiceAccount of the pods, for workload identity. Its token is not mounted.",
    )
    image_pull_secrets: Annotated[list[SecretName], Field(max_length=8)] = Field(
        default=[], description="Secrets for private registries: names, or `- name: x` as in a pod."
    )
