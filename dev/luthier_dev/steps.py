"""Steps of long work: what runs, how long it usually takes, how far it is, and where it failed.

Owns what is printed while something runs, one log file per step, and the table of times at the end. Steps may nest,
and may run side by side in threads. What a step does is the caller's business.

    with steps.step("Build etcd", usually_s=34):
        steps.run_logged(["go", "build", ...])
"""

from __future__ import annotations

import collections
import json
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from luthier_dev.errors import CommandFailed
from luthier_dev.paths import layout
from luthier_dev.processes import dies_with_us, marked_environment

SCOPE = "step"
PLAIN_REPORT_EVERY_S = 30.0
TAIL_LINES = 12


@dataclass(frozen=True)
class Timing:
    """How long a step took; `depth` is 0 for a step that no other contains."""

    name: str
    seconds: float
    depth: int
    failed: bool = False


@dataclass
class Step:
    """A running step."""

    title: str
    usually_s: float | None
    log: Path
    depth: int
    started: float = field(default_factory=time.monotonic)
    detail: str = ""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.started

    def note(self, detail: str) -> None:
        """Show how far the step is, such as '3 of 6 programs'."""
        self.detail = detail

    def progress(self) -> str:
        """One phrase: elapsed time, usual time, and the latest detail."""
        usual = f" of usually {_seconds(self.usually_s)}" if self.usually_s else ""
        return f"{_seconds(self.elapsed_s)}{usual}" + (f" · {self.detail}" if self.detail else "")


