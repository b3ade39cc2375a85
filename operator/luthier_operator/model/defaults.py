"""What the operator's settings decide about pods and timing, as a value that plan and manifests are given.

Pure: `settings` builds it from the environment. Fields of a resource go before these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PodResources:
    """Requests and limits of a container."""

    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Defaults:
    """Images, resources and intervals where a resource names none."""

    trainer_image: str
    server_image: str
    image_pull_policy: str = "IfNotPresent"
    prepare: PodResources = PodResources({"cpu": "250m", "memory": "512Mi"}, {"memory": "2Gi"})
    train: PodResources = PodResources({"cpu": "1", "memory": "2Gi"}, {"memory": "8Gi"})
    serve: PodResources = PodResources({"cpu": "500m", "memory": "1Gi"}, {"memory": "2Gi"})
    serve_head: PodResources = PodResources({"cpu": "250m", "memory": "1280Mi"}, {"memory": "2Gi"})
    autoscaler: PodResources = PodResources({"cpu": "50m", "memory": "128Mi"}, {"cpu": "500m", "memory": "512Mi"})
    progress_interval_s: float = 10.0
    drain_s: float = 15.0
    settle_s: float = 2.0
    kuberay_retry_s: float = 15.0
    kueue_retry_s: float = 15.0
    refused_retry_s: float = 30.0
    """When an object that the cluster refused is sent again."""
    train_grace_s: int = 120
    ray_version: str = "2.60.0"
    assign_user: bool = True
    """Whether pods name a uid; some clusters, such as OpenShift, assign one and refuse others."""
    pod_env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of every pod, such as proxies."""
    model_cache_claim: str = ""
    """PersistentVolumeClaim of each namespace that is the cache of base models; empty: there is none."""
    allowed_images: tuple[str, ...] = ()
    """Images that a resource may name: whole references, or prefixes that end in `/`. Empty allows all."""


@dataclass(frozen=True)
class LeaseTerms:
    """Times of the leader election. The deadline ends before others may think the Lease abandoned."""

    duration_s: int = 10
    """How long others leave a Lease alone that is not renewed."""
    deadline_s: float = 7.0
    """How long after the last renewal its holder may still write."""
    renew_s: float = 2.0
    """How often its holder renews it."""
    poll_s: float = 1.0
    """How often the others look at it."""
