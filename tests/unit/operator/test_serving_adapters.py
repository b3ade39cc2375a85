"""Adapters of a ModelDeployment: what the server is told of them, and what is said of how they are."""

import json
from typing import Any

import pytest

from luthier_api.documents import AdapterState, ModelState, ServerReport
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.model import names
from support.operator.serving import FOLLOWING, Cluster, job, serving, version

pytestmark = pytest.mark.unit

ON_TORCH = {**FOLLOWING, "runtime": {"engine": "torch"}}


def adapter(name: str, letter: str = "f") -> dict[str, str]:
    return {"name": name, "uri": f"s3://models/{name}/versions/v-{letter}/", "digest": f"sha256:{letter * 64}"}


def spec(*adapters: dict[str, str]) -> dict[str, Any]:
    return {**ON_TORCH, "adapters": list(adapters)}


def edit(cluster: Cluster, changed: dict[str, Any]) -> None:
    cluster.spec = cluster.spec.model_validate(changed)


def entries(cluster: Cluster) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(cluster.manifest["spec"]["serveConfigV2"])["applications"]}


def says(cluster: Cluster, *states: tuple[str, str, str], letter: str = "f") -> None:
    """Another replica says how its adapters are."""
    rows: list[Any] = [
        {"name": name, "digest": f"sha256:{letter * 64}", "state": state, "message": message}
        for name, state, message in states
    ]
    held = [ModelState(revision=cluster.layout.stable.name, state="Ready")]
    adapters = [AdapterState.model_validate(row) for row in rows]
    cluster.others = [ServerReport(replica="r", ready=True, models=held, adapters=adapters)]
    cluster.replicas = {}
    cluster.carry_out(cluster.plan())


def test_adapters_change_only_what_the_server_takes_without_a_restart() -> None:
    without = serving(version("v-a"), spec=ON_TORCH)
    cluster = serving(version("v-a"), spec=spec(adapter("films")))
    told = entries(cluster)[names.SERVER]["deployments"][0]["user_config"]
    assert told["adapters"] == [
        {"name": "films", "uri": "s3://models/films/versions/v-f", "version": "v-f", "digest": f"sha256:{'f' * 64}"}
    ]
    assert cluster.manifest["spec"]["rayClusterConfig"] == without.manifest["spec"]["rayClusterConfig"]
    assert cluster.layout == without.layout, "no other revision, so no rollout"
    edit(cluster, spec(adapter("films"), adapter("books")))
    cluster.carry_out(cluster.plan())
    assert cluster.layout == without.layout and cluster.layout.canary is None


def test_a_server_without_adapters_is_told_nothing_of_them() -> None:
    assert "adapters" not in serving(version("v-a")).manifest["spec"]["serveConfigV2"]
    assert serving(version("v-a")).status.adapters is None


def test_a_canary_has_the_adapters_too() -> None:
    cluster = serving(version("v-a"), spec=spec(adapter("films")))
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.carry_out(cluster.plan())
    (canary,) = (entry for name, entry in entries(cluster).items() if name != names.SERVER)
    (row,) = canary["deployments"][0]["user_config"]["adapters"]
    assert row["name"] == "films" and "adapters" not in canary["args"]


def test_ready_waits_until_each_replica_has_each_adapter() -> None:
    cluster = serving(version("v-a"), spec=spec(adapter("films"), adapter("books")))
    ready = cluster.condition(ConditionType.READY)
    assert ready and ready[:2] == ("False", Reason.ROLLING_OUT)
    assert ready[2] == "Version v-a answers requests; adapters are being loaded: films, books."
    says(cluster, ("films", "Ready", ""), ("books", "Loading", ""))
    assert cluster.status.adapters
    assert [(each.name, each.version, each.state) for each in cluster.status.adapters] == [
        ("films", "v-f", "Ready"),
        ("books", "v-f", "Loading"),
    ]
    says(cluster, ("films", "Ready", ""), ("books", "Ready", ""))
    assert cluster.condition(ConditionType.READY) == ("True", Reason.SERVING, "Version v-a answers requests.")


def test_an_adapter_that_fails_is_named_with_its_cause_and_takes_nobody_along() -> None:
    cluster = serving(version("v-a"), spec=spec(adapter("films"), adapter("books")))
    says(cluster, ("films", "Failed", "InvalidModel: It was learned beside another model."), ("books", "Ready", ""))
    stalled = cluster.condition(ConditionType.STALLED)
    assert stalled and stalled[:2] == ("True", Reason.ADAPTER_FAILED)
    assert stalled[2] == (
        "Version v-a answers requests, but the adapter sentiment:films cannot be loaded: InvalidModel: It was learned "
        "beside another model."
    )
    available = cluster.condition(ConditionType.AVAILABLE)
    assert available and available[0] == "True"
    says(cluster, ("films", "Ready", ""), ("books", "Ready", ""))
    assert cluster.condition(ConditionType.STALLED) is None


def test_an_adapter_whose_digest_was_edited_is_loading_until_the_replicas_have_the_new_one() -> None:
    cluster = serving(version("v-a"), spec=spec(adapter("films")))
    says(cluster, ("films", "Ready", ""))
    edit(cluster, spec(adapter("films", "e")))
    cluster.carry_out(cluster.plan())
    assert cluster.status.adapters and cluster.status.adapters[0].state == "Loading"
    says(cluster, ("films", "Ready", ""), letter="e")
    assert [(each.version, each.state) for each in cluster.status.adapters] == [("v-e", "Ready")]
