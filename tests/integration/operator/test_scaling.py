"""The number of replicas from outside: kubectl scale, and what an autoscaler writes to the scale subresource."""

from __future__ import annotations

import json
from typing import Any

import pytest

from luthier_dev.kubectl import KubectlFailed
from support.operator.least import MODELDEPLOYMENT

pytestmark = pytest.mark.integration


def scale(namespace: Any, count: int) -> None:
    namespace.kubectl("scale", "mdep", "reviews", f"--replicas={count}")


def as_an_autoscaler_does(namespace: Any, count: int) -> None:
    """A merge patch of the scale subresource."""
    patch = json.dumps({"spec": {"replicas": count}})
    namespace.kubectl("patch", "mdep", "reviews", "--subresource=scale", "--type=merge", "-p", patch)


def test_kubectl_scale_sets_replicas_also_of_a_spec_that_does_not_name_them(namespace: Any) -> None:
    namespace.apply(MODELDEPLOYMENT)
    scale(namespace, 3)
    assert namespace.get("mdep", "reviews")["spec"]["replicas"] == 3
    as_an_autoscaler_does(namespace, 2)
    assert namespace.get("mdep", "reviews")["spec"]["replicas"] == 2


@pytest.mark.parametrize("write", [scale, as_an_autoscaler_does])
def test_a_fixed_number_of_none_is_refused_with_what_to_do(namespace: Any, write: Any) -> None:
    namespace.apply({**MODELDEPLOYMENT, "spec": {**MODELDEPLOYMENT["spec"], "replicas": 2}})
    with pytest.raises(KubectlFailed, match=r"set suspend: true for none, or autoscaling\.minReplicas: 0"):
        write(namespace, 0)
    assert namespace.get("mdep", "reviews")["spec"]["replicas"] == 2


@pytest.mark.parametrize("write", [scale, as_an_autoscaler_does])
@pytest.mark.parametrize("count", [0, 2])
def test_a_number_for_a_server_that_scales_itself_is_refused(namespace: Any, write: Any, count: int) -> None:
    scales = {"minReplicas": 0, "maxReplicas": 3}
    namespace.apply({**MODELDEPLOYMENT, "spec": {**MODELDEPLOYMENT["spec"], "autoscaling": scales}})
    with pytest.raises(KubectlFailed, match=r"give either replicas|spec\.replicas. does not exist"):
        write(namespace, count)
    assert "replicas" not in namespace.get("mdep", "reviews")["spec"]
