"""Records what a release's operator writes for a resource in every phase; see README.md. Not run by the tests."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from luthier_api.documents import Failure, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_dev.controlplane import ControlPlane
from support.operator.kuberay import MODELDEPLOYMENT, Server, install_kuberay
from support.operator.namespace import Namespace
from support.operator.operator_process import OperatorProcess, published

KINDS = ("finetunejobs", "modeldeployments", "jobs", "pods", "rayservices")
STARTED = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def failure(reason: Reason, message: str) -> str:
    return Result(failure=Failure(reason=reason, message=message)).to_termination_message()


def preparing(n: Namespace) -> None:
    n.submit()
    n.await_pod("prepare")
    n.await_reason("ftj", "reviews", "Preparing")


def training(n: Namespace) -> None:
    preparing(n)
    n.prepare_ends()
    n.play(n.await_pod("train"), "Running", STARTED)
    n.await_reason("ftj", "reviews", "Training")


def retrying(n: Namespace) -> None:
    training(n)
    n.end(n.await_pod("train"), int(ExitCode.CRASHED), failure(Reason.CRASHED, "It crashed."), "Error")
    n.await_reason("ftj", "reviews", "Retrying")
    n.await_pod("train")


def succeeded(n: Namespace) -> None:
    n.submit()
    n.run_through()
    n.until("expiry", lambda: all("ttlSecondsAfterFinished" in job["spec"] for job in n.all("jobs")))


def gate_failed(n: Namespace) -> None:
    n.submit()
    n.prepare_ends()
    missed = {**json.loads(published())}
    missed["published"] |= {"promotable": False, "message": "eval_f1_macro is 0.5, and the gate asks for 0.9."}
    n.end(n.await_pod("train"), 0, json.dumps(missed))
    n.await_reason("ftj", "reviews", "GateFailed")


def failed(n: Namespace) -> None:
    n.submit()
    message = failure(Reason.INVALID_DATA, "The column label is missing.")
    n.end(n.await_pod("prepare"), int(ExitCode.INVALID_DATA), message, "Error")
    n.until("the end", lambda: n.get("ftj", "reviews")["status"]["phase"] == "Failed")


def suspended(n: Namespace) -> None:
    training(n)
    n.submit(suspend=True)
    n.await_reason("ftj", "reviews", "Suspended")
    n.until("the Job's rest", lambda: any(j["spec"].get("suspend") for j in n.all("jobs")))


def waiting(n: Namespace) -> None:
    n.submit(concurrencyPolicy="Forbid")
    n.prepare_ends()
    n.play(n.await_pod("train"), "Running", STARTED)
    n.await_reason("ftj", "reviews", "Training")
    n.submit(concurrencyPolicy="Forbid", hyperparameters={"epochs": 1})
    n.await_reason("ftj", "reviews", "WaitingForRun")


def second_version(n: Namespace) -> None:
    succeeded(n)
    n.submit(hyperparameters={"epochs": 1})
    n.run_through("b", "v2")


def serving(n: Namespace) -> None:
    succeeded(n)
    n.apply(MODELDEPLOYMENT)
    n.until("the server", lambda: n.all("rayservice"))
    Server(n).tell()
    n.await_reason("mdep", "reviews", "Serving")


def deploying(n: Namespace) -> None:
    succeeded(n)
    n.apply(MODELDEPLOYMENT)
    n.until("the server", lambda: n.all("rayservice"))
    n.await_reason("mdep", "reviews", "Deploying")


PHASES = (preparing, training, retrying, succeeded, gate_failed, failed, suspended, waiting, second_version, serving)
PHASES += (deploying,)


def record(n: Namespace) -> dict[str, Any]:
    """Everything that there is, once the operator has nothing more to write about it."""
    versions: list[str] = []
    while True:
        found = {kind: n.all(kind) for kind in KINDS}
        now = [each["metadata"]["resourceVersion"] for items in found.values() for each in items]
        if now == versions:
            break
        versions = now
        time.sleep(3)
    for items in found.values():
        for each in items:
            each["metadata"].pop("managedFields", None)
    return {"recordedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **found}


def main() -> None:
    version, tree = sys.argv[1], Path(sys.argv[2])
    folder = Path(__file__).parent / version
    with ControlPlane() as cluster:
        cluster.kubectl("apply", "--server-side", "-f", str(tree / "crds"))
        crds = ("crd/finetunejobs.luthier.dev", "crd/modeldeployments.luthier.dev")
        cluster.kubectl("wait", "--for=condition=Established", *crds)
        install_kuberay(cluster)
        logs = Path(tempfile.mkdtemp())
        code = f"{tree / 'operator'}:{tree / 'crds'}"
        operator = OperatorProcess(cluster.kubeconfig, logs, PYTHONPATH=code, LUTHIER_PROGRESS_INTERVAL_S="10")
        operator.start()
        for phase in PHASES:
            namespace = Namespace(cluster)
            phase(namespace)
            name = phase.__name__.replace("_", "-")
            found = json.dumps(record(namespace), separators=(",", ":"), sort_keys=True)
            (folder / f"{name}.json").write_text(found + "\n")
            print(name, flush=True)
        assert operator.stop() == 0


if __name__ == "__main__":
    main()
