"""Kills of the operator, and every trouble that the fault proxy can make, at random."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import psutil

from luthier_dev.controlplane import ControlPlane
from support.operator.fault_proxy import GARBAGE, FaultProxy, Record
from support.operator.operator_process import OperatorProcess

_EXPIRED = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}'
_BROKEN = b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcdserver: mvcc: required revision"}}'


class Trouble:
    """Makes trouble every few seconds, and takes care that there is an operator."""

    def __init__(
        self, proxy: FaultProxy, operator: OperatorProcess, cluster: ControlPlane, chance: random.Random, every_s: float
    ) -> None:
        self._proxy, self._operator, self._cluster, self._chance = proxy, operator, cluster, chance
        self._every_s = every_s
        self.kills_allowed = True
        self.made: Counter[str] = Counter()
        self.kills_between_write_and_answer = 0
        self.died: list[str] = []
        self.starts = 0
        self._killed = 0

    async def make(self) -> None:
        """Make trouble until cancelled."""
        kinds: dict[str, tuple[Callable[[], object], int]] = {
            "kill": (self._kill, 6),
            "kill after a write": (self._kill_after_a_write, 6),
            "409": (lambda: self._answers(409, 5, lambda record: record.write), 2),
            "429 with Retry-After": (lambda: self._answers(429, 20, headers={"Retry-After": "2"}), 2),
            "500": (lambda: self._answers(500, 10), 2),
            "503": (lambda: self._answers(503, 20), 2),
            "504": (lambda: self._answers(504, 5), 1),
            "401": (lambda: self._answers(401, 2), 2),
            "HTML": (lambda: self._answers(200, 5, body=GARBAGE, content_type="text/html"), 2),
            "410 to watches": (lambda: self._answers(410, 5, lambda record: record.watch), 1),
            "watches expired": (lambda: self._proxy.send_to_watches(_EXPIRED), 2),
            "watches broken": (lambda: self._proxy.send_to_watches(_BROKEN), 1),
            "watches cut": (self._proxy.cut_watches, 3),
            "watches cut in a line": (lambda: self._proxy.cut_watches(mid_line=True), 3),
            "deaf watches": (self._proxy.deafen, 1),
            "answers lost": (lambda: self._fault(lambda record: record.write, times=10, lose_answer=True), 3),
            "answers cut": (lambda: self._fault(lambda record: not record.watch, times=5, cut_after_bytes=40), 2),
            "10 s of silence": (lambda: self._fault(lambda record: True, times=10, silence_s=10), 1),
            "slow": (lambda: self._fault(lambda record: not record.watch, times=30, delay_s=1), 2),
            "API server restarted": (self._restart, 1),
        }
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / self._every_s))
            (kind,) = self._chance.choices(list(kinds), [weight for _, weight in kinds.values()])
            if kind.startswith("kill") and not self.kills_allowed:
                continue
            self._proxy.heal()
            self.made[kind] += 1
            await asyncio.to_thread(kinds[kind][0])

    async def keep_alive(self) -> None:
        """Start the operator again whenever it is gone, as its Deployment would; until cancelled."""
        while True:
            await asyncio.sleep(0.5)
            if self.rss_mib() is not None:
                continue
            if self._operator.pid != self._killed:
                self.died.append(self._operator.log[-2000:])
                print(f"the operator ended by itself:\n{self.died[-1]}", flush=True)
            self._operator.kill()  # reaps it
            await asyncio.sleep(self._chance.uniform(0, 2))
            self._operator.start(wait=False)
            self.starts += 1

    def rss_mib(self) -> float | None:
        """Return the operator's memory, if it is there."""
        try:
            process = psutil.Process(self._operator.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return float(process.memory_info().rss) / 2**20
        except psutil.NoSuchProcess:
            return None

    def _kill(self) -> None:
        self._killed = self._operator.pid
        self._operator.kill()

    def _kill_after_a_write(self) -> None:
        """Kill it when its next write was carried out, before the answer."""

        async def kill(record: Record) -> None:
            self._proxy.after_write = None
            self.kills_between_write_and_answer += 1
            self._kill()

        self._proxy.after_write = kill

    def _restart(self) -> None:
        self._cluster.restart_apiserver()

    def _answers(
        self, status: int, times: int, to: Callable[[Record], bool] = lambda record: True, **more: object
    ) -> None:
        self._fault(to, times=times, answer=status, **more)

    def _fault(self, to: Callable[[Record], bool], **what: object) -> None:
        self._proxy.fault(to, **what)
