"""Many FineTuneJobs of one namespace whose pods are played, and what their statuses must always be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Raw = dict[str, Any]
ESCAPE = "\x1b[2J\x1b[31m\u202e\x07"


def each(act: Callable[[Any], None], these: Iterable[Any]) -> None:
    """Act on all, a few at the same time: kubectl is slow to start."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(act, these))


class Crowd:
    """Many FineTuneJobs of one namespace, brought to a stage together."""

    def __init__(self, namespace: Any, make: Callable[..., Raw], prepared: Callable[..., str]) -> None:
        self.namespace, self._make, self._prepared = namespace, make, prepared

    def submit(self, *names: str, **spec: Any) -> None:
        items = [{**self._make(**spec), "metadata": {"name": name}} for name in names]
        self.namespace.apply({"apiVersion": "v1", "kind": "List", "items": items})

    def pods(self, stage: str, names: Iterator[str] | list[str]) -> dict[str, Raw]:
        """Return the pod of each, as soon as all have one."""
        wanted, found = set(names), {}

        def complete() -> bool:
            for pod in self.namespace.all("pods"):
                labels = pod["metadata"].get("labels", {})
                if labels.get("app.kubernetes.io/component") == stage:
                    found[labels["luthier.dev/finetunejob"]] = pod
            return wanted <= set(found)

        self.namespace.until(f"pods of {stage}", complete)
        return {name: found[name] for name in wanted}

    def train(self, *names: str) -> dict[str, Raw]:
        """Bring these to training; return their pods."""
        self.submit(*names)
        each(lambda pod: self.namespace.end(pod, 0, self._prepared()), self.pods("prepare", list(names)).values())
        return self.pods("train", list(names))

    def run(self, pod: Raw, address: str) -> None:
        self.namespace.play(pod, "Running", {"running": {}}, podIP=address, podIPs=[{"ip": address}])

    def status(self, name: str) -> Raw:
        return dict(self.namespace.get("ftj", name).get("status", {}))

    def statuses(self) -> dict[str, Raw]:
        return {found["metadata"]["name"]: found.get("status", {}) for found in self.namespace.all("ftj")}


def ready(status: Raw) -> Raw:
    return next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {"reason": "", "message": ""})


def assert_fit_for_a_terminal(namespace: Any) -> None:
    """Everything that the operator wrote can be shown as it is: the JSON itself, before kubectl escapes anything."""
    for kind in ("ftj", "events"):
        for found in namespace.all(kind):
            for text in texts(found.get("status") if kind == "ftj" else found["message"]):
                assert text.isprintable() and len(text) <= 4096, repr(text)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def result(**changes: Any) -> str:
    sha = "a" * 64
    published = {"runKey": sha, "version": "v1", "uri": "s3://m/s/versions/v1", "digest": f"sha256:{sha}"}
    return json.dumps({"published": {**published, "sizeBytes": 1, **changes}})
