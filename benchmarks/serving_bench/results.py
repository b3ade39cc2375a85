"""What was measured: raw samples in results/serving.json, and the tables of docs/figures.md with the targets."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.serving_bench.cases import CASES, CLIENTS, RATES, Case, Sample
from luthier_dev.paths import REPOSITORY
from support.results import as_lines

PATH = Path(__file__).parents[1] / "results" / "serving.json"
PAGE = REPOSITORY / "docs" / "figures.md"
_BEGIN, _END = "<!-- written by make bench-serving -->\n", "<!-- end -->"
REST = "at rest"
MOST = Case("mixed", clients=CLIENTS[-1]).name
ONE = Case("mixed", clients=1).name


def keep(samples: list[Sample], about: dict[str, Any]) -> None:
    """Write the samples, in place of earlier ones of the same sides."""
    earlier = json.loads(PATH.read_text())["samples"] if PATH.exists() else []
    measured = {sample["side"] for sample in samples}
    rows = [sample for sample in earlier if sample["side"] not in measured] + samples
    head = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores, {platform.release()}, Python {platform.python_version()}",
        "load_average": [round(each, 1) for each in os.getloadavg()],
        **about,
    }
    PATH.write_text(as_lines({"about": head, "samples": rows}))


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


class Figures:
    """The median of each figure over the rounds."""

    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples
        self.sides = list(dict.fromkeys(sample["side"] for sample in samples))

    @classmethod
    def read(cls) -> Figures:
        return cls(json.loads(PATH.read_text())["samples"] if PATH.exists() else [])

    def of(self, side: str, case: str, figure: Callable[[Sample], float]) -> float | None:
        found = [figure(each) for each in self._samples if (each["side"], each["case"]) == (side, case)]
        return statistics.median(found) if found else None

    def cpu_ms(self, side: str, case: str, *, idle: bool = True) -> float | None:
        """CPU-milliseconds of all processes per request, with or without what the server takes at rest."""
        rest = 0.0 if idle else self.of(side, REST, lambda sample: sample["idle_share"]) or 0.0
        return self.of(
            side, case, lambda sample: 1000 * (sample["cpu_s"] - rest * sample["wall_s"]) / max(sample["answered"], 1)
        )


def write_page() -> None:
    """Put the tables into the page of figures, between the two marks."""
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    about = json.loads(PATH.read_text())["about"]
    measured = f"{about['at']}, {about['machine']}, load average {about['load_average'][0]} at the end."
    PAGE.write_text(f"{before}{_BEGIN}\n{measured}\n\n{tables()}\n\n{_END}{after}")


def tables() -> str:
    """Return all tables, in Markdown."""
    figures = Figures.read()
    found = (_cost(figures), _latency(figures), _rates(figures), _rest(figures), _targets(figures))
    return "\n\n".join("\n".join(_markdown(rows)) for rows in found)


def _cost(figures: Figures) -> Iterator[list[str]]:
    closed = [case.name for case in CASES if case.clients]
    yield ["CPU-ms per request", *closed, f"{MOST}: without what it takes at rest"]
    for side in figures.sides:
        with_rest = [_text(figures.cpu_ms(side, case), 1) for case in closed]
        yield [side, *with_rest, _text(figures.cpu_ms(side, MOST, idle=False), 1)]


def _latency(figures: Figures) -> Iterator[list[str]]:
    closed = [case.name for case in CASES if case.clients]
    yield ["requests/s; p50, p99 in ms", *closed]
    for side in figures.sides:
        yield [side, *(_loop(figures, side, case) for case in closed)]


def _loop(figures: Figures, side: str, case: str) -> str:
    per_s, p50, p99 = (figures.of(side, case, _field(name)) for name in ("per_s", "p50_ms", "p99_ms"))
    return f"{_text(per_s, 0)}; {_text(p50, 1)}, {_text(p99, 1)}"


def _rates(figures: Figures) -> Iterator[list[str]]:
    cases = [Case("mixed", rate=rate).name for rate in RATES]
    yield ["answered a second in under 100 ms; p50, p99 in ms", *(f"{rate} a second" for rate in RATES)]
    for side in figures.sides:
        cells = []
        for case in cases:
            in_time, p50, p99 = (figures.of(side, case, _field(name)) for name in ("in_time_per_s", "p50_ms", "p99_ms"))
            overloaded = in_time is None
            cells.append(
                "overloaded before" if overloaded else f"{_text(in_time, 0)}; {_text(p50, 1)}, {_text(p99, 1)}"
            )
        yield [side, *cells]


def _rest(figures: Figures) -> Iterator[list[str]]:
    yield ["at rest", "seconds until it answers", "share of a core", "memory, MiB"]
    for side in figures.sides:
        ready, idle = (figures.of(side, REST, _field(name)) for name in ("ready_s", "idle_share"))
        memory = figures.of(side, REST, lambda sample: sum(sample["memory_mib"].values()))
        yield [side, _text(ready, 1), _text(idle, 3), _text(memory, 0)]


def _targets(figures: Figures) -> Iterator[list[str]]:
    yield ["Luthier beside", "target", "measured"]
    own, own_work = figures.cpu_ms("Luthier", MOST), figures.cpu_ms("Luthier", MOST, idle=False)
    for side, target, ours, what in (
        ("Q1", 5.0, own, "CPU"),
        ("Q3", 10.0, own, "CPU"),
        ("Q4", 1.5, own, "CPU"),
        ("Q2", 0.9, own_work, "CPU, without Ray at rest"),
        ("Q2", 0.75, own, "CPU, with it"),
    ):
        theirs = figures.cpu_ms(side, MOST)
        yield [f"{side}: {what}", f">= {target:g} x", _verdict(theirs, ours, lambda ratio, t=target: ratio >= t)]
    p99, p50 = _field("p99_ms"), _field("p50_ms")
    for what, case, field, most in (("p99", MOST, p99, 1.0), ("one client's p50", ONE, p50, 1.3)):
        ours, theirs = figures.of("Luthier", case, field), figures.of("Q2", case, field)
        yield [f"Q2: {what}", f"<= {most:g} x", _verdict(ours, theirs, lambda ratio, m=most: ratio <= m)]


def _verdict(above: float | None, below: float | None, met: Callable[[float], bool]) -> str:
    if above is None or not below:
        return "not measured"
    ratio = above / below
    return f"{ratio:.2f} x" + ("" if met(ratio) else ", **missed**")


def _field(name: str) -> Callable[[Sample], float]:
    return lambda sample: float(sample[name])


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _markdown(rows: Iterator[list[str]]) -> Iterator[str]:
    head = next(rows)
    yield f"| {' | '.join(head)} |"
    yield "| --- " * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
