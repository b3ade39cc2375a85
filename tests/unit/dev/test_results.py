"""Raw results are written one record a line, and are read back as they were."""

from __future__ import annotations

import json

import pytest

from support.results import as_lines

pytestmark = pytest.mark.unit


def test_a_record_is_one_line_and_everything_is_read_back() -> None:
    document = {
        "held": True,
        "kills": [{"n": 1, "at": [1, 2]}, {"n": 2, "at": []}],
        "memory": [[0, 1.5], [5, 2]],
        "no": [],
    }
    text = as_lines(document)
    assert json.loads(text) == document
    assert text.splitlines()[2:6] == ['"kills": [', '{"n": 1, "at": [1, 2]},', '{"n": 2, "at": []}', "],"]
    assert '"memory": [[0, 1.5], [5, 2]],' in text.splitlines()
