"""Starts the processes of a distributed training on this node, by torchrun's own launcher, and collects their results.

    LUTHIER_PROCESSES_PER_NODE   processes on each node, one for each GPU; default 1
    LUTHIER_NUM_NODES            nodes, each of which runs this same command; default 1
    LUTHIER_RENDEZVOUS           host:port of the first node, where all meet
    LUTHIER_MAX_RESTARTS         how often all start again, from the newest checkpoint, when one is lost; default 1

torchrun reports that a process failed, but not why, so each process writes its Result to a folder, and the most
specific one becomes the result of the node. Whoever starts torchrun by hand needs none of this. Imports torch only when
it launches.
"""

import logging
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from luthier_api.documents import Result, RunDocument, read_result
from luthier_api.exitcodes import OUTCOMES, ExitCode
from luthier_trainer.runtime.errors import InvalidSpec, Preempted
from luthier_trainer.runtime.outcome import exit_code_of, failure_result
from luthier_trainer.runtime.workspace import Workspace

RESULTS_VARIABLE = "LUTHIER_RESULTS"
# How long a node waits for the others, which may still have to be scheduled or to pull an image.
RENDEZVOUS_TIMEOUT_S = 1800

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launch:
    """How many processes to start, and where they rendezvous."""

    nodes: int
    processes_per_node: int
    rendezvous: str
    max_restarts: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Read the environment; None if one process trains, or torchrun has already started this one.

        Raises:
            InvalidSpec: if a value is invalid.
        """
        if "RANK" in environment:
            return None
        nodes = _number(environment, "LUTHIER_NUM_NODES", 1)
        processes = _number(environment, "LUTHIER_PROCESSES_PER_NODE", 1)
        if nodes * processes == 1:
            return None
        rendezvous = environment.get("LUTHIER_RENDEZVOUS", "")
        if nodes > 1 and not rendezvous:
            raise InvalidSpec("LUTHIER_NUM_NODES is more than 1: give LUTHIER_RENDEZVOUS, host:port of the first node.")
        restarts = _number(environment, "LUTHIER_MAX_RESTARTS", 1, least=0)
        return cls(nodes, processes, rendezvous or "localhost:0", restarts)


def torchrun_ranks(environment: Mapping[str, str] = os.environ) -> tuple[int, int, int, int]:
    """Return RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; (0, 1, 0, 1) without torchrun."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if any(name not in environment for name in names):
        return 0, 1, 0, 1
    rank, size, local_rank, local_size = (int(environment[name]) for name in names)
    return rank, size, local_rank, local_size


def launch(plan: Launch, run: RunDocument, workspace: Workspace, *, port: int | None = None) -> tuple[Result, ExitCode]:
    """Run *train* in this node's processes until all have ended; the first one answers on the port."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    document, results = workspace.root / "run.json", workspace.root / "results"
    document.write_text(run.to_json())
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    os.environ[RESULTS_VARIABLE] = str(results)
    # A request to stop waits for the checkpoint; the kubelet enforces its own grace period.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "3600")
    # Else processes that start again meet at the store of those that ended, and find their addresses in it: torch 2.15
    # makes one store for all attempts (torch/distributed/elastic/rendezvous/dynamic_rendezvous.py, next_rendezvous).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    host = plan.rendezvous.rpartition(":")[0]
    assert run.resolved
    config = LaunchConfig(
        min_nodes=plan.nodes,
        max_nodes=plan.nodes,
        nproc_per_node=plan.processes_per_node,
        run_id=run.resolved.run_key[:16],
        rdzv_backend="c10d",
        rdzv_endpoint=plan.rendezvous,
        rdzv_configs={"join_timeout": RENDEZVOUS_TIMEOUT_S},
        max_restarts=plan.max_restarts,
        local_addr=host if host in ("localhost", "127.0.0.1") else None,
    )
    command = ["-m", "luthier_trainer", "train", str(document), "--workspace", str(workspace.root)]
    if port is not None:
        command += ["--port", str(port)]
    log.info("starting %d processes on this node of %d", plan.processes_per_node, plan.nodes)
    codes: list[int] = []
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
    except SignalException:
        codes = [ExitCode.PREEMPTED]
    except (RendezvousError, ConnectionError, TimeoutError) as error:
        failed = Preempted(f"Could not reach the other nodes at {plan.rendezvous}: {error}")
        return failure_result(failed), exit_code_of(failed)
    return collect_results(results, codes)


def collect_results(results: Path, codes: list[int]) -> tuple[Result, ExitCode]:
    """Return the result of this node: of its processes' Results, the most specific one.

    Args:
        results: folder of their Results.
        codes: exit codes of those that failed; negative for signals. Empty when all succeeded.
    """
    left = [read_result(path.read_text()) for path in sorted(results.glob("*.json"))]
    if not codes:
        return next(result for result in left if result.published), ExitCode.OK
    # A process that lost its peers or was asked to stop only reflects the end of another one.
    code = min((_known(code) for code in codes), key=lambda code: code is ExitCode.PREEMPTED)
    matching = (result for result in left if result.failure and result.failure.reason is OUTCOMES[code].reason)
    generic = failure_result(Preempted()) if code is ExitCode.PREEMPTED else _killed(code, codes)
    return next(matching, generic), code


def _known(code: int) -> ExitCode:
    """Return our meaning of a process's exit code; subprocess says -n of a signal where the kernel says 128 + n."""
    try:
        return ExitCode(128 - code if code < 0 else code)
    except ValueError:
        return ExitCode.CRASHED


def _killed(code: ExitCode, codes: list[int]) -> Result:
    ended = ", ".join(str(each) for each in codes)
    result = failure_result(RuntimeError())
    assert result.failure
    message = f"A training process ended without a result (exit code {ended}). {OUTCOMES[code].hint}"
    return Result(failure=result.failure.model_copy(update={"reason": OUTCOMES[code].reason, "message": message}))


def _number(environment: Mapping[str, str], name: str, default: int, *, least: int = 1) -> int:
    text = environment.get(name, str(default))
    if not text.isdigit() or int(text) < least:
        raise InvalidSpec(f"{name} is {text!r}, which is not a whole number of at least {least}.")
    return int(text)
