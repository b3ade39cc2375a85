"""The operator as a process with the rights that the chart gives it, a FineTuneJob, and what its pods say at their end.

For conftest, and for modules that cannot import a conftest.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import yaml

import luthier_operator.__main__
from luthier_api.documents import Prepared, Published, Resolved, Result
from luthier_dev import binaries, versions
from luthier_dev.controlplane import ControlPlane
from luthier_dev.paths import REPOSITORY
from luthier_dev.processes import free_ports
from luthier_dev.waiting import wait_until


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def finetunejob(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "luthier.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "reviews"},
        "spec": {
            "model": {"uri": "s3://models/base"},
            "dataset": {"train": {"uri": "s3://data/reviews.csv"}},
            "output": {"name": "sentiment", "uri": "s3://models/", "secretRef": {"name": "s3"}},
            **changes,
        },
    }


def prepared(key: str = "a") -> str:
    resolved = Resolved(
        run_key=sha(key), data_key=sha("data"), model_digest=f"sha256:{sha('m')}", dataset_digest=f"sha256:{sha('d')}"
    )
    document = Prepared(resolved=resolved, train_examples=90, eval_examples=10, labels=2)
    return Result(prepared=document).to_termination_message()


def published(key: str = "a", version: str = "v1", *, reused: bool = False) -> str:
    document = Published(
        run_key=sha(key),
        version=version,
        uri=f"s3://models/sentiment/versions/{version}",
        digest=f"sha256:{sha(version)}",
        size_bytes=1,
        metrics={"eval_f1_macro": "0.91"},
        reused=reused,
    )
    return Result(published=document).to_termination_message()


class OperatorProcess:
    """`python -m luthier_operator`, started, killed and started again."""

    def __init__(self, kubeconfig: Path, folder: Path, **settings: str) -> None:
        (self._port,) = free_ports(1)
        self._log = folder / "operator.log"
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "LUTHIER_TRAINER_IMAGE": "trainer:1",
            "LUTHIER_SERVER_IMAGE": "server:1",
            "LUTHIER_HTTP_HOST": "127.0.0.1",
            "LUTHIER_HTTP_PORT": str(self._port),
            "LUTHIER_PROGRESS_INTERVAL_S": "0.5",
            "LUTHIER_DRAIN_S": "1",
            "LUTHIER_KUBERAY_RETRY_S": "0.5",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "luthier_operator", "--log-format", "text"],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        if wait:
            wait_until(lambda: self.get("/readyz")[1], "the operator", timeout_s=60, interval_s=0.05)

    def get(self, path: str) -> tuple[str, str | None]:
        """Return what the operator's endpoint answers, and what is wrong with that."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=2) as answer:
                return answer.read().decode(), None
        except urllib.error.HTTPError as error:
            with error:
                return "", error.read().decode()
        except OSError as error:
            return "", str(error)

    @property
    def ill(self) -> str | None:
        """What the operator says is wrong with it; None if nothing is, or nobody is there to say so."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz", timeout=5).close()
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode().strip()
        except OSError:
            return None
        return None

    def metric(self, name: str) -> float:
        """Return a metric's sum over all its labels; 0 if nobody is there to say so."""
        lines = self.get("/metrics")[0].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    @property
    def reconciles(self) -> float:
        """How many reconciles there were since the start."""
        return self.metric("luthier_reconciles_total")

    @property
    def watch_restarts(self) -> float:
        """How often all watches began anew since the start."""
        return self.metric("luthier_watch_restarts_total")

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def kill(self) -> None:
        """As the kernel would: at once, in the middle of whatever it does."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=20)


class ForkedOperator(OperatorProcess):
    """The same, from a process that has imported everything: a start costs a tenth, for tests that start hundreds."""

    _forks = multiprocessing.get_context("forkserver")
    _forks.set_forkserver_preload(["luthier_operator.__main__"])
    _forked: ForkServerProcess | None = None

    def start(self, *, wait: bool = True) -> None:
        self._forked = self._forks.Process(target=_operate, args=(self._environment, str(self._log)), daemon=True)
        self._forked.start()
        if wait:
            wait_until(lambda: self.get("/readyz")[1], "the operator", timeout_s=60, interval_s=0.05)

    @property
    def pid(self) -> int:
        assert self._forked and self._forked.pid
        return self._forked.pid

    @property
    def alive(self) -> bool:
        return bool(self._forked and self._forked.is_alive())

    def kill(self) -> None:
        assert self._forked
        self._forked.kill()
        self._forked.join()


def _operate(environment: dict[str, str], log: str) -> None:
    """Be the operator from now on."""
    with open(log, "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["luthier_operator", "--log-format", "text"]
    sys.exit(luthier_operator.__main__.main())


def as_chart(cluster: ControlPlane, folder: Path, release: str, *values: str) -> Path:
    """Give a service account the roles that the chart gives it; return the kubeconfig of that service account."""
    kubectl = cluster.kubectl
    templates = ["templates/serviceaccount.yaml", "templates/rbac.yaml"]
    rendered = subprocess.run(
        [
            *(str(binaries.path("helm")), "template", release, str(REPOSITORY / "charts" / "luthier")),
            *(flag for template in templates for flag in ("--show-only", template)),
            *("--namespace", "default", "--kube-version", versions.KUBERNETES),
            *(flag for value in values for flag in ("--set", value)),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    kubectl("apply", "--server-side", "-f", "-", stdin=rendered)
    admin = yaml.safe_load(cluster.kubeconfig.read_text())
    admin["users"][0]["user"] = {"token": kubectl("create", "token", release, "--duration=2h").strip()}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(admin))
    return path
