"""A real Prometheus for the tests of rules and dashboards: Debian's, unpacked and not installed, so no service starts.

Owns where the programs lie, and one server as a process. What it scrapes is the caller's.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from luthier_dev import steps
from luthier_dev.errors import MachineError
from luthier_dev.locks import locked
from luthier_dev.paths import layout
from luthier_dev.processes import Program, start_child
from luthier_dev.waiting import wait_until

PACKAGE = "prometheus"


def ensure() -> None:
    """Have `prometheus` and `promtool`: those on the PATH, or those of Debian's package.

    Raises:
        MachineError: there are none, and no apt-get to fetch them by.
    """
    with locked("prometheus", "fetching Prometheus"):
        if path("promtool").exists() and path("prometheus").exists():
            return
        if shutil.which("apt-get") is None:
            raise MachineError("This machine lacks prometheus and promtool and has no apt-get: install Prometheus.")
        with steps.step("Fetch Debian's prometheus", usually_s=20):
            shutil.rmtree(_folder(), ignore_errors=True)
            layout().make(_folder())
            steps.run_logged(["apt-get", "update", "-q"])
            steps.run_logged(["apt-get", "download", PACKAGE], cwd=_folder())
            (archive,) = _folder().glob("*.deb")
            steps.run_logged(["dpkg-deb", "--extract", str(archive), str(_folder() / "root")])
            archive.unlink()


def path(program: str) -> Path:
    """Path of `prometheus` or `promtool`."""
    found = shutil.which(program)
    return Path(found) if found else _folder() / "root" / "usr" / "bin" / program


def _folder() -> Path:
    return layout().downloads / PACKAGE


class Prometheus:
    """A server that scrapes these targets every second, while the context is open.

    Args:
        folder: for its configuration and data.
        port: of 127.0.0.1, to listen on.
        targets: labels by the address, `host:port`, of what has /metrics.
        rules: files of rules to evaluate every second.
    """

    def __init__(
        self, folder: Path, port: int, targets: Mapping[str, Mapping[str, str]], rules: Sequence[Path] = ()
    ) -> None:
        self._folder, self._address = folder, f"127.0.0.1:{port}"
        scrape = {
            "job_name": "luthier",
            "honor_labels": True,
            "static_configs": [{"targets": [address], "labels": dict(labels)} for address, labels in targets.items()],
        }
        self._config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(each) for each in rules],
            "scrape_configs": [scrape],
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        config = self._folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump(self._config))
        command = [str(path("prometheus")), f"--config.file={config}", f"--web.listen-address={self._address}"]
        command += [f"--storage.tsdb.path={self._folder / 'data'}", "--log.level=warn"]
        self._process = start_child(Program("prometheus", command), self._folder / "prometheus.log", "prometheus")
        wait_until(self._not_ready, "Prometheus", 30)
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(10)

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression has now."""
        answer = self._get("/api/v1/query", {"query": expression})
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def _not_ready(self) -> str | None:
        assert self._process
        if self._process.poll() is not None:
            return (self._folder / "prometheus.log").read_text()[-500:]
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=5) as reply:
                return None if reply.status == 200 else f"status {reply.status}"
        except OSError as error:
            return str(error)

    def _get(self, path_: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        url = f"http://{self._address}{path_}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            answer: dict[str, Any] = json.load(reply)
        return answer
