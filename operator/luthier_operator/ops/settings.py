"""The operator's settings, from environment variables LUTHIER_*. The chart's values become these.

Parsed once at the start; a missing or malformed one stops the operator with one sentence. Kubernetes and the
development tools set variables of that prefix too, so an unknown one is left alone.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    ValidationError,
    model_validator,
)

from luthier_api.base import OBJECT_NAME
from luthier_operator.model.defaults import Defaults, LeaseTerms, PodResources
from luthier_operator.model.image_reference import normal_entry

PREFIX = "LUTHIER_"


class SettingsError(ValueError):
    """The environment is not acceptable. The message is one sentence for people."""


def _words(value: object) -> object:
    return [word for word in value.replace(",", " ").split() if word] if isinstance(value, str) else value


def _entries(value: tuple[str, ...]) -> tuple[str, ...]:
    for entry in value:
        normal_entry(entry)
    return value


Resources = Json[PodResources] | PodResources
Environment = Json[dict[str, str]] | Mapping[str, str]
_DEFAULTS = Defaults(trainer_image="", server_image="")


class Settings(BaseModel):
    """Every setting, with its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trainer_image: str = Field(min_length=1)
    server_image: str = Field(min_length=1)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    watch_namespaces: Annotated[list[str], BeforeValidator(_words)] = []
    prepare_resources: Resources = _DEFAULTS.prepare
    train_resources: Resources = _DEFAULTS.train
    serve_resources: Resources = _DEFAULTS.serve
    serve_head_resources: Resources = _DEFAULTS.serve_head
    autoscaler_resources: Resources = _DEFAULTS.autoscaler
    progress_interval_s: float = Field(default=_DEFAULTS.progress_interval_s, gt=0)
    report_interval_s: float = Field(default=5.0, gt=0)
    drain_s: float = Field(default=_DEFAULTS.drain_s, ge=0)
    train_grace_s: int = Field(default=_DEFAULTS.train_grace_s, ge=1, le=3600)
    kuberay_retry_s: float = Field(default=_DEFAULTS.kuberay_retry_s, gt=0)
    kueue_retry_s: float = Field(default=_DEFAULTS.kueue_retry_s, gt=0)
    allowed_images: Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_entries)] = (
        _DEFAULTS.allowed_images
    )
    assign_user: bool = _DEFAULTS.assign_user
    pod_env: Environment = _DEFAULTS.pod_env
    model_cache_claim: Annotated[str, Field(pattern=rf"^$|{OBJECT_NAME}", max_length=253)] = _DEFAULTS.model_cache_claim
    lease_name: str = ""
    lease_namespace: str = ""
    pod_name: str = ""
    lease_duration_s: int = Field(default=LeaseTerms.duration_s, ge=1)
    lease_deadline_s: float = Field(default=LeaseTerms.deadline_s, gt=0)
    lease_renew_s: float = Field(default=LeaseTerms.renew_s, gt=0)
    lease_poll_s: float = Field(default=LeaseTerms.poll_s, gt=0)
    shutdown_s: float = Field(default=5.0, ge=0)
    stuck_s: float = Field(default=300.0, gt=0)
    workers: int = Field(default=16, ge=1, le=256)
    request_timeout_s: float = Field(default=30.0, gt=0)
    audit_interval_s: float = Field(default=300.0, gt=0)
    http_host: str = "0.0.0.0"
    http_port: int = Field(default=8081, ge=0, le=65535)
    log_format: Literal["json", "text"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING"] = "INFO"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Parse the variables that begin with LUTHIER_.

        Raises:
            SettingsError: if one is missing or malformed.
        """
        given: dict[str, Any] = {
            name.removeprefix(PREFIX).lower(): value for name, value in environment.items() if name.startswith(PREFIX)
        }
        given = {name: value for name, value in given.items() if name in cls.model_fields}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            message = first["msg"].removeprefix("Value error, ")
            if not first["loc"]:
                raise SettingsError(message) from error
            raise SettingsError(f"{PREFIX}{str(first['loc'][0]).upper()}: {message}") from error

    @model_validator(mode="after")
    def _lease(self) -> Self:
        if self.lease_name and not self.lease_namespace:
            raise ValueError("LUTHIER_LEASE_NAMESPACE is missing: say in which namespace the Lease is")
        if not self.lease_renew_s < self.lease_deadline_s < self.lease_duration_s:
            raise ValueError(
                "LUTHIER_LEASE_RENEW_S must be less than LUTHIER_LEASE_DEADLINE_S, and that less than "
                "LUTHIER_LEASE_DURATION_S"
            )
        return self

    def terms(self) -> LeaseTerms:
        """Return how long is waited for what in the election."""
        return LeaseTerms(self.lease_duration_s, self.lease_deadline_s, self.lease_renew_s, self.lease_poll_s)

    def defaults(self) -> Defaults:
        """Return what plan and manifests are given."""
        return Defaults(
            trainer_image=self.trainer_image,
            server_image=self.server_image,
            image_pull_policy=self.image_pull_policy,
            prepare=self.prepare_resources,
            train=self.train_resources,
            serve=self.serve_resources,
            serve_head=self.serve_head_resources,
            autoscaler=self.autoscaler_resources,
            progress_interval_s=self.progress_interval_s,
            drain_s=self.drain_s,
            train_grace_s=self.train_grace_s,
            kuberay_retry_s=self.kuberay_retry_s,
            kueue_retry_s=self.kueue_retry_s,
            allowed_images=self.allowed_images,
            assign_user=self.assign_user,
            pod_env=dict(self.pod_env),
            model_cache_claim=self.model_cache_claim,
        )
