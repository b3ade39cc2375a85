"""Of the Events of a pod, the newest says whether it still cannot mount a volume."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from luthier_operator.gather.pod_events import read_failed_mount

pytestmark = pytest.mark.unit

MOUNT = 'MountVolume.SetUp failed for volume "credentials-output" : secret "s3" not found'
TIMEOUT = "Unable to attach or mount volumes: unmounted volumes=[credentials-output]"


class Api:
    """The Events that the API server has."""

    def __init__(self, *events: tuple[int, str, str]) -> None:
        self.events = [
            {
                "reason": reason,
                "message": message,
                "lastTimestamp": f"2026-01-01T00:00:{second:02}Z",
                "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            }
            for second, reason, message in events
        ]

    async def list_by_field(self, version: str, kind: str, namespace: str, selector: str) -> list[dict[str, Any]]:
        assert (kind, namespace, selector) == ("Event", "team", "involvedObject.uid=pod-1")
        return self.events


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([], ""),
        ([(1, "Scheduled", "to n1")], ""),
        ([(1, "Scheduled", "to n1"), (1, "FailedMount", MOUNT)], MOUNT),
        ([(5, "FailedMount", MOUNT), (7, "FailedMount", TIMEOUT)], MOUNT),
        ([(5, "FailedMount", MOUNT), (9, "Pulling", "the image")], ""),
    ],
)
def test_a_mount_that_failed_is_told_until_something_newer_happens(events: list[Any], told: str) -> None:
    assert asyncio.run(read_failed_mount(Api(*events), "team", "pod-1")) == told  # type: ignore[arg-type]
