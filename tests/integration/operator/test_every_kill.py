"""SIGKILL after every single write of the operator, one life for each: all end as the undisturbed life does.

The kill comes when a write was carried out and before its answer reaches the operator, so that it can neither know of
the write nor remember anything. `make kills` does it for all lives, and writes docs/kills.md.
"""

from __future__ import annotations

import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from luthier_dev.controlplane import ControlPlane
from luthier_dev.paths import REPOSITORY
from support.operator.fault_proxy import FaultProxy, Record
from support.operator.lives import LIVES, Life, State
from support.operator.operator_process import ForkedOperator, as_chart
from support.results import as_lines

pytestmark = pytest.mark.integration
# Of lives at the same time: each waits more than it works.
AT_ONCE = 6
TABLE = os.environ.get("LUTHIER_KILL_TABLE", "")
"""The folder for the table of all lives; without it, only the main life is lived."""


@dataclass
class Kill:
    """A life in which the operator was killed after one write of those that the undisturbed life has."""

    life: str
    number: int = 0
    write: str = ""
    times: int = 0
    """The how manieth of its writes that read so."""
    came: bool = False
    before: str = ""
    after: str = ""
    equal: bool = False


class Scene:
    """One life with an operator of its own, behind a proxy of its own."""

    def __init__(self, cluster: ControlPlane, kubeconfig: Path, folder: Path, kill: Kill) -> None:
        self.kill = kill
        self.namespace = f"k-{secrets.token_hex(4)}"
        self._folder = folder / f"{kill.life}-{kill.number}"
        self._proxy = FaultProxy(cluster.kubeconfig, self._folder)
        proxied = self._proxy.kubeconfig(kubeconfig, self._folder / "kubeconfig")
        self._operator = ForkedOperator(proxied, self._folder, LUTHIER_WATCH_NAMESPACES=self.namespace)
        self._life = Life(self._proxy, self.namespace, self._keep_alive)
        self._killed = False

    def run(self) -> dict[str, Any]:
        """Live; return the essence of the last state."""
        try:
            body = {"metadata": {"name": self.namespace}}
            assert self._proxy.call(self._proxy.request("POST", "/api/v1/namespaces", body))[0] == 201
            self._proxy.before_write, self._proxy.after_write = self._before, self._after
            self._operator.start(wait=False)
            last: State = self._proxy.call(LIVES[self.kill.life](self._life), timeout_s=400)
            return last.essence()
        except BaseException:
            print(f"--- {self.kill}\n{self._operator.log[-6000:]}")
            raise
        finally:
            self._operator.kill()
            self._proxy.call(self._proxy.request("DELETE", f"/api/v1/namespaces/{self.namespace}"))
            self._proxy.close()

    @property
    def writes(self) -> list[str]:
        """All writes of the operator, each in a few words."""
        return [_said(record, self.namespace) for record in self._proxy.writes]

    async def _before(self, record: Record) -> None:
        if self._is_it(record):
            self.kill.before = (await self._life.look()).said()

    async def _after(self, record: Record) -> None:
        if self._is_it(record):
            self.kill.came = True
            self.kill.after = (await self._life.look()).said()
            self._operator.kill()
            self._killed = True

    def _is_it(self, record: Record) -> bool:
        number = next(number for number, each in enumerate(self._proxy.writes, 1) if each is record)
        words = self.writes[:number]
        return words[-1] == self.kill.write and words.count(self.kill.write) == self.kill.times

    def _keep_alive(self) -> None:
        if self._killed:
            self._killed = False
            self._operator.start(wait=False)
        assert self._operator.alive, "the operator ended by itself"


def _said(record: Record, namespace: str) -> str:
    """Return a write in a few words."""
    *_, what = record.path.partition(f"/namespaces/{namespace}/")
    kind, _, name = what.partition("/")
    if record.method == "POST":
        name = record.body["metadata"]["name"]
    verb = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}[record.method]
    if kind == "events":
        return f"event {record.body['reason']}"
    if name.endswith("/status"):
        return f"status {record.body['status'].get('phase', '')}".strip()
    fields = [field for part in ("spec", "metadata") for field in (record.body or {}).get(part, {})]
    told = [field for field in fields if field in ("suspend", "ttlSecondsAfterFinished", "finalizers")]
    # The name of a Job that removes has the resource's uid in it.
    name = "remove" if name.endswith("-remove") else name[-12:]
    return " ".join([verb, kind.rstrip("s"), name, *(told if record.method == "PATCH" else [])])


