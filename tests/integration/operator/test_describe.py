"""How much `kubectl describe` prints of a FineTuneJob with several versions."""

from __future__ import annotations

from typing import Any

import pytest

from luthier_api.documents import Published, Result
from support.operator.operator_process import sha

pytestmark = pytest.mark.integration

SETS = ("eval", "test", "untrained", "baseline_majority")
NAMES = ("accuracy", "f1_macro", "f1_weighted", "precision_macro", "recall_macro", "loss", "matthews", "roc_auc")
METRICS = {f"{kind}_{name}": "0.91" for kind in SETS for name in NAMES}
VERSIONS = 4


def published(version: str) -> str:
    document = Published(
        run_key=sha(version),
        version=version,
        uri=f"s3://models/sentiment/versions/{version}",
        digest=f"sha256:{sha(version)}",
        size_bytes=440_000_000,
        metrics=METRICS,
    )
    return Result(published=document).to_termination_message()


def test_a_job_with_several_versions_is_described_with_its_metrics_once(operator: Any, namespace: Any) -> None:
    for number in range(1, VERSIONS + 1):
        namespace.submit(hyperparameters={"epochs": number})
        namespace.prepare_ends(f"v{number}")
        namespace.end(namespace.await_pod("train"), 0, published(f"v{number}"))
        namespace.await_version(f"v{number}")
    lines = namespace.kubectl("describe", "ftj", "reviews").splitlines()
    status = lines[lines.index("Status:") : lines.index("Events:")]
    shown = [line.split(":")[0].strip() for line in status]
    assert {name: shown.count(name) for name in METRICS} == {name: 1 for name in METRICS} | {
        "eval_f1_macro": 1 + VERSIONS
    }, "one of each version, to compare them by"
    # What remains is 43 lines, and 10 for each version.
    assert len(status) - len(METRICS) <= 45 + 10 * VERSIONS
    # The spec is shown with its defaults, which the API server fills in.
    assert len(lines) <= 240
