"""Eight LoRA versions over one base model: as adapters in one replica, and as eight deployments. Memory and CPU time.

`python benchmarks/adapters.py`: a minute or two on one core. The base model is the demo's (6 layers x 384); the updates
are random, since what they say does not matter here. Each side runs in processes of its own, on one torch thread.
Memory is resident memory above that of a process that has imported torch and loaded nothing, so what a replica costs
without a model is told apart.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from luthier_api.artifact_files import ADAPTER_FOLDER
from luthier_dev import samples
from luthier_serving.compute.engines import AdaptableEngine
from luthier_serving.compute.model import Model, open_model, read_document
from support.serving.adapted import make_adapted

ADAPTERS, TEXTS, BATCH, ROUNDS = 8, 256, 8, 3
MIB = 1024 * 1024
RESULT = Path(__file__).parent / "results" / "adapters.json"


def resident_mib() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def texts() -> list[str]:
    """Return real reviews."""
    with samples.reviews_csv().train.open(newline="", encoding="utf-8") as file:
        return [row["text"] for row, _ in zip(csv.DictReader(file), range(TEXTS), strict=False)]


def cpu_ms_per_text(models: list[Model], found: list[str]) -> float:
    """Return the CPU time of a text, in batches that take turns with the models; the median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for number, start in enumerate(range(0, len(found), BATCH)):
            models[number % len(models)].predict(found[start : start + BATCH])
        rounds.append((time.process_time() - began) / len(found) * 1000)
    return statistics.median(rounds)


def as_adapters(folders: list[Path], found: list[str]) -> dict[str, float]:
    """Measure one process that holds the first version and the others, and itself, as adapters."""
    open_model(folders[0], "torch")
    empty = _settled_mib()
    model = open_model(folders[0], "torch")
    one = resident_mib()
    engine = model.engine
    assert isinstance(engine, AdaptableEngine)
    adapted = []
    for number, folder in enumerate(folders):
        view = engine.attach(f"adapter-{number}", folder / ADAPTER_FOLDER, folders[0] / ADAPTER_FOLDER)
        document = read_document(folder)
        adapted.append(Model(folder, document, view, version=str(number), max_tokens=4096, like=model))
    every = resident_mib()
    return {
        "model_mib": one - empty,
        "adapter_mib": (every - one) / len(folders),
        "process_mib": every,
        "cpu_ms_per_text": cpu_ms_per_text(adapted, found),
    }


def as_deployments(folders: list[Path], found: list[str]) -> dict[str, float]:
    """Measure one of the processes that hold a version each; all of them are alike."""
    open_model(folders[0], "torch")
    empty = _settled_mib()
    model = open_model(folders[0], "torch")
    return {
        "model_mib": resident_mib() - empty,
        "process_mib": resident_mib(),
        "cpu_ms_per_text": cpu_ms_per_text([model], found),
    }


def _settled_mib() -> float:
    """Return the memory of this process once what the first model left is used again."""
    import gc

    gc.collect()
    return resident_mib()


def apart(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Run a side in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    """Print both sides, and write them down."""
    found = texts()
    with tempfile.TemporaryDirectory() as work:
        base = samples.base_model()
        folders = [
            make_adapted(base, Path(work) / f"v{number}", "negative", "positive", seed=number, rank=16, scale=0.02)
            for number in range(ADAPTERS)
        ]
        sides = {side.__name__: apart(side, folders, found) for side in (as_adapters, as_deployments)}
    one, many = sides["as_adapters"], sides["as_deployments"]
    total = {"as_adapters": one["process_mib"], "as_deployments": many["process_mib"] * ADAPTERS}
    for name, figures in sides.items():
        print(name, {key: round(value, 2) for key, value in figures.items()}, f"in all {total[name]:.0f} MiB")
    result = {"adapters": ADAPTERS, "texts": len(found), "batch": BATCH, "sides": sides, "total_mib": total}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
