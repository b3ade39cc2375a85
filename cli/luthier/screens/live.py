"""A page that follows what happens.

Drawn again each second on a terminal or in a notebook; elsewhere a line is printed for each change.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from luthier.kinds import BATCHPREDICTION, FINETUNEJOB, MODELDEPLOYMENT, Resource
from luthier.overview import Overview
from luthier.screens import words
from luthier.screens.status_page import phase_of, status_page

_PRE = '<pre style="white-space: pre-wrap; font-family: monospace; line-height: 1.3">{code}</pre>'
_NOTEBOOK_WIDTH = 100


def follow(looks: Iterable[Overview], console: Console) -> Overview | None:
    """Show one look after the other until they end; return the last one.

    On a terminal and in a notebook, the last page stays. Elsewhere a line is printed whenever it says something new.
    """
    if console.is_jupyter:
        return _displayed(looks)
    return _drawn(looks, console) if console.is_terminal else _printed(looks, console)


def _drawn(looks: Iterable[Overview], console: Console) -> Overview | None:
    last: Overview | None = None
    spinner = Spinner("dots", text=Text("Ctrl-C ends this view, not the work", "dim"))
    with Live(console=console, refresh_per_second=8, vertical_overflow="crop") as live:
        for found in looks:
            last = found
            page: RenderableType = status_page(found, words.now_utc())
            live.update(page if found.settled else Group(page, Text(), spinner))
    return last


class _Page:
    """A page as a notebook shows it: in colours, or as text where the notebook is read as a file."""

    def __init__(self, found: Overview) -> None:
        console = Console(file=io.StringIO(), record=True, width=_NOTEBOOK_WIDTH, highlight=False, force_jupyter=False)
        console.print(status_page(found, words.now_utc()))
        self._html = console.export_html(inline_styles=True, code_format=_PRE, clear=False)
        self._text = console.export_text().rstrip()

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._text


def _displayed(looks: Iterable[Overview]) -> Overview | None:
    """Replace one output of the cell again and again, which needs no widgets."""
    from IPython.display import display

    shown: Any = None
    last: Overview | None = None
    for last in looks:
        if shown is None:
            shown = display(_Page(last), display_id=True)  # type: ignore[no-untyped-call]
        else:
            shown.update(_Page(last))
    return last


def _printed(looks: Iterable[Overview], console: Console) -> Overview | None:
    last, said = None, ""
    for last in looks:
        now = "\n".join(f"{each.title}: {line_of(each)}" for each in last.resources)
        if now != said:
            said = now
            console.print(now, markup=False, soft_wrap=True)
    return last


def line_of(resource: Resource) -> str:
    """Return a resource's state in one line."""
    said = [phase_of(resource), *_LINES[resource.kind](resource)]
    return " · ".join(word for word in said if word)


def _training(job: Resource) -> list[str]:
    status = job.job_status
    said: list[str] = []
    if status.progress and status.phase == "Training":
        said.append(status.progress.stage.lower())
        if total := status.progress.total_steps:
            said.append(f"{status.progress.percent} %, step {status.progress.step} of {total}")
    return [*said, *([status.artifact.version] if status.artifact and status.phase == "Succeeded" else [])]


def _serving(deployment: Resource) -> list[str]:
    status = deployment.deployment_status
    said = [f"{each.version} {each.state} {each.traffic_percent} %" for each in status.revisions]
    return [*said, *([status.rollout.message] if status.rollout and status.rollout.message else [])]


def _predicting(batch: Resource) -> list[str]:
    status = batch.batch_status
    if status.phase == "Succeeded":
        return [status.output or ""]
    return [f"{status.percent} %, {status.shards.done} of {status.shards.total} shards"] if status.shards else []


_LINES = {FINETUNEJOB: _training, MODELDEPLOYMENT: _serving, BATCHPREDICTION: _predicting}
