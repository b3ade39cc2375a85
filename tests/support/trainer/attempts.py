"""Processes that train and may be killed, asked to stop, or led to storage that fails.

Without torch: conftest imports it before the number of threads is set.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier_api.documents import Result, read_result
from luthier_api.exitcodes import ExitCode
from luthier_dev.waiting import wait_until
from luthier_trainer.runtime.turns import LAPSE_VARIABLE

# What was killed is not waited for long.
SOON = "0.6"
FORK_SERVER = Path(__file__).with_name("fork_server.py")


@dataclass
class Attempt:
    """One process that trains."""

    pid: int
    log_file: Path
    server: subprocess.Popen[str]
    result_file: Path

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return the exit code, -n for signal n."""
        assert self.server.stdout
        return int(self.server.stdout.readline())

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def steps(self) -> list[int]:
        """The steps that it told of as done."""
        return [int(step) for step in re.findall(r" step (\d+)/\d+ loss=", self.log)]

    @property
    def resumed_from(self) -> int | None:
        found = [line for line in self.log.splitlines() if "resuming from the checkpoint of step " in line]
        return int(found[0].rpartition(" ")[2]) if found else None

    @property
    def result(self) -> Result:
        return read_result(self.result_file.read_text())

    def wait_until_it_trains(self, *, or_resumes: bool = False) -> None:
        def missing() -> str | None:
            return None if self.steps or (or_resumes and self.resumed_from) else self.log

        wait_until(missing, "the first step", timeout_s=120, interval_s=0.002)


@dataclass
class Trainer:
    """Starts attempts of runs, one at a time."""

    server: subprocess.Popen[str]
    folder: Path
    attempts: int = 0

    def start(self, document: dict[str, Any], **environment: str) -> Attempt:
        self.attempts += 1
        here = self.folder / f"attempt-{self.attempts}"
        here.mkdir()
        (here / "run.json").write_text(json.dumps(document))
        argv = ["train", str(here / "run.json"), "--workspace", str(here / "workspace"), "--port", "0"]
        credentials = {name: value for name, value in os.environ.items() if name.startswith("LUTHIER_OUTPUT_")}
        own = {"LUTHIER_TERMINATION_LOG": str(here / "result.json"), LAPSE_VARIABLE: SOON}
        environment = credentials | own | environment
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps({"argv": argv, "env": environment, "log": str(here / "log")}) + "\n")
        self.server.stdin.flush()
        pid = int(self.server.stdout.readline())
        return Attempt(pid, here / "log", self.server, here / "result.json")

    def finish(self, document: dict[str, Any], **environment: str) -> Attempt:
        """Run to the end, which must be a version."""
        attempt = self.start(document, **environment)
        assert attempt.wait() == 0, attempt.log
        return attempt


def through(document: dict[str, Any], server: Any) -> dict[str, Any]:
    """The same run, whose storage is reached through the server that disturbs."""
    return document | {"outputAccess": document["outputAccess"] | {"endpoint": server.endpoint}}


def stopped(trainer: Trainer, document: dict[str, Any]) -> int:
    """Train a little, and return the step of the checkpoint that a request to stop left."""
    attempt = trainer.start(document)
    wait_until(lambda: None if len(attempt.steps) > 2 else attempt.log, "the third step", 120, interval_s=0.002)
    attempt.signal(signal.SIGTERM)
    assert attempt.wait() == ExitCode.PREEMPTED, attempt.log
    assert attempt.result.failure
    return int(re.findall(r"checkpoint of step (\d+) is stored", attempt.result.failure.message)[0])
