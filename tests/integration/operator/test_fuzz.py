"""Random specs through the real API server: whatever it admits ends in a sane condition of the real operator.

How long it goes on is LUTHIER_FUZZ_SECONDS.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from luthier_api.reasons import Reason
from luthier_dev.kubectl import KubectlFailed
from support.operator.generated_specs import specs

pytestmark = pytest.mark.integration

SECONDS = float(os.environ.get("LUTHIER_FUZZ_SECONDS", "25"))
BATCH = 24
API_VERSION = "luthier.dev/v1alpha1"
KNOWN = {str(reason) for reason in Reason}


class Fuzz:
    """Resources in a namespace of the operator's, more and more of them."""

    def __init__(self, namespace: Any) -> None:
        self.namespace = namespace
        self.sent = 0
        self.reasons: dict[str, int] = {}

    def send(self, drawn: list[tuple[str, dict[str, Any]]]) -> None:
        """Create these, as far as the API server admits them."""
        items = [
            {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": f"f{self.sent + number}"}, "spec": spec}
            for number, (kind, spec) in enumerate(drawn)
        ]
        self.sent += len(items)
        everything = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        try:
            # kubectl itself would refuse all of them for one.
            self.namespace.kubectl("create", "--validate=false", "-f", "-", stdin=everything)
        except KubectlFailed as refused:
            assert "panic" not in str(refused)

    def resources(self) -> list[dict[str, Any]]:
        return [
            each for kind in ("finetunejob", "modeldeployment", "batchprediction") for each in self.namespace.all(kind)
        ]

    def judge_all(self) -> None:
        self.namespace.until("a condition for each", lambda: all(map(ready, self.resources())))
        self.reasons = {}
        for resource in self.resources():
            self.judge(resource)

    def judge(self, resource: dict[str, Any]) -> None:
        """Check that the condition speaks of this generation: a known word for programs, a sentence for people."""
        condition = ready(resource)
        assert condition, resource
        assert resource["status"]["observedGeneration"] == resource["metadata"]["generation"]
        assert condition["status"] == "False", "nothing was trained"
        assert condition["reason"] in KNOWN
        assert condition["message"].rstrip().endswith((".", "…", "!", "?", ")")), condition["message"]
        assert "Traceback" not in condition["message"]
        types = {each["type"]: each for each in resource["status"]["conditions"] if each["status"] == "True"}
        assert ("Stalled" in types) != ("Reconciling" in types) or resource["spec"].get("suspend"), types
        self.reasons[condition["reason"]] = self.reasons.get(condition["reason"], 0) + 1


def ready(resource: dict[str, Any]) -> dict[str, Any] | None:
    conditions = resource.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == "Ready"), None)


def count(operator: Any, name: str, *, of: str = "") -> float:
    """Return the sum of a counter of the operator over its labels, or of those with a value."""
    text, wrong = operator.get("/metrics")
    assert wrong is None
    lines = [line for line in text.splitlines() if line.startswith(f"{name}_total{{") and of in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.fixture
def patient_operator(own_operator: Any) -> Iterator[Any]:
    """One that does not look for KubeRay all the time."""
    own_operator._environment["LUTHIER_KUBERAY_RETRY_S"] = "3600"
    own_operator.start()
    yield own_operator


def known(namespace: Any) -> bool:
    """The API server answers for a kind a little after it says that it is established."""
    try:
        namespace.submit()
    except KubectlFailed:
        return False
    return True


def drawn_with(number: int) -> list[tuple[str, dict[str, Any]]]:
    """Return random resources, the same ones for the same number."""
    resources: list[tuple[str, dict[str, Any]]] = []
    kinds = st.sampled_from(("FineTuneJob", "FineTuneJob", "ModelDeployment", "BatchPrediction"))

    @seed(number)
    @settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(kinds.flatmap(lambda kind: st.tuples(st.just(kind), specs(kind))))
    def draw(resource: tuple[str, dict[str, Any]]) -> None:
        resources.append(resource)

    draw()
    return resources


def test_whatever_the_api_server_admits_ends_in_a_sane_condition(namespace: Any, patient_operator: Any) -> None:
    fuzz, began = Fuzz(namespace), time.monotonic()
    number = int(os.environ.get("LUTHIER_FUZZ_SEED", time.time()))
    print(f"LUTHIER_FUZZ_SEED={number}")
    namespace.until("the API server to know the kinds", lambda: known(namespace))
    while not fuzz.sent or time.monotonic() < began + SECONDS:
        fuzz.send(drawn_with(number))
        fuzz.judge_all()
        number += 1
    before = count(patient_operator, "luthier_writes")
    fuzz.judge_all()
    admitted = sum(fuzz.reasons.values())
    print(f"{fuzz.sent} sent, {admitted} admitted: {fuzz.reasons}")
    assert count(patient_operator, "luthier_reconcile_errors", of="bug") == 0, patient_operator.log[-4000:]
    assert count(patient_operator, "luthier_reconcile_errors", of="unexpected") == 0, patient_operator.log[-4000:]
    # Of the fields that exclude each other, which are more with every way to read data, most specs draw several.
    assert admitted >= fuzz.sent // 20, "random specs are near a valid one"
    assert "Preparing" in fuzz.reasons
    assert count(patient_operator, "luthier_writes") - before <= admitted, "it has come to rest"
