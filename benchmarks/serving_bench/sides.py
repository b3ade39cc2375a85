"""The servers that are compared, and how each is started on its core. Each gives its URL once it answers.

    Q1       the tutorial: Flask and transformers' pipeline
    Q2       by hand: FastAPI, ONNX Runtime, tokenizers, orjson
    Q3       stock Ray Serve with @serve.batch, as its documentation shows it
    Q4       LitServe; BentoML, which is slower, is measured when it is asked for
    Q5       Luthier's server of an earlier commit: a front, and a revision over a handle
    Luthier  the server of this checkout

Q1 and Q3 compute in fp32 with torch, as the pages they come from do; all others with the int8 model.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.serving_bench import luthier, usage
from benchmarks.serving_bench.answers import ask
from benchmarks.serving_bench.artifact import Artifact
from benchmarks.serving_bench.serve import ray_serve
from luthier_dev import environments
from luthier_dev.errors import NotReady
from luthier_dev.paths import REPOSITORY
from luthier_dev.processes import Program, end, free_ports, start_child
from luthier_dev.waiting import wait_until

PEERS = Path(__file__).with_name("peers")
_TIMEOUT_S = 180.0
_PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
# Ray's own defaults, in place of what Luthier's image sets.
_STOCK_RAY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "1",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
}
_NO_REPORTS = {"BENTOML_DO_NOT_TRACK": "True", "HF_HUB_OFFLINE": "1"}

Start = Callable[[Artifact], AbstractContextManager[str]]


def requirements() -> list[str]:
    """Return what the peers run with: where our own packages use it too, in the version of constraints.txt."""
    pins = dict(_PIN.findall((REPOSITORY / "constraints.txt").read_text()))
    wanted = [line.partition("#")[0].strip() for line in (PEERS / "requirements.txt").read_text().splitlines()]
    names = {each: each.partition("[")[0] for each in wanted if each}
    return [each if "==" in each else f"{each}=={pins[name]}" for each, name in names.items()]


def peers_environment() -> Path:
    """Return the virtual environment of the peers; make it where it is not there."""
    wanted = requirements()
    name = f"serving-peers-{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:8]}"
    return environments.ensure(name, "the peers", wanted, usually_s=60)


def _script(name: str, file: str) -> Start:
    def start(artifact: Artifact) -> AbstractContextManager[str]:
        return _program(name, artifact, [str(peers_environment() / "bin" / "python"), str(PEERS / file)])

    return start


def _bentoml(artifact: Artifact) -> AbstractContextManager[str]:
    program = str(peers_environment() / "bin" / "bentoml")
    return _program("BentoML", artifact, [program, "serve", "bentoml_service:Classifier", "--working-dir", str(PEERS)])


def _stock_ray(artifact: Artifact) -> AbstractContextManager[str]:
    application = {"name": "default", "import_path": "ray_batch:classifier", "route_prefix": "/predict"}
    environment = {**_served(artifact), **_STOCK_RAY, "PYTHONPATH": str(PEERS)}
    return ray_serve("Q3", {"proxy_location": "EveryNode", "applications": [application]}, environment)


@contextmanager
def _program(name: str, artifact: Artifact, argv: list[str]) -> Iterator[str]:
    (port,) = free_ports(1)
    environment = {**_served(artifact), "PORT": str(port), "BENTOML_PORT": str(port)}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with usage.on_cores(usage.SERVER_CORE):
            process = start_child(Program(name, argv, environment), log, usage.SCOPE)

        def missing() -> str | None:
            if process.poll() is not None:
                raise NotReady(f"{name} ended with status {process.returncode}: {log.read_text()[-2000:]}")
            try:
                ask(f"http://127.0.0.1:{port}", "A film.")
            except OSError as error:
                return str(error)
            return None

        try:
            wait_until(missing, name, _TIMEOUT_S)
            yield f"http://127.0.0.1:{port}"
        finally:
            end(usage.processes(), grace_s=2)
            process.wait()


def _served(artifact: Artifact) -> dict[str, str]:
    return {"ARTIFACT": str(artifact.folder), "VERSION": artifact.version, **_NO_REPORTS}


SIDES: dict[str, Start] = {
    "Q1": _script("Q1", "tutorial.py"),
    "Q2": _script("Q2", "by_hand.py"),
    "Q3": _stock_ray,
    "Q4": _script("Q4", "litserve_api.py"),
    "BentoML": _bentoml,
    "Q5": luthier.before,
    "Luthier": luthier.now,
}
DEFAULT = [name for name in SIDES if name != "BentoML"]
