"""Argo CD's health and actions of each kind, over resources in every phase as the operator leaves them."""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier_api.documents import ProgressDocument
from luthier_api.exitcodes import ExitCode
from luthier_api.finetunejob import RETRY_ANNOTATION
from luthier_api.modeldeployment import WISHES
from luthier_api.reasons import Reason
from luthier_operator.model.parse import meta_of
from luthier_operator.plan.modeldeployment.observe import wishes_of
from support.argocd import Scripts
from support.operator import every_phase

pytestmark = pytest.mark.unit


def sibling(path: Path, name: str) -> Any:
    """Import a module of the operator's tests, which are no package: their world and its states."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__).parent
kstatus = sibling(HERE.parent / "operator" / "test_kstatus.py", "kstatus_states")
world_of = sibling(HERE.parent / "operator" / "conftest.py", "unit_world").World
batches = sibling(HERE.parent / "operator" / "test_batchprediction.py", "unit_batches")
FINETUNEJOB, MODELDEPLOYMENT = Scripts("FineTuneJob"), Scripts("ModelDeployment")
BATCHPREDICTION = Scripts("BatchPrediction")
KINDS = [FINETUNEJOB, MODELDEPLOYMENT, BATCHPREDICTION]
EACH = pytest.mark.parametrize("scripts", KINDS, ids=lambda scripts: str(scripts.folder.name))
HEALTH = {"Current": "Healthy", "Failed": "Degraded", "InProgress": "Progressing"}


def conditions(raw: dict[str, Any]) -> dict[str, Any]:
    return {each["type"]: each for each in raw["status"].get("conditions", [])}


@pytest.mark.parametrize(
    ("bring", "phase", "reason", "seen"),
    kstatus.STATES,
    ids=[f"{row[2] or 'nothing'}-{number}" for number, row in enumerate(kstatus.STATES)],
)
def test_argo_cd_sees_of_a_finetunejob_what_flux_sees_and_suspended_where_that_is_why(
    bring: Any, phase: str, reason: str, seen: str
) -> None:
    world = world_of()
    bring(world)
    raw = every_phase.of_world(world)
    status, message = FINETUNEJOB.health(raw)
    assert status == ("Suspended" if reason == "Suspended" else HEALTH[seen])
    expected = conditions(raw)["Ready"]["message"] if reason else "Waiting for Luthier's operator to look at this spec."
    assert message == expected
    offered = {"retry"} if seen == "Failed" else set()
    offered |= {"resume"} if world.spec.suspend else set() if seen == "Current" else {"suspend"}
    assert FINETUNEJOB.offered(raw) == offered
    # An edit is seen at once as not done, before any operator has looked.
    raw["metadata"]["generation"] += 1
    assert FINETUNEJOB.health(raw)[0] == "Progressing"


@pytest.mark.parametrize("name", every_phase.MODELDEPLOYMENTS)
def test_argo_cd_sees_of_a_modeldeployment_how_it_stands_and_offers_what_makes_sense(name: str) -> None:
    bring, health, offered = every_phase.MODELDEPLOYMENTS[name]
    raw = every_phase.of_cluster(bring())
    assert MODELDEPLOYMENT.health(raw)[0] == health
    if name != "new":
        assert MODELDEPLOYMENT.health(raw)[1] == conditions(raw)["Ready"]["message"]
    assert MODELDEPLOYMENT.offered(raw) == offered
    raw["metadata"]["generation"] += 1
    assert MODELDEPLOYMENT.health(raw)[0] == "Progressing"


def predicting(world: Any) -> None:
    world.settle()


def half_done(world: Any) -> None:
    predicting(world)
    world.pod("Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    world.progress = ProgressDocument(
        stage="Predicting", step=2, total_steps=4, rows=100, examples_per_second=51.2, eta_seconds=61.0,
        updated_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    world.settle()


def retrying(world: Any) -> None:
    predicting(world)
    world.fails(ExitCode.KILLED, final="")
    world.settle()


def predicted(world: Any, **changes: Any) -> None:
    predicting(world)
    world.ends(batches.predicted(**changes))
    world.settle()


def failed(world: Any) -> None:
    predicting(world)
    world.fails(ExitCode.INVALID_DATA, batches.failure(Reason.INVALID_DATA, "a.csv has no column 'text'."))
    world.settle()


def failed_and_tried_again(world: Any) -> None:
    failed(world)
    world.retry = "1"
    world.settle()


def suspended(world: Any) -> None:
    half_done(world)
    world.edit(suspend=True)
    world.settle()


def waiting(world: Any) -> None:
    world.finetunejob = None
    world.settle()


BATCHPREDICTIONS: dict[str, tuple[Callable[[Any], None], str, set[str]]] = {
    "new": (kstatus.nothing, "Progressing", {"suspend"}),
    "waiting": (waiting, "Progressing", {"suspend"}),
    "predicting": (predicting, "Progressing", {"suspend"}),
    "half-done": (half_done, "Progressing", {"suspend"}),
    "retrying": (retrying, "Progressing", {"suspend"}),
    "suspended": (suspended, "Suspended", {"resume"}),
    "failed": (failed, "Degraded", {"retry", "suspend"}),
    "tried-again": (failed_and_tried_again, "Progressing", {"suspend"}),
    "predicted": (predicted, "Healthy", set()),
    "reused": (lambda world: predicted(world, reused=True), "Healthy", set()),
}
"""{name: how to get there, its health, the actions that make sense}."""


def batch(name: str) -> dict[str, Any]:
    """Return the BatchPrediction in that phase, as the cluster would."""
    world = batches.World()
    BATCHPREDICTIONS[name][0](world)
    return every_phase.of_batch(world)


@pytest.mark.parametrize("name", BATCHPREDICTIONS)
def test_argo_cd_sees_of_a_batchprediction_how_it_stands_and_offers_what_makes_sense(name: str) -> None:
    _, health, offered = BATCHPREDICTIONS[name]
    raw = batch(name)
    status, message = BATCHPREDICTION.health(raw)
    assert status == health
    if name != "new":
        assert message == conditions(raw)["Ready"]["message"]
    assert BATCHPREDICTION.offered(raw) == offered
    raw["metadata"]["generation"] += 1
    assert BATCHPREDICTION.health(raw)[0] == "Progressing"


@pytest.mark.parametrize("scripts", [FINETUNEJOB, MODELDEPLOYMENT], ids=lambda scripts: str(scripts.folder.name))
def test_what_an_earlier_release_wrote_on_a_real_api_server_has_a_health(scripts: Scripts) -> None:
    found = every_phase.recorded(scripts.folder.name)
    assert found
    for phase, raw in found.items():
        true = {type_ for type_, each in conditions(raw).items() if each["status"] == "True"}
        expected = (
            "Degraded" if "Stalled" in true
            else "Progressing" if "Reconciling" in true
            else "Healthy" if "Ready" in true
            else "Suspended" if phase == "suspended"
            else "Progressing"
        )  # fmt: skip
        assert scripts.health(raw)[0] == expected, phase


def test_what_is_being_deleted_is_in_progress_and_says_what_it_waits_for() -> None:
    world = world_of()
    kstatus.published(world)
    raw = every_phase.of_world(world)
    raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert FINETUNEJOB.health(raw) == ("Progressing", conditions(raw)["Ready"]["message"])
    raw["status"]["observedGeneration"] = 0
    assert FINETUNEJOB.health(raw) == ("Progressing", "Being deleted.")


@pytest.mark.parametrize("wish", WISHES)
def test_an_action_asks_the_operator_for_it_once_and_a_second_click_asks_again(wish: str) -> None:
    cluster = every_phase.in_step()
    before = every_phase.of_cluster(cluster)
    after = MODELDEPLOYMENT.act(wish, before)
    meta = meta_of("ModelDeployment", after)
    assert wishes_of(meta, cluster.status) == {wish}
    assert {**after, "metadata": {**after["metadata"], "annotations": None}} == {
        **before, "metadata": {**before["metadata"], "annotations": None},
    }, "nothing else is changed"  # fmt: skip
    handled = cluster.status.model_copy(update={"handled": {wish: meta.wishes[wish]}})
    assert not wishes_of(meta, handled)
    again = Scripts("ModelDeployment", now=1_700_000_001).act(wish, after)
    assert wishes_of(meta_of("ModelDeployment", again), handled) == {wish}
    later = copy.deepcopy(after)
    later["metadata"]["generation"] += 1
    assert not wishes_of(meta_of("ModelDeployment", later), cluster.status), "it steers no later spec"


@EACH
def test_retry_suspend_and_resume_write_what_the_operator_reads(scripts: Scripts) -> None:
    raw = next(iter(phases(scripts).values()))
    raw["metadata"]["annotations"] = {"kept": "yes"}
    retried = scripts.act("retry", raw)
    assert retried["metadata"]["annotations"] == {"kept": "yes", RETRY_ANNOTATION: "1700000000"}
    assert scripts.act("suspend", raw)["spec"] == {**raw["spec"], "suspend": True}
    assert scripts.act("resume", scripts.act("suspend", raw))["spec"] == {**raw["spec"], "suspend": False}


def test_a_wish_of_an_action_moves_the_rollout() -> None:
    cluster = every_phase.at_a_manual_step()
    assert cluster.weights() == {"v-a": 50, "v-b": 50}
    after = MODELDEPLOYMENT.act("promote", every_phase.of_cluster(cluster))
    cluster.meta = meta_of("ModelDeployment", after)
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-a": 0, "v-b": 100}


# The fixtures, laid out as Argo CD's own tests read them.


def phases(scripts: Scripts) -> dict[str, Any]:
    """Return {phase: resource} of a kind: as recorded, and as the present plan leaves it."""
    raws = every_phase.recorded(scripts.folder.name)
    if scripts is MODELDEPLOYMENT:
        raws |= {name: every_phase.of_cluster(row[0]()) for name, row in every_phase.MODELDEPLOYMENTS.items()}
    if scripts is BATCHPREDICTION:
        raws |= {name: batch(name) for name in BATCHPREDICTIONS}
    return raws


def fixtures(scripts: Scripts) -> dict[str, Any]:
    """Return {path below the folder of the kind: document} of the fixtures."""
    health, discovery, documents = [], [], {}
    for name, raw in sorted(phases(scripts).items()):
        path = f"testdata/{name}.yaml"
        documents[path] = raw
        status, message = scripts.health(raw)
        health.append({"healthStatus": {"status": status, "message": message}, "inputPath": path})
        shown = scripts.discovered(raw)
        result = [{"name": action, **dict(sorted(shown[action].items()))} for action in sorted(shown)]
        discovery.append({"inputPath": f"../{path}", "result": result})
    documents["health_test.yaml"] = {"tests": health}
    documents["actions/action_test.yaml"] = {"discoveryTests": discovery}
    return documents


@pytest.mark.skipif("LUTHIER_WRITE_FIXTURES" not in os.environ, reason="writes the fixtures, where that is asked for")
@EACH
def test_write_the_fixtures(scripts: Scripts) -> None:
    for path, document in fixtures(scripts).items():
        file = scripts.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(document, sort_keys=False, width=160, allow_unicode=True))


@EACH
def test_the_scripts_say_of_argo_cds_fixtures_what_its_own_tests_expect(scripts: Scripts) -> None:
    """LUTHIER_WRITE_FIXTURES=1 writes them, from what the operator does now."""
    health = yaml.safe_load((scripts.folder / "health_test.yaml").read_text())["tests"]
    assert len(health) > 8 or scripts is MODELDEPLOYMENT
    for each in health:
        raw = yaml.safe_load((scripts.folder / each["inputPath"]).read_text())
        assert dict(zip(("status", "message"), scripts.health(raw), strict=True)) == each["healthStatus"]
    discovery = yaml.safe_load((scripts.folder / "actions" / "action_test.yaml").read_text())["discoveryTests"]
    assert len(discovery) == len(health)
    for each in discovery:
        raw = yaml.safe_load((scripts.folder / "actions" / each["inputPath"]).read_text())
        assert {shown["name"]: shown for shown in each["result"]} == {
            name: {"name": name, **shown} for name, shown in scripts.discovered(raw).items()
        }
