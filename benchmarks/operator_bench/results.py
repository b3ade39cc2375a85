"""What was measured: raw samples in results/operator.json, replaced case by case, and the table with the targets.

Those of the operator before kopf, with a list and a watch of its own, are in results/operator-before-kopf.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.operator_bench.contenders import FLOOR, TUTORIAL, US

PATH = Path(__file__).parents[1] / "results" / "operator.json"
Sample = dict[str, Any]


def has(case: str, n: int) -> bool:
    """Tell whether a case was measured at this size."""
    return any(run["case"] == case and run["n"] == n for run in _read())


def keep(case: str, n: int, samples: list[Sample]) -> None:
    """Write the samples of a case, in place of earlier ones of the same size."""
    run = {
        "case": case,
        "n": n,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average": [round(each, 1) for each in os.getloadavg()],
        "samples": samples,
    }
    runs = [each for each in _read() if (each["case"], each["n"]) != (case, n)]
    runs.append(run)
    runs.sort(key=lambda each: (each["case"], each["n"]))
    lines = ",\n".join(json.dumps(each) for each in runs)
    PATH.write_text(f'{{"runs": [\n{lines}\n]}}\n')


def table() -> str:
    """Return every figure beside its target."""
    rows = list(_rows(_read()))
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + "  " + row[3] for row in rows
    )
    return "\n".join(lines)


def _read() -> list[dict[str, Any]]:
    return list(json.loads(PATH.read_text())["runs"]) if PATH.exists() else []


def _rows(runs: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    samples = [sample for run in runs for sample in run["samples"]]
    for sample in samples:
        n, case = sample["n"], sample["case"]
        if sample["contender"] != US:
            continue
        if case == "life":
            alike = [each for each in samples if each.get("train_s") == sample["train_s"]]
            yield from _life_rows(sample, _other(alike, FLOOR, "life", n), _other(alike, TUTORIAL, "life", n))
        elif case == "cold":
            yield from _cold_rows(sample, _other(samples, FLOOR, "cold", n))
        elif case.startswith("restart"):
            yield from _restart_rows(sample)
        elif case in ("rate", "lives"):
            yield from _rate_rows(sample)
        if floor := _other(samples, FLOOR, case, n):
            ratio = sample["rss_peak_mib"] / floor["rss_peak_mib"]
            text = f"{sample['rss_peak_mib']:.0f} MiB; floor {floor['rss_peak_mib']:.0f} MiB; x {ratio:.2f}"
            yield _row(f"memory, {case}, {n}", text, "<= 1.3 x", ratio <= 1.3)


def _life_rows(us: Sample, floor: Sample | None, tutorial: Sample | None) -> Iterator[tuple[str, str, str, str]]:
    n, own = f"{us['n']}, {us['train_s']:g} s", us["cpu_ms_per_resource"]
    most = max(int(count) for count in us["writes_to_each"])
    yield _row(f"writes to a resource over its life, {n}", str(most), "<= 5", most <= 5)
    if floor:
        ratio = own / floor["cpu_ms_per_resource"]
        text = f"{own:.1f} ms; floor {floor['cpu_ms_per_resource']:.1f} ms; x {ratio:.2f}"
        yield _row(f"CPU per life beside the floor, {n}", text, "<= 1.6 x", ratio <= 1.6)
    if tutorial:
        ratio = own / tutorial["cpu_ms_per_resource"]
        text = f"tutorial {tutorial['cpu_ms_per_resource']:.1f} ms; x {ratio:.2f}"
        yield f"CPU per life beside the tutorial, {n}", text, "", ""


def _cold_rows(us: Sample, floor: Sample | None) -> Iterator[tuple[str, str, str, str]]:
    if floor:
        ratio = us["cpu_s"] / floor["cpu_s"]
        text = f"{us['cpu_s']:.1f} s of CPU; floor {floor['cpu_s']:.1f} s; x {ratio:.2f}"
        yield _row(f"cold to Jobs, {us['n']}", text, "<= 2 x", ratio <= 2)


def _restart_rows(us: Sample) -> Iterator[tuple[str, str, str, str]]:
    n, scaled, count = us["n"], 30 * us["n"] / 10_000, sum(us["writes"].values())
    text = f"{us['synced_s']:.1f} s, {us['synced_cpu_s']:.1f} s of CPU"
    yield _row(f"{us['case']}, {n}", text, f"<= {max(scaled, 2):.1f} s", us["synced_s"] <= max(scaled, 2))
    yield _row(f"writes of a {us['case']}, {n}", str(count), "0", count == 0)


def _rate_rows(us: Sample) -> Iterator[tuple[str, str, str, str]]:
    pace = f"{us['per_second']:.0f} a second for {us['seconds']:.0f} s"
    whole = us["case"] == "lives"
    answer = statistics.quantiles(us["apply_to_answer_s"], n=100)[98]
    yield f"the API server's own answer to an apply, {pace}", f"p99 {answer:.3f} s", "", ""
    floor = statistics.quantiles(us["apply_to_floor_s"], n=100)
    yield f"until kopf beside us is told, {pace}", f"p50 {floor[49]:.3f} s, p99 {floor[98]:.3f} s", "", ""
    for name in ("apply_to_job_s", "pod_to_status_s", "job_end_to_status_s")[: 3 if whole else 2]:
        cuts = statistics.quantiles(us[name], n=100)
        text = f"p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s, of {len(us[name])}"
        told = f"{name.removesuffix('_s').replace('_', ' ')}, {pace}{', whole lives' * whole}"
        yield _row(told, text, "p50 <= 0.5 s", cuts[49] <= 0.5)


def _other(samples: list[Sample], contender: str, case: str, n: int) -> Sample | None:
    found = (each for each in samples if (each["contender"], each["case"], each["n"]) == (contender, case, n))
    return next(found, None)


def _row(name: str, measured: str, target: str, met: bool) -> tuple[str, str, str, str]:
    return name, measured, target, "met" if met else "NOT MET"
