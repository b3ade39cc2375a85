"""Another export or gate: made of the weights that a version has, by a Job without a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from luthier_api.documents import ProgressDocument, RunDocument
from luthier_api.exitcodes import ExitCode
from luthier_operator.model import names

pytestmark = pytest.mark.unit

VERSION = "20260101-120000-0a1b2c3d"


def exporting(world: Any, **changes: Any) -> Any:
    world.edit(gpusPerNode=1, **changes)
    world.settle()
    world.prepare_ends(weights_version=VERSION)
    world.settle()
    return world.job("train")


@pytest.mark.parametrize("nodes", [1, 2])
def test_no_gpu_and_no_second_node_is_asked_for_where_nothing_is_trained(world: Any, nodes: int) -> None:
    job = exporting(world, numNodes=nodes)
    template = job["spec"]["template"]
    assert "nvidia.com/gpu" not in template["spec"]["containers"][0]["resources"].get("limits", {})
    assert job["spec"].get("completions", 1) == 1 and not world.services
    document = RunDocument.from_json(template["metadata"]["annotations"][names.RUN_DOCUMENT])
    assert document.resolved and document.resolved.weights_version == VERSION


def test_the_status_says_whose_weights_are_used_until_the_version_is_there(world: Any) -> None:
    job = exporting(world)
    sentence = f"The weights of version {VERSION} are used, on a CPU: nothing is trained."
    assert world.ready["message"] == sentence
    world.running(job)
    world.progress = ProgressDocument(stage="Exporting", updated_at="2026-01-01T00:00:00Z")
    world.step()
    assert world.ready["message"] == f"Exporting. {sentence}"
    world.progress = None
    world.train_ends()
    world.settle()
    assert (world.ready["reason"], world.ready["status"]) == ("Published", "True")
    assert world.status.get("usage", {}).get("gpuSeconds", 0) == 0


def test_weights_that_are_gone_are_trained_again_on_a_gpu(world: Any) -> None:
    exporting(world)
    world.fails("train", ExitCode.PREPARE_AGAIN, "The version is gone.")
    world.settle()
    world.prepare_ends()
    world.settle()
    limits = world.job("train")["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert "attempts" not in world.status


def test_an_annotation_of_a_job_that_somebody_wrote_is_shown_cut_and_printable(world: Any) -> None:
    job = exporting(world)
    job["metadata"]["annotations"][names.WEIGHTS_VERSION] = "a\nb\u202e" + "c" * 900
    world.step()
    assert world.ready["message"].isprintable() and len(world.ready["message"]) < 200
