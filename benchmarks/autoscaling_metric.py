"""Would replicas be scaled better by queued tokens than by requests in flight? A simulation of Ray Serve's policy.

`python benchmarks/autoscaling_metric.py`: seconds. The policy is Ray Serve's (`autoscaling_policy` of ray 2.60): the
number that is wanted is the metric's mean over 30 s divided by the target, and must be wanted for `upscale_delay` or
`downscale_delay`. A replica computes 3,000 tokens a second and takes 25 s to start. Targets are equal for short texts:
8 requests, or the tokens of 8 short texts.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

STEP_S, DURATION_S = 0.1, 900.0
TOKENS_PER_S, START_S = 3000.0, 25.0
LOOK_BACK_S, UPSCALE_S, DOWNSCALE_S = 30.0, 10.0, 300.0
MOST, TARGET_REQUESTS, SHORT_TOKENS = 5, 8, 30


@dataclass
class Request:
    """Some work, and when it came."""

    tokens: float
    came: float
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.tokens


Arrivals = Callable[[float, int], Iterator[float]]
"""Given the time and the requests in flight: the tokens of each request that comes now."""


def open_loop(per_second: Callable[[float], float], tokens: Callable[[], float]) -> Arrivals:
    def arrive(now: float, in_flight: int) -> Iterator[float]:
        rate = per_second(now) * STEP_S
        count = math.floor(rate) + (random.random() < rate % 1)
        return (tokens() for _ in range(count))

    return arrive


def closed_loop(clients: int, tokens: float) -> Arrivals:
    def arrive(now: float, in_flight: int) -> Iterator[float]:
        return (tokens for _ in range(clients - in_flight))

    return arrive


def daytime(now: float) -> float:
    """A load of half a replica, and of two and a half from minute 3 to minute 9."""
    return 2.5 if 180 <= now < 540 else 0.5


WORKLOADS: dict[str, Arrivals] = {
    "short texts": open_loop(lambda now: daytime(now) * TOKENS_PER_S / SHORT_TOKENS, lambda: SHORT_TOKENS),
    "long texts (512 tokens)": open_loop(lambda now: daytime(now) * TOKENS_PER_S / 512, lambda: 512.0),
    "short and long": open_loop(
        lambda now: daytime(now) * TOKENS_PER_S / 271, lambda: random.choice((SHORT_TOKENS, 512.0))
    ),
    "3 clients with lists of 1000 texts": closed_loop(3, 1000.0 * SHORT_TOKENS),
}
METRICS: dict[str, tuple[Callable[[list[Request]], float], float]] = {
    "requests": (lambda waiting: float(len(waiting)), float(TARGET_REQUESTS)),
    "tokens": (lambda waiting: sum(each.left for each in waiting), float(TARGET_REQUESTS * SHORT_TOKENS)),
}


def simulate(arrivals: Arrivals, metric: Callable[[list[Request]], float], target: float) -> dict[str, float]:
    """Return how long requests took, and what was spent on them."""
    random.seed(7)
    waiting: list[Request] = []
    taken: list[float] = []
    seen: deque[float] = deque(maxlen=round(LOOK_BACK_S / STEP_S))
    ready, starting, spent = 1, list[float](), 0.0
    since, direction, now = 0.0, 0, 0.0
    while now < DURATION_S:
        waiting += [Request(tokens, now) for tokens in arrivals(now, len(waiting))]
        ready += sum(1 for at in starting if at <= now)
        starting = [at for at in starting if at > now]
        # The oldest first, each by one replica.
        room = ready * TOKENS_PER_S * STEP_S
        for request in waiting:
            done = min(request.left, TOKENS_PER_S * STEP_S, room)
            request.left, room = request.left - done, room - done
            if room <= 0:
                break
        taken += [now - each.came for each in waiting if each.left <= 0]
        waiting = [each for each in waiting if each.left > 0]
        seen.append(metric(waiting))
        have = ready + len(starting)
        wanted = min(max(math.ceil(sum(seen) / len(seen) / target), 1), MOST)
        turned = (wanted > have) - (wanted < have)
        if turned != direction:
            direction, since = turned, now
        if direction > 0 and now - since >= UPSCALE_S:
            starting += [now + START_S] * (wanted - have)
        if direction < 0 and now - since >= DOWNSCALE_S:
            ready = max(wanted - len(starting), 1)
        spent += have * STEP_S
        now += STEP_S
    taken.sort()
    return {
        "answered": len(taken),
        "p50_s": taken[len(taken) // 2],
        "p95_s": taken[int(len(taken) * 0.95)],
        "replica_minutes": spent / 60,
    }


def main() -> None:
    """Print a line for each workload and metric."""
    for workload, arrivals in WORKLOADS.items():
        for name, (metric, target) in METRICS.items():
            found = simulate(arrivals, metric, target)
            print(f"{workload:36} {name:9}", "  ".join(f"{key} {value:9.2f}" for key, value in found.items()))


if __name__ == "__main__":
    main()
