"""Draws the report's plots with matplotlib, as inline SVG that takes its colours from the page.

Owns figures and nothing of what they show. A figure is drawn in marker colours, which are then replaced by the page's
CSS variables, so that one SVG serves light and dark; its text stays text. The same numbers give the same bytes.
"""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from luthier_trainer.tasks.evaluation import Calibration, Curve

Points = Sequence[tuple[float, float]]

# No colour of a person's choosing is any of these.
_INK, _SOFT, _GRID, _PAPER = "#0a0b10", "#0a0b11", "#0a0b12", "#0a0b13"
SERIES_COLOURS = 8
_SERIES = [f"#0a0b0{number}" for number in range(SERIES_COLOURS)]
_VARIABLES = {_INK: "--ink", _SOFT: "--soft", _GRID: "--line", _PAPER: "--band"} | {
    colour: f"--series-{number}" for number, colour in enumerate(_SERIES)
}
# A phone shows a plot at about this width, so that its text is as large there as it is here.
_WIDTH_IN, _HEIGHT_IN = 4.3, 2.8
# Keys of more lines than this hide what they explain.
MOST_LINES = SERIES_COLOURS
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": _SOFT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.linewidth": 0.8,
    "figure.facecolor": "none",
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.linewidth": 1.8,
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _GRID,
    "xtick.labelcolor": _SOFT,
    "ytick.color": _GRID,
    "ytick.labelcolor": _SOFT,
}


@dataclass(frozen=True)
class Plot:
    """A figure for the page: inline SVG that carries its description for those who do not see it."""

    title: str
    svg: str


@dataclass(frozen=True)
class Series:
    """A named line; points that are no numbers are left out. `dots` marks each point."""

    name: str
    points: Points
    dots: bool = False


def over_steps(title: str, lines: Sequence[Series], *, best_step: int | None = None, from_zero: bool = False) -> Plot:
    """Draw values over optimizer steps.

    Args:
        title: of the figure.
        lines: at most `MOST_LINES`.
        best_step: is marked.
        from_zero: whether the vertical axis begins at zero.
    """
    kept = [Series(line.name, [p for p in line.points if math.isfinite(p[1])], line.dots) for line in lines]

    def draw(axes: Axes) -> None:
        for number, line in enumerate(kept):
            marker = "o" if line.dots or len(line.points) == 1 else ""
            xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
            axes.plot(xs, ys, color=_SERIES[number], label=line.name, marker=marker, markersize=3.5)
        if best_step:
            axes.axvline(best_step, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)), label="kept weights")
        if from_zero:
            axes.set_ylim(0, axes.get_ylim()[1] * 1.04)
        axes.set_xlim(left=0)
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if len(kept) > 1 or best_step:
            _key_below(axes)

    summary = "; ".join(_summary(line) for line in kept)
    return _figure(title, f"{title} over optimizer steps. {summary}.", draw)


def reliability(calibration: Calibration) -> Plot:
    """Draw the share that is right over the confidence, with the share of answers in each bin behind it."""
    bins = [found for found in calibration.bins if found.count]
    total = sum(found.count for found in bins) or 1

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
        width = 0.9 / max(1, len(calibration.bins))
        shares = [found.count / total for found in bins]
        axes.bar(
            [f.confidence for f in bins], shares, width=width, color=_SERIES[0], alpha=0.22, label="share of answers"
        )
        axes.plot([f.confidence for f in bins], [f.accuracy for f in bins], color=_SERIES[0], marker="o", label="model")
        _unit_square(axes, "confidence", "share that is right")
        _key_below(axes)

    summary = "; ".join(f"at confidence {f.confidence:.2f}, {f.accuracy:.2f} of {f.count} are right" for f in bins)
    return _figure("Reliability", f"Reliability diagram, ECE {calibration.ece:.3f}: {summary}.", draw)


