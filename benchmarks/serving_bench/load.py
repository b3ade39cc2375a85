"""The load: wrk for a fixed number of clients, vegeta for a fixed rate. Both run on the core that the server has not.

wrk is a closed loop: each client sends its next request when it has its answer, so a slow server is asked less. When
one took over twice the mean, wrk adds the requests that its client would have sent meanwhile. vegeta is an open loop:
it sends at even intervals whatever the server does, as users do, so a server that is too slow builds up a queue. Why
vegeta: it keeps its pace with little CPU, anybody can run it again, and it leaves time and answer of every request.
"""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from luthier_dev import binaries, prerequisites

IN_TIME_MS = 100.0
CLOSED_TIMEOUT_S, OPEN_TIMEOUT_S = 30, 5
_HEADER = {"Content-Type": ["application/json"]}


@dataclass(frozen=True)
class Answer:
    """One answer: its status, 0 if none came, and its body."""

    status: int
    body: str


@dataclass(frozen=True)
class Seen:
    """What a generator saw.

    Attributes:
        seconds: how long it sent.
        until_last_s: how long it took until the last answer.
        latencies_ms: sorted, of answers with status 200.
        answers: all of them.
    """

    seconds: float
    until_last_s: float
    latencies_ms: np.ndarray
    answers: list[Answer]

    @property
    def good(self) -> int:
        return sum(each.status == 200 for each in self.answers)

    @property
    def in_time_per_s(self) -> float:
        """Goodput: good answers a second that took less than 100 ms."""
        if not len(self.latencies_ms):
            return 0.0
        return float(np.mean(self.latencies_ms < IN_TIME_MS)) * self.good / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.latencies_ms, percent)) if len(self.latencies_ms) else float("inf")


def ensure_generators() -> None:
    """Install wrk and build vegeta."""
    prerequisites.ensure_packages({"wrk": "wrk"})
    binaries.ensure(["vegeta"])


def closed_loop(url: str, texts: list[str], clients: int, seconds: int, folder: Path) -> Seen:
    """Let clients ask one request after another."""
    bodies, answers = folder / "bodies", folder / "answers"
    bodies.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    command = ["wrk", "--threads=1", f"--connections={clients}", f"--duration={seconds}s"]
    command += [f"--timeout={CLOSED_TIMEOUT_S}s", f"--script={Path(__file__).with_name('wrk.lua')}", url, "--"]
    done = subprocess.run([*command, str(bodies), str(answers)], capture_output=True, text=True, check=True)
    measured = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("MEASURED"))[9:])
    found = [line.split(" ", 1) for line in answers.read_text().splitlines()]
    values, counts = np.array(measured["latencies_us"]).reshape(-1, 2).T
    took_s = measured["microseconds"] / 1e6
    return Seen(
        seconds=took_s,
        until_last_s=took_s,
        latencies_ms=np.repeat(values / 1000, counts),
        answers=[Answer(int(status), body) for status, body in found] + [Answer(0, "")] * measured["socket_errors"],
    )


def open_loop(url: str, texts: list[str], rate: float, seconds: int, folder: Path) -> Seen:
    """Send at even intervals, and wait for the last answer."""
    targets, results = folder / "targets", folder / "results"
    lines = []
    for text in texts:
        body = base64.b64encode(json.dumps({"text": text}).encode()).decode()
        lines.append(json.dumps({"method": "POST", "url": f"{url}/predict", "header": _HEADER, "body": body}))
    targets.write_text("\n".join(lines))
    vegeta = str(binaries.path("vegeta"))
    command = [vegeta, "attack", "-format=json", f"-targets={targets}", f"-rate={rate:g}/s", f"-duration={seconds:g}s"]
    subprocess.run([*command, f"-timeout={OPEN_TIMEOUT_S}s", f"-output={results}"], check=True)
    encoded = subprocess.run([vegeta, "encode", "-to=json", str(results)], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in encoded.stdout.splitlines()]
    good = sorted(row["latency"] / 1e6 for row in rows if row["code"] == 200)
    bodies = [base64.b64decode(row["body"] or "").decode() for row in rows]
    return Seen(
        seconds=seconds,
        until_last_s=max(_end_s(row) for row in rows) - min(_start_s(row) for row in rows),
        latencies_ms=np.array(good),
        answers=[Answer(row["code"], body) for row, body in zip(rows, bodies, strict=True)],
    )


def _start_s(row: dict[str, Any]) -> float:
    return datetime.fromisoformat(row["timestamp"]).timestamp()


def _end_s(row: dict[str, Any]) -> float:
    return _start_s(row) + float(row["latency"]) / 1e9