class Progress:
    """All steps of this process: what runs, what has run, and how it is shown."""

    def __init__(self, console: Console | None = None) -> None:
        """Show on `console`, by default standard output."""
        self.console = console or Console(highlight=False)
        self.timings: list[Timing] = []
        self._active: list[Step] = []
        self._lock = threading.RLock()
        self._stacks = threading.local()
        self._live: Live | None = None
        self._plain: threading.Thread | None = None
        self._reported: dict[int, float] = {}

    @contextmanager
    def step(self, title: str, usually_s: float | None = None) -> Iterator[Step]:
        """Print `title`, time the block, and print how it ended.

        Args:
            title: what is done, in a few words; printed as it is.
            usually_s: how long it usually takes, in seconds; None for a quick step.
        """
        stack = self._stack()
        step = Step(title, usually_s, layout().logs / f"{_slug(title)}.log", depth=len(stack))
        step.log.parent.mkdir(parents=True, exist_ok=True)
        step.log.unlink(missing_ok=True)
        stack.append(step)
        self._begin(step)
        try:
            yield step
        except BaseException as error:
            self._finish(step, error)
            raise
        else:
            self._finish(step, None)
        finally:
            stack.pop()

    def current(self) -> Step | None:
        """The innermost step of this thread."""
        stack = self._stack()
        return stack[-1] if stack else None

    def say(self, text: str) -> None:
        """Print a line between steps, indented like the current step."""
        depth = len(self._stack())
        with self._lock:
            self.console.print(f"{'  ' * depth}{escape(text)}", soft_wrap=True)

    def table(self) -> Table:
        """Times of all steps that ended, in order."""
        table = Table("step", "seconds", box=None, pad_edge=False)
        table.columns[1].justify = "right"
        for timing in self.timings:
            mark = " (failed)" if timing.failed else ""
            table.add_row("  " * timing.depth + escape(timing.name) + mark, f"{timing.seconds:.1f}")
        return table

    def save(self, path: Path) -> None:
        """Write the times as JSON: a list of {name, seconds, depth, failed}."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(timing) for timing in self.timings], indent=1) + "\n")

    def _stack(self) -> list[Step]:
        if not hasattr(self._stacks, "steps"):
            self._stacks.steps = []
        stack: list[Step] = self._stacks.steps
        return stack

    def _begin(self, step: Step) -> None:
        with self._lock:
            self._active.append(step)
            if not self.console.is_terminal:
                usual = f" (usually {_seconds(step.usually_s)})" if step.usually_s else ""
                self.console.print(f"{'  ' * step.depth}→ {escape(step.title)}{usual}", soft_wrap=True)
                if self._plain is None:
                    self._plain = threading.Thread(target=self._report_plainly, daemon=True)
                    self._plain.start()
            elif self._live is None:
                self._live = Live(_Running(self), console=self.console, refresh_per_second=4, transient=True)
                self._live.start()

    def _finish(self, step: Step, error: BaseException | None) -> None:
        with self._lock:
            self._active.remove(step)
            self.timings.append(Timing(step.title, round(step.elapsed_s, 1), step.depth, error is not None))
            if self._live is not None and not self._active:
                self._live.stop()
                self._live = None
            indent = "  " * step.depth
            took = _seconds(step.elapsed_s)
            if error is None:
                done = f"{indent}[green]✓[/] {escape(step.title)} [dim]{took}"
                self.console.print(done + (f" · {escape(step.detail)}" if step.detail else ""), soft_wrap=True)
                return
            self.console.print(f"{indent}[red]✗ {escape(step.title)} failed after {took}[/]", soft_wrap=True)
            if not getattr(error, "reported_by_step", False):
                self._report_failure(step, error, indent)

    def _report_failure(self, step: Step, error: BaseException, indent: str) -> None:
        """Print the reason once: the steps around this one only print that they failed."""
        if isinstance(error, Exception):
            lines = str(error).splitlines() or [type(error).__name__]
            if isinstance(error, CommandFailed):
                lines += [f"│ {line}" for line in error.tail.splitlines()]
            for line in lines:
                self.console.print(f"{indent}  {escape(line)}", soft_wrap=True)
            if step.log.exists():
                self.console.print(f"{indent}  log: {step.log}", soft_wrap=True)
        error.reported_by_step = True  # type: ignore[attr-defined]

    def running(self) -> list[Step]:
        """Running steps, outermost first."""
        with self._lock:
            return list(self._active)

    def _report_plainly(self) -> None:
        """Without a terminal, print a line now and then for each long step."""
        while True:
            time.sleep(1)
            for step in self.running()[-1:]:
                since = self._reported.get(id(step), step.started)
                if time.monotonic() - since >= PLAIN_REPORT_EVERY_S:
                    self._reported[id(step)] = time.monotonic()
                    with self._lock:
                        self.console.print(
                            f"{'  ' * step.depth}  … {escape(step.title)}: {escape(step.progress())}",
                            soft_wrap=True,
                        )


class _Running:
    """What the live display shows: one row per running step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._spinners: dict[int, Spinner] = {}

    def __rich__(self) -> RenderableType:
        rows = []
        for step in self._progress.running():
            spinner = self._spinners.setdefault(id(step), Spinner("dots"))
            width = max(20, self._progress.console.width - 4)
            line = f"{'  ' * step.depth}{step.title}  {step.progress()}"
            spinner.update(text=Text(line[:width], no_wrap=True, overflow="ellipsis"))
            rows.append(spinner)
        return Group(*rows)


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80]


PROGRESS = Progress()
step = PROGRESS.step
say = PROGRESS.say


def run_logged(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    show_output: bool = True,
) -> None:
    """Run a program, with its output in the current step's log and its last line in the live display.

    Args:
        argv: command line; the program dies with this process.
        cwd: folder to run in.
        env: additions to the environment.
        stdin: text for its standard input.
        show_output: whether the latest line of output becomes the step's detail.

    Raises:
        CommandFailed: it ended with a status other than 0.
    """
    present = PROGRESS.current()
    log = present.log if present else layout().make(layout().logs) / f"{_slug(Path(argv[0]).name)}.log"
    detail_before = present.detail if present else ""
    tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
    with log.open("a", buffering=1) as record, tempfile.TemporaryFile("w+") as given:
        record.write(f"$ {' '.join(argv)}\n")
        given.write(stdin or "")
        given.seek(0)
        with subprocess.Popen(
            dies_with_us(argv),
            cwd=cwd,
            env=marked_environment(SCOPE, Path(argv[0]).name, env),
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                record.write(line)
                if line.strip():
                    tail.append(line.rstrip())
                    if present and show_output:
                        present.note(line.strip()[:100])
    if present:
        present.note(detail_before)
    if process.returncode != 0:
        raise CommandFailed(argv, process.returncode, log, "\n".join(tail))
