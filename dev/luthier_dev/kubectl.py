"""The kubectl that we built, against one kubeconfig.

Owns running it and reading its answers. What is applied is decided by its callers.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier_dev import binaries
from luthier_dev.errors import DevError
from luthier_dev.waiting import wait_until

FIELD_MANAGER = "luthier-dev"


class KubectlFailed(DevError):
    """kubectl failed; the message is its own."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl as the user of a kubeconfig."""

    kubeconfig: Path

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with KUBECONFIG set."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def __call__(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """Run kubectl and return what it prints.

        Raises:
            KubectlFailed: it ended with an error.
        """
        result = subprocess.run(
            [str(binaries.path("kubectl")), *arguments],
            input=stdin or "",
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        if result.returncode != 0:
            raise KubectlFailed(f"kubectl {' '.join(arguments[:4])}: {result.stderr.strip()[-2000:]}")
        return result.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ... -o json`, parsed."""
        answer: dict[str, Any] = json.loads(self("get", *arguments, "--output=json"))
        return answer

    def apply(self, *documents: dict[str, Any] | str) -> None:
        """Server-side apply of manifests, each a document or YAML text."""
        texts = [each if isinstance(each, str) else json.dumps(each) for each in documents]
        self(
            *("apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}", "--filename=-"),
            stdin="\n---\n".join(texts),
        )

    def wait_for_condition(self, condition: str, *what: str, timeout_s: float = 120) -> None:
        """Return once each named resource has the condition, such as `Available`.

        Raises:
            NotReady: the time is up; the message says what is missing.
        """
        wait_until(self._lacks(condition, *what), " ".join(what), timeout_s)

    def _lacks(self, condition: str, *what: str) -> Callable[[], str | None]:
        def check() -> str | None:
            try:
                answer = self.get(*what)
            except KubectlFailed as error:
                return str(error)
            for item in answer.get("items", [answer]):
                found = {each["type"]: each for each in item.get("status", {}).get("conditions") or []}
                if found.get(condition, {}).get("status") != "True":
                    message = found.get(condition, {}).get("message", "not reported yet")
                    return f"{item['metadata']['name']} is not {condition}: {message}"
            return None

        return check
