"""Reports a run to an MLflow server: parameters, metrics as they come, and where the version lies.

    train ----> MlflowTracker ----> a queue ----> a thread ----> MLflow's asynchronous logging ----> server

Nothing here may fail a run or slow it down. Training only puts values into the queue. A thread of our own makes the
MLflow run and ends it, which MLflow does only while the caller waits; values are sent by MLflow's asynchronous logging,
which retries each request for minutes. What is not delivered when the run ends is given up after `CLOSE_TIMEOUT_S`. A
run that was interrupted continues in the MLflow run of its first attempt.

The one place that imports mlflow. User name, password and token come from the environment, as MLflow itself reads them.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Mapping
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from luthier_api.documents import Published, RunDocument
from luthier_api.training import MLflow
from luthier_trainer.runtime.errors import Preempted, StopRequested
from luthier_trainer.spec.flatten_spec import flatten_spec

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

# How long the end of a run waits for the server; and the end of a run that was asked to stop.
CLOSE_TIMEOUT_S = 7.0
SHORT_CLOSE_TIMEOUT_S = 2.0
# Between attempts to reach a server that did not answer MLflow's own retries.
_REOPEN_AFTER_S = 60.0
_LONGEST_VALUE = 500  # of a parameter, by MLflow's REST API
_RUN_KEY_TAG = "luthier.run_key"
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    # With MLflow's growing pauses this is about ten minutes, and the most that it takes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "10",
    # On by default: it reports to the makers over the internet.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Standard output is the Result document's.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class MlflowTracker(TrainerCallback):
    """A callback of the Trainer that reports to an MLflow server, or does nothing where none is configured.

    Use as a context: what leaves it by an exception leaves a failed MLflow run.
    """

    def __init__(self, run: RunDocument | None = None) -> None:
        server = run.spec.tracking.mlflow if run else None
        self._reporter = _Reporter(server, run) if run and server else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The run trains: it was not found in the registry, and its model and data are there."""
        if self._reporter and state.is_world_process_zero:
            self._reporter.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Losses, rates, metrics and speed of a step: what the history has of it, to which others may have added."""
        logged = state.log_history[-1]
        self.measured({name: value for name, value in logged.items() if name != "step"}, state.global_step)

    def measured(self, values: Mapping[str, Any], step: int) -> None:
        """Report values of a step; those that are not finite numbers are left out."""
        if self._reporter:
            numbers = {name: float(v) for name, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
            self._reporter.put(metrics=numbers, step=step)

    def published(self, version: Published) -> None:
        """The version lies in the registry."""
        if self._reporter:
            tags = {"version": version.version, "uri": version.uri, "digest": version.digest}
            tags["promotable"] = str(version.promotable).lower()
            self._reporter.put(tags={f"luthier.{name}": value for name, value in tags.items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reporter:
            stopped = isinstance(error, StopRequested | Preempted)
            self._reporter.close("FINISHED" if error is None else "KILLED" if stopped else "FAILED")


class _Reporter:
    """One MLflow run, and the thread that makes, fills and ends it."""

    def __init__(self, server: MLflow, run: RunDocument) -> None:
        self._server = server
        self._run_name = run.origin.run if run.origin else run.spec.output.name
        self._run_key = run.resolved.run_key if run.resolved else ""
        self._parameters = {name: value[:_LONGEST_VALUE] for name, value in flatten_spec(run.spec).items()}
        # (metrics, step, milliseconds, tags); None ends the run.
        self._queue: SimpleQueue[tuple[dict[str, float], int, int, dict[str, str]] | None] = SimpleQueue()
        self._closing = threading.Event()
        self._status = "FINISHED"
        self._thread = threading.Thread(target=self._report, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        if not self._thread.is_alive() and not self._closing.is_set():
            self._thread.start()

    def put(
        self, *, metrics: dict[str, float] | None = None, step: int = 0, tags: dict[str, str] | None = None
    ) -> None:
        """Report values soon."""
        self._queue.put((metrics or {}, step, int(time.time() * 1000), tags or {}))

    def close(self, status: str) -> None:
        """End the MLflow run, wait a little for what is not sent yet, and give up on the rest."""
        if not self._thread.is_alive():
            return
        self._status = status
        self._closing.set()
        self._queue.put(None)
        self._thread.join(SHORT_CLOSE_TIMEOUT_S if status == "KILLED" else CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            log.warning("the MLflow server does not answer; the run is not complete there")

    def _report(self) -> None:
        try:
            client, run_id = self._open()
            self._send(client, run_id)
        except Exception as error:  # whatever the client raises: nothing of it may reach the run
            log.warning("the MLflow server did not take everything; the run is not complete there: %s", _line(error))

    def _send(self, client: "MlflowClient", run_id: str) -> None:
        from mlflow.entities import Metric, RunTag

        sent = []
        for metrics, step, at_ms, tags in iter(self._queue.get, None):
            points = [Metric(name, value, at_ms, step) for name, value in metrics.items()]
            labels = [RunTag(name, value) for name, value in tags.items()]
            if operations := client.log_batch(run_id, points, tags=labels, synchronous=False):
                sent.append(operations)
        try:
            for operations in sent:
                operations.wait()  # type: ignore[no-untyped-call]
        finally:
            client.set_terminated(run_id, self._status)

    def _open(self) -> tuple["MlflowClient", str]:
        """Return a client and the id of the MLflow run, as soon as the server answers."""
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        # Takes seconds, and this is not the thread that trains.
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self._server.uri)
        while True:
            try:
                return client, self._find_or_begin(client)
            except Exception as error:
                if _is_refusal(error) or self._closing.is_set():
                    raise
                log.warning("the MLflow server does not answer, training continues without it: %s", _line(error))
                self._closing.wait(_REOPEN_AFTER_S)

    def _find_or_begin(self, client: "MlflowClient") -> str:
        """Return the id of the MLflow run that an earlier attempt began, or of a new one."""
        from mlflow.entities import Param

        experiment = client.get_experiment_by_name(self._server.experiment)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(self._server.experiment)
        begun = client.search_runs([experiment_id], f"tags.`{_RUN_KEY_TAG}` = '{self._run_key}'", max_results=1)
        if begun:
            found = begun[0]
            client.update_run(found.info.run_id, status="RUNNING")
        else:
            found = client.create_run(experiment_id, tags={_RUN_KEY_TAG: self._run_key}, run_name=self._run_name)
        # MLflow takes a parameter once, and what does not decide the result may have changed since the first attempt.
        if not found.data.params:
            client.log_batch(found.info.run_id, params=[Param(*each) for each in self._parameters.items()])
        return str(found.info.run_id)


def _is_refusal(error: Exception) -> bool:
    """Tell a server that will say the same next time (4xx) from one that may answer later."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException) or error.error_code == "RESOURCE_ALREADY_EXISTS":
        return False
    status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    return 400 <= status < 500 and status not in (408, 425, 429)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
