"""What is measured of one server: that it is right, what it takes at rest, and what each load costs it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving_bench import usage
from benchmarks.serving_bench.answers import Expected
from benchmarks.serving_bench.load import Seen, closed_loop, open_loop

CLIENTS = (1, 16, 64)
RATES = (25, 75, 150)
_RESTS_S = 20.0
_RESTING_SHARE = 0.35
_IDLE_S = 4.0
# A server that answers fewer of the requests in time than this is not asked for more a second.
_LEAST_IN_TIME = 0.1
Sample = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One load.

    Attributes:
        kind: of the texts.
        clients: of the closed loop, or
        rate: requests a second of the open loop.
    """

    kind: str
    clients: int = 0
    rate: float = 0

    @property
    def name(self) -> str:
        return f"{self.clients} clients, {self.kind}" if self.clients else f"{self.rate:g} a second, {self.kind}"


CASES = [
    *(Case("mixed", clients=clients) for clients in CLIENTS),
    Case("short", clients=CLIENTS[-1]),
    Case("long", clients=CLIENTS[-1]),
    *(Case("mixed", rate=rate) for rate in RATES),
]


def at_rest(url: str, expected: Expected, ready_s: float) -> Sample:
    """Check one answer to every text, and measure the server while nobody asks it anything."""
    difference = expected.check_server(url)
    usage.wait_until_quiet(_RESTING_SHARE, _RESTS_S)
    return {
        "case": "at rest",
        "ready_s": round(ready_s, 1),
        "idle_share": round(usage.idle_share(_IDLE_S), 3),
        "memory_mib": usage.memory_mib(),
        "texts_checked": len(expected.labels),
        "largest_difference_in_confidence": round(difference, 4),
    }


def loaded(
    url: str, texts: dict[str, list[str]], expected: Expected, idle_share: float, seconds: int
) -> Iterator[Sample]:
    """Put one load after another on the server, and check every answer."""
    for case in CASES:
        usage.wait_until_quiet(idle_share + 0.1, _RESTS_S)
        with tempfile.TemporaryDirectory() as folder:
            before = usage.read_cpu()
            seen = _send(case, url, texts[case.kind], seconds, Path(folder))
            cpu = usage.read_cpu()
        expected.check(seen.answers)
        yield _sample(case, seen, cpu.since(before), cpu.at - before.at)
        if case.rate and seen.in_time_per_s < _LEAST_IN_TIME * case.rate:
            return


def _send(case: Case, url: str, texts: list[str], seconds: int, folder: Path) -> Seen:
    if case.clients:
        return closed_loop(url, texts, case.clients, seconds, folder)
    return open_loop(url, texts, case.rate, seconds, folder)


def _sample(case: Case, seen: Seen, cpu_s: float, wall_s: float) -> Sample:
    # Of an open loop every latency; of a closed one, which is not stopped by a slow server, its percentiles.
    kept = seen.latencies_ms if case.rate else np.percentile(seen.latencies_ms, range(101))
    return {
        "case": case.name,
        "answered": seen.good,
        "failed": len(seen.answers) - seen.good,
        "seconds": round(seen.seconds, 3),
        "cpu_s": round(cpu_s, 3),
        "wall_s": round(wall_s, 3),
        "per_s": round(seen.good / seen.until_last_s, 1),
        "in_time_per_s": round(seen.in_time_per_s, 1),
        "p50_ms": round(seen.percentile_ms(50), 2),
        "p99_ms": round(seen.percentile_ms(99), 2),
        "latencies_ms" if case.rate else "percentiles_ms": [round(float(each), 1) for each in kept],
    }
