"""Two processes that train together learn what one does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier_api.documents import read_result
from support.trainer.attempts import Trainer
from support.trainer.endings import elsewhere, ending

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def test_two_processes_learn_what_one_does_also_when_one_of_them_is_lost(
    bench: Any, trainer: Trainer, long_run: dict[str, Any]
) -> None:
    """Without dropout, which is random in each process by itself."""
    config = json.loads((bench.folder / "workspace-1" / "model" / "config.json").read_text())
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    bench.put("base/config.json", json.dumps(config | without).encode())
    long_run["spec"]["hyperparameters"]["epochs"] = 10
    together = bench.prepared(long_run)
    trainer.finish(elsewhere(bench, long_run, "alone"))

    (bench.folder / "together.json").write_text(json.dumps(together))
    command = [sys.executable, "-m", "luthier_trainer", "train", str(bench.folder / "together.json")]
    environment = os.environ | {"LUTHIER_PROCESSES_PER_NODE": "2"}
    with (bench.folder / "log").open("w") as log:
        launcher = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        try:
            wait_for_text(bench.folder / "log", "stored the checkpoint", launcher)
            os.kill(second_of(launcher.pid), signal.SIGKILL)
            out, _ = launcher.communicate(timeout=300)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()
    text = (bench.folder / "log").read_text()
    assert launcher.returncode == 0, text
    assert "resuming from the checkpoint of step" in text
    assert read_result(out).published

    one, two = ending(bench, "alone", bench.folder / "one"), ending(bench, "registry", bench.folder / "two")
    assert len(one.losses) == one.steps == 120
    assert one.losses.keys() == two.losses.keys()
    assert max(abs(one.losses[step] - two.losses[step]) for step in one.losses) < 1e-4
    assert one.evaluations == [pytest.approx(each, abs=1e-4) for each in two.evaluations]
    for name, weight in one.weights.items():
        torch.testing.assert_close(weight, two.weights[name], atol=1e-3, rtol=0)


def wait_for_text(path: Path, text: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while text not in path.read_text():
        assert process.poll() is None and time.monotonic() < deadline, path.read_text()
        time.sleep(0.01)


def second_of(launcher: int) -> int:
    """Return the process id of the launcher's process of rank 1."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    (found,) = [pid for pid in children if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    return int(found)
