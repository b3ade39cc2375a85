"""What `helm test` runs, on a real API server: it ends well with a version, and says why where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from luthier_api.documents import Failure, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_dev.charts import CHART

pytestmark = pytest.mark.integration

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(cluster: Any, namespace: Any) -> Start:
    """Start the test as its pod would, for a FineTuneJob `reviews` of this spec."""

    def starting(spec: dict[str, Any], timeout_s: int = 60) -> subprocess.Popen[str]:
        environment = {"NAME": "reviews", "NAMESPACE": namespace.name, "SPEC": json.dumps(spec)}
        environment |= {"TIMEOUT_S": str(timeout_s), "KUBECONFIG": str(cluster.kubeconfig)}
        command = [sys.executable, "-W", "ignore", str(CHART / "files" / "helm-test" / "run.py")]
        return subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)

    return starting


def end(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    said, _ = process.communicate(timeout=60)
    return process.returncode, said.splitlines()


def test_without_a_spec_the_api_server_checks_one_and_nothing_is_made(start: Start, namespace: Any) -> None:
    code, said = end(start({}))
    assert code == 0 and said[-1].startswith("The API server accepts a FineTuneJob.")
    assert not namespace.all("ftj")


def test_a_spec_that_is_refused_ends_it_with_the_api_servers_sentence(start: Start, make_finetunejob: Any) -> None:
    spec = {**make_finetunejob()["spec"], "gpusPerNode": -1}
    code, said = end(start(spec))
    assert code == 1 and "spec.gpusPerNode" in said[-1]


def test_a_small_run_ends_with_its_version_and_is_removed(
    start: Start, namespace: Any, operator: Any, make_finetunejob: Any
) -> None:
    process = start(make_finetunejob()["spec"])
    assert process.stdout
    assert "No GPU is requested yet" in process.stdout.readline(), "its sentences are printed on the way"
    namespace.run_through()
    code, said = end(process)
    assert code == 0 and said[-1] == "Version v1 is published."
    namespace.until("its removal", lambda: not namespace.all("ftj"))


def test_a_run_that_fails_ends_it_with_the_reason(
    start: Start, namespace: Any, operator: Any, make_finetunejob: Any
) -> None:
    process = start(make_finetunejob()["spec"])
    namespace.until("the resource", lambda: namespace.all("ftj"))
    failure = Failure(reason=Reason.INVALID_DATA, message="The column label is missing.")
    message = Result(failure=failure).to_termination_message()
    namespace.end(namespace.await_pod("prepare"), int(ExitCode.INVALID_DATA), message, "Error")
    code, said = end(process)
    assert code == 1 and said[-1].startswith("The column label is missing.")


def test_a_run_that_takes_too_long_says_where_it_stands(start: Start, namespace: Any, make_finetunejob: Any) -> None:
    code, said = end(start(make_finetunejob()["spec"], timeout_s=1))
    assert code == 1
    assert said[-1].startswith("No version after 1 s. ")