def curves(kind: Literal["roc", "precision-recall"], lines: Sequence[Curve]) -> Plot:
    """Draw the ROC or precision-recall curves of some labels, at most `MOST_LINES`."""
    title, x, y = {
        "roc": ("ROC", "false positive rate", "true positive rate"),
        "precision-recall": ("Precision and recall", "recall", "precision"),
    }[kind]

    def draw(axes: Axes) -> None:
        if kind == "roc":
            axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
        for number, line in enumerate(lines):
            xs, ys = [p[0] for p in line.points], [p[1] for p in line.points]
            axes.plot(xs, ys, color=_SERIES[number], label=f"{_short(line.label)} · {line.area:.3f}")
        _unit_square(axes, x, y)
        _key_below(axes)

    summary = "; ".join(f"{line.label}: area {line.area:.3f}" for line in lines)
    return _figure(title, f"{title} curves. {summary}.", draw)


def scatter(points: Points) -> Plot:
    """Draw predicted over true numbers, and the line where they are equal."""
    low = min(min(point) for point in points)
    high = max(max(point) for point in points)

    def draw(axes: Axes) -> None:
        axes.plot([low, high], [low, high], color=_SOFT, linewidth=1, linestyle=(0, (4, 3)), label="equal")
        axes.plot(
            [x for x, _ in points], [y for _, y in points], "o", color=_SERIES[0], markersize=3, alpha=0.45, mew=0
        )
        axes.set_xlabel("true")
        axes.set_ylabel("predicted")

    return _figure("Predicted and true", f"Predicted over true value of {len(points)} examples.", draw)


def errors(points: Points) -> Plot:
    """Draw how often which error was made: predicted less true."""
    values = [predicted - true for true, predicted in points]

    def draw(axes: Axes) -> None:
        axes.hist(values, bins=min(30, max(5, round(math.sqrt(len(values))))), color=_SERIES[0], alpha=0.8)
        axes.axvline(0, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel("predicted less true")
        axes.set_ylabel("examples")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))

    mean = sum(values) / len(values)
    return _figure("Errors", f"Histogram of {len(values)} errors, mean {mean:.3g}.", draw)


def _figure(title: str, description: str, draw: Callable[[Axes], None]) -> Plot:
    """Let `draw` fill the axes of a figure, and return it as SVG."""
    with mpl.rc_context(_STYLE | {"svg.hashsalt": title}), warnings.catch_warnings():
        # The browser draws the text, in fonts of its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Plot(title, _for_page(file.getvalue(), description))


def _for_page(svg: str, description: str) -> str:
    """Return the SVG element alone: coloured by the page, its ids its own, and described."""
    svg = svg[svg.index("<svg") :]
    # A style element in the page would be one for the whole page.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([A-Za-z][\w-]*)[\")]", svg))
    mark = f"plot-{hashlib.sha256(svg.encode()).hexdigest()[:8]}"
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{mark}-{m[1]}"' if m[1] in used else "", svg)
    for name in used:
        svg = re.sub(rf"#{re.escape(name)}(?=[\")])", f"#{mark}-{name}", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    label = _escaped(description)
    opening = re.search(r'viewBox="([^"]*)"', svg)
    assert opening
    body = re.sub(r"\s+", " ", svg[svg.index(">") + 1 :]).replace("> <", "><").strip()
    return f'<svg role="img" aria-label="{label}" viewBox="{opening[1]}">{body}'


def _key_below(axes: Axes) -> None:
    """Say what is what below the axes, where nothing is hidden by it."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    handles, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels))
    columns = 4 if longest < 13 else 3 if longest < 20 else 2
    figure.legend(loc="outside lower center", ncols=min(columns, len(handles)), columnspacing=1.2, handlelength=1.6)


def _unit_square(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _summary(line: Series) -> str:
    if not line.points:
        return f"{line.name}: no values"
    return f"{line.name} from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}"


def _short(label: str) -> str:
    shown = label if len(label) <= 18 else f"{label[:17]}…"
    # matplotlib leaves out of a key what begins with an underscore.
    return f"\u2009{shown}" if shown.startswith("_") else shown


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
