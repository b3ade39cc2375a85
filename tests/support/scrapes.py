"""What Prometheus sees of the three programs: recorded scrapes, and the names that the code would export.

recorded(name)     the text of a /metrics, in tests/integration/observability/scrapes
compare(name, t)   that a real one has the same series; LUTHIER_WRITE_SCRAPES=1 records it anew
exported()         names of samples, from the registries in the code
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from luthier_dev.paths import REPOSITORY
from luthier_operator.ops import metrics
from luthier_operator.store.store import Store
from luthier_trainer.runtime.progress import Progress, ProgressCollector

FOLDER = REPOSITORY / "tests" / "integration" / "observability" / "scrapes"
_SERVER = REPOSITORY / "serving" / "luthier_serving"
_OURS = re.compile(r"(# (?:HELP|TYPE) )?(?:ray_)?(?:luthier|process)_")
_RAY_METRIC = re.compile(r"(?i)\b_?(Counter|Gauge|Histogram)\(\s*\"(luthier_\w+)\"")


def recorded(name: str) -> str:
    return (FOLDER / f"{name}.prom").read_text()


def compare(name: str, text: str) -> None:
    """Check that a scrape has the series of the recorded one, by name and labels; values and times differ."""
    ours = "".join(f"{line}\n" for line in text.splitlines() if _OURS.match(line))
    path: Path = FOLDER / f"{name}.prom"
    if os.environ.get("LUTHIER_WRITE_SCRAPES"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ours)
    missing = shape(recorded(name)) - shape(ours)
    assert not missing, f"{path} has what is not there any more; LUTHIER_WRITE_SCRAPES=1 records it anew: {missing}"


# What Ray adds to them is Ray's, and changes with its releases.
_OF_THE_SERVER = {"code", "revision", "version", "stage", "kind", "le"}


def shape(text: str) -> set[tuple[str, tuple[str, ...]]]:
    """Return {(name of a sample, names of its labels)} of a scrape, without the labels that Ray adds."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = set(sample.labels)
            ours = labels & _OF_THE_SERVER if sample.name.startswith("ray_") else labels
            found.add((sample.name, tuple(sorted(ours))))
    return found


def training() -> str:
    """Return what a training pod with a GPU says in the middle of its run."""
    progress = Progress()
    progress.begin_steps(100)
    progress.finish_step(10, 0.5, examples=160, tokens=2000)
    progress.record_gpu_memory(10**10)
    progress.record_metrics({"train_loss": 0.5, "eval_loss": 0.4, "eval_f1_macro": 0.9})
    registry = CollectorRegistry()
    registry.register(ProgressCollector(progress))
    return generate_latest(registry).decode()


def exported() -> set[str]:
    """Return the names of all samples that operator, training pods and servers export."""
    registry = CollectorRegistry()
    store = Store()
    metrics.Resources(store.phases, registry)
    metrics.Conditions(store.stalled, store.unavailable, registry)
    families = list(registry.collect())
    for value in vars(metrics).values():
        if isinstance(value, Counter | Gauge | Histogram):
            families += value.collect()
    trained = {name for name, _ in shape(training())}
    return _samples(families) | trained | set(_server_samples())


def _samples(families: Iterable[Metric]) -> set[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {f"{each.name}{suffix}" for each in families for suffix in suffixes.get(each.type, [""])}


def _server_samples() -> Iterable[str]:
    """Yield the server's names from its source: importing it would import Ray. Ray puts `ray_` before each."""
    for path in _SERVER.rglob("*.py"):
        for kind, name in _RAY_METRIC.findall(path.read_text()):
            suffixes = ("_bucket", "_sum", "_count") if kind.lower() == "histogram" else ("",)
            yield from (f"ray_{name}{suffix}" for suffix in suffixes)
