"""A run that is killed and resumed, beside one that is left alone: what the kill costs, and whether the weights agree.

The command line trains the small real model, as in a pod, with its registry in a folder. On a GPU the weights agree as
far as its kernels are deterministic, so their largest difference is written down, beside that of two undisturbed runs.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import Record
from safetensors.torch import load_file
from texts import read

from luthier_dev import samples

EVERY_STEPS = 20


def document(folder: Path, name: str, rows: int) -> Path:
    train = folder / "train.csv"
    with train.open("w", newline="") as file:
        labelled = [(text, "yes" if label else "no") for text, label in read(samples.reviews_csv().train)[:rows]]
        csv.writer(file).writerows([("text", "label"), *labelled])
    spec: dict[str, Any] = {
        "model": {"uri": samples.base_model().as_uri()},
        "dataset": {"train": {"uri": train.as_uri()}, "preprocessing": {"maxLength": 64}},
        "hyperparameters": {"epochs": 1, "batchSize": 8, "learningRate": "5e-5"},
        "checkpoint": {"everySteps": EVERY_STEPS},
        "export": ["safetensors"],
        "tracking": {"tensorboard": False},
        # Each step is in the log, so that the kill knows when.
        "trainingArguments": {"logging_steps": "1"},
        "output": {"name": "m", "uri": (folder / name).as_uri()},
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"spec": spec}))
    return path


def start(run: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        command = [sys.executable, "-m", "luthier_trainer", "run", str(run), "--port", "0"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=output, start_new_session=True)


def finish(run: Path, log: Path) -> float:
    """Train to the end, and return the seconds that it took."""
    began = time.monotonic()
    code = start(run, log).wait()
    if code:
        raise RuntimeError(f"a run ended with exit code {code}:\n{log.read_text()[-2000:]}")
    return time.monotonic() - began


def kill_at(run: Path, log: Path, step: int) -> float:
    """Kill a run after a step, and return the seconds that it had."""
    began = time.monotonic()
    process = start(run, log)
    try:
        while process.poll() is None:
            if any(int(found) >= step for found in re.findall(r" step (\d+)/\d+ loss=", log.read_text())):
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
    finally:
        if process.wait() >= 0:
            raise RuntimeError(f"the run ended before step {step}:\n{log.read_text()[-2000:]}")
    return time.monotonic() - began


def largest_difference(folder: Path, one: str, other: str) -> float:
    [left], [right] = (list((folder / name).rglob("versions/*/model.safetensors")) for name in (one, other))
    weights, others = load_file(left), load_file(right)
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


def main() -> None:
    record = Record.from_command_line(__doc__)
    # The longest run of the three is killed at two thirds of its steps.
    rows = 320 if record.tiny else 1900
    step = 2 * EVERY_STEPS + 5 if not record.tiny else EVERY_STEPS + 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = {each: document(folder, each, rows) for each in ("alone", "again", "killed")}
        log = folder / "killed.log"
        record.found["alone_s"] = round(finish(runs["alone"], folder / "alone.log"), 2)
        record.write()
        lived = kill_at(runs["killed"], log, step)
        after = finish(runs["killed"], log)
        resumed = re.findall(r"resuming from the checkpoint of step (\d+)", log.read_text())
        record.found |= {
            "killed_after_step": step,
            "killed_after_s": round(lived, 2),
            "resumed_from_step": int(resumed[-1]),
            "rest_s": round(after, 2),
            "largest_difference": largest_difference(folder, "alone", "killed"),
        }
        record.write()
        if record.has_time_for("a second undisturbed run", record.found["alone_s"] * 1.2):
            finish(runs["again"], folder / "again.log")
            record.found["largest_difference_of_undisturbed_runs"] = largest_difference(folder, "alone", "again")
            record.write()
    print(json.dumps({name: value for name, value in record.found.items() if name != "machine"}), flush=True)


if __name__ == "__main__":
    main()
