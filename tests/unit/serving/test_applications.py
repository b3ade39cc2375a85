"""What the builders make of their args. Importing Ray takes a second or two, so both are tested in this one file."""

import pickle
import warnings
from typing import Any

import pytest
from pydantic import PydanticDeprecatedSince20

from luthier_api.documents import RevisionConfig
from luthier_api.reasons import Reason
from luthier_serving.errors import LoadError

with warnings.catch_warnings():
    # Ray 2.60 declares its own models in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", PydanticDeprecatedSince20)
    from luthier_serving.replica import app as front
    from luthier_serving.revision import app as revision

pytestmark = pytest.mark.unit


def config(**changes: Any) -> RevisionConfig:
    fields = {"name": "rev-1", "model_uri": "s3://models/m/versions/v", "version": "v", "digest": "sha256:" + "0" * 64}
    return RevisionConfig(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"num_replicas": 1, "max_replicas_per_node": 1, "ray_actor_options": {"num_cpus": 1, "num_gpus": 0}}),
        ({"replicas": 3, "max_ongoing_requests": 7}, {"num_replicas": 3, "max_ongoing_requests": 7}),
        ({"gpus_per_replica": 1}, {"ray_actor_options": {"num_cpus": 1, "num_gpus": 1}}),
        (
            {"min_replicas": 2, "max_replicas": 5, "target_ongoing_requests": 8, "downscale_delay_s": 60},
            {
                "autoscaling_config": {
                    "min_replicas": 2,
                    "max_replicas": 5,
                    "target_ongoing_requests": 8,
                    "downscale_delay_s": 60,
                }
            },
        ),
    ],
)
def test_a_revision_is_sized_as_its_config_says(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    options = revision.deployment_options(config(**changes))
    assert {key: options[key] for key in expected} == expected
    assert ("num_replicas" in options) != ("autoscaling_config" in options)
    assert revision.app(config(**changes).to_wire())


@pytest.mark.parametrize(
    ("build", "args", "words"),
    [
        (revision.app, {}, "not a RevisionConfig"),
        (revision.app, config().to_wire() | {"colour": "red"}, "colour"),
        (front.app, {"replicas": 2}, "takes no args"),
    ],
)
def test_wrong_args_are_refused_in_one_sentence(build: Any, args: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError, match=words) as refusal:
        build(args)
    assert "\n" not in str(refusal.value)


def test_a_load_error_keeps_its_reason_on_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(LoadError(Reason.INTEGRITY_ERROR, "one byte\n differs.")))
    assert str(error) == "IntegrityError: one byte differs."