@pytest.fixture(scope="module")
def chart_access(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_chart(cluster, tmp_path_factory.mktemp("access"), "luthier")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "life" in metafunc.fixturenames:
        metafunc.parametrize("life", list(LIVES) if TABLE else ["main"])


@pytest.mark.timeout(1800)
def test_killed_after_each_of_its_writes_a_life_ends_as_if_nothing_had_been(
    cluster: ControlPlane, chart_access: Path, tmp_path: Path, life: str
) -> None:
    undisturbed = Scene(cluster, chart_access, tmp_path, Kill(life))
    wanted, writes = undisturbed.run(), undisturbed.writes
    kills = [Kill(life, i + 1, write, times=writes[: i + 1].count(write)) for i, write in enumerate(writes)]

    def killed(kill: Kill) -> tuple[Kill, dict[str, Any]]:
        scene = Scene(cluster, chart_access, tmp_path, kill)
        essence = scene.run()
        scene.kill.equal = essence == wanted
        return scene.kill, essence

    with ThreadPoolExecutor(AT_ONCE) as pool:
        came_to = list(pool.map(killed, kills))
    if TABLE:
        write_table(Path(TABLE), life, [kill for kill, _ in came_to])
    unequal = {kill.number: differences(wanted, essence) for kill, essence in came_to if not kill.equal}
    assert not unequal
    # Two changes that come soon after one another are sometimes written at once.
    missing = [kill for kill in kills if not kill.came]
    assert len(missing) <= len(kills) / 10, missing


def differences(wanted: Any, got: Any, where: str = "") -> list[str]:
    """Return where two essences differ, in words."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        keys = [*wanted, *(key for key in got if key not in wanted)]
        return [each for key in keys for each in differences(wanted.get(key), got.get(key), f"{where}.{key}")]
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        pairs = enumerate(zip(wanted, got, strict=True))
        return [each for i, (one, other) in pairs for each in differences(one, other, f"{where}[{i}]")]
    return [] if wanted == got else [f"{where}: {got!r} instead of {wanted!r}"]


def write_table(folder: Path, life: str, kills: list[Kill]) -> None:
    """Put a life's kills into kills.json, and one row for each life into docs/kills.md."""
    path = folder / "kills.json"
    table = json.loads(path.read_text()) if path.exists() else {}
    table[life] = [asdict(kill) for kill in kills]
    path.write_text(as_lines(table))
    (REPOSITORY / "docs" / "kills.md").write_text(page(table))


def page(table: dict[str, list[dict[str, Any]]]) -> str:
    """Return docs/kills.md: one row for each life."""
    lines = [
        "<!-- Generated by `make kills`. Do not edit. -->",
        "",
        "# The operator, killed after every write",
        "",
        "For each life of a FineTuneJob there is one run for each write of the operator. In that run the operator is",
        "killed (SIGKILL) after the API server has carried out the write and before the operator receives the answer,",
        "and started again. A run ends *equal* when all but times and uids is as at the end of the undisturbed life:",
        "spec, status, finalizers and Jobs. A write is *merged* when the operator wrote it together with another this",
        "time, so that there was nothing to kill it after. Each run, with the state before and after its write, is in",
        "[benchmarks/results/kills.json](../benchmarks/results/kills.json).",
        "",
        "| Life | Writes | Killed after | Merged | Ended equal |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, kills in table.items():
        came, equal = (sum(kill[field] for kill in kills) for field in ("came", "equal"))
        story = " ".join((LIVES[name].__doc__ or name).split())
        lines.append(f"| {story} | {len(kills)} | {came} | {len(kills) - came} | {equal} of {len(kills)} |")
    return "\n".join(lines) + "\n"
