"""A process that is asked to stop ends as preempted before it is killed, whatever it waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from luthier_api.documents import GRACE_VARIABLE, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_trainer.runtime.errors import LossNotFinite, StopRequested
from luthier_trainer.runtime.stopping import Stop

pytestmark = pytest.mark.unit

# Stuck in the middle of a training, as in an upload to storage that does not answer.
STUCK = """
import threading
from luthier_trainer.cli import stop_in_time
stop = stop_in_time(0)
with stop.on_sigterm(), stop.deferred():
    print("ready", flush=True)
    threading.Event().wait()
"""


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_request_takes_effect_at_once_unless_it_is_deferred() -> None:
    stop = Stop()
    with stop.on_sigterm(), pytest.raises(StopRequested):
        ask()
    assert not stop.requested


def test_a_deferred_request_is_only_noted_and_takes_effect_at_the_end() -> None:
    stop, passed = Stop(), False
    with stop.on_sigterm(), pytest.raises(StopRequested), stop.deferred():
        ask()
        assert stop.requested
        passed = True
    assert passed


def test_a_second_request_is_never_deferred() -> None:
    stop = Stop()
    with stop.on_sigterm(), stop.deferred():
        ask()
        with pytest.raises(StopRequested):
            ask()
        stop.requested = False


def test_an_error_is_reported_rather_than_the_request_to_stop_that_came_before_it() -> None:
    stop = Stop()
    with stop.on_sigterm(), pytest.raises(LossNotFinite), stop.deferred():
        ask()
        raise LossNotFinite("no number")


def test_a_request_that_nobody_acts_on_is_overdue_shortly_before_the_kill() -> None:
    overdue = threading.Event()
    stop = Stop(0.2, overdue.set)
    with pytest.raises(StopRequested), stop.on_sigterm(), stop.deferred():
        ask()
        assert stop.requested and not overdue.is_set()
        assert overdue.wait(5)


def test_a_request_that_is_acted_on_in_time_is_never_overdue() -> None:
    overdue = threading.Event()
    stop = Stop(0.3, overdue.set)
    with pytest.raises(StopRequested), stop.on_sigterm(), stop.deferred():
        ask()
    assert not overdue.wait(0.6)


def test_a_second_request_takes_effect_at_once() -> None:
    stop = Stop(60)
    acted = False
    with pytest.raises(StopRequested), stop.on_sigterm(), stop.deferred():
        ask()
        ask()
        acted = True
    assert not acted


def test_a_pod_whose_storage_hangs_says_that_it_was_preempted(tmp_path: Path) -> None:
    last_word = tmp_path / "termination-log"
    environment = {**os.environ, GRACE_VARIABLE: "1", "LUTHIER_TERMINATION_LOG": str(last_word)}
    with subprocess.Popen([sys.executable, "-c", STUCK], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == ExitCode.PREEMPTED
    failure = Result.from_json(last_word.read_text()).failure
    assert failure and failure.reason is Reason.PREEMPTED and "in time" in failure.message
