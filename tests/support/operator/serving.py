"""A ModelDeployment's cluster as a dict: remembers what plans apply; Ray Serve, KubeRay and replicas follow."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from luthier_api.conditions import find_condition
from luthier_api.documents import ApiKeysState, ModelState, RevisionCounts, ServerReport
from luthier_api.finetunejob import FineTuneJobStatus, VersionStatus
from luthier_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from luthier_api.reasons import ConditionType
from luthier_api.storage import SecretRef, StorageAccess
from luthier_operator.manifests.rayservice import Layout, read_layout
from luthier_operator.model import names
from luthier_operator.model.actions import Plan
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.resources import ModelDeploymentResource
from luthier_operator.model.routes import RouteView, route_view
from luthier_operator.model.views import (
    ApplicationView,
    FineTuneJobView,
    Meta,
    PodReport,
    PodView,
    RayServiceView,
    Refusal,
)
from luthier_operator.plan.modeldeployment.exposure import Outside
from luthier_operator.plan.modeldeployment.policies import ObservedServing, plan_modeldeployment

DEFAULTS = Defaults(trainer_image="trainer:1", server_image="server:1")
START = datetime(2026, 1, 1, tzinfo=UTC)
FOLLOWING: dict[str, Any] = {"model": {"fineTuneJobRef": {"name": "sentiment"}}}


def version(name: str, *, promotable: bool = True) -> VersionStatus:
    digest = f"sha256:{name[-1] * 64}"
    return VersionStatus(
        version=name, uri=f"s3://models/sentiment/versions/{name}", digest=digest, promotable=promotable,
        spec_hash=name[-1] * 64, run_key=name[-1] * 64, chosen_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


def job(*versions: VersionStatus) -> FineTuneJobView:
    access = StorageAccess(endpoint="http://s3:8333", secret_ref=SecretRef(name="keys"))
    return FineTuneJobView("sentiment", access, FineTuneJobStatus(versions=list(versions), phase="Succeeded"))


class Cluster:
    """Remembers what plans apply, and lets Ray Serve and KubeRay follow: a dict, not an API server.

    KubeRay lags: what it reports is of the configuration that it observed last (`kuberay_observes`). One server replica
    holds a revision, and loads the wanted one when it works.
    """

    def __init__(self, spec: dict[str, Any] | None = None) -> None:
        self.now = START
        self.spec = ModelDeploymentSpec.model_validate(spec or FOLLOWING)
        self.meta = Meta("ModelDeployment", "default", "sentiment", "uid-1", 1)
        self.status = ModelDeploymentStatus()
        self.job: FineTuneJobView | None = job(version("v-a"))
        self.server: RayServiceView | None = None
        self.manifest: dict[str, Any] = {}
        self.applications: dict[str, ApplicationView] = {}
        self.broken: set[str] = set()
        """Versions that do not start."""
        self.held: str | None = None
        """Revision in the server replica's process; None: there is no replica."""
        self.load_failure = ""
        self.replicas = {"pod-1": True}
        """Pods that have had a server replica, and whether they have one now."""
        self.counts: dict[str, RevisionCounts] = {}
        """What the replica has counted in the present window, by version."""
        self.others: list[ServerReport] = []
        """What other replicas say."""
        self.ended: list[ServerReport] = []
        """What replicas said that have ended."""
        self.kuberay = True
        self.refused: Refusal | None = None
        self.pod_event = ""
        self.pods: tuple[PodView, ...] = ()
        self.outside = Outside()
        self.routes: dict[str, dict[str, Any]] = {}
        """Manifests of the ways in, by kind."""
        self.api_keys: ApiKeysState | None = None

    def plan(self) -> Plan:
        resource = ModelDeploymentResource(self.meta, self.spec, self.status)
        observed = ObservedServing(
            self.server,
            self.job,
            self.pods,
            self.reports(),
            self.kuberay,
            pod_event=self.pod_event,
            outside=self.outside,
            refused=self.refused,
            ended=self.ended,
        )
        return plan_modeldeployment(resource, observed, self.now, DEFAULTS)

    def reports(self) -> list[PodReport]:
        """Return what the server replica says; nothing if there is none."""
        others = [PodReport(f"other-{number}", each) for number, each in enumerate(self.others)]
        if self.server is None or self.held is None:
            return others
        layout, models = self.layout, [ModelState(revision=self.held, state="Ready")]
        if self.load_failure:
            models.append(ModelState(revision=layout.stable.name, state="Failed", message=self.load_failure))
        revisions = {a.version: a.name for a in (layout.stable, layout.canary) if a}
        report = ServerReport(
            replica="replica-1",
            ready=True,
            window=layout.window,
            models=models,
            api_keys=self.api_keys,
            counts={revisions[version]: counts for version, counts in self.counts.items() if version in revisions},
        )
        mine = [PodReport(pod, report if there else None) for pod, there in self.replicas.items()]
        return [*mine, *others]

    def carry_out(self, plan: Plan, *, actions: int | None = None) -> None:
        """Carry out the first so many of a plan's writes; all of them if not told."""
        todo: list[Any] = [*plan.deletes, *plan.applies]
        for action in todo[:actions]:
            if action in plan.deletes and action.kind in ("HTTPRoute", "Ingress"):
                self._set_routes([each for each in self.outside.routes if each.uid != action.uid])
                del self.routes[action.kind]
            elif action in plan.deletes:
                self.server, self.applications, self.held = None, {}, None
            elif action.manifest["kind"] == "RayService":
                self._apply(action.manifest)
            elif action.manifest["kind"] in ("HTTPRoute", "Ingress"):
                self._apply_route(action.manifest)
        if plan.status is not None and (actions is None or actions > len(todo)):
            self.status = ModelDeploymentStatus.model_validate(plan.status)

    def _apply_route(self, manifest: dict[str, Any]) -> None:
        kind = manifest["kind"]
        self.routes[kind] = manifest
        self.judge(kind, {})

    def judge(self, kind: Any, status: dict[str, Any]) -> None:
        """A controller writes the status of a way in."""
        metadata = {**self.routes[kind]["metadata"], "uid": f"uid-{kind}", "generation": 1}
        view = route_view(kind, {**self.routes[kind], "metadata": metadata, "status": status})
        self._set_routes([*(each for each in self.outside.routes if each.kind != kind), view])

    def _set_routes(self, routes: list[RouteView]) -> None:
        self.outside = replace(self.outside, routes=tuple(routes))

    def _apply(self, manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        config = manifest["spec"]["serveConfigV2"]
        found = [entry["name"] for entry in json.loads(config)["applications"]]
        self.applications = {n: self.applications.get(n, ApplicationView("DEPLOYING", "")) for n in found}
        annotations = manifest["metadata"]["annotations"]
        changed: dict[str, Any] = {
            "serve_config": config,
            "spec_hash": annotations[names.SPEC_HASH],
            "cluster_hash": annotations[names.CLUSTER_HASH],
            "previous": annotations.get(names.PREVIOUS, ""),
        }
        if self.server:
            self.server = replace(self.server, generation=self.server.generation + 1, **changed)
            return
        self.server = RayServiceView(
            name="sentiment", uid="ray-1", owner_uid="uid-1", deleting=False, generation=1, observed_generation=0,
            serving=False, upgrading=False, applications={}, invalid=None, workers=1, ready_workers=1, **changed,
        )  # fmt: skip

    def ray_works(self) -> None:
        """Every application that can, runs; the replica holds what it is to hold; KubeRay reports it."""
        bad = ApplicationView("DEPLOY_FAILED", "ray.x: LoadError: IntegrityError: one byte differs.\n  at z")
        for name in self.applications:
            self.applications[name] = ApplicationView("RUNNING", "")
        if self.server and self.applications:
            layout = self.layout
            if layout.canary and layout.canary.name in self.applications and layout.canary.version in self.broken:
                self.applications[layout.canary.name] = bad
            if layout.stable.version not in self.broken:
                self.held, self.load_failure = layout.stable.name, ""
            elif self.held is None:
                self.applications[names.SERVER] = bad
            else:
                self.load_failure = "IntegrityError: one byte differs."
        self.kuberay_observes()

    def kuberay_observes(self) -> None:
        """KubeRay reports what the applications do, and that this is of the newest configuration."""
        if self.server:
            up = self.applications[names.SERVER].status == "RUNNING"
            seen = self.server.generation
            self.server = replace(
                self.server, applications=dict(self.applications), serving=up, observed_generation=seen
            )

    def settle(self, steps: int = 14) -> None:
        for _ in range(steps):
            self.carry_out(self.plan())
            self.ray_works()
            self.now += timedelta(seconds=20)

    @property
    def layout(self) -> Layout:
        """What is on the server."""
        assert self.server
        found = read_layout(self.server.serve_config, self.server.previous)
        assert found
        return found

    def weights(self) -> dict[str, int]:
        """Return {version: weight} as the RayService has it."""
        layout = self.layout
        versions = {a.name: a.version for a in (layout.stable, layout.canary) if a}
        return {versions[name]: weight for name, weight in layout.weights.items()}

    def condition(self, type_: ConditionType) -> tuple[str, str, str] | None:
        found = find_condition(self.status.conditions, type_)
        return (found.status, found.reason, found.message) if found else None


def serving(*versions: VersionStatus, spec: dict[str, Any] | None = None) -> Cluster:
    cluster = Cluster(spec)
    cluster.job = job(*versions)
    cluster.settle()
    return cluster
