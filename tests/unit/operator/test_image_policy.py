"""An image is what a runtime would pull, not how it is written; and nothing that only looks allowed is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from luthier_api.reasons import Reason
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.image_reference import NotAReference, normal_entry, normal_form
from luthier_operator.model.resources import ModelDeploymentResource
from luthier_operator.model.views import Meta
from luthier_operator.ops.settings import Settings, SettingsError
from luthier_operator.plan.modeldeployment.policies import ObservedServing, plan_modeldeployment
from luthier_operator.plan.pods.image_policy import violation

pytestmark = pytest.mark.unit

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("image", "allowed", "may"),
    [
        ("registry.example.com/ml/trainer:1", "registry.example.com/", True),
        ("registry.example.com/ml/trainer:1", "registry.example.com/ml/", True),
        ("registry.example.com/ml/trainer:1", "registry.example.com/ml/trainer:1", True),
        (f"registry.example.com/ml/trainer@{DIGEST}", "registry.example.com/", True),
        ("registry.example.com:5000/t:1", "registry.example.com:5000/", True),
        ("team/trainer", "docker.io/team/", True),
        ("docker.io/team/trainer", "team/", True),
        ("index.docker.io/team/trainer", "team/", True),
        ("trainer", "docker.io/library/trainer:latest", True),
        ("docker.io/trainer:latest", "trainer", True),
        ("library/trainer", "docker.io/library/", True),
        ("localhost/trainer:1", "localhost/", True),
        (f"r.example/t:1@{DIGEST}", f"r.example/t@{DIGEST}", True),
        # What only looks like it.
        ("registry.example.com.evil.org/ml/trainer:1", "registry.example.com/", False),
        ("registry.example.com:5000/ml/trainer:1", "registry.example.com/", False),
        ("evil.org/registry.example.com/ml/trainer:1", "registry.example.com/", False),
        ("registry.example.com/ml-evil/trainer:1", "registry.example.com/ml/", False),
        ("registry.example.com/ml/../evil/trainer:1", "registry.example.com/ml/", False),
        ("registry.example.com/ml//trainer:1", "registry.example.com/ml/", False),
        ("registry.example.com/ml/", "registry.example.com/ml/", False),
        ("Registry.example.com/ml/trainer:1", "registry.example.com/", False),
        ("https://registry.example.com/ml/trainer:1", "registry.example.com/", False),
        ("registry.example.com/ml/trainer:1 ", "registry.example.com/", False),
        ("registry.example.com/ml/trainer:1\n", "registry.example.com/", False),
        ("registry.example.com/ml/tr\u0430iner:1", "registry.example.com/", False),
        ("localhost/trainer:1", "docker.io/", False),
        ("team.evil/trainer", "team/", False),
        # Another image under an allowed name.
        ("registry.example.com/ml/trainer:12", "registry.example.com/ml/trainer:1", False),
        ("registry.example.com/ml/trainer", "registry.example.com/ml/trainer:1", False),
        (f"registry.example.com/ml/trainer:1@{DIGEST}", "registry.example.com/ml/trainer:1", False),
        ("registry.example.com/ml/trainer@sha256:short", "registry.example.com/", False),
        (f"registry.example.com/ml/trainer@{DIGEST}@{DIGEST}", "registry.example.com/", False),
    ],
)
def test_what_a_list_allows(image: str, allowed: str, may: bool) -> None:
    said = violation(image, ["unrelated.example/x:1", allowed], "trainer:1")
    assert (said is None) is may, said
    if said:
        assert allowed in said, "it says what may be named"


def test_no_list_allows_everything_and_the_operators_own_image_is_always_allowed() -> None:
    assert violation("evil.org/x", (), "own:1") is None
    assert violation(None, ("r.example/",), "own:1") is None
    assert violation("own:1", ("r.example/",), "own:1") is None


@pytest.mark.parametrize("entry", ["", "/", "r.example//", "r.example/../", "R.example/", "r.example/*", "https://r/"])
def test_an_entry_that_is_neither_reference_nor_prefix_is_refused(entry: str) -> None:
    with pytest.raises(NotAReference):
        normal_entry(entry)


def test_a_list_with_such_an_entry_stops_the_operator_at_its_start() -> None:
    given = {"LUTHIER_TRAINER_IMAGE": "t:1", "LUTHIER_SERVER_IMAGE": "s:1"}
    allowed = Settings.from_environment({**given, "LUTHIER_ALLOWED_IMAGES": "r.example/, r.example/t:1"}).allowed_images
    assert allowed == ("r.example/", "r.example/t:1")
    with pytest.raises(SettingsError, match=r"LUTHIER_ALLOWED_IMAGES: .*'r\.example/\*' is not an image reference"):
        Settings.from_environment({**given, "LUTHIER_ALLOWED_IMAGES": "r.example/*"})


@given(st.text(st.sampled_from("ab.:/@-_A0"), max_size=24))
def test_a_normal_form_is_its_own_normal_form_and_never_leaves_its_registry(image: str) -> None:
    try:
        normal = normal_form(image)
    except NotAReference:
        return
    assert normal_form(normal) == normal
    host = normal.partition("/")[0]
    assert violation(image, [f"{host}/"], "") is None
    name, colon, port = host.partition(":")
    assert violation(image, [f"{name}.evil.org{colon}{port}/"], "") is not None


def test_a_run_whose_image_is_not_allowed_makes_no_job_and_says_what_may_be_named(make_world: Any) -> None:
    world = make_world()
    world.defaults = replace(world.defaults, allowed_images=("registry.example.com/",))
    world.edit(image="evil.org/trainer:1")
    world.settle()
    assert not world.jobs
    stalled = world.condition("Stalled")
    assert stalled["reason"] == Reason.IMAGE_NOT_ALLOWED
    assert stalled["message"] == (
        "The image evil.org/trainer:1 is not allowed. Allowed: registry.example.com/. Use one of these, "
        "leave image out for the operator's own, or ask whoever runs Luthier to allow it."
    )
    world.edit(image="registry.example.com/trainer:1")
    world.settle()
    assert world.job("prepare")["spec"]["template"]["spec"]["containers"][0]["image"].startswith("registry.example")


def test_a_list_that_was_tightened_stops_the_run_and_a_list_that_was_widened_goes_on_with_it(make_world: Any) -> None:
    world = make_world()
    world.edit(image="team/trainer:1")
    world.settle()
    world.prepare_ends()
    world.settle()
    assert world.live_trains
    world.defaults = replace(world.defaults, allowed_images=("registry.example.com/",))
    world.settle()
    assert not world.live_trains and world.ready["reason"] == Reason.IMAGE_NOT_ALLOWED
    world.defaults = replace(world.defaults, allowed_images=("team/",))
    world.settle()
    world.prepare_ends()
    world.settle()
    assert world.live_trains and world.ready["reason"] == Reason.TRAINING


def test_a_server_whose_image_is_not_allowed_is_not_made() -> None:
    meta = Meta("ModelDeployment", "team", "reviews", "uid-1", 1)
    spec: dict[str, Any] = {"model": {"fineTuneJobRef": {"name": "reviews"}}, "runtime": {"image": "evil.org/server"}}
    resource = ModelDeploymentResource(meta, ModelDeploymentSpec.model_validate(spec), ModelDeploymentStatus())
    defaults = Defaults("trainer:1", "server:1", allowed_images=("registry.example.com/",))
    plan = plan_modeldeployment(resource, ObservedServing(), datetime(2026, 1, 1, tzinfo=UTC), defaults)
    assert not plan.applies and plan.status
    stalled = next(each for each in plan.status["conditions"] if each["type"] == "Stalled")
    assert stalled["reason"] == Reason.IMAGE_NOT_ALLOWED and "registry.example.com/" in stalled["message"]
