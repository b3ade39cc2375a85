"""Runs what waits for a GPU, each stage for its own time and with its own file of results.

A stage that overruns is ended, and what it had written down stays. Time that one does not use goes to those after it.
With less than the whole time, what matters least is left out; `stages.json` says what was run, for how long, and why
something was not. Needs the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).parent
# The plan is for eight minutes; with others all shares grow or shrink alike.
PLANNED_MINUTES = 8.0


@dataclass(frozen=True)
class Stage:
    """One thing to run.

    Attributes:
        name: of the stage and its file.
        wanted_s: of eight minutes.
        least_s: with less it is not worth beginning.
        weight: what matters most has the largest; the others are left out first.
    """

    name: str
    wanted_s: float
    least_s: float
    weight: int

    def command(self, results: Path, options: argparse.Namespace, seconds: float) -> list[str]:
        """Return the command that writes gpu-NAME.json, or for the tests gpu-tests.xml."""
        output = results / f"gpu-{self.name}.json"
        if self.name == "tests":
            report = ["--junitxml", str(results / "gpu-tests.xml"), "-o", "junit_family=xunit2"]
            return [sys.executable, "-m", "pytest", "-m", "gpu", "tests/gpu", "-p", "no:cacheprovider", *report]
        size = ["--tiny"] if options.tiny else []
        script = str(HERE / "benchmarks" / "gpu" / f"{self.name}.py")
        # A little less than the limit, so that it ends by itself.
        limit = ["--seconds", f"{max(1.0, seconds - 10):.0f}"]
        return [sys.executable, script, "--output", str(output), "--device", options.device, *size, *limit]


STAGES = (
    Stage("tests", wanted_s=90, least_s=40, weight=6),
    Stage("training", wanted_s=170, least_s=60, weight=5),
    Stage("accuracy", wanted_s=60, least_s=30, weight=4),
    Stage("methods", wanted_s=40, least_s=20, weight=1),
    Stage("survival", wanted_s=60, least_s=45, weight=2),
    Stage("serving", wanted_s=50, least_s=20, weight=3),
)


def plan(minutes: float) -> dict[str, float]:
    """Return the seconds of each stage, 0 for one that is left out."""
    chosen = list(STAGES)
    while chosen and sum(stage.least_s for stage in chosen) > minutes * 60:
        chosen.remove(min(chosen, key=lambda stage: stage.weight))
    spare = minutes * 60 - sum(stage.least_s for stage in chosen)
    wanted = sum(stage.wanted_s - stage.least_s for stage in chosen)
    return {
        stage.name: stage.least_s + spare * (stage.wanted_s - stage.least_s) / wanted if stage in chosen else 0.0
        for stage in STAGES
    }


def run(command: list[str], log: Path, seconds: float) -> tuple[str, float]:
    """Run a command, ended when its time is over; return how it ended, and after how many seconds."""
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=HERE, stdout=output, stderr=output, start_new_session=True)
        try:
            code = process.wait(seconds)
            state = "finished" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            state = "ended: its time was over"
        finally:
            # Whatever it started goes with it.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return state, time.monotonic() - began


def read_report(report: Path) -> dict[str, Any]:
    """Return how many tests passed, failed and were skipped, and how each ended, from pytest's report."""
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    found: dict[str, Any] = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    found["passed"] = found["tests"] - found["failures"] - found["errors"] - found["skipped"]
    found["outcomes"] = {
        f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in suite.iter("testcase")
    }
    return found


def _outcome(case: ElementTree.Element) -> str:
    kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
    message = next((str(child.get("message"))[:300] for child in case if child.get("message")), "")
    return " ".join([*kinds, message]).strip() or "passed"


def main() -> int:
    """Run the stages, and return 1 if one failed or left no result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=PLANNED_MINUTES, help="for all stages together")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the files of results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes: is everything there, does it run?")
    parser.add_argument("--only", nargs="+", choices=[stage.name for stage in STAGES])
    options = parser.parse_args()
    results: Path = options.results.resolve()
    results.mkdir(parents=True, exist_ok=True)

    ends, planned, told = time.monotonic() + options.minutes * 60, plan(options.minutes), {}
    for number, stage in enumerate(STAGES):
        later = sum(planned[other.name] for other in STAGES[number + 1 :])
        seconds = ends - time.monotonic() - later
        if planned[stage.name] == 0 or (options.only and stage.name not in options.only):
            entry: dict[str, Any] = {"state": "left out: there is no time for it, or it was not asked for"}
        elif seconds < stage.least_s:
            entry = {"state": f"left out: {seconds:.0f} s were left, and it needs {stage.least_s:.0f}"}
        else:
            log = results / f"gpu-{stage.name}.log"
            print(f"==> {stage.name}: at most {seconds:.0f} s", flush=True)
            state, took = run(stage.command(results, options, seconds), log, seconds)
            entry = {"state": state, "limit_s": round(seconds), "took_s": round(took, 1)}
            if stage.name == "tests" and (report := results / "gpu-tests.xml").exists():
                document = read_report(report)
                (results / "gpu-tests.json").write_text(json.dumps(document, indent=1) + "\n")
                entry |= {name: count for name, count in document.items() if name != "outcomes"}
            entry["result"] = (results / f"gpu-{stage.name}.json").exists()
            tail = log.read_text(errors="replace").splitlines()[-12:]
            print("\n".join(f"    {line}" for line in tail), flush=True)
        told[stage.name] = entry
        print(f"    {stage.name}: {json.dumps(entry)}", flush=True)
        (results / "gpu-stages.json").write_text(
            json.dumps({"minutes": options.minutes, "stages": told}, indent=1) + "\n"
        )
    wrong = [
        name for name, entry in told.items() if entry["state"].startswith("failed") or entry.get("result") is False
    ]
    print(f"results: {results}" + (f"; not as they should be: {', '.join(wrong)}" if wrong else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
