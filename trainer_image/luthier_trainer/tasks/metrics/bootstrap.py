"""How sure a metric is: 95 % intervals by the percentile bootstrap (Efron, 1979).

Texts are drawn with replacement, whole texts also where words are judged, because the words of one text are not
independent of each other. A resample is how often each text was drawn, and a metric is a function of that.

Some metrics are larger in a resample by its repeats alone, calibration error above all. So the draws are moved by their
bias (their mean less the value itself; Efron and Tibshirani, 1993, chapter 10), within the range of what was drawn.
"""

from collections.abc import Callable

import numpy as np

from luthier_trainer.tasks.metrics.confusion_counts import Array

RESAMPLES = 1000
FEWEST_RESAMPLES = 100
# Where a thousand would take minutes there are fewer: this many numbers are looked at in all, which takes seconds.
WORK = 400_000_000

Score = Callable[[Array], dict[str, float]]
Intervals = dict[str, tuple[float, float]]


def resamples_for(numbers: int) -> int:
    """Return how many resamples are drawn where a metric looks at so many numbers."""
    return int(min(RESAMPLES, max(FEWEST_RESAMPLES, WORK // max(1, numbers))))


def bootstrap(score: Score, texts: int, *, resamples: int, seed: int) -> Intervals:
    """Return the interval of each metric.

    Args:
        score: the metrics, given how often each text counts [texts].
        texts: their number.
        resamples: how often they are drawn.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        weights = np.bincount(generator.integers(texts, size=texts), minlength=texts).astype(np.float64)
        for name, value in score(weights).items():
            drawn.setdefault(name, []).append(value)
    return {name: _interval(value, np.array(drawn[name])) for name, value in score(np.ones(texts)).items()}


def _interval(value: float, drawn: Array) -> tuple[float, float]:
    low, high = np.quantile(drawn, (0.025, 0.975)) - (drawn.mean() - value)
    return float(max(low, min(value, drawn.min()))), float(min(high, max(value, drawn.max())))
