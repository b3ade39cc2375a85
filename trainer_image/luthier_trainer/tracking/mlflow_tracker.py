"""Tells an MLflow server of the run: parameters, metrics as they come, and where the version lies.

    train ----> MlflowTracker ----> Outbox ----> a thread ----> MLflow server

Nothing here may fail a run or hold it up. Training only puts things into the outbox. The thread delivers them, waits
when the server does not answer, and goes on when it does; what is not delivered when the run ends is told in the log
and given up after `CLOSE_TIMEOUT_S`. A server that refuses (wrong password, no such right) is told nothing further.
A run that was interrupted goes on in the MLflow run that its first attempt began.

The one place that imports mlflow. User name, password and token come from the environment, as MLflow itself reads them.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from luthier_api.documents import Published, RunDocument
from luthier_api.training import MLflow
from luthier_trainer.runtime.errors import Preempted, StopRequested
from luthier_trainer.spec.flatten_spec import flattened

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 10.0
# Of a server that did not answer the last time, and for a pod that is told to stop.
SHORT_CLOSE_TIMEOUT_S = 2.0
REQUEST_TIMEOUT_S = 5
_FIRST_RETRY_S, _LONGEST_RETRY_S = 5.0, 120.0
# Of one request, by MLflow's REST API.
_MOST_METRICS, _MOST_PARAMETERS, _LONGEST_VALUE = 1000, 100, 500
_RUN_KEY_TAG = "luthier.run_key"
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_TIMEOUT_S),
    # Retries are the outbox's; MLflow's own wait for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # On by default: it reports to the makers over the internet.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Standard output is the Result document's.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True)
class Point:
    """A value of a metric at an optimizer step."""

    name: str
    value: float
    step: int
    at_ms: int


@dataclass
class Pending:
    """What is still to be told."""

    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    status: str | None = None

    def __bool__(self) -> bool:
        return bool(self.parameters or self.tags or self.points or self.status)


class MlflowTracker(TrainerCallback):
    """A callback of the Trainer that tells an MLflow server, or nobody where none is configured.

    Use as a context: what leaves it by an exception leaves a failed MLflow run.
    """

    def __init__(self, run: RunDocument | None = None) -> None:
        server = run.spec.tracking.mlflow if run else None
        self._outbox = _Outbox(server, run) if run and server else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The run is one: it was not found in the registry, and its model and data are there."""
        if self._outbox and state.is_world_process_zero:
            self._outbox.open()

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
        self._tell({name: value for name, value in logged.items() if name != "step"}, state.global_step)

    def measured(self, metrics: Mapping[str, float], step: int) -> None:
        """The final metrics are known."""
        self._tell(metrics, step)

    def published(self, version: Published) -> None:
        """The version lies in the registry."""
        if self._outbox:
            said = {"version": version.version, "uri": version.uri, "digest": version.digest}
            said["promotable"] = str(version.promotable).lower()
            self._outbox.put(Pending(tags={f"luthier.{name}": value for name, value in said.items()}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._outbox:
            stopped = isinstance(error, StopRequested | Preempted)
            self._outbox.close("FINISHED" if error is None else "KILLED" if stopped else "FAILED")

    def _tell(self, values: Mapping[str, Any], step: int) -> None:
        if not self._outbox:
            return
        now = int(time.time() * 1000)
        numbers = {name: float(v) for name, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
        self._outbox.put(Pending(points=[Point(name, value, step, now) for name, value in numbers.items()]))


class _Outbox:
    """What is to be told to one server, and the thread that tells it."""

    def __init__(self, server: MLflow, run: RunDocument) -> None:
        self._uri = server.uri
        self._experiment = server.experiment
        self._run_name = run.origin.run if run.origin else run.spec.output.name
        self._run_key = run.resolved.run_key if run.resolved else ""
        self._pending = Pending(
            parameters={name: value[:_LONGEST_VALUE] for name, value in flattened(run.spec).items()}
        )
        self._changed = threading.Condition()
        self._closing = False
        self._refused = False
        self._silent = False
        self._thread = threading.Thread(target=self._deliver, name="mlflow", daemon=True)
        self._mlflow_run: str | None = None

    def open(self) -> None:
        """Begin to deliver."""
        if not self._thread.is_alive() and not self._closing:
            self._thread.start()

    def put(self, more: Pending) -> None:
        """Add to what is to be told."""
        with self._changed:
            self._pending.tags |= more.tags
            self._pending.points += more.points
            self._changed.notify()

    def close(self, status: str) -> None:
        """Say how the run ended, wait a little for the delivery, and give up on the rest."""
        if not self._thread.is_alive():
            return
        with self._changed:
            self._pending.status = status
            self._closing = True
            self._changed.notify()
        self._thread.join(SHORT_CLOSE_TIMEOUT_S if self._silent or status == "KILLED" else CLOSE_TIMEOUT_S)
        if self._thread.is_alive() or (self._pending and not self._refused):
            log.warning("the MLflow server did not take everything; the run is not complete there")

    def _deliver(self) -> None:
        """The thread: deliver what there is, wait for more, and wait longer while the server does not answer."""
        delay = _FIRST_RETRY_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._pending) or self._closing)
                closing = self._closing
            try:
                self._send()
            except Exception as error:  # whatever the client raises: nothing of it may reach the run
                if _is_refusal(error):
                    log.warning("the MLflow server refuses to be told of the run: %s", _first_line(error))
                    self._refused = True
                    return
                if not self._silent:
                    log.warning("the MLflow server does not answer, training goes on without: %s", _first_line(error))
                self._silent = True
                with self._changed:
                    if self._closing:
                        return
                    self._changed.wait_for(lambda: self._closing, delay)
                delay = min(2 * delay, _LONGEST_RETRY_S)
            else:
                delay, self._silent = _FIRST_RETRY_S, False
                if closing and not self._pending:
                    return

    def _send(self) -> None:
        """Deliver what is pending now. What a failure leaves over, or sends twice, MLflow keeps once."""
        from mlflow.entities import Metric, Param, RunTag

        client = self._client()
        mlflow_run = self._mlflow_run or self._find_or_begin(client)
        with self._changed:
            parameters = list(self._pending.parameters.items())[:_MOST_PARAMETERS]
            tags = list(self._pending.tags.items())[:_MOST_PARAMETERS]
            points = self._pending.points[: _MOST_METRICS - len(parameters) - len(tags)]
            status = self._pending.status
        if parameters or tags or points:
            client.log_batch(
                mlflow_run,
                metrics=[Metric(point.name, point.value, point.at_ms, point.step) for point in points],
                params=[Param(name, value) for name, value in parameters],
                tags=[RunTag(name, value) for name, value in tags],
            )
        with self._changed:
            for name, _ in parameters:
                del self._pending.parameters[name]
            for name, _ in tags:
                del self._pending.tags[name]
            del self._pending.points[: len(points)]
            left = self._pending.parameters or self._pending.tags or self._pending.points
        if status and not left:
            client.set_terminated(mlflow_run, status)
            self._pending.status = None

    def _client(self) -> "MlflowClient":
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        # Takes seconds, and this is not the thread that trains.
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self._uri)

    def _find_or_begin(self, client: "MlflowClient") -> str:
        """Return the id of the MLflow run that an earlier attempt began, or of a new one."""
        experiment = client.get_experiment_by_name(self._experiment)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(self._experiment)
        begun = client.search_runs([experiment_id], f"tags.`{_RUN_KEY_TAG}` = '{self._run_key}'", max_results=1)
        if begun:
            self._mlflow_run = str(begun[0].info.run_id)
            client.update_run(self._mlflow_run, status="RUNNING")
            with self._changed:
                # MLflow takes a parameter once, and what does not decide the result may have changed since.
                self._pending.parameters.clear()
        else:
            tags = {_RUN_KEY_TAG: self._run_key}
            self._mlflow_run = str(client.create_run(experiment_id, tags=tags, run_name=self._run_name).info.run_id)
        return self._mlflow_run


def _is_refusal(error: Exception) -> bool:
    """Tell a server that will say the same next time (4xx) from one that may answer later."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException) or error.error_code == "RESOURCE_ALREADY_EXISTS":
        return False
    status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    return 400 <= status < 500 and status not in (408, 425, 429)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
