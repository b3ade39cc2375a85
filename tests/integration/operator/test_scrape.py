"""What Prometheus sees of a real operator that has had something to do: the dashboards are tried on this."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import Failure, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from support.operator.kuberay import MODELDEPLOYMENT, Server, install_kuberay
from support.scrapes import compare

pytestmark = pytest.mark.integration


def test_an_operator_at_work_exports_what_the_dashboards_were_tried_on(
    cluster: Any, namespace: Any, tmp_path: Path, operator_process: Any
) -> None:
    install_kuberay(cluster)
    process = operator_process(cluster.kubeconfig, tmp_path, LUTHIER_WATCH_NAMESPACES=namespace.name)
    process.start()
    try:
        namespace.submit()
        namespace.run_through()
        namespace.apply(MODELDEPLOYMENT)
        namespace.until("the server", lambda: namespace.all("rayservice"))
        Server(namespace).tell()
        namespace.await_reason("mdep", "reviews", "Serving")
        nowhere = copy.deepcopy(MODELDEPLOYMENT)
        nowhere["metadata"]["name"] = "nowhere"
        nowhere["spec"]["model"] = {"fineTuneJobRef": {"name": "reviews", "version": "v9"}}
        namespace.apply(nowhere)
        namespace.await_reason("mdep", "nowhere", "ModelNotFound")
        namespace.submit(hyperparameters={"epochs": 1})
        failure = Failure(reason=Reason.INVALID_DATA, message="The column label is missing.")
        message = Result(failure=failure).to_termination_message()
        namespace.end(namespace.await_pod("prepare"), int(ExitCode.INVALID_DATA), message, "Error")
        namespace.await_reason("ftj", "reviews", "InvalidData")
        namespace.until("the count", lambda: process.metric("luthier_stalled_resources") == 2)
        text, wrong = process.get("/metrics")
        assert wrong is None
        assert (
            f'luthier_stalled_resources{{kind="FineTuneJob",namespace="{namespace.name}",reason="InvalidData"}} 1.0'
            in text
        )
        compare("operator", text.replace(namespace.name, "team"))
    finally:
        process.kill()
        print(process.log)
